"""Where the sidecar is worse than the server behind it, and why.

``docs/conformance.md`` has the same list for readers.
"""

from typing import Final

_HANDSHAKE: Final = "2025-11-25"
_STATELESS: Final = "2026-07-28"

DIFFERENCES: Final[dict[tuple[str, str], str]] = {
    (_HANDSHAKE, "server-sse-polling"): "not scored; a stream ends by the sidecar's own rules, not with the server's",
    (_STATELESS, "input-required-result-ignore-extra-params"): (
        "answers to what nobody asked never reach a server, so it asks first"
    ),
}
"""Set of requirements and scenario, and the reason."""
