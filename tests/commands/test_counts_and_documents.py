"""Reads of which no part of a document comes back: what ``lib.counts`` stands on, whichever tool it is."""

from typing import Any

import pytest

from sidecar.commands.derive import derive
from sidecar.model import AccessKind, Command, ToolCall
from tests.commands.test_derivation_of_each_tool import DERIVED

ORDERS: dict[str, Any] = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}


def derived(tool: str, **arguments: Any) -> Command:
    return derive(ToolCall(name=tool, arguments={**ORDERS, **arguments})).command


def aggregated(*stages: dict[str, Any]) -> Command:
    return derived("aggregate", pipeline=list(stages))


OVER: dict[str, Any] = {"$match": {"pay": {"$gt": 5}}}
COUNT: dict[str, Any] = {"$count": "n"}


@pytest.mark.parametrize(
    "command",
    [
        derived("count", query={"pay": 1}),
        aggregated(OVER, COUNT),
        aggregated({"$group": {"_id": None, "n": {"$sum": 1}}}),
        aggregated({"$lookup": {"from": "staff", "localField": "a", "foreignField": "b", "as": "c"}}, COUNT),
        aggregated({"$unionWith": {"coll": "staff"}}, COUNT),
        aggregated({"$facet": {"all": [COUNT], "over": [OVER, COUNT]}}),
        derived("explain", method=[{"name": "count", "arguments": {"query": {"pay": 1}}}]),
    ],
)
def test_a_count_returns_nothing_of_a_document(command: Command) -> None:
    assert command.fields.returned == ()


@pytest.mark.parametrize(
    "command",
    [
        derived("find", limit=1),
        derived("find", projection={"_id": 0, "over": {"$gt": ["$pay", 5]}}),
        derived("collection-schema"),
        derived("explain", method=[{"name": "find", "arguments": {"filter": {"pay": 1}}}]),
        aggregated(COUNT, {"$unionWith": {"coll": "staff"}}),
        aggregated(COUNT, {"$lookup": {"from": "staff", "pipeline": [], "as": "all"}}),
        aggregated({"$facet": {"all": [COUNT], "one": [{"$limit": 1}]}}),
        aggregated({"$group": {"_id": {"$cond": [{"$gt": ["$pay", 5]}, 1, 2]}, "n": {"$sum": 1}}}),
        aggregated({"$group": {"_id": None, "most": {"$max": "$pay"}}}),
        aggregated({"$sortByCount": "$pay"}),
        aggregated({"$out": "copies"}),
        aggregated({"$merge": {"into": "copies"}}),
        aggregated({"$collStats": {"count": {}}}),
        derived("export", exportTitle="t", exportTarget=[{"name": "find", "arguments": {}}]),
    ],
)
def test_what_tells_of_a_document_is_no_count(command: Command) -> None:
    assert command.fields.returned != ()


def test_documents_that_go_elsewhere_are_not_counted_only() -> None:
    """Whoever may count, drop, create and read another name could otherwise rename and then read."""
    assert derived("rename-collection", newName="mine").fields.returned is None
    synonyms = [{"name": "s", "analyzer": "lucene.standard", "source": {"collection": "words"}}]
    search = {"type": "search", "mappings": {"dynamic": True}}
    assert derived("create-index", name="i", definition=[{**search, "synonyms": synonyms}]).fields.returned is None
    assert derived("create-index", name="i", definition=[search]).fields.returned == ()


def test_no_other_tool_reads_and_returns_nothing() -> None:
    """A tool that is new here has to be looked at: is what it reads really only counted?"""
    commands = [derive(ToolCall(name=tool, arguments=arguments)).command for (tool, arguments), *_ in DERIVED]
    reads = {
        command.tool
        for command in commands
        if any(access.kind is AccessKind.READ for access in command.accesses) and command.fields.returned == ()
    }
    assert reads <= {"aggregate", "count", "explain", "export", "find"}
    assert "count" in reads
