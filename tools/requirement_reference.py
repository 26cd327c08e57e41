"""Writes docs/reference/mcp-tests.md: which tests hold each row of docs/reference/mcp-requirements.md.

``python tools/requirement_reference.py`` writes the page; with ``--check`` it only says whether the page is up to date.
"""

import sys
from pathlib import Path
from typing import Final

from tests.mcp.requirements import REQUIREMENTS, Held, Hole, NotServed, Row
from tools.generated_page import write_or_check

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "reference" / "mcp-tests.md"

INTRODUCTION: Final = """\
# What MCP asks, and the tests that hold it

*Generated from `tests/mcp/requirements.py` by `tools/requirement_reference.py`; do not edit.*

Every row of the tables V, M, L, S and G of [mcp-requirements.md](mcp-requirements.md): {held} are held by tests,
{absent} are about what the sidecar does not serve, and {holes} have a hole; these come first.
"""


def main() -> int:
    """Write the page, or check it."""
    return write_or_check(PAGE, render, described=__doc__, script="tools/requirement_reference.py")


def render() -> str:
    """Return the whole page."""
    rows = REQUIREMENTS.values()
    counts = {kind: sum(isinstance(row, kind) for row in rows) for kind in (Held, NotServed, Hole)}
    lines = [INTRODUCTION.format(held=counts[Held], absent=counts[NotServed], holes=counts[Hole])]
    lines += ["| row | what | tests |", "|---|---|---|"]
    order = {Hole: 0, NotServed: 1, Held: 2}
    for name, row in sorted(REQUIREMENTS.items(), key=lambda item: order[type(item[1])]):
        lines.append(f"| {name} | {_said(row)} | {'<br>'.join(f'`{test}`' for test in row.tests)} |")
    return "\n".join([*lines, ""])


def _said(row: Row) -> str:
    match row:
        case Held():
            return "held"
        case NotServed(reason=reason):
            return f"not served: {reason}"
        case Hole(missing=missing):
            return f"**hole**: {missing}"


if __name__ == "__main__":
    sys.exit(main())
