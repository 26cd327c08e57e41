"""The command ``mcp-sidecar trace``: one trace, from the evidence and, where it can be asked, Jaeger."""

import json
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from sidecar.addresses import query_address
from sidecar.asking.calls import RecordedCall, calls
from sidecar.asking.drawing import draw_call, draw_spans, spans_document
from sidecar.asking.jaeger import JaegerFailed, JaegerSpan, fetch_trace
from sidecar.asking.progress import shown
from sidecar.asking.selecting import stored_time
from sidecar.audit import AuditReader, ReadProgress, Selection, record
from sidecar.configured import configured
from sidecar.evidence_source import asked
from sidecar.lifecycle import run
from sidecar.model import JsonObject
from sidecar.printing import escaped

_ID: Final = re.compile("[0-9a-fA-F]{32}")
_BACK: Final = (timedelta(hours=1), timedelta(days=1), timedelta(days=30), None)
"""How far back the newest call is looked for, step by step: the files are in the order of time."""

_CONSOLE: Final = Console(soft_wrap=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _FoundTrace:
    trace_id: str
    calls: tuple[RecordedCall, ...]
    spans: tuple[JaegerSpan, ...] | None
    """None where Jaeger was not asked, or did not answer."""


@click.command("trace")
@click.argument("trace_id", metavar="ID", required=False)
@click.option("--last", is_flag=True, help="The trace of the newest recorded call.")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The audit file; default: that of the settings.",
)
@click.option("--jaeger", metavar="URL", help="Jaeger's query API; default: audit.jaeger_url.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the calls, and the spans.")
def trace(*, trace_id: str | None, last: bool, file: Path | None, jaeger: str | None, as_json: bool) -> None:
    """Draw one trace: who called through which agent, what was decided and why, how it ended, and its spans.

    ID is a trace id or a request id (32 hexadecimal digits), as answers to refused calls, audit records and logs name
    them. The evidence is read from the audit file; the spans come from Jaeger, where --jaeger or the setting
    audit.jaeger_url names it. Status 1 if neither knows it.
    """
    if (trace_id is None) is not last:
        raise click.UsageError("give an ID, or --last")
    if trace_id is not None and not _ID.fullmatch(trace_id):
        raise click.UsageError(f"{escaped(trace_id)!r} is not 32 hexadecimal digits")
    url, wanted = _url(jaeger), trace_id.lower() if trace_id is not None else None
    with shown("reading") as progress:
        found = run(asked(file, lambda reader: _find(reader, wanted, url, progress)))
    if as_json:
        click.echo(escaped(json.dumps(_document(found), ensure_ascii=False)))
    else:
        _draw(found)
    if not found.calls and not found.spans:
        click.echo("no such trace", err=True)
        sys.exit(1)


def _url(given: str | None) -> str:
    if given is None:
        config = configured()
        return "" if config is None else config.audit.jaeger_url
    try:
        return query_address(given)
    except ValueError as error:
        raise click.UsageError(f"--jaeger: {error}") from None


async def _find(reader: AuditReader, wanted: str | None, url: str, progress: ReadProgress | None) -> _FoundTrace:
    wanted = wanted or await _newest(reader, progress)
    found = await _calls(reader, wanted, progress)
    if not found or not (trace_id := found[0].entry.trace_id):
        trace_id = wanted
    elif trace_id != wanted:  # a request id was given: a client may have put several requests into one trace
        found = await _calls(reader, trace_id, progress)
    spans = None
    if url and trace_id:
        try:
            spans = await fetch_trace(url, trace_id)
        except JaegerFailed as failed:
            click.echo(f"Jaeger at {escaped(url)}: {failed}", err=True)
    return _FoundTrace(trace_id=trace_id, calls=found, spans=spans)


async def _calls(reader: AuditReader, wanted: str, progress: ReadProgress | None) -> tuple[RecordedCall, ...]:
    if not wanted:
        return ()
    found = [call async for call in calls(reader.read(Selection(requests=frozenset({wanted})), progress))]
    return tuple(sorted(found, key=lambda call: call.entry.seq))


async def _newest(reader: AuditReader, progress: ReadProgress | None) -> str:
    """Return the trace id of the newest call, its request id where it has none; empty where there is no call."""
    for back in _BACK:
        since = "" if back is None else stored_time(datetime.now(UTC) - back)
        newest = ""
        async for batch in reader.read(Selection(since=since), progress):
            for entry, _ in batch:
                if entry.event in {record.Event.INTENT, record.Event.REFUSAL}:
                    newest = entry.trace_id or entry.request_id
        if newest:
            return newest
    return ""


def _draw(found: _FoundTrace) -> None:
    if found.calls or found.spans:
        _CONSOLE.print(f"trace {escaped(found.trace_id)}", highlight=False)
    for call in found.calls:
        _CONSOLE.print()
        draw_call(call, _CONSOLE)
    if found.spans:
        _CONSOLE.print()
        draw_spans(found.spans, _CONSOLE)
    elif found.spans is not None and found.calls:
        click.echo("Jaeger does not have it (yet: spans arrive some seconds after the call)", err=True)


def _document(found: _FoundTrace) -> JsonObject:
    return {
        "trace_id": found.trace_id,
        "calls": [call.document() for call in found.calls],
        "spans": None if found.spans is None else [*spans_document(found.spans)],
    }
