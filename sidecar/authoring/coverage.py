"""Which rows of ``policy show`` add nothing, because another row of the same owner gives all of it and asks no more.

Grants of one access form a union. So what a row gives is covered by one with the same place, at least its kinds,
servers and collections, no condition that the row does not have, and no obligation (or the very same ones). What cannot
be told covers nothing.
"""

from collections.abc import Sequence
from typing import Any, Final

from sidecar.policyset import OBLIGATIONS

PATTERN: Final = frozenset("*?[{\\")
"""What makes a glob more than a name."""


def merged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take rows together that differ in server or collections only: OPA lists each alternative by itself."""
    merged: dict[str, dict[str, Any]] = {}
    for row in rows:
        key = repr({name: value for name, value in row.items() if name not in {"servers", "collections"}})
        known = merged.setdefault(key, row)
        for part in ("servers", "collections"):
            known[part] = sorted({*known[part], *row[part]})
    return list(merged.values())


def without_covered(rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows with what they alone give, and what was taken away: whose, where, and by which grants.

    Of rows that say the same, the first stays.
    """
    left = [list(row["collections"]) for row in rows]
    covered: list[dict[str, Any]] = []
    for index in reversed(range(len(rows))):
        row, by = rows[index], set()
        for other, its in zip(rows, left, strict=True):
            rest = [one for one in left[index] if not _lies_in(one, its)]
            if other is not row and rest != left[index] and _gives(other, row):
                by.add(other["grant"])
                left[index] = rest
        taken = [one for one in row["collections"] if one not in left[index]]
        if taken and by - {row["grant"]}:
            told = {key: row[key] for key in ("owner", "grant", "database", "kinds")}
            covered.insert(0, {**told, "collections": taken, "by": sorted(by)})
    return [{**row, "collections": its} for row, its in zip(rows, left, strict=True) if its], covered


def _gives(other: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether a row gives all that another does where both apply."""
    if any(other[key] != row[key] for key in ("owner", "deployment", "database")):
        return False
    if not all({*other[key]} >= {*row[key]} for key in ("kinds", "servers")):
        return False
    asked = [other[part] for part in OBLIGATIONS]
    free = all(one is None for one in asked)
    return {*other["conditions"]} <= {*row["conditions"]} and (free or asked == [row[part] for part in OBLIGATIONS])


def _lies_in(collection: str, patterns: Sequence[str]) -> bool:
    """Whether a name or a pattern lies within one of the patterns, as far as their texts say."""
    return any(
        one == collection
        or (one == "*" and collection != "")
        or (one.endswith("*") and not PATTERN & {*one[:-1], *collection} and _begins(collection, one[:-1]))
        for one in patterns
    )


def _begins(collection: str, prefix: str) -> bool:
    return collection != "" and collection.startswith(prefix)
