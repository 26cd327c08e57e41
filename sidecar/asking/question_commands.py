"""The commands ``mcp-sidecar audit query | report | tail | export``."""

import asyncio
import json
import sys
from collections import deque
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import click
from rich.console import Console

from sidecar.asking.calls import RecordedCall, calls
from sidecar.asking.export import Format, head, rendered
from sidecar.asking.progress import shown
from sidecar.asking.report import AuditReport, report
from sidecar.asking.selecting import INSTANCE, TIME, later, selecting, selection, stored_time
from sidecar.asking.showing import RulesOf, print_calls, print_report
from sidecar.audit import AuditEntry, AuditReader, Selection
from sidecar.evidence_source import asked, kept_policies
from sidecar.lifecycle import run
from sidecar.printing import escaped

_CONSOLE: Final = Console(soft_wrap=True)
_JSON: Final = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: one object a call, or one of the report."
)


@click.command("query")
@selecting
@click.option(
    "--limit", type=click.IntRange(min=1, max=100_000), default=200, show_default=True, help="The newest calls."
)
@click.option(
    "--explain", is_flag=True, help="Add file and line of the rules that decided, in the policy set of that time."
)
@_JSON
def audit_query(*, file: Path | None, instance: str, limit: int, explain: bool, as_json: bool, **given: Any) -> None:
    """Show recorded calls: who, through which agent, touched what, how it was decided and why, and how it ended.

    Reads all files of the chain and proves nothing: `audit verify` does. Status 1 if there is no such call.
    """
    rules = _rules(file) if explain else None
    with shown("reading") as progress:
        found, more = run(
            asked(file, lambda reader: _newest(reader, selection(given), limit, progress), instance=instance)
        )
    if as_json:
        for row in found:
            _print_json(row.document() | (rules(row) if rules is not None else {}))
    elif found:
        print_calls(found, _CONSOLE, rules)
    if more:
        click.echo(f"{more} older calls are not shown; see --limit, --since and --until", err=True)
    if not found:
        click.echo("no such call", err=True)
        sys.exit(1)


def _rules(file: Path | None) -> RulesOf:
    from sidecar.asking.rules import RuleFinder  # noqa: PLC0415 - reads policy sets, which other questions do not need

    return RuleFinder(kept_policies(file)).of


async def _newest(reader: AuditReader, wanted: Selection, limit: int, progress: Any) -> tuple[list[RecordedCall], int]:
    found: deque[RecordedCall] = deque(maxlen=limit)
    count = 0
    async for call in calls(reader.read(replace(wanted, until=later(wanted.until)), progress), until=wanted.until):
        found.append(call)
        count += 1
    return sorted(found, key=lambda call: (call.entry.time, call.entry.seq)), count - len(found)


@click.command("report")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The audit file; default: the settings'.",
)
@click.option(
    "--since", type=TIME, required=True, metavar="TIME", help="2026-11-23T00:00+01:00, 2026-11-23, or 7d ago."
)
@click.option("--until", type=TIME, metavar="TIME", help="The first moment that is not meant; default: now.")
@INSTANCE
@click.option("--rows", type=click.IntRange(min=1, max=10_000), default=20, show_default=True, help="Of each table.")
@_JSON
def audit_report(
    *, file: Path | None, instance: str, since: datetime, until: datetime | None, rows: int, as_json: bool
) -> None:
    """Sum up a period: most refused, newly refused, who stopped working, who touched what, by team.

    What is new is told against the period of the same length before --since.
    """
    end = until or datetime.now(UTC)
    if end <= since:
        raise click.UsageError("--until must be after --since")
    with shown("reading") as progress:
        found = run(asked(file, lambda reader: _summed_up(reader, since, end, progress), instance=instance))
    if as_json:
        _print_json(found.document(rows))
    else:
        print_report(found.document(rows), _CONSOLE)


async def _summed_up(reader: AuditReader, since: datetime, until: datetime, progress: Any) -> AuditReport:
    wanted = Selection(since=stored_time(since - (until - since)), until=stored_time(until))
    return await report(reader.read(wanted, progress), middle=stored_time(since), until=stored_time(until))


@click.command("tail")
@selecting
@click.option("--lines", type=click.IntRange(min=0, max=100_000), default=10, show_default=True, help="How many.")
@click.option("-f", "--follow", is_flag=True, help="Go on with records that are stored from now on, until Ctrl-C.")
@_JSON
def audit_tail(*, file: Path | None, instance: str, lines: int, follow: bool, as_json: bool, **given: Any) -> None:
    """Show the newest records, one a line, and with -f those that come. A file that is rotated is followed."""
    with suppress(SystemExit, BrokenPipeError):
        run(
            asked(
                file,
                lambda reader: _tail(reader, selection(given), lines, follow=follow, as_json=as_json),
                instance=instance,
            )
        )


async def _tail(reader: AuditReader, wanted: Selection, lines: int, *, follow: bool, as_json: bool) -> None:
    newest: deque[tuple[AuditEntry, bytes]] = deque(maxlen=lines)
    coming = reader.follow(wanted)
    # What is stored while the newest are looked for is among those that come.
    waiting = asyncio.ensure_future(anext(coming)) if follow else None
    await asyncio.sleep(0)
    async for batch in reader.read(wanted):
        newest.extend(batch)
    seen = {entry.hash for entry, _ in newest}
    for entry, line in newest:
        _print_record(entry, line, as_json=as_json)
    while waiting is not None:
        for entry, line in await waiting:
            if entry.hash not in seen:
                _print_record(entry, line, as_json=as_json)
        waiting = asyncio.ensure_future(anext(coming))


@click.command("export")
@selecting
@click.option(
    "--format", "form", type=click.Choice([each.value for each in Format]), default="jsonl", show_default=True
)
@click.option("--out", type=click.File("wb"), default="-", help="The file to write; default: standard output.")
def audit_export(*, file: Path | None, instance: str, form: str, out: BinaryIO, **given: Any) -> None:
    """Write records for another program: JSON lines as they are stored, CSV, or OCSF (API Activity).

    In CSV a cell that a spreadsheet would run as a formula begins with an apostrophe.
    """
    with shown("exporting") as progress:
        run(
            asked(
                file, lambda reader: _export(reader, selection(given), Format(form), out, progress), instance=instance
            )
        )


async def _export(reader: AuditReader, wanted: Selection, form: Format, out: BinaryIO, progress: Any) -> None:
    out.write(head(form))
    async for batch in reader.read(wanted, progress):
        out.write(b"".join(rendered(form, entry, line) for entry, line in batch))


def _print_record(entry: AuditEntry, line: bytes, *, as_json: bool) -> None:
    if as_json:
        click.echo(escaped(line.decode("utf-8", "replace")))
        return
    places = ",".join(f"{each.kind}:{each.place}" for each in entry.accesses or ())
    status = entry.outcome.status if entry.outcome is not None else ""
    why = ",".join(entry.codes)
    words = (entry.time, entry.event, entry.user or "-", entry.agent or "-", entry.tool or "-", places, status, why)
    click.echo(escaped("  ".join(word for word in words if word)))


def _print_json(document: Any) -> None:
    click.echo(escaped(json.dumps(document, ensure_ascii=False)))
