"""Options of ``$vectorSearch`` pass where the server keeps them, and are refused where its own schema drops them."""

from typing import Any, Final

import pytest

from sidecar.commands.derive import derive
from sidecar.errors import CommandNotDerivable
from sidecar.model import Command, JsonValue, ToolCall

COLL: Final[dict[str, JsonValue]] = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
NUMBERS: Final[list[float]] = [0.1, 0.2]
BINARY: Final = {"$binary": {"base64": "JwAAAIA/AAAAQA==", "subType": "09"}}
NEWER: Final[dict[str, Any]] = {
    "searchNodePreference": {"key": "a"},
    "parentFilter": {"ssn": {"$eq": 1}},
    "returnStoredSource": True,
    "explainOptions": {"traceDocumentIds": [{"$oid": "0" * 24}]},
    "nestedOptions": {"scoreMode": "max"},
}


def stage(**more: Any) -> Any:
    return {
        "$vectorSearch": {"index": "i", "path": "e", "queryVector": NUMBERS, "numCandidates": 10, "limit": 5, **more}
    }


def run(tool: str, pipeline: list[Any]) -> Command:
    if tool == "aggregate":
        return derive(ToolCall(name=tool, arguments={**COLL, "pipeline": pipeline})).command
    wrapped: list[JsonValue] = [{"name": "aggregate", "arguments": {"pipeline": pipeline}}]
    key = "method" if tool == "explain" else "exportTarget"
    more: dict[str, JsonValue] = {} if tool == "explain" else {"exportTitle": "t"}
    return derive(ToolCall(name=tool, arguments={**COLL, key: wrapped, **more})).command


@pytest.mark.parametrize("option", NEWER)
@pytest.mark.parametrize("tool", ["aggregate", "explain", "export"])
def test_an_option_that_the_server_would_drop_is_refused(tool, option) -> None:
    for vector in ({}, {"queryVector": BINARY, "query": {"text": "x"}}, {"query": {"text": "x"}}):
        with pytest.raises(CommandNotDerivable) as refusal:
            run(tool, [stage(**vector, **{option: NEWER[option]})])
        assert refusal.value.reason == "option_dropped"
        assert refusal.value.path.endswith(f"/0/$vectorSearch/{option}")


@pytest.mark.parametrize("option", NEWER)
@pytest.mark.parametrize("tool", ["aggregate", "explain", "export"])
def test_it_passes_where_the_server_keeps_it(tool, option) -> None:
    inner = stage(**{option: NEWER[option]})
    for outer in (
        stage(queryVector=BINARY, **{option: NEWER[option]}),
        {"$rankFusion": {"input": {"pipelines": {"v": [inner]}}}},
        {"$unionWith": {"coll": "c", "pipeline": [inner]}},
        {"$lookup": {"from": "c", "as": "j", "pipeline": [inner]}},
    ):
        assert "$vectorSearch" in run(tool, [outer]).stages


def test_a_filter_on_parents_is_looked_at_like_any_other() -> None:
    fields = run("aggregate", [stage(queryVector=BINARY, parentFilter={"ssn": 1})]).fields
    assert "ssn" in fields.filtered
    with pytest.raises(CommandNotDerivable):
        run("aggregate", [stage(queryVector=BINARY, parentFilter={"a": {"$bad": 1}})])


def test_stored_source_is_not_what_the_collection_holds() -> None:
    narrowed = [stage(queryVector=BINARY, returnStoredSource=True), {"$project": {"a": 1}}]
    assert run("aggregate", narrowed).fields.returned is None
    assert set(run("aggregate", [stage(), {"$project": {"a": 1}}]).fields.returned or ()) == {"_id", "a"}


def test_an_option_that_nobody_knows_is_refused_with_any_vector() -> None:
    for vector in (NUMBERS, BINARY):
        with pytest.raises(CommandNotDerivable, match="unknown_option"):
            run("aggregate", [stage(queryVector=vector, newest=1)])


def query_stats(identifiers: JsonValue) -> Command:
    pipeline: list[JsonValue] = [{"$queryStats": {"transformIdentifiers": identifiers}}]
    arguments: dict[str, JsonValue] = {"connectionId": "preconfigured", "database": "admin", "pipeline": pipeline}
    return derive(ToolCall(name="aggregate-db", arguments=arguments)).command


def test_query_statistics_take_a_key() -> None:
    key: JsonValue = {"$binary": {"base64": "AAAA", "subType": "08"}}
    assert query_stats({"algorithm": "hmac-sha-256"}).accesses
    assert query_stats({"algorithm": "hmac-sha-256", "hmacKey": key}).accesses
    with pytest.raises(CommandNotDerivable):
        query_stats({"algorithm": "hmac-sha-256", "other": 1})
