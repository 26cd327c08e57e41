"""The everyday queries are what they claim to be: three hundred, each with a source, on the databases beside them."""

import hashlib
import re
from collections import Counter
from pathlib import Path

from sidecar.commands import derive
from sidecar.errors import SidecarError
from sidecar.model import ToolCall
from tests.obligations.everyday_queries import EverydayQuery, documents, policies, queries

QUERIES = queries()

SHA256 = {
    "queries.json": "e022fc2639d92b8deeaaf8c511bf6be707767f149eea1cbaed18c3c17ec62edc",
    "policies.json": "7562c92062d38a37ef61fd4f911862b0ffe28c19ba806fddbd67a07cf59b48c2",
}
"""What was chosen before the rewriting; another choice would be one made with knowledge of what is refused."""


def refused(query: EverydayQuery) -> bool:
    try:
        derive(ToolCall(name=query.tool, arguments=query.arguments))
    except SidecarError:
        return True
    return False


def test_nothing_of_the_choice_has_changed_since() -> None:
    folder = Path(__file__).with_name("everyday")
    assert {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in SHA256} == SHA256


def test_there_are_three_hundred_different_ones() -> None:
    assert len(QUERIES) == 300
    assert len({query.id for query in QUERIES}) == 300
    assert len({(query.tool, str(query.arguments)) for query in QUERIES}) == 300


def test_a_third_joins_groups_or_projects() -> None:
    assert sum(query.reshapes for query in QUERIES) >= 100
    assert sum("$lookup" in str(query.arguments) for query in QUERIES) >= 15


def test_each_names_its_public_source() -> None:
    assert [query.id for query in QUERIES if not re.match(r"https://[\w.-]+\.[a-z]+/\S+$", query.source)] == []
    sources = Counter("/".join(query.source.split("/")[:5]) for query in QUERIES)
    assert len(sources) >= 15
    assert max(sources.values()) <= 60, "too many of one source"


def test_each_is_a_read_of_a_collection_that_has_documents() -> None:
    assert {query.tool for query in QUERIES} == {"aggregate", "count", "find"}
    known = {(database, collection) for database, held in documents().items() for collection in held}
    assert {(query.arguments["database"], query.arguments["collection"]) for query in QUERIES} <= known


def test_each_database_has_a_row_filter_and_a_masked_field() -> None:
    used = {query.arguments["database"] for query in QUERIES}
    assert used == policies().keys() == documents().keys()
    for database, policy in policies().items():
        assert policy["filter"]
        assert policy["mask"]
        assert policy["filter"].keys() | policy["mask"].keys() <= documents()[database].keys()


def test_without_obligations_none_of_them_is_refused() -> None:
    assert [query.id for query in QUERIES if refused(query)] == []
