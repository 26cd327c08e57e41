"""The commands ``mcp-sidecar policy show | who``: what a policy folder grants, and to whom."""

from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

import click
from rich.console import Console

from sidecar import lifecycle
from sidecar.authoring import inquiry, kit, who_in_words, wording
from sidecar.command_line.shared import AT, ENVIRONMENT, FOLDER, JSON, OPA, echo_json, moment

_CONSOLE: Final = Console(soft_wrap=True)


@click.command("show")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--claims", type=click.File("rb"), help="A token's claims as JSON, or a question.")
@click.option("--all", "every_row", is_flag=True, help="Show also the rows that another row covers.")
@click.option("--reads", is_flag=True, help="Show instead which parts of a question the rules of each team can read.")
@AT
@ENVIRONMENT
@OPA
@JSON
def policy_show(
    folder: Path,
    *,
    claims: BinaryIO | None,
    every_row: bool,
    reads: bool,
    at: datetime | None,
    environment: str | None,
    opa: str | None,
    as_json: bool,
) -> None:
    """Show everything that one identity could be granted under the policy folder DIR.

    Each row is one way to be granted something. Its conditions include denies and closed hours that could refuse it. A
    row says REFUSED if this build would refuse its calls, because it cannot apply an obligation of the grant, and OFF
    if the settings leave off the tool group that it takes.

    With --reads: what no package lists does not change what its rules say. A bare `input`, or a step that is not
    spelled out after it, reads everything.
    """
    if (claims is None) is not reads:
        raise click.UsageError("Name either --claims FILE or --reads.")
    if claims is None:
        found = lifecycle.run(kit.show_reads(folder, opa))
        return echo_json(found) if as_json else wording.print_reads(found, _CONSOLE)
    about = inquiry.Circumstances(time_ns=moment(at), environment=environment)
    document = lifecycle.run(inquiry.show_permissions(folder, claims.read(), about, opa, every_row=every_row))
    return echo_json(document) if as_json else wording.print_permissions(document, _CONSOLE)


@click.command("who")
@click.argument("place", metavar="DATABASE[.COLLECTION]|tool/NAME")
@click.argument("folder", metavar="[DIR]", type=FOLDER, default="policies")
@OPA
@JSON
def policy_who(place: str, folder: Path, *, opa: str | None, as_json: bool) -> None:
    """Show which groups, agents, scopes and issuers reach a place under the policy folder DIR (default: policies).

    Each row is one grant by one route, with the line of the grant and the server that the call goes to.
    """
    document = lifecycle.run(inquiry.show_who(folder, place, opa))
    return echo_json(document) if as_json else who_in_words.print_who(document, _CONSOLE)
