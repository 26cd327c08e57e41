"""Attempts at getting at a masked field, and honest neighbours of them.

``evasions_of_masks.json`` has one attempt a line, as ``evasions.json`` does. Each is planned as the sidecar plans it,
and what would be sent is done on a database: it is refused, or answers what the call as it came answers on documents of
which no more is stored than the mask leaves. Everything is done twice, with other values in the masked fields, and the
answers are the same bytes. ``refused`` says that an attempt has to be refused.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import bson
import pytest
from bson import json_util
from pymongo import MongoClient

from sidecar.model import ToolCall
from sidecar.obligations.masks import read_mask
from tests.obligations import oracle
from tests.obligations.reduced import reduced
from tests.parts import outside_database

pytestmark = pytest.mark.real

_LEDGER: Final = Path(__file__).with_name("evasions_of_masks.json")
ROWS: Final[list[dict[str, Any]]] = json.loads(_LEDGER.read_text("utf-8"))  # noqa: TID251 - our own file
WRITES: Final = frozenset({"insert-many", "update-many", "delete-many"})
PERFORMED: Final = frozenset({"find", "count", "aggregate", "export"})

MASKS: Final[dict[str, list[Any]]] = {
    "clients": ["ssn", "contact.email", "items.secret"],
    "cards": [
        {"field": "card", "as": "last4"},
        {"field": "pay", "as": "bucket:1000"},
        {"field": "cards", "as": "last4"},
        {"field": "bank.account", "as": "last4"},
    ],
}

_CLIENTS: Final[list[dict[str, Any]]] = [
    {"_id": 1, "name": "Ann", "city": "Oslo", "depot": "a", "boss": 2, "tags": ["old"], "place": {"x": 1}},
    {"_id": 2, "name": "Bob", "city": "Rome", "depot": "a", "boss": 3, "tags": [], "lines": [{"sku": "p"}]},
    {"_id": 3, "name": "Ann", "city": "Oslo", "depot": "b", "boss": 3, "items": [{"sku": "p"}, {"sku": "q"}]},
    {"_id": 4, "name": "Cid", "depot": "b", "contact": {"phone": "1"}},
]

_MASKED: Final[tuple[dict[int, dict[str, Any]], ...]] = (
    {
        1: {"ssn": "hidden 111-22", "contact": {"email": "hidden@a", "phone": "1"}},
        2: {"ssn": "hidden 333-44", "contact": {"email": "hidden@b"}},
        3: {
            "items": [{"sku": "p", "secret": "hidden s1"}, {"sku": "q"}],
            "contact": [{"email": "hidden@c", "phone": "2"}],
        },
        4: {"ssn": 7},
    },
    {
        1: {"contact": {"phone": "1", "email": {"hidden": 1}}},
        2: {"ssn": "zz hidden", "contact": {}},
        3: {
            "ssn": ["hidden"],
            "items": [{"sku": "p"}, {"sku": "q", "secret": "hidden s9"}],
            "contact": [{"phone": "2"}],
        },
        4: {"ssn": "hidden", "contact": {"phone": "1", "email": "hidden@z"}},
    },
)
"""Two choices of what is masked: other values, of other kinds, there or not there."""

_CARDS: Final[tuple[list[dict[str, Any]], ...]] = (
    [
        {"_id": 1, "name": "Ann", "card": "hidden 4321", "pay": 12345, "cards": ["hidden 0001", 5]},
        {"_id": 2, "name": "Bob", "card": "1234", "pay": 12999, "bank": {"account": 99887766, "town": "Oslo"}},
        {"_id": 3, "name": "Cid", "card": None, "pay": "hidden"},
    ],
    [
        {"_id": 1, "name": "Ann", "card": "other hidden 4321", "pay": 12999.5, "cards": ["0 hidden 0001", True]},
        {"_id": 2, "name": "Bob", "card": "99", "pay": 12000, "bank": {"account": "hidden 7766", "town": "Oslo"}},
        {"_id": 3, "name": "Cid", "card": {"hidden": 1}, "pay": ["hidden"][0:0] or None},
    ],
)
DEPOTS: Final[list[dict[str, Any]]] = [
    {"_id": "a", "depot": "a", "city": "Oslo"},
    {"_id": "b", "depot": "b", "city": "hidden 111-22"},
]


def documents(which: int) -> dict[str, list[dict[str, Any]]]:
    clients = [{**one, **_MASKED[which][one["_id"]]} for one in _CLIENTS]
    return {"clients": clients, "cards": _CARDS[which], "depots": DEPOTS}


@dataclass(frozen=True, slots=True)
class MaskAttempt:
    """One call and what came of it, with each choice of what is masked."""

    row: dict[str, Any]
    call: ToolCall
    honest: bool
    refused: bool
    outcomes: tuple[oracle.Outcome, ...] = ()
    expected: tuple[oracle.Outcome, ...] = ()
    intact: bool = True
    """No masked value has changed, of documents that are still there."""
    changed: bool = False

    @property
    def name(self) -> str:
        return f"{self.row['id']}{' near' if self.honest else ''}: {self.row['what']} ({self.call.name})"


def store(client: oracle.Client, database: str, found: dict[str, list[dict[str, Any]]]) -> None:
    client.drop_database(database)
    for name, rows in found.items():
        client[database][name].insert_many(rows)


def permitted(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    return {name: [reduced(row, MASKS.get(name, [])) for row in rows] for name, rows in found.items()}


def masked_values(client: oracle.Client, database: str) -> dict[int, Any]:
    return {
        row["_id"]: (row.get("ssn"), _emails(row.get("contact")), [one.get("secret") for one in row.get("items", [])])
        for row in client[database].clients.find()
    }


def _emails(contact: Any) -> Any:
    return [_emails(one) for one in contact] if isinstance(contact, list) else (contact or {}).get("email")


def _snapshot(client: oracle.Client, database: str) -> str:
    names = sorted(client[database].list_collection_names())
    return json_util.dumps({name: [*client[database][name].find().sort("_id", 1)] for name in names})


def tried(client: oracle.Client, row: dict[str, Any], call: ToolCall, *, honest: bool) -> MaskAttempt:
    sent = oracle.rewritten(call, {}, MASKS)
    if sent is None:
        return MaskAttempt(row, call, honest, refused=True)
    if call.name in WRITES:
        before, values = _snapshot(client, "masked_0"), masked_values(client, "masked_0")
        oracle.write(client, "masked_0", sent)
        after = masked_values(client, "masked_0")
        intact = all(after[key] == values.get(key, (None, None, [])) for key in after if key in values)
        changed = _snapshot(client, "masked_0") != before
        store(client, "masked_0", documents(0))
        return MaskAttempt(row, call, honest, refused=False, intact=intact, changed=changed)
    if call.name not in PERFORMED:
        return MaskAttempt(row, call, honest, refused=False)
    outcomes = tuple(oracle.perform(client, f"masked_{which}", sent) for which in (0, 1))
    expected = tuple(oracle.perform(client, f"masked_{which}_permitted", call) for which in (0, 1))
    return MaskAttempt(row, call, honest, refused=False, outcomes=outcomes, expected=expected)


def calls(row: dict[str, Any]) -> Iterator[tuple[ToolCall, bool]]:
    for key in ("call", "near"):
        if key in row:
            arguments = {"connectionId": "preconfigured", "database": "sales", **row[key]["arguments"]}
            yield ToolCall(name=row[key]["name"], arguments=arguments), key == "near"


@pytest.fixture(scope="module")
def attempts(database):
    with MongoClient[dict[str, Any]](database) as client:
        for which in (0, 1):
            store(client, f"masked_{which}", documents(which))
            store(client, f"masked_{which}_permitted", permitted(documents(which)))
        yield [tried(client, row, call, honest=honest) for row in ROWS for call, honest in calls(row)]
        for name in ("masked_0", "masked_1", "masked_0_permitted", "masked_1_permitted"):
            client.drop_database(name)


def test_both_choices_of_what_is_masked_are_the_same_under_the_mask() -> None:
    assert permitted(documents(0)) == permitted(documents(1))
    assert documents(0) != documents(1)


def test_the_ledger_of_masks_is_what_it_says() -> None:
    assert len(ROWS) >= 180
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    assert len({json.dumps(row["call"]) for row in ROWS}) == len(ROWS)
    assert sum("near" in row for row in ROWS) >= 50


def test_what_has_to_be_refused_is(attempts) -> None:
    assert [one.name for one in attempts if one.row.get("refused") and not one.honest and not one.refused] == []


def test_nothing_of_a_masked_value_comes_back(attempts) -> None:
    answered = [one for one in attempts if one.outcomes]
    assert len(answered) >= 100
    assert [one.name for one in answered if any("hidden" in _text(found) for found in one.outcomes)] == []


def _text(found: oracle.Outcome) -> str:
    """What came back, without the city of a depot, which the caller may see."""
    return str([bson.decode(one) for one in found.documents]).replace("'city': 'hidden 111-22'", "")


def test_answers_do_not_depend_on_what_is_masked(attempts) -> None:
    told = {
        one.name: one.outcomes for one in attempts if len({(bool(o.failed), o.documents) for o in one.outcomes}) > 1
    }
    assert told == {}


def test_answers_are_those_of_what_the_mask_leaves(attempts) -> None:
    faults = {
        one.name: (wanted.failed or wanted.documents, found.failed or found.documents)
        for one in attempts
        for wanted, found in zip(one.expected, one.outcomes, strict=True)
        if bool(wanted.failed) != bool(found.failed) or wanted.documents != found.documents
    }
    assert faults == {}


def test_no_masked_value_is_written(attempts) -> None:
    writes = [one for one in attempts if one.call.name in WRITES]
    assert len(writes) >= 30
    assert [one.name for one in writes if not one.intact] == []


def test_honest_neighbours_pass(attempts) -> None:
    honest = [one for one in attempts if one.honest]
    assert [one.name for one in honest if one.refused or any(found.failed for found in one.outcomes)] == []
    assert [one.name for one in honest if one.call.name in WRITES and not one.changed] == []


def test_most_attempts_in_pipelines_are_answered_and_not_refused(attempts, record_property) -> None:
    """A sidecar that refuses all groups and joins on masked data would be past all of this, and useless."""
    ends = Counter(
        "refused" if one.refused else "failed" if any(found.failed for found in one.outcomes) else "answered"
        for one in attempts
        if one.call.name == "aggregate" and not one.row.get("refused")
    )
    record_property("oracle", {f"evasions of masks {end}": number for end, number in ends.items()})
    assert ends["refused"] == 0
    assert ends["failed"] <= (5 if outside_database() else 8)


LEFT: Final[list[tuple[Any, Any, Any]]] = [
    (-4321, None, -5000.0),
    (-54321, "4321", -55000.0),
    (bson.Int64(4321), None, 4000.0),
    (bson.Int64(-(2**63)), "5808", -(2.0**63)),
    ("-4321", "4321", None),
    ("abcd", None, None),
    (12345.75, None, 12000.0),
    (bson.Decimal128("-0.1"), None, bson.Decimal128("-1000")),
    (float("inf"), None, None),
    (float("-inf"), None, None),
    (float("nan"), None, None),
    (bson.Decimal128("NaN"), None, None),
    (True, None, None),
    ([-4321, [54321]], [None, None], [-5000.0, None]),
]
"""A value, and what ``last4`` and ``bucket:1000`` leave of it."""


def test_what_is_left_of_a_number_is_never_all_of_it(database) -> None:
    stages = read_mask([{"field": "card", "as": "last4"}, {"field": "pay", "as": "bucket:1000"}]).stages
    with MongoClient[dict[str, Any]](database) as client:
        client.drop_database("left_of_numbers")
        values = client.left_of_numbers.values
        values.insert_many([{"_id": at, "card": value, "pay": value} for at, (value, _, _) in enumerate(LEFT)])
        found = values.aggregate([*stages, {"$sort": {"_id": 1}}])  # type: ignore[list-item]  # they are objects
        assert [(one.get("card"), one.get("pay")) for one in found] == [(last4, bucket) for _, last4, bucket in LEFT]
        client.drop_database("left_of_numbers")
