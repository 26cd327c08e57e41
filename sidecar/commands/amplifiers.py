"""Constructs whose output or time is set by a number, not by what they read.

``$bucketAuto`` with 1e11 buckets, ``$densify`` with a step of 1e-300 or a ``$reduce`` that doubles an array are a few
bytes of a call that every reader may make, and take the server's memory or hours of its time (CVE-2026-13056,
CVE-2026-1849: "expressions that generate large arrays"). The derivation reports them as facts: which construct, which
number, where. What is allowed is the platform's data (``policies/platform/data.json``, ``amplifiers``).

A number that is computed, or taken from a field, is not known before the command runs; it counts as larger than any.
What is not here is bounded by its input: ``$fill`` gives a value to documents that are there, ``$limit`` and ``$skip``
only take away, ``$bucket`` has as many buckets as the call writes down.

Sources: MongoDB manual 8.x, "Aggregation Stages" and "Expression Operators"; docs/virtual-patches.md.
"""

import math
from collections.abc import Mapping
from typing import Final

from sidecar.model import Amplifier, JsonValue

ORDINARY: Final[Mapping[str, float]] = {
    "$bitsAllSet.positions": 1_024,
    "$bucketAuto.buckets": 1_000,
    "$densify.range": 100_000,
    "$densify.step": 100_000,
    "$facet.pipelines": 32,
    "$firstN.n": 10_000,
    "$jsonSchema.depth": 32,
    "$lookup.count": 16,
    "$lookup.depth": 6,
    "$map.depth": 6,
    "$maxN.n": 10_000,
    "$or.combinations": 100_000,
    "$range.length": 10_000,
    "$reduce.copies": 1,
    "$rerank.numDocsToRerank": 1_000,
    "$sample.size": 50_000,
    "$topN.n": 10_000,
    "$trim.chars": 256,
    "$unionWith.count": 32,
    "$unwind.count": 12,
    "$vectorSearch.limit": 10_000,
    "$vectorSearch.numCandidates": 10_000,
    "$window.documents": 10_000,
    "$window.range": 10_000_000_000,
    "growth": 100_000,
}
"""The most that an ordinary command asks for, by construct; above it the command has the trait ``amplifying``. The same
numbers are the defaults of the platform's data. The pipelines of the tests and of the manual's pages stay below
(``tests/commands/test_amplifiers.py`` measures them)."""

WORDS: Final[Mapping[str, str]] = {
    "$bitsAllSet.positions": "bit positions in one list of `$bitsAllSet` and its kin",
    "$bucketAuto.buckets": "`buckets`",
    "$densify.range": "values between two literal bounds",
    "$densify.step": "values for each 1 of the field, or day of a date, where the bounds are `full` or `partition`",
    "$facet.pipelines": "pipelines in one `$facet`, `$rankFusion` or `$scoreFusion`",
    "$firstN.n": "`n` of `$firstN` and `$lastN`",
    "$jsonSchema.depth": "levels inside one `$jsonSchema`",
    "$lookup.count": "`$lookup` and `$graphLookup` in one command",
    "$lookup.depth": "pipelines inside one another",
    "$map.depth": "`$map`, `$filter` and `$reduce` inside one another",
    "$maxN.n": "`n` of `$maxN` and `$minN`",
    "$or.combinations": "ways in which the alternatives of a filter can be combined",
    "$range.length": "numbers that `$range` makes",
    "$reduce.copies": "copies of `$$value` that one step of `$reduce` keeps; with two it doubles at every step",
    "$rerank.numDocsToRerank": "`numDocsToRerank`",
    "$sample.size": "`size`",
    "$topN.n": "`n` of `$topN` and `$bottomN`",
    "$trim.chars": "characters in `chars` of `$trim`, `$ltrim`, `$rtrim`",
    "$unionWith.count": "`$unionWith` in one command",
    "$unwind.count": "`$unwind` in one command",
    "$vectorSearch.limit": "`limit`",
    "$vectorSearch.numCandidates": "`numCandidates`",
    "$window.documents": "documents in one window of `$setWindowFields`",
    "$window.range": "width of one `range` window, in its own unit",
    "growth": "values that the command makes of one value that it reads: lists in lists, copies of copies, and what "
    "unwinding them gives",
}
"""What each number counts."""

MOST: Final = 1_000_000_000_000_000
"""Where counting stops: larger numbers are this one."""


class Amplifiers:
    """Collects what a command asks for: each construct once, with its largest number."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[str, Amplifier] = {}

    def note(self, construct: str, number: float | None, at: str) -> None:
        """Note one number; ``None`` is one that is computed, and larger than any other."""
        before = self._found.get(construct)
        if before is not None and (before.number is None or (number is not None and number <= before.number)):
            return
        self._found[construct] = Amplifier(construct=construct, number=number, at=at)

    def count(self, construct: str, at: str) -> None:
        """Note one more of what is counted."""
        before = self._found.get(construct)
        self.note(construct, 1 if before is None or before.number is None else before.number + 1, at)

    def found(self) -> tuple[Amplifier, ...]:
        """Return them in the order of the table's names, so that equal commands are equal questions."""
        return tuple(self._found[name] for name in sorted(self._found))


def is_amplifying(found: tuple[Amplifier, ...]) -> bool:
    """Say whether one of them is above what is ordinary."""
    return any(one.number is None or one.number > ORDINARY[one.construct] for one in found)


def merged(first: tuple[Amplifier, ...], second: tuple[Amplifier, ...]) -> tuple[Amplifier, ...]:
    """Return the larger number of each construct of two commands, of which one runs the other."""
    both = Amplifiers()
    for one in (*first, *second):
        both.note(one.construct, one.number, one.at)
    return both.found()


_TYPED: Final = frozenset({"$numberInt", "$numberLong", "$numberDouble", "$numberDecimal"})
_LITERAL: Final = frozenset({"$literal", "$const"})


def literal_number(value: JsonValue) -> float | None:
    """Return the number that a value is, in any spelling of JSON, Extended JSON or ``$literal``; None if it is none.

    Infinity and NaN are none: nothing is bounded by them.
    """
    while isinstance(value, dict) and len(value) == 1:
        [(key, inner)] = value.items()
        if key in _TYPED and isinstance(inner, str):
            return _parsed(inner)
        if key not in _LITERAL:
            return None
        value = inner
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return _finite(value)


def literal_text(value: JsonValue) -> str | None:
    """Return the text that an expression is, as it stands or in ``$literal``; None if it is computed."""
    if isinstance(value, dict) and len(value) == 1:
        [(key, inner)] = value.items()
        return inner if key in _LITERAL and isinstance(inner, str) else None
    return value if isinstance(value, str) and not value.startswith("$") else None


def _parsed(text: str) -> float | None:
    try:
        return _finite(int(text)) if len(text) < len(str(MOST)) and text.lstrip("-").isdigit() else _finite(float(text))
    except ValueError:
        return None


def _finite(value: float) -> float | None:
    return max(-MOST, min(MOST, value)) if isinstance(value, int) or math.isfinite(value) else None


def capped(number: float) -> int:
    """Return a count, at most ``MOST``; a part counts as a whole."""
    return MOST if number >= MOST else math.ceil(number)
