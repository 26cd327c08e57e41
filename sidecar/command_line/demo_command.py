"""The command ``mcp-sidecar demo``."""

import sys

import click

from sidecar import lifecycle, own_programs
from sidecar.command_line.shared import NO
from sidecar.demo import run as demo_run


@click.command()
@click.option("--once", is_flag=True, help="Exit after the tour; non-zero if a step went differently than expected.")
@click.option(
    "--write", is_flag=True, help="Write sample data and tour steps also to the database of MDB_MCP_CONNECTION_STRING."
)
@click.option("--no-setup", is_flag=True, help="Bring no program that is missing; say so instead.")
def demo(*, once: bool, write: bool, no_setup: bool) -> None:
    """Run everything on this machine, play a short tour, then serve.

    Uses the database of MDB_MCP_CONNECTION_STRING if it is set (reading only, unless --write), otherwise a stand-in
    with sample data. Programs that are not on PATH are brought as `setup --demo` does. SIDECAR_* settings override the
    demo's own.
    """
    place = own_programs.place(may_install=not no_setup)
    ok = lifecycle.run(demo_run.demo(place, once=once, write=write))
    if not ok:
        sys.exit(NO)
