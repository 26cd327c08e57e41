"""Filters and masks against a database that holds only what they leave, thousands of random calls at a time."""

from typing import Any

import bson
import pytest
from pymongo import MongoClient

from sidecar.model import ToolCall
from tests.examples import examples
from tests.obligations import oracle
from tests.obligations.cases import COLLECTIONS, Generator
from tests.obligations.reduced import reduced

pytestmark = pytest.mark.real

CASES_OF_A_PART = 300
PARTS = range(examples(10, deep=170))
"""3,000 cases for every change and 51,000 at night, half of them with masks."""

MOST_REFUSED = 0.4
MOST_FAILED = 0.2
"""Of those that are run. A generator whose calls the database refuses anyway would show little."""


@pytest.fixture(scope="module")
def client(database):
    with MongoClient[dict[str, Any]](database) as running:
        yield running


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("part", PARTS)
def test_answers_are_those_of_the_permitted_rows_alone_and_tell_of_no_others(client, part, record_property) -> None:
    masked = part % 2 == 1
    tally = oracle.run(client, CASES_OF_A_PART, f"rows/{part}", masked=masked)
    record_property("oracle", {f"masked {end}" if masked else end: number for end, number in tally.ends.items()})
    assert not tally.faults, "\n\n".join(tally.faults[:5])
    assert tally.refused <= MOST_REFUSED
    assert tally.ends["failed on both"] <= MOST_FAILED * tally.ends.total()
    assert tally.ends["answered"] >= 0.4 * tally.ends.total()


LIMITED_PARTS = range(examples(2, deep=20))
"""Half of them with masks."""

MOST_REFUSED_UNDER_LIMITS = 0.7
"""A pipeline that collects documents without a bound of its own is refused, and many of the generator's do."""


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("part", LIMITED_PARTS)
def test_under_a_limit_the_first_so_many_of_the_permitted_rows_come_back(client, part, record_property) -> None:
    tally = oracle.run(client, 150, f"limits/{part}", masked=part % 2 == 1, limited=True)
    record_property("oracle", {f"limited {end}": number for end, number in tally.ends.items()})
    assert not tally.faults, "\n\n".join(tally.faults[:5])
    assert tally.refused <= MOST_REFUSED_UNDER_LIMITS
    assert tally.ends["answered"] >= 0.3 * tally.ends.total()


def unlimited(call, policy, masks, most):
    """A rewriting that knows of no limit."""
    return oracle.rewritten(call, policy, masks)


def limited_at_the_head(call, policy, masks, most):
    """A rewriting that limits what a pipeline reads, and not what comes back."""
    found = oracle.rewritten(call, policy, masks)
    if found is None or "pipeline" not in found.arguments:
        return oracle.rewritten(call, policy, masks, most=most)
    stages: Any = found.arguments["pipeline"]
    return ToolCall(name=found.name, arguments={**found.arguments, "pipeline": [{"$limit": most}, *stages]})


def limited_at_the_end(call, policy, masks, most):
    """A rewriting that counts what comes back, and not what is collected in it."""
    found = oracle.rewritten(call, policy, masks)
    if found is None or "pipeline" not in found.arguments:
        return oracle.rewritten(call, policy, masks, most=most)
    stages: Any = found.arguments["pipeline"]
    return ToolCall(name=found.name, arguments={**found.arguments, "pipeline": [*stages, {"$limit": most}]})


@pytest.mark.parametrize("wrong", [unlimited, limited_at_the_head, limited_at_the_end])
def test_a_wrong_limiting_is_found(client, wrong) -> None:
    assert len(oracle.run(client, 120, "teeth", wrong, limited=True).faults) >= 3


def test_masks_of_every_form_reduce_what_a_document_holds() -> None:
    """What the oracle compares with is worked out without an expression; here are its values by hand."""
    mask: list[Any] = ["ssn", "a.b", {"field": "card", "as": "last4"}, {"field": "pay", "as": "bucket:100"}]
    for whole, left in (
        ({"ssn": 1, "_id": 2}, {"_id": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}),
        ({"a": [{"b": 1}, 3, {"c": 2}]}, {"a": [{}, 3, {"c": 2}]}),
        ({"a": 5}, {"a": 5}),
        ({"card": "4111111111111234"}, {"card": "1234"}),
        ({"card": 4111111111111234}, {"card": "1234"}),
        ({"card": "1234"}, {}),
        ({"card": 2.5}, {}),
        ({"card": ["12345", 1, True]}, {"card": ["2345", None, None]}),
        ({"pay": 1250}, {"pay": 1200.0}),
        ({"pay": -1}, {"pay": -100.0}),
        ({"pay": "1250"}, {}),
        ({"pay": [150, "x"]}, {"pay": [100.0, None]}),
    ):
        assert reduced(whole, mask) == left


def forgetful(call, policy, masks):
    """A rewriting that changes nothing."""
    return call


