"""What each client makes of each leg of the protocol, as ``tests/clients/test_legs.py`` finds it.

``tools/client_reference.py`` makes docs/reference/clients.md of it.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Leg(StrEnum):
    """One thing that a client and a server do with each other."""

    OPEN = "open"
    TOOLS = "tools"
    CALL = "call"
    REFUSAL = "refusal"
    STREAM = "stream"
    RESUME = "resume"
    CANCEL = "cancel"
    NEWS = "news"
    PING = "ping"
    LEVEL = "level"
    RESOURCES = "resources"
    CONFIRMATION = "confirmation"
    CLOSE = "close"


MEANS: Final[Mapping[Leg, str]] = {
    Leg.OPEN: "`initialize` or `server/discover`; the revision that is agreed on",
    Leg.TOOLS: "`tools/list`",
    Leg.CALL: "`tools/call`, answered at once",
    Leg.REFUSAL: "a call that policy denies, which ends the call and not the session",
    Leg.STREAM: "a call that takes seconds: its answer is a stream with the server's progress",
    Leg.RESUME: "such a call, whose connection is lost while it waits: its answer is had by `Last-Event-ID`",
    Leg.CANCEL: "a call that its client cancels; the outcome in evidence",
    Leg.NEWS: "`notifications/tools/list_changed`, on the stream that the client opened for it",
    Leg.PING: "`ping`",
    Leg.LEVEL: "`logging/setLevel`",
    Leg.RESOURCES: "an export: made, listed and read as a resource",
    Leg.CONFIRMATION: "a question of the server's, which the client's user answers (elicitation)",
    Leg.CLOSE: "what is left of the session when the client has closed",
}

NOT_SPOKEN: Final = "not in this revision"

_SESSION: Final[Mapping[Leg, str]] = MappingProxyType({
    Leg.OPEN: "2025-11-25",
    Leg.TOOLS: "listed",
    Leg.CALL: "answered",
    Leg.REFUSAL: "refused",
    Leg.STREAM: "answered, 2 reports",
    Leg.RESUME: "answered",
    Leg.CANCEL: "cancelled",
    Leg.NEWS: "told",
    Leg.PING: "answered",
    Leg.LEVEL: "set",
    Leg.RESOURCES: "listed, read",
    Leg.CONFIRMATION: "answered, asked once",
    Leg.CLOSE: "ended",
})  # fmt: skip
_STATELESS: Final[Mapping[Leg, str]] = MappingProxyType({
    **{leg: said for leg, said in _SESSION.items() if leg is not Leg.RESUME},
    Leg.OPEN: "2026-07-28",
    Leg.PING: NOT_SPOKEN,
    Leg.LEVEL: NOT_SPOKEN,
    Leg.CLOSE: "no session",
})  # fmt: skip

_OF_ADAPTERS: Final = frozenset(
    {Leg.TOOLS, Leg.CALL, Leg.REFUSAL, Leg.STREAM, Leg.RESOURCES, Leg.CONFIRMATION, Leg.CLOSE}
)
_OF_INSPECTOR: Final = frozenset({Leg.TOOLS, Leg.CALL, Leg.REFUSAL, Leg.LEVEL})

FOUND: Final[Mapping[str, Mapping[Leg, str]]] = {
    "Python 1.26.0": _SESSION,
    "Python 1.30.0": _SESSION,
    "Python 2.3.0": _SESSION,
    "Python 2.3.0, without sessions": _STATELESS,
    "TypeScript 1.32.2": _SESSION,
    "TypeScript 2.4.0": _SESSION,
    "TypeScript 2.4.0, without sessions": _STATELESS,
    "mcp-remote 0.15.1": {**_SESSION, Leg.CLOSE: "left open"},
    "MCP Inspector 2.12.0, command line": {
        **{leg: said for leg, said in _SESSION.items() if leg in _OF_INSPECTOR},
        Leg.CLOSE: "left open",
    },
    "Java 2.1.0": {leg: said for leg, said in _SESSION.items() if leg not in {Leg.CANCEL, Leg.RESUME}},
    "langchain-mcp-adapters 0.3.2": {leg: said for leg, said in _SESSION.items() if leg in _OF_ADAPTERS},
}
"""By client and leg; a leg that is not there is one that the client has no way to go."""

ELSEWHERE: Final[Mapping[str, Mapping[str, str]]] = {
    "Python 1.26, 1.30, 2.3; TypeScript 1.32, 2.4": {
        "their session outlives eight kinds of refusals, in every mode": (
            "clients/test_official_clients.py::test_a_session_outlives_every_refusal"
        ),
        "an open stream keeps a quiet session": (
            "clients/test_official_clients.py::test_an_open_stream_keeps_a_session_that_says_nothing"
        ),
        'a call that lacks a scope, as a tool result (`step_up = "result"`)': (
            "clients/test_official_clients.py::"
            "test_a_session_with_a_fixed_token_outlives_what_lacks_a_scope_as_a_tool_result"
        ),
        "a call that lacks a scope, as a challenge": (
            "clients/test_official_clients.py::test_a_session_with_a_fixed_token_outlives_a_challenge"
        ),
        "yes, no, declined and cancelled confirmations": (
            "clients/test_confirmations.py::test_a_user_confirms_declines_and_cancels_through_their_own_client"
        ),
        "they launch `mcp-sidecar stdio`": (
            "clients/test_stdio_clients.py::test_a_client_launches_the_sidecar_and_calls"
        ),
    },
    "MCP Inspector": {
        "registers itself, logs its person in, lists, calls": (
            "authorized/test_inspector.py::test_the_page_registers_itself_logs_its_person_in_and_calls"
        ),
        "asks its person again once where a scope lacks": (
            "authorized/test_inspector.py::test_the_page_asks_its_person_again_once_where_its_token_lacks_a_scope"
        ),
    },
    "Claude Code": {
        "says that it needs to log in, and not that the server failed": (
            "authorized/test_claude_code.py::test_it_says_that_it_needs_to_log_in_and_not_that_the_server_failed"
        ),
        "logs its user in and connects": (
            "authorized/test_claude_code.py::test_it_logs_its_user_in_with_a_browser_and_connects"
        ),
    },
}
"""What other tests hold of clients: by client, and what of it, the test."""
