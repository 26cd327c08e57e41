"""One trace on a terminal: what the evidence says of its calls, and Jaeger's spans as a tree with their times."""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sidecar.asking.calls import RecordedCall
from sidecar.asking.jaeger import JaegerSpan
from sidecar.asking.showing import widen
from sidecar.model import JsonObject
from sidecar.printing import escaped

BAR: Final = 32
"""Characters that stand for the whole time of a trace."""

_LONGEST: Final = 120
"""Characters of a span's name."""


def draw_call(call: RecordedCall, console: Console) -> None:
    """Print what the evidence says of one call."""
    entry = call.entry
    allowed = entry.event == "intent"
    what = f"{entry.method or 'a request'} {entry.tool or ''}".rstrip()
    console.print(Text(escaped(f"{what}  {entry.time[:23].replace('T', ' ')} UTC"), style="bold"))
    widen(console)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, words in _facts(call, allowed=allowed):
        style = "red" if name == "decision" and not allowed else ""
        grid.add_row(Text(f"  {name}"), Text(escaped(words), style=style))
    console.print(grid)


def _facts(call: RecordedCall, *, allowed: bool) -> Iterator[tuple[str, str]]:
    entry, last = call.entry, (call.outcome or call.entry).outcome
    decision = entry.decision
    user = entry.user or "(nobody)"
    issuer = f" ({entry.subject.issuer})" if entry.subject is not None and entry.subject.issuer else ""
    yield "user", f"{user}{issuer}" + (f" through {entry.agent}" if entry.agent else "")
    if entry.accesses:
        yield "accesses", ", ".join(f"{each.kind} {each.place}" for each in entry.accesses)
    why = ", ".join((decision.grants if decision is not None else ()) if allowed else entry.codes)
    yield "decision", ("allow" if allowed else "deny") + (f": {why}" if why else "")
    if decision is not None and decision.revision:
        yield "policies", f"revision {decision.revision}"
    if decision is not None and decision.opa_decision_id:
        yield "OPA", f"decision {decision.opa_decision_id}"
    if entry.server:
        yield "server", entry.server
    ended = [call.ended]
    if last is not None:
        ended += [f"{last.documents} documents"] if last.documents is not None else []
        ended += [f"{last.bytes} bytes"] if last.bytes is not None else []
        ended += [f"{last.duration_ms:g} ms"] if last.duration_ms is not None else []
    yield "ended", ", ".join(ended)
    yield "request", entry.request_id
    numbers = f"{entry.seq} and {call.outcome.seq}" if call.outcome is not None else f"{entry.seq}"
    yield "records", f"{numbers} of the audit chain"


def draw_spans(spans: Sequence[JaegerSpan], console: Console) -> None:
    """Print spans as a tree, each with when it was within the whole."""
    widen(console)
    began = min(span.start_us for span in spans)
    whole = max(1, max(span.start_us + span.duration_us for span in spans) - began)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(overflow="fold")
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for span, prefix in zip(spans, _prefixes(spans), strict=True):
        words = f"{span.service}  {span.error}" if span.error else span.service
        grid.add_row(
            Text(prefix + escaped(span.name[:_LONGEST])),
            Text(f"{span.duration_us / 1000:.2f} ms"),
            Text(_bar(span.start_us - began, span.duration_us, whole)),
            Text(escaped(words[:_LONGEST]), style="red" if span.error else "dim"),
        )
    console.print(grid)


def _prefixes(spans: Sequence[JaegerSpan]) -> list[str]:
    """Return the lines of the tree in front of each span."""
    found: list[str] = []
    going_on: set[int] = set()
    """Depths at which a later span stands below the same parent."""
    for span in reversed(spans):
        going_on = {depth for depth in going_on if depth <= span.depth}
        if span.depth:
            above = "".join("│  " if depth in going_on else "   " for depth in range(1, span.depth))
            found.append(above + ("├─ " if span.depth in going_on else "└─ "))
        else:
            found.append("")
        going_on.add(span.depth)
    return found[::-1]


def _bar(after_us: int, duration_us: int, whole_us: int) -> str:
    begin = min(BAR - 1, after_us * BAR // whole_us)
    length = max(1, min(BAR - begin, round(duration_us * BAR / whole_us)))
    return "·" * begin + "━" * length + "·" * (BAR - begin - length)


def spans_document(spans: Sequence[JaegerSpan]) -> list[JsonObject]:
    """Render spans as JSON."""
    return [
        {
            "depth": span.depth,
            "name": span.name,
            "service": span.service,
            "start_us": span.start_us,
            "duration_us": span.duration_us,
            "error": span.error or None,
        }
        for span in spans
    ]
