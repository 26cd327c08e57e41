"""Row filters against a database that holds nothing but the rows, thousands of random calls at a time."""

from typing import Any

import bson
import pytest
from pymongo import MongoClient

from sidecar.model import ToolCall
from tests.examples import examples
from tests.obligations import oracle
from tests.obligations.cases import COLLECTIONS, Generator

pytestmark = pytest.mark.real

CASES_OF_A_PART = 300
PARTS = range(examples(10, deep=170))
"""3,000 cases for every change and 51,000 at night."""

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
    tally = oracle.run(client, CASES_OF_A_PART, f"rows/{part}")
    record_property("oracle", dict(tally.ends))
    assert not tally.faults, "\n\n".join(tally.faults[:5])
    assert tally.refused <= MOST_REFUSED
    assert tally.ends["failed on both"] <= MOST_FAILED * tally.ends.total()
    assert tally.ends["answered"] >= 0.4 * tally.ends.total()


def forgetful(call, policy):
    """A rewriting that changes nothing."""
    return call


def at_the_head_only(call, policy):
    """A rewriting that knows of the first collection and of no other that a pipeline reads."""
    reduced = {name: query for name, query in policy.items() if name == call.arguments["collection"]}
    stages = [name for stage in call.arguments.get("pipeline", ()) for name in stage]
    if {"$lookup", "$unionWith", "$facet", "$graphLookup"}.isdisjoint(stages) or not reduced:
        return oracle.rewritten(call, reduced)
    pipeline = [{"$match": reduced[call.arguments["collection"]]}, *call.arguments["pipeline"]]
    return ToolCall(name=call.name, arguments={**call.arguments, "pipeline": pipeline})


def without_the_first_place(call, policy):
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


WORLDS = range(examples(4, deep=100))
WRITES = 25


def stored(client, of, name):
    """What the row filter does not admit, and how many rows it does."""
    collection = client[of.databases["full"]][name]
    admitted = [row["_id"] for row in collection.find(of.policy[name], {"_id": 1})]
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
