"""Whom a candidate policy set would newly deny or allow: calls by team, user, agent and collection."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from sidecar.authoring.records import DecisionOutcome, RecordedQuestion
from sidecar.model import JsonObject

MOST_NAMES: Final = 5_000
"""Different names of one table. A file can be made of nothing but names; what comes later is counted as one."""

LONGEST_NAME: Final = 256
"""Characters of a name in a report, as in a record (``sidecar.audit.record``)."""

FURTHER: Final = "(further names)"


class ReplaySums:
    """Adds up calls that one side lets through and the other does not."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, Counter[str]]] = {
            table: {} for table in ("teams", "users", "agents", "collections")
        }

    def add(self, asked: RecordedQuestion, let_through: DecisionOutcome, *, newly_allowed: bool) -> None:
        """Take one call.

        Args:
            asked: its question.
            let_through: the decision that allows it, whose grants say which teams do.
            newly_allowed: the candidate allows it; else it did not stay allowed.
        """
        column = "newly_allowed" if newly_allowed else "newly_denied"
        for table, name in _names(asked.shown, let_through):
            rows = self._tables[table]
            key = name if name in rows or len(rows) < MOST_NAMES else FURTHER
            rows.setdefault(key, Counter())[column] += 1

    def document(self) -> JsonObject:
        """Render it as JSON, in each table whom it concerns most first."""
        return {
            table: [
                {"name": name, "newly_denied": row["newly_denied"], "newly_allowed": row["newly_allowed"]}
                for name, row in sorted(rows.items(), key=lambda item: (-item[1].total(), item[0]))
            ]
            for table, rows in self._tables.items()
        }


def _names(shown: Any, let_through: DecisionOutcome) -> Iterator[tuple[str, str]]:
    """Yield under which name of which table a call counts, once each."""
    for team in sorted({grant.partition("/")[0] for grant in let_through.grants}):
        yield "teams", _cut(team)
    yield "users", _cut(shown["subject"]["id"])
    yield "agents", _cut(shown["actor"]["id"])
    for place in sorted({_place(access) for access in shown["accesses"]}):
        yield "collections", _cut(place)


def _place(access: Any) -> str:
    target = access.get("target")
    if target is not None:
        return f"{target['kind']}/{target['id']}"
    database, collection = access["database"], access["collection"]
    return f"{database}.{collection}" if collection else database or "*"


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"
