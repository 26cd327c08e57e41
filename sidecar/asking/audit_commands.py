"""The commands ``mcp-sidecar audit …``."""

import json
import sys
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from sidecar.asking.progress import shown
from sidecar.asking.question_commands import audit_export, audit_query, audit_report, audit_tail
from sidecar.asking.selecting import INSTANCE
from sidecar.audit import BadKey, ChainReport, CheckpointVerifier, HeldAgainst
from sidecar.errors import ConfigurationError
from sidecar.evidence_source import asked
from sidecar.lifecycle import run
from sidecar.model import JsonObject
from sidecar.printing import escaped

NO: Final = 1
_CONSOLE: Final = Console(soft_wrap=True)
_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def audit() -> None:
    """Ask the evidence: is it whole, who did what, what changed."""


for _command in (audit_query, audit_report, audit_tail, audit_export):
    audit.add_command(_command)


@audit.command("init")
@click.option("--uri-file", type=_FILE, help="The file with the connection string of a user who may make collections.")
def audit_init(uri_file: Path | None) -> None:
    """Make the collections of a mongodb: store, with their validator and indexes, or bring them to that.

    Done once, by another user than the sidecar's: its connection string is read from --uri-file, or from the variable
    MCP_SIDECAR_INIT_URI. Prints the command that makes the role of the sidecar's own user.
    """
    from sidecar.evidence_store import founded  # noqa: PLC0415 - a driver that the other commands do not need

    indexes, role = run(founded(uri_file))
    click.echo(f"made, with {len(indexes)} indexes; the sidecar's own user needs this role and no other:", err=True)
    click.echo(f"db.getSiblingDB({json.dumps('admin')}).runCommand({json.dumps(role)})")


@audit.command("verify")
@click.argument("file", type=_FILE, required=False)
@click.option("--head", metavar="HASH", help="A hash that you kept elsewhere; one of the records must have it.")
@click.option(
    "--checkpoints", "kept", type=_FILE, multiple=True, help="Checkpoints that you kept elsewhere, one a line; repeat."
)
@click.option(
    "--key",
    "keys",
    type=_FILE,
    multiple=True,
    help="The public key (PEM) that every checkpoint must be signed with; after a rotation all of them, oldest first.",
)
@INSTANCE
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def audit_verify(
    file: Path | None, *, instance: str, head: str | None, kept: tuple[Path, ...], keys: tuple[Path, ...], as_json: bool
) -> None:
    """Verify the hash chain of an audit FILE and of the files that were rotated away from it; default: the settings'.

    Status 1 if a record was changed, removed, added or moved: each place is listed with its line and the reason.

    If records were cut off the end, the shorter chain is still valid. That shows against the checkpoints beside the
    file (FILE.checkpoints), those of --checkpoints, and --head. With --key the chain may begin behind a signed
    checkpoint, so that older files can be archived elsewhere.
    """
    against = HeldAgainst(head=head, checkpoints=tuple(map(str, kept)), verifier=_verifier(keys))
    with shown("verifying") as progress:
        reports = run(asked(file, lambda reader: reader.verify(against, progress), instance=instance))
    for report in reports:
        if as_json:
            click.echo(escaped(json.dumps(_verified(report), ensure_ascii=False)))
        else:
            _print_verified(report)
    if not all(report.holds for report in reports):
        sys.exit(NO)


def _verifier(keys: tuple[Path, ...]) -> CheckpointVerifier | None:
    pems = []
    for key in keys:
        try:
            CheckpointVerifier(pem := key.read_bytes())
        except (OSError, BadKey) as error:
            raise ConfigurationError(f"--key: {key}: {error}") from None
        pems.append(pem)
    return CheckpointVerifier(*pems) if pems else None


def _verified(report: ChainReport) -> JsonObject:
    findings: list[JsonObject] = [
        {"file": finding.file, "line": finding.line, "what": finding.what} for finding in report.findings
    ]
    first = findings[0] if findings else None
    return {
        "records": report.records,
        "head": report.head,
        "first": report.first,
        "last": report.last,
        "files": [*report.files],
        "checkpoints": report.checkpoints,
        "fault": None if first is None else {"line": first["line"], "what": first["what"]},
        "findings": [*findings],
        "more_findings": report.more,
        "unfinished": [*report.unfinished],
    }


def _print_verified(report: ChainReport) -> None:
    if report.holds:
        since = f", from number {report.first}" if report.first > 1 else ""
        within = f" in {len(report.files)} files" if len(report.files) > 1 else ""
        _CONSOLE.print(f"[green]intact[/]: {report.records} records{within}{since}, head {report.head}")
        if report.checkpoints:
            _CONSOLE.print(f"all {report.checkpoints} published heads are among them")
    for finding in report.findings:
        place = Text.assemble(("broken", "red"), f" at line {finding.line} of {escaped(finding.file)}: {finding.what}")
        _CONSOLE.print(place, highlight=False)
    if report.more:
        _CONSOLE.print(f"and {report.more} more")
    for request in report.unfinished:
        _CONSOLE.print(Text.assemble(("no outcome", "yellow"), f" for request {escaped(request)}"))
