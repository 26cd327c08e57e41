"""Writes docs/reference/methods.md from ``sidecar.mcp.methods``: what becomes of every method, by direction and era.

``python tools/method_reference.py`` writes the page; with ``--check`` it only says whether the page is up to date
(exit status 1 if it is not). A treatment without words is an error.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sidecar.mcp import Era, Notification, Request, Treatment, from_upstream, methods
from tools.generated_page import write_or_check

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference" / "methods.md"

INTRODUCTION: Final = """\
# Methods

*Generated from `sidecar/mcp/methods.py` by `tools/method_reference.py`; do not edit.*

What becomes of each message, by its method, its direction and the era of the client
([how eras are told apart](../protocol.md)). A method that is not on this page is refused in both directions; a
notification of a client that is not on it is accepted and dropped. A request that is sent as a notification, or the
other way round, is refused.
"""

WORDS: Final = {
    Treatment.ENFORCE: "policy decides, then it is forwarded",
    Treatment.FILTER: "answered with what this caller may see",
    Treatment.RELAY: "goes on to the client whose call it is about ([streams.md](../streams.md))",
    Treatment.LOCAL: "the sidecar answers or acts; nothing is forwarded",
    Treatment.DROP: "accepted and dropped",
    Treatment.REFUSE: "refused",
}

NOTIFICATION: Final = "notifications/"


def main() -> int:
    """Write the page, or check it."""
    return write_or_check(PAGE, render, described=__doc__, script="tools/method_reference.py")


def render() -> str:
    """Return the whole page."""
    return "\n".join([INTRODUCTION, *_from_clients(), "", *_from_servers(), ""])


def _from_clients() -> Iterator[str]:
    yield "## From clients\n"
    yield "| method | with a session | 2026-07-28 |"
    yield "|---|---|---|"
    for method in sorted(methods.KNOWN, key=_order):
        message = Notification(method) if method.startswith(NOTIFICATION) else Request(1, method)
        handshake, stateless = (WORDS[methods.classify(message, era)] for era in (Era.HANDSHAKE, Era.STATELESS))
        yield f"| `{method}` | {handshake} | {stateless} |"


def _from_servers() -> Iterator[str]:
    yield "## From the MongoDB MCP server\n"
    yield "| method | what |"
    yield "|---|---|"
    for method in sorted(methods.KNOWN_FROM_SERVER, key=_order):
        what = WORDS[from_upstream(method, notification=method.startswith(NOTIFICATION))]
        yield f"| `{method}` | {what} |"


def _order(method: str) -> tuple[bool, str]:
    """Requests come before notifications."""
    return method.startswith(NOTIFICATION), method


if __name__ == "__main__":
    sys.exit(main())
