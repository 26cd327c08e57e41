"""One trace as Jaeger's query API tells it (``GET /api/traces/{id}``, the same in Jaeger 1 and 2).

What it tells is other programs' words: it is bounded here and made to print where it is shown. It decides nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec

LONGEST_ANSWER: Final = 16 << 20
"""Bytes; a trace of a call has some ten spans."""

MOST_SPANS: Final = 2000
MOST_DEEP: Final = 40

_ANSWER_S: Final = 5.0
_NOT_FOUND: Final = 404
_FOUND: Final = 200


class JaegerFailed(Exception):
    """Jaeger did not answer with a trace. The message says why in words of our own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JaegerSpan:
    """One span, with its place in the tree."""

    depth: int
    name: str
    service: str
    start_us: int
    """Since the epoch."""
    duration_us: int
    error: str
    """``error.type``; empty where it did not fail."""


class _ToldTag(msgspec.Struct):
    key: str
    value: Any = None


class _ToldParent(msgspec.Struct, rename={"span_id": "spanID", "kind": "refType"}):
    span_id: str
    kind: str = ""


class _ToldSpan(
    msgspec.Struct,
    rename={"span_id": "spanID", "name": "operationName", "start_us": "startTime", "process": "processID"},
):
    span_id: str
    name: str
    start_us: int
    duration: int
    process: str = ""
    references: list[_ToldParent] = []
    tags: list[_ToldTag] = []


class _ToldProcess(msgspec.Struct, rename={"service": "serviceName"}):
    service: str = ""


class _ToldTrace(msgspec.Struct):
    spans: list[_ToldSpan] = []
    processes: dict[str, _ToldProcess] = {}


class _ToldTraces(msgspec.Struct):
    data: list[_ToldTrace] | None = None


async def fetch_trace(url: str, trace_id: str) -> tuple[JaegerSpan, ...]:
    """Return a trace's spans, each behind its parent; none where Jaeger does not have it.

    Args:
        url: where the query API begins.
        trace_id: 32 hexadecimal digits.

    Raises:
        JaegerFailed: it does not answer in time, or with something else.
    """
    timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{url.rstrip('/')}/api/traces/{trace_id}", allow_redirects=False) as response,
        ):
            if response.status == _NOT_FOUND:
                return ()
            if response.status != _FOUND:
                raise JaegerFailed(f"it answers with status {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > LONGEST_ANSWER:
                    raise JaegerFailed("its answer is too long")
    except TimeoutError:
        raise JaegerFailed(f"no answer within {_ANSWER_S:.0f} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise JaegerFailed(type(error).__name__) from None
    return read_trace(bytes(body))


def read_trace(body: bytes) -> tuple[JaegerSpan, ...]:
    """Read an answer of the query API.

    Raises:
        JaegerFailed: it is none.
    """
    try:
        told = msgspec.json.decode(body, type=_ToldTraces)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise JaegerFailed("its answer is not a trace") from None
    return tuple(span for trace in told.data or [] for span in _in_order(trace))[:MOST_SPANS]


def _in_order(trace: _ToldTrace) -> Iterator[JaegerSpan]:
    """Yield spans as a tree is read, each once; those whose parent is not there, such as the client's, are roots."""
    spans = sorted(trace.spans, key=lambda span: span.start_us)
    known = {span.span_id for span in spans}
    below: dict[str, list[_ToldSpan]] = {}
    for span in spans:
        parent = next((each.span_id for each in span.references if each.kind == "CHILD_OF"), "")
        below.setdefault(parent if parent in known and parent != span.span_id else "", []).append(span)
    waiting = [(span, 0) for span in reversed(below.pop("", []))]
    while waiting or below:
        if not waiting:  # what is left stands in a circle
            waiting = [(span, 0) for span in below.pop(next(iter(below)))]
        span, depth = waiting.pop()
        yield _span(span, min(depth, MOST_DEEP), trace)
        waiting += [(child, depth + 1) for child in reversed(below.pop(span.span_id, []))]


def _span(span: _ToldSpan, depth: int, trace: _ToldTrace) -> JaegerSpan:
    process = trace.processes.get(span.process)
    return JaegerSpan(
        depth=depth,
        name=span.name,
        service=process.service if process is not None else "",
        start_us=span.start_us,
        duration_us=span.duration,
        error=next((str(tag.value) for tag in span.tags if tag.key == "error.type"), ""),
    )
