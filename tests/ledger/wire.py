"""Rows of ``wire.json``: one HTTP request each, what it is answered, and whether a call of it may reach a server.

A row's ``era`` says which headers it has before its own change them: those of a session of that revision, the mirrored
ones of 2026-07-28, or none. In ``headers`` a null takes one away, a name after ``+`` is one more, any other replaces;
``long`` is the length of the last one's value.
Its body is a ``message`` (any JSON), a ``text``, bytes in ``hex``, or ``pieces``, where ``[text, times]`` is repeated.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("wire.json")
STATELESS = "2026-07-28"

THREATS: Mapping[str, str] = {
    "T1-folded": "Case-insensitive and folded keys",
    "T1-nul": "NUL-suffixed keys + last-wins",
    "T1-duplicates": "Duplicate keys",
    "T1-raw": "Police parsed message but forward raw bytes",
    "T1-numbers": ">4300-digit ints, invalid UTF-8, lone surrogates, NaN/Infinity",
    "T1-mirrored": "Header/body mismatch",
    "T1-truncated": "Truncated body parsed partly",
    "T1-smuggling": "HTTP request smuggling",
    "T2-batch": "Batch arrays",
    "T2-media": "Non-JSON Content-Type skips policy",
    "T2-hidden": "Hidden tool still callable",
    "T2-legacy": "Legacy endpoint ungated",
    "T2-legs": "GET/DELETE legs undecided",
    "T2-notification": "`tools/call` as notification (no id)",
    "T2-headers": "Client-supplied internal headers",
    "T2-host": "Host header tricks",
    "T2-default": "Unauthenticated default",
    "T2-mutation": "Mutation after authorization",
    "T3-sessions": "CVE-2026-52869",
    "T3-tasks": "CVE-2026-52870",
    "T3-cross": "CVE-2026-25536",
    "T3-websocket": "CVE-2026-59950",
    "T3-resume": "GHSA-953h-535j-jg2v",
    "T3-principal": "Principal must be (client_id, iss, sub), not sub alone",
}
"""How ``docs/reference/threats.md`` begins an attack of its sections 1 to 3, by what rows call it."""

OWNERSHIP = "mcp/test_session_ownership.py"
ELSEWHERE: Mapping[str, str] = {
    "CVE-2026-59951": f"{OWNERSHIP}::test_in_total_the_user_with_most_sessions_makes_room_and_nobody_else",
    "CVE-2026-67430": f"{OWNERSHIP}::test_idle_sessions_make_room",
    "CVE-2026-19516": "enforcement/test_nothing_crosses.py::test_no_message_crosses",
    "GHSA-mvgg-jvj2-4frq": "attacks/test_wire.py::test_a_session_of_somebody_else_is_one_that_never_was",
}
"""Attacks of section 3 that no single request shows, and the tests that hold them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One request."""

    title: str
    of: tuple[str, ...]
    """Rows of ``docs/reference/mcp-requirements.md``, and of ``THREATS``."""
    era: str
    sent: Mapping[str, Any]
    """What the file says of the request."""
    status: int
    code: int | None
    """Of the JSON-RPC error; 0: a result that says that the call was refused; None: no JSON-RPC answer."""
    forwarded: int
    recorded: int | None
    """Records of the evidence; None where it is refused before the caller is known: strangers share a budget."""


@cache
def rows() -> tuple[Row, ...]:
    """Return all rows, in their order."""
    read = json.loads(FILE.read_bytes())  # noqa: TID251 - the tests' own file
    return tuple(
        Row(
            title=one["title"],
            of=tuple(one["of"]),
            era=one["era"],
            sent=one,
            status=one["status"],
            code=one.get("code"),
            forwarded=one.get("forwarded", 0),
            recorded=one.get("recorded"),
        )
        for one in read
    )


def body(sent: Mapping[str, Any]) -> bytes | None:
    """Return the body of a request, or None where it has none."""
    match sent:
        case {"message": message}:
            return json.dumps(message).encode()
        case {"text": str(text)}:
            return text.encode("utf-8", "surrogatepass")
        case {"hex": str(digits)}:
            return bytes.fromhex(digits)
        case {"pieces": list(pieces)}:
            return "".join(piece if isinstance(piece, str) else piece[0] * piece[1] for piece in pieces).encode()
        case _:
            return None


def request(sent: Mapping[str, Any], usual: Mapping[str, str], words: Mapping[str, str]) -> bytes:
    """Return the bytes of a request.

    Args:
        sent: what the row says of it.
        usual: the headers that it has but for its own.
        words: what stands for each word in braces.
    """
    content = body(sent)
    headers = list(usual.items())
    for name, value in sent.get("headers", ()):
        if name.startswith("+"):
            headers.append((name[1:], value))
            continue
        place = next((at for at, (known, _) in enumerate(headers) if known.lower() == name.lower()), len(headers))
        headers[place : place + 1] = [] if value is None else [(name, value)]
    if "long" in sent:
        headers[-1] = (headers[-1][0], "x" * sent["long"])
    if content is not None and not sent.get("framed"):
        headers.append(("Content-Length", str(len(content))))
    line = sent.get("line") or f"{sent.get('method', 'POST')} {sent.get('target', '/mcp')} HTTP/1.1"
    top = "\r\n".join([line, *(f"{name}: {value}" for name, value in headers), "", ""])
    for word, meant in words.items():
        top = top.replace(f"{{{word}}}", meant)
    return top.encode("latin-1", "ignore") + (content or b"")
