"""Programs that this user has of their own: ``mcp-sidecar setup`` brings them, and so does the demo."""

import json
from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Column, Table

from sidecar import lifecycle, os_environment
from sidecar.printing import escaped
from sidecar.provision import SERVING, Arrival, InstallPlace, OutsideProgram, bring


def place(*, may_install: bool = True) -> InstallPlace:
    """Return where this user's programs go, and what they are brought with.

    Args:
        may_install: whether what is missing is brought.

    Raises:
        ConfigurationError: this user has no home.
    """
    return InstallPlace(
        data=os_environment.data_folder(),
        path=os_environment.search_path(),
        environment=os_environment.installer_environment(),
        tell=_say,
        may_install=may_install,
    )


def _say(line: str) -> None:
    """Tell of what takes long, on standard error."""
    click.echo(f"mcp-sidecar: {escaped(line)}", err=True)


@click.command()
@click.option("--demo", "with_demo", is_flag=True, help="Bring also the demo's database and authorization server.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def setup(*, with_demo: bool, as_json: bool) -> None:
    """Bring OPA and the MongoDB MCP server, unless they are on PATH in a version that will do.

    They go to the folder mcp-sidecar in XDG_DATA_HOME (default: ~/.local/share), where every command looks after PATH.
    The MongoDB MCP server comes from npm by a lock file; OPA is built by Go, or fetched from its releases and held
    against the published checksum. Needs Node 20.19 or newer with npm.
    """
    wanted: Sequence[OutsideProgram] = tuple(OutsideProgram) if with_demo else SERVING
    arrivals = lifecycle.run(bring(wanted, place()))
    if as_json:
        click.echo(escaped(json.dumps([_document(one) for one in arrivals], indent=2), keep="\n"))
    else:
        _show(arrivals)


def _document(arrival: Arrival) -> dict[str, str]:
    return {"program": arrival.part, "path": str(arrival.path), "how": arrival.how, "note": arrival.note}


def _show(arrivals: Sequence[Arrival]) -> None:
    table = Table("program", "how", Column("where", overflow="fold"))
    for one in arrivals:
        table.add_row(one.part, one.how, escaped(str(one.path)))
    console = Console(soft_wrap=True)
    console.print(table)
    for one in arrivals:
        if one.note:
            console.print(f"{one.part}: {escaped(one.note)}", markup=False)
