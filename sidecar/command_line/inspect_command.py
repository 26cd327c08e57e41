"""The command ``mcp-sidecar inspect``."""

import sys
from typing import BinaryIO

import click

from sidecar import inspection
from sidecar.command_line.shared import NO, echo_json


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--lines", is_flag=True, help="FILE holds one call per line; print one answer per line.")
@click.option("--tools", is_flag=True, help="Compare the configured servers' live tools with the reviewed ones.")
def inspect(file: BinaryIO, *, lines: bool, tools: bool) -> None:
    """Show what a tool call would touch. Reads the params of a tools/call from FILE (or standard input), prints JSON.

    Status 1 if a call is refused, or with --tools if a tool was not reviewed. Contacts nothing; only --tools asks the
    configured servers for their tools.
    """
    if tools:
        ok = _compare_tools()
    elif lines:
        ok = inspection.inspect_lines(file, sys.stdout)
    else:
        found = inspection.inspect(file.read())
        echo_json(found)
        ok = "refused" not in found
    if not ok:
        sys.exit(NO)


def _compare_tools() -> bool:
    # All that connects to servers takes much longer to load than a call to derive.
    from rich.console import Console  # noqa: PLC0415

    from sidecar import lifecycle, tool_review  # noqa: PLC0415

    return lifecycle.run(tool_review.compare_tools(Console(soft_wrap=True)))
