"""How much larger a computed value can be than what it is computed from.

A size is counted in values of the input: a field is 1, ``["$a", "$a"]`` is 2, a ``$range`` of a thousand numbers is
1000. Sizes pass from stage to stage with the names of the fields, so thirty stages that each double an array are 2^30,
as are thirty nested ``$let``. Of a variable that ``$map`` or ``$reduce`` binds, it is also counted how often a result
holds it (``of``): a ``$reduce`` whose step holds ``$$value`` once grows by what it adds; one that holds it twice
doubles.

The count errs upwards. It does not tell how long a stored array is: what a command makes of those is bounded by them.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from sidecar.commands.amplifiers import MOST

Part = tuple[int, str]
"""A bound variable (by the number of its binding) and the path below it."""

UNKNOWN: Final = 1_000
"""How often something is repeated by the elements of a list of unknown length, where that matters."""


class Size(NamedTuple):
    """The size of a value, and how often it holds each part of the variables bound around it."""

    copies: int = 1
    of: Mapping[Part, int] = {}


ONE: Final = Size()


def total(sizes: Iterable[Size]) -> Size:
    """Return the size of a value that holds all of these."""
    copies = 0
    of: Mapping[Part, int] = {}
    for size in sizes:
        copies += size.copies
        if size.of:
            of = _sum(of, size.of)
    return Size(max(min(copies, MOST), 1), of) if copies > 1 or of else ONE


def largest(sizes: Iterable[Size]) -> Size:
    """Return the size of a value that is one of these."""
    copies = 1
    of: dict[Part, int] = {}
    for size in sizes:
        copies = max(copies, size.copies)
        for part, count in size.of.items():
            of[part] = max(count, of.get(part, 0))
    return Size(copies, of) if copies != 1 or of else ONE


def times(size: Size, number: int) -> Size:
    """Return the size of a list of that many."""
    of = {part: min(count * number, MOST) for part, count in size.of.items()}
    return Size(min(size.copies * number, MOST), of)


def released(size: Size, binding: int) -> tuple[int, Size]:
    """Return how often a value holds the variable of a binding, and what else it holds.

    Parts of a variable that do not overlap grow each for itself (``{"sum": "$$value.sum", "n": "$$value.n"}`` holds the
    whole once), so it is the largest count of one part, and the count of the whole variable on top of it.
    """
    if not size.of:
        return 0, size
    counts = {path: count for (number, path), count in size.of.items() if number == binding}
    rest = {part: count for part, count in size.of.items() if part[0] != binding}
    return max((_held(path, counts) for path in counts), default=0), Size(size.copies, rest)


def _held(path: str, counts: Mapping[str, int]) -> int:
    above = sum(count for other, count in counts.items() if not other or path.startswith(other + "."))
    return above + (counts[path] if path else 0)


def _sum(first: Mapping[Part, int], second: Mapping[Part, int]) -> dict[Part, int]:
    found = dict(first)
    for part, count in second.items():
        found[part] = min(found.get(part, 0) + count, MOST)
    return found
