"""Commands of those who deploy, which look at a deployment: doctor, roles."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from sidecar import lifecycle, os_environment, settings
from sidecar.doctor import Check, ExaminedDeployment, Posture, examine, role_for
from sidecar.errors import ConfigurationError
from sidecar.printing import escaped
from sidecar.setting_names import suggestion

_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)
_POLICIES: Final = click.option(
    "--policies", type=_FOLDER, help="The policy folder; default: that of the settings. Needed with opa.url."
)
_DATABASE: Final = click.option(
    "--database",
    "databases",
    multiple=True,
    metavar="NAME=FILE",
    help="The connection string of a server that is behind a URL, in a file; can be repeated.",
)
_VIEWER: Final = click.option(
    "--roles-as",
    "viewer",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with the connection string of a user who may see roles, where the servers' own users cannot.",
)


@click.command()
@_POLICIES
@_DATABASE
@_VIEWER
@click.option(
    "--accept",
    "accepted",
    multiple=True,
    metavar="CHECK[:PLACE]",
    help="List this kind of finding, everywhere or in one place, and do not count it; can be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def doctor(
    *,
    policies: Path | None,
    databases: tuple[str, ...],
    viewer: Path | None,
    accepted: tuple[str, ...],
    as_json: bool,
) -> None:
    """Look at the deployment that the settings describe, and say what is wider, more open or older than it should be.

    Run it as the user and with the environment of the sidecar, beside it or before it starts. It asks each database for
    the rights of the server's user, and OPA, issuers and servers behind URLs for what they tell anybody. Status 1 if
    there is a finding; each names what mends it.
    """
    _check_accepted(accepted)
    posture = lifecycle.run(examine(_deployment(policies, databases, viewer), accepted))
    if as_json:
        click.echo(escaped(json.dumps(posture.document(), indent=2, ensure_ascii=False), keep="\n"))
    else:
        _print_posture(posture)
    if not posture.ok:
        sys.exit(1)


@click.command()
@click.option("--server", "name", required=True, metavar="NAME", help="The server's name in the settings.")
@_POLICIES
@_DATABASE
@_VIEWER
@click.option("--json", "as_json", is_flag=True, help="Print the commands as JSON.")
def roles(*, name: str, policies: Path | None, databases: tuple[str, ...], viewer: Path | None, as_json: bool) -> None:
    """Print the role that the database user of a server needs, as lines for mongosh.

    It holds what policy can route to the server and nothing else, with the difference from what the user has now.
    MongoDB has no patterns of collections: a pattern of a policy becomes the collections that are there now, or the
    whole database, marked as wider.
    """
    deployment = _deployment(policies, databases, viewer)
    server = next((one for one in deployment.config.servers if one.name == name), None)
    if server is None:
        known = [one.name for one in deployment.config.servers]
        raise ConfigurationError(f"{name} is no server of the settings{suggestion(name, known)}")
    role = lifecycle.run(role_for(deployment, server))
    if as_json:
        click.echo(escaped(json.dumps(role.document(), indent=2), keep="\n"))
    else:
        click.echo("\n".join(role.script()))


def _deployment(policies: Path | None, databases: Sequence[str], viewer: Path | None) -> ExaminedDeployment:
    config = settings.load()
    told = {}
    for one in databases:
        name, equals, file = one.partition("=")
        if not equals or name not in {server.name for server in config.servers if server.url}:
            raise click.BadParameter(f"{name} is no server behind a URL, or =FILE is missing", param_hint="--database")
        told[name] = settings.secret(None, Path(file))
    folder = policies if policies is not None else None if config.opa.url else config.policies
    return ExaminedDeployment(
        config=config,
        file=os_environment.settings_file(),
        policies=folder,
        databases=told,
        viewer=None if viewer is None else settings.secret(None, viewer),
    )


def _check_accepted(accepted: Sequence[str]) -> None:
    known = [check.value for check in Check]
    for one in accepted:
        if (name := one.partition(":")[0]) not in known:
            raise click.BadParameter(f"{name} is no check{suggestion(name, known)}", param_hint="--accept")


def _print_posture(posture: Posture) -> None:
    console = Console(soft_wrap=True)
    table = Table("check", Column("where", overflow="fold"), "what is wrong, and what mends it", show_lines=True)
    for one in posture.findings:
        cells = (one.check.value, one.where, f"{one.what}\n→ {one.fix}")
        table.add_row(*(Text(escaped(cell, keep="\n")) for cell in cells))
    if posture.findings:
        console.print(table)
    else:
        console.print("[green]nothing found[/]")
    for one in posture.accepted:
        console.print(Text(escaped(f"accepted: {one.check.value} at {one.where}: {one.what}")))
    for name in posture.insecure:
        console.print(Text(escaped(f"without verified TLS, as the settings say (insecure_connections): {name}")))