def at_the_head_only(call, policy, masks):
    """A rewriting that knows of the first collection and of no other that a pipeline reads."""
    reduced = {name: query for name, query in policy.items() if name == call.arguments["collection"]}
    stages = [name for stage in call.arguments.get("pipeline", ()) for name in stage]
    if {"$lookup", "$unionWith", "$facet", "$graphLookup"}.isdisjoint(stages) or not reduced:
        return oracle.rewritten(call, reduced)
    pipeline = [{"$match": reduced[call.arguments["collection"]]}, *call.arguments["pipeline"]]
    return ToolCall(name=call.name, arguments={**call.arguments, "pipeline": pipeline})


def without_the_first_place(call, policy, masks):
    """A rewriting that leaves out the collection that the call itself names."""
    return oracle.rewritten(
        call, {name: query for name, query in policy.items() if name != call.arguments["collection"]}
    )


@pytest.mark.parametrize("wrong", [forgetful, at_the_head_only, without_the_first_place])
def test_a_wrong_rewriting_is_found(client, wrong) -> None:
    tally = oracle.run(client, 60, "teeth", wrong)
    assert len(tally.faults) >= 5
    assert any("expected" in fault for fault in tally.faults)
    assert any("tells of hidden rows" in fault for fault in tally.faults)


def unmasked(call, policy, masks):
    """A rewriting that knows of row filters and of no mask."""
    return oracle.rewritten(call, policy)


def masked_at_the_head_only(call, policy, masks):
    """A rewriting that masks the first collection and no other."""
    return oracle.rewritten(
        call, policy, {name: mask for name, mask in masks.items() if name == call.arguments["collection"]}
    )


def masked_elsewhere_only(call, policy, masks):
    """A rewriting that leaves out the collection that the call itself names."""
    return oracle.rewritten(
        call, policy, {name: mask for name, mask in masks.items() if name != call.arguments["collection"]}
    )


def masked_by_taking_away_at_the_end(call, policy, masks):
    """What a gateway does that takes fields out of results: all that the caller computes has seen them."""
    mask = masks.get(call.arguments["collection"], [])
    gone = [one if isinstance(one, str) else one["field"] for one in mask]
    found = oracle.rewritten(call, policy)
    if found is None or "pipeline" not in found.arguments or not gone:
        return None
    stages: Any = found.arguments["pipeline"]
    return ToolCall(name=found.name, arguments={**found.arguments, "pipeline": [*stages, {"$unset": gone}]})


@pytest.mark.parametrize(
    "wrong", [unmasked, masked_at_the_head_only, masked_elsewhere_only, masked_by_taking_away_at_the_end]
)
def test_a_wrong_masking_is_found(client, wrong) -> None:
    tally = oracle.run(client, 60, "teeth", wrong, masked=True)
    assert len(tally.faults) >= 3
    assert any("expected" in fault for fault in tally.faults)
    assert any("tells of hidden rows" in fault for fault in tally.faults)


WORLDS = range(examples(4, deep=100))
WRITES = 25


def stored(client, of, name):
    """What the row filter does not admit, and how many rows it does."""
    collection = client[of.databases["full"]][name]
    admitted = [row["_id"] for row in collection.find(oracle.as_values(of.policy[name]), {"_id": 1})]
    hidden = sorted(bson.encode(row) for row in collection.find({"_id": {"$nin": admitted}}))
    return hidden, len(admitted)


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("part", WORLDS)
def test_writes_leave_hidden_rows_as_they_are_and_no_row_leaves_its_filter(client, part, record_property) -> None:
    ends = {"refused": 0, "failed": 0, "done": 0}
    for index in range(5):
        generator = Generator(f"writes/{part}/{index}")
        with oracle.world(client, generator) as of:
            before = {name: stored(client, of, name)[0] for name in COLLECTIONS if name in of.policy}
            for _ in range(WRITES):
                tool, arguments = generator.write()
                sent = oracle.rewritten(ToolCall(name=tool, arguments=arguments), of.policy)
                ends["refused" if sent is None else oracle.write(client, of.databases["full"], sent)] += 1
                name = str(arguments["collection"])
                if name in before:
                    assert stored(client, of, name)[0] == before[name], f"{of.policy} {tool} {arguments}"
    record_property("oracle", {f"writes {end}": number for end, number in ends.items()})
    assert ends["done"] >= 0.2 * sum(ends.values())


def test_a_write_that_is_not_held_to_its_rows_is_found(client) -> None:
    generator = Generator("teeth of writes")
    changed = 0
    with oracle.world(client, generator, {"orders": {"region": "EU"}}) as of:
        for _ in range(WRITES):
            before = stored(client, of, "orders")[0]
            tool, arguments = generator.write()
            oracle.write(
                client, of.databases["full"], ToolCall(name=tool, arguments=arguments | {"collection": "orders"})
            )
            changed += stored(client, of, "orders")[0] != before
    assert changed >= 3
