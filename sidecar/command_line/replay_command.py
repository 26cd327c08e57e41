"""The command ``mcp-sidecar replay``."""

from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

import click
from rich.console import Console

from sidecar import lifecycle
from sidecar.asking import TIME, shown, stored_time
from sidecar.authoring import ReplayWanted, replay_evidence, wording
from sidecar.command_line.shared import FOLDER, JSON, OPA, conclude

_CONSOLE: Final = Console(soft_wrap=True)


@click.command()
@click.option(
    "--audit", "records", type=click.File("rb"), help="The audit file, or - for standard input; default: the settings'."
)
@click.option("--instance", default="", metavar="NAME", help="The sidecar whose chain is meant, of a mongodb: store.")
@click.option("--policies", type=FOLDER, required=True, help="The policy folder to decide with.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=100, show_default=True, help="Distinct differences to list."
)
@click.option("--since", type=TIME, metavar="TIME", help="Compare calls from then on; 2026-11-23, or 7d ago.")
@click.option("--until", type=TIME, metavar="TIME", help="The first moment that is not meant; default: now.")
@OPA
@JSON
def replay(
    records: BinaryIO | None,
    *,
    instance: str,
    policies: Path,
    limit: int,
    since: datetime | None,
    until: datetime | None,
    opa: str | None,
    as_json: bool,
) -> None:
    """Decide recorded calls again under the policy folder of --policies, and print what would be decided differently.

    Records need their question (the setting audit.question). The hash chain is verified on the way. Nothing is
    forwarded and no claims are printed. Status 1 if a decision differs, the chain is broken, or nothing was compared.
    """
    with shown("deciding again") as progress:
        wanted = ReplayWanted(limit=limit, since=stored_time(since), until=stored_time(until), progress=progress)
        replayed = lifecycle.run(replay_evidence(records, policies, opa, wanted, instance=instance))
    conclude(replayed, lambda: wording.print_replayed(replayed.document(), _CONSOLE), as_json=as_json)
