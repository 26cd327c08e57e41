"""The command ``mcp-sidecar decide``."""

import sys
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

import click
from rich.console import Console

from sidecar import lifecycle
from sidecar.authoring import golden_case, inquiry, wording
from sidecar.command_line.shared import AT, ENVIRONMENT, FOLDER, JSON, NO, OPA, echo_json, moment

_CONSOLE: Final = Console(soft_wrap=True)


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--policies", type=FOLDER, help="The policy folder to ask, instead of the configured one.")
@click.option("--explain", is_flag=True, help="Show why: which grant matched, or which condition of which rule failed.")
@click.option("--as-case", metavar="TITLE", help="Print a golden case with this title, for policies/cases.")
@AT
@ENVIRONMENT
@OPA
@JSON
def decide(  # one parameter per option
    file: BinaryIO,
    *,
    policies: Path | None,
    explain: bool,
    as_case: str | None,
    at: datetime | None,
    environment: str | None,
    opa: str | None,
    as_json: bool,
) -> None:
    """Decide one call: {"claims": {…}, "call": {"name": …, "arguments": {…}}} from FILE (or standard input).

    Prints what the call derives to, the question to OPA and its answer; as JSON if the output is not a terminal.
    Nothing is forwarded. Status 1 if the call is refused or denied. With --as-case the status is 0 in both cases.
    """
    about = inquiry.Circumstances(time_ns=moment(at), environment=environment)
    if as_case is not None and explain:
        raise click.UsageError("--as-case and --explain cannot be used together: leave one out")
    decided = lifecycle.run(inquiry.decide(file.read(), policies, about, opa, explained=explain))
    if as_case is not None:
        echo_json(golden_case(decided, as_case), indent=1)
        return
    if as_json or not sys.stdout.isatty():
        echo_json(decided.document)
    else:
        wording.print_decided(decided.document, _CONSOLE)
    if not decided.allow:
        sys.exit(NO)
