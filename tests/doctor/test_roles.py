"""The role that `mcp-sidecar roles` prints: what policy routes, in MongoDB's terms, and with it a user that works."""

import json
import re

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from sidecar.doctor import examine, role_for
from sidecar.doctor.needs import NeededAccess
from sidecar.doctor.privileges import DatabaseUser, HeldPrivilege
from sidecar.doctor.roles import ServerRole, role_of
from tests.doctor.conftest import deployment

NOBODY = DatabaseUser(name="", privileges=(), version="8.0.37")


def need(collection: str, kind: str, database: str = "sales") -> NeededAccess:
    return NeededAccess(database=database, collection=collection, kind=kind)


def role(*needs: NeededAccess, read_only: bool = False, user: DatabaseUser = NOBODY, **live: list[str]) -> ServerRole:
    return role_of("main", needs, user, live, read_only=read_only)


def test_each_kind_takes_its_own_actions():
    given = role(
        need("orders", "read"),
        need("orders", "insert"),
        need("log", "drop"),
        need("", "drop", "old"),
        need("a", "index"),
    )
    assert given.resources == {
        ("sales", "orders"): {"find", "insert"},
        ("sales", "log"): {"dropCollection"},
        ("old", ""): {"dropCollection", "dropDatabase"},
        ("sales", "a"): {"createIndex", "createSearchIndexes", "dropIndex", "dropSearchIndex"},
    }


def test_what_is_no_access_of_a_namespace_takes_nothing():
    assert role(need("orders", "export"), need("orders", "execute")).resources == {}


def test_names_of_a_database_take_nothing_of_its_collections():
    assert role(need("", "metadata")).resources == {("sales", ""): {"dbStats", "listCollections"}}
    assert role(need("orders", "metadata")).resources == {("sales", "orders"): {"collStats", "listIndexes"}}


def test_a_read_only_server_gets_no_writes_and_that_is_said():
    given = role(need("orders", "read"), need("orders", "insert"), read_only=True)
    assert given.resources == {("sales", "orders"): {"find"}}
    assert given.unwritten == ("insert",)
    assert any("left out, because the server is read-only: insert" in line for line in given.script())


def test_a_pattern_becomes_the_collections_that_are_there():
    given = role(need("log_*", "read"), sales=["log_1", "log_2", "orders"])
    assert given.resources == {("sales", "log_1"): {"find"}, ("sales", "log_2"): {"find"}}
    assert given.wider == ()


@pytest.mark.parametrize("pattern", ["log_*", "{a,b}", "a?c", "[ab]"])
def test_a_pattern_whose_collections_are_not_known_becomes_the_database_and_is_marked(pattern):
    given = role(need(pattern, "read"))
    assert given.resources == {("sales", ""): {"find"}}
    assert given.wider == ("sales",)


def test_every_collection_is_the_database_and_not_wider():
    given = role(need("*", "read"), need("orders", "read"))
    assert given.resources == {("sales", ""): {"find"}}
    assert given.wider == ()


@pytest.mark.parametrize("name", ['x"); db.dropDatabase(); ("', "a\nb", "\u2028db.dropDatabase()", "`$1`", "// x", "é"])
def test_a_name_cannot_leave_its_literal(name):
    """Names of collections are chosen by teams: each line of the script is one call with one JSON document."""
    lines = role(need(name, "read", name), user=DatabaseUser(name=name, privileges=(), version="")).script()
    assert all(line.isascii() and "\n" not in line for line in lines)
    calls = [line for line in lines if not line.startswith("// ")]
    matches = [re.fullmatch(r'db\.getSiblingDB\("admin"\)\.runCommand\((\{.*\})\)', call) for call in calls]
    documents = [json.loads(match[1]) for match in matches if match is not None]  # noqa: TID251 - the product's own text
    assert len(documents) == len(calls) == 2
    assert documents[0]["privileges"][0]["resource"] == {"db": name, "collection": name}
    assert documents[1]["updateUser"] == name


def test_the_difference_from_what_is_there_is_said_both_ways():
    held = (
        HeldPrivilege(database="sales", collection="orders", actions=frozenset({"insert"})),
        HeldPrivilege(database="hr", collection="", actions=frozenset({"find"})),
    )
    user = DatabaseUser(name="reader", privileges=held, version="", roles=(("readWrite", "sales"),))
    assert role(need("orders", "read"), user=user).differences() == [
        'lacks find on "sales.orders"',
        'has find on "hr (every collection)" besides',
        'has insert on "sales.orders" besides',
    ]


def test_a_user_that_has_the_role_gets_it_updated_and_keeps_no_other():
    user = DatabaseUser(name="reader", privileges=(), version="", roles=(("mcp-sidecar-main", "admin"),))
    assert [next(iter(one)) for one in role(need("a", "read"), user=user).commands()] == ["updateRole"]
    user = DatabaseUser(
        name="reader", privileges=(), version="", roles=(("mcp-sidecar-main", "admin"), ("root", "admin"))
    )
    first, second = role(need("a", "read"), user=user).commands()
    assert next(iter(first)) == "updateRole"
    assert second == {"updateUser": "reader", "roles": [{"role": "mcp-sidecar-main", "db": "admin"}]}


async def test_with_the_role_what_policy_routes_works_and_other_databases_do_not(good, access, reader):
    """The stand-in holds users to databases; to collections, a real MongoDB does."""
    with MongoClient[dict[str, object]](reader) as client:
        assert client.example.orders.find_one() is None
        assert client.example.list_collection_names() == []
        for refused in (client.sales.orders.find_one, lambda: client.example.orders.insert_one({})):
            with pytest.raises(OperationFailure):
                refused()
    held = deployment(good, viewer=access.uri("operator"))
    role_now = await role_for(held, held.config.servers[0])
    assert role_now.differences() == []
    assert (await examine(held, ["database_version"])).ok
