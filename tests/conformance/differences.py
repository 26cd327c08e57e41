"""Where the sidecar is worse than the server behind it, and why.

``docs/conformance.md`` has the same list for readers.
"""

from typing import Final

_STATELESS: Final = "2026-07-28"

DIFFERENCES: Final[dict[tuple[str, str], str]] = {
    (_STATELESS, "input-required-result-ignore-extra-params"): (
        "answers to what nobody asked never reach a server, so it asks first"
    ),
}
"""Set of requirements and scenario, and the reason."""
