"""What masks make of the everyday queries: few are refused, the others answer as if nothing more were stored."""

from functools import cache
from typing import Any

import bson
import pytest
from pymongo import MongoClient

from sidecar.model import ToolCall
from tests.obligations import oracle
from tests.obligations.everyday_queries import documents, policies, queries
from tests.obligations.reduced import reduced

pytestmark = pytest.mark.real

MOST_REFUSED = 0.05

MORE_IN_USE = {"sample_training": {"zips": ["pop"]}}
"""``policies.json`` masks a field of this dataset that no query looks at; this one many do."""

FREE = "unmasked"
KEPT = "permitted_by_masks"


@cache
def masks(database: str, *, more: bool) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = dict(policies()[database]["mask"])
    return found | MORE_IN_USE.get(database, {}) if more else found


def sent(query, *, more: bool) -> ToolCall | None:
    return oracle.rewritten(call_of(query), {}, masks(query.arguments["database"], more=more))


def call_of(query) -> ToolCall:
    return ToolCall(name=query.tool, arguments=query.arguments)


@pytest.mark.parametrize("more", [False, True])
def test_few_are_refused(more, record_property) -> None:
    refused = [query.id for query in queries() if sent(query, more=more) is None]
    record_property("oracle", {"everyday queries refused for a mask": len(refused)})
    assert len(refused) <= MOST_REFUSED * len(queries()), refused


def test_few_are_refused_where_a_part_is_left_of_each_masked_field() -> None:
    refused = []
    for query in queries():
        found = masks(query.arguments["database"], more=False)
        parts = {name: [{"field": field, "as": "last4"} for field in fields] for name, fields in found.items()}
        if oracle.rewritten(call_of(query), {}, parts) is None:
            refused.append(query.id)
    assert len(refused) <= MOST_REFUSED * len(queries()), refused


def test_many_read_what_is_masked() -> None:
    changed = [query.id for query in queries() if sent(query, more=True) not in (None, call_of(query))]
    assert len(changed) >= 75


def test_each_answers_what_the_mask_leaves(database) -> None:
    with MongoClient[dict[str, Any]](database) as client:
        for name, held in documents().items():
            for prefix in (FREE, KEPT):
                client.drop_database(f"{prefix}_{name}")
            for collection, rows in held.items():
                client[f"{FREE}_{name}"][collection].insert_many(rows)
                mask = masks(name, more=True).get(collection, [])
                client[f"{KEPT}_{name}"][collection].insert_many([reduced(row, mask) for row in rows])
        faults = {}
        for query in queries():
            name, rewritten = query.arguments["database"], sent(query, more=True)
            if rewritten in (None, call_of(query)):
                continue
            found = oracle.perform(client, f"{FREE}_{name}", rewritten)
            wanted = oracle.perform(client, f"{KEPT}_{name}", call_of(query))
            if found.documents != wanted.documents or bool(found.failed) != bool(wanted.failed):
                faults[query.id] = [*map(_shown, (wanted, found))]
        for name in documents():
            for prefix in (FREE, KEPT):
                client.drop_database(f"{prefix}_{name}")
    assert faults == {}


def _shown(outcome: oracle.Outcome) -> str:
    return outcome.failed or str([bson.decode(one) for one in outcome.documents[:3]])
