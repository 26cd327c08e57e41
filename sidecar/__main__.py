"""The command line. Exit status: 0 fine; 1 the answer is "no"; 2 wrong usage; 78 configuration error (EX_CONFIG)."""

import json
import sys
from pathlib import Path
from typing import BinaryIO, Final, NoReturn

import click
from rich.console import Console
from typing_extensions import override

from sidecar import __version__, app, inspection, settings
from sidecar.audit.chain import verify
from sidecar.demo import run as demo_run
from sidecar.errors import ConfigurationError

EX_CONFIG: Final = 78
NO: Final = 1


class _Commands(click.Group):
    """A group whose commands end with status 78 where the configuration is not usable."""

    @override
    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            click.echo(f"mcp-sidecar: {error}", err=True)
            ctx.exit(EX_CONFIG)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mcp-sidecar")
def cli() -> None:
    """Policy enforcement point in front of the MongoDB MCP server.

    Settings come from SIDECAR_* variables, else from the TOML file that SIDECAR_CONFIG names.
    """


@cli.command()
def serve() -> None:
    """Serve MCP over Streamable HTTP until interrupted."""
    app.run(app.serve(settings.load()))


@cli.command()
@click.option("--once", is_flag=True, help="Exit after the tour; non-zero if a step went differently than announced.")
@click.option("--write", is_flag=True, help="Seed and write also to the database of MDB_MCP_CONNECTION_STRING.")
def demo(*, once: bool, write: bool) -> None:
    """Run everything on this machine, play a short tour, then serve.

    Uses the database of MDB_MCP_CONNECTION_STRING if that is set (reading only, unless --write), else a stand-in with
    sample data. Every SIDECAR_* setting that is given is honoured.
    """
    ok = app.run(demo_run.demo(once=once, write=write))
    if not ok:
        sys.exit(NO)


@cli.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--lines", is_flag=True, help="FILE holds one call a line; print one answer a line.")
@click.option("--tools", is_flag=True, help="Compare the configured servers' live tools with the reviewed ones.")
def inspect(file: BinaryIO, *, lines: bool, tools: bool) -> None:
    """Say what a tool call would touch: params of a tools/call from FILE (or standard input) to its command as JSON.

    Status 1 if a call is refused, or with --tools if a tool was not reviewed. Nothing is asked and nothing is sent;
    --tools asks the servers of the settings for their lists.
    """
    if tools:
        ok = app.run(inspection.compare_tools(settings.load(), Console(soft_wrap=True)))
    elif lines:
        ok = inspection.inspect_lines(file, sys.stdout)
    else:
        found = inspection.inspect(file.read())
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        ok = "refused" not in found
    if not ok:
        sys.exit(NO)


@cli.group()
def audit() -> None:
    """Work with audit records."""


@audit.command("verify")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--head", help="A hash that you kept: it must be among the records.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def audit_verify(file: Path, *, head: str | None, as_json: bool) -> None:
    """Prove the hash chain of an audit FILE: status 1 if a record was changed, removed, added or moved.

    Records cut off the end leave a shorter chain that is whole: only a --head that was kept elsewhere shows that.
    """
    with file.open("rb") as lines:
        result = verify(lines, head=head)
    console = Console(soft_wrap=True)
    if as_json:
        click.echo(app.dump(result))
    elif result.fault is None:
        console.print(f"[green]intact[/]: {result.records} records, head {result.head}")
        for request in result.unfinished:
            console.print(f"[yellow]no outcome[/] for request {request}")
    else:
        console.print(f"[red]broken[/] at line {result.fault.line}: {result.fault.what}", highlight=False)
    if result.fault is not None:
        sys.exit(NO)


def main() -> NoReturn:
    """Run the command line; the only place that ends the process."""
    cli(prog_name="mcp-sidecar")
    sys.exit(0)


if __name__ == "__main__":
    main()
