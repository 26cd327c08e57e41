"""Where the sidecar is worse than the server behind it, and why.

``docs/conformance.md`` has the same list for readers.
"""

from typing import Final

_HANDSHAKE: Final = "2025-11-25"
_STATELESS: Final = "2026-07-28"

_SAMPLING: Final = "no server may use a client's model through the sidecar"
_QUESTIONS: Final = "only the confirmations of the MongoDB MCP server are carried to clients, no other question"
_SUBSCRIBE: Final = "an export never changes once it is there, and other resources are not watched"

DIFFERENCES: Final[dict[tuple[str, str], str]] = {
    (_HANDSHAKE, "elicitation-sep1034-defaults"): _QUESTIONS,
    (_HANDSHAKE, "elicitation-sep1330-enums"): _QUESTIONS,
    (_HANDSHAKE, "tools-call-elicitation"): _QUESTIONS,
    (_HANDSHAKE, "tools-call-sampling"): _SAMPLING,
    (_HANDSHAKE, "server-sse-multiple-streams"): "answers that nothing precedes are plain JSON: a check is not made",
    (_HANDSHAKE, "server-sse-polling"): "not scored; a stream ends by the sidecar's own rules, not with the server's",
    (_HANDSHAKE, "resources-subscribe"): _SUBSCRIBE,
    (_HANDSHAKE, "resources-unsubscribe"): _SUBSCRIBE,
    (
        _STATELESS,
        "server-stateless",
    ): "the server is told of no client's capabilities, and is asked for no stream of its own",
    **{
        (_STATELESS, f"input-required-result-{scenario}"): _QUESTIONS
        for scenario in (
            "basic-elicitation",
            "basic-list-roots",
            "basic-sampling",
            "capability-check",
            "ignore-extra-params",
            "missing-input-response",
            "multi-round",
            "multiple-input-requests",
            "non-tool-request",
            "request-state",
            "result-type",
            "tampered-state",
        )
    },
}
"""Set of requirements and scenario, and the reason."""
