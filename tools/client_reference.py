"""Writes docs/reference/clients.md: which clients were tried, and what came of each leg of the protocol.

``python tools/client_reference.py`` writes the page; with ``--check`` it only says whether the page is up to date.
"""

import sys
from pathlib import Path
from typing import Final

from tests.clients.legs.table import ELSEWHERE, FOUND, MEANS
from tools.generated_page import write_or_check

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference" / "clients.md"

INTRODUCTION: Final = """\
# Clients that were tried

*Generated from `tests/clients/legs/table.py` by `tools/client_reference.py`; do not edit.*

Each client goes once through the legs below, against a running sidecar with the real MongoDB MCP server behind it.
`tests/clients/test_legs.py` does it, those of `make nightly` included, and fails where a cell is another one than here.
An empty cell is a leg that the client has no way to go. A session that is left open ends when nobody has used it for
`sessions.idle_s`.
"""


def main() -> int:
    """Write the page, or check it."""
    return write_or_check(PAGE, render, described=__doc__, script="tools/client_reference.py")


def render() -> str:
    """Return the whole page."""
    lines = [INTRODUCTION, "| leg | what |", "|---|---|"]
    lines += [f"| {leg.value} | {what} |" for leg, what in MEANS.items()]
    lines += ["", f"| client | {' | '.join(leg.value for leg in MEANS)} |", f"|---{'|---' * len(MEANS)}|"]
    lines += [f"| {client} | {' | '.join(row.get(leg, '') for leg in MEANS)} |" for client, row in FOUND.items()]
    lines += ["", "## What other tests hold", "", "| client | what | test |", "|---|---|---|"]
    lines += [f"| {client} | {what} | `{test}` |" for client, held in ELSEWHERE.items() for what, test in held.items()]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
