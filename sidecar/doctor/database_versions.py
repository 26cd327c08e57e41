"""Which versions of MongoDB have the fixes of the advisories about its aggregation (docs/virtual-patches.md)."""

from types import MappingProxyType
from typing import Final

FIXED: Final = MappingProxyType(
    {
        (7, 0): (7, 0, 48),
        (8, 0): (8, 0, 37),
        (8, 2): (8, 2, 12),
        (8, 3): (8, 3, 16),
        (9, 0): (9, 0, 7),
    }
)
"""By line, the first version with every fix that the line has. A line that is not here has none."""


def version_problem(version: str) -> str:
    """Say why a version of MongoDB is not to be used; empty where it may be."""
    numbers = tuple(int(part) for part in version.split("-", maxsplit=1)[0].split(".") if part.isdigit())
    if len(numbers) < len(("major", "minor", "patch")):
        return f"MongoDB does not say its version ({version or 'nothing'})"
    line = (numbers[0], numbers[1])
    if line > max(FIXED):
        return ""
    if line not in FIXED:
        return f"MongoDB {version} is of a line that gets no fixes any more"
    if numbers[:3] < FIXED[line]:
        return f"MongoDB {version} lacks fixes of advisories about its aggregation"
    return ""


def newest_fix(version: str) -> str:
    """Return the version to upgrade to."""
    numbers = [int(part) for part in version.split("-", maxsplit=1)[0].split(".") if part.isdigit()][:2]
    line = (numbers[0], numbers[1]) if len(numbers) == len(("major", "minor")) else (0, 0)
    return ".".join(map(str, FIXED.get(line, FIXED[8, 0])))
