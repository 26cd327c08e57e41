"""The generated roles against the ledger, both ways: calls go to the real MCP server directly, past every policy.

With the user of a server's role, what policy routes there works. What policy does not route there fails by the user's
rights alone, though an administrator can do it. The stand-in holds users to databases; a real MongoDB, to collections.
"""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pymongo import MongoClient
from typing_extensions import override

from sidecar.doctor.examination import needs_of
from sidecar.doctor.needs import NeededAccess, covers
from sidecar.doctor.privileges import DatabaseUser
from sidecar.doctor.roles import role_of
from sidecar.upstream.environment import BASE, mongodb_environment
from tests import parts, programs
from tests.doctor.conftest import Access, as_it_should_be, deployment
from tests.hours import policies_on
from tests.ledger import rows as ledger
from tests.ledger.test_attacks_end_to_end import EVERYTHING, OPEN_TRAITS, granted

pytestmark = pytest.mark.real

SERVERS = {"demo-ro": True, "demo-rw": False}
"""The servers of the shipped routes, and whether each is read-only."""
WRITES = {"insert", "update", "delete", "create", "index", "drop"}
SAMPLES = (
    *(("sales", "orders"), ("sales", "secrets"), ("staging", "orders"), ("staging", "returns"), ("hr", "salaries")),
    *(("support", "tickets"), ("vault", "secrets"), ("vault", "lists")),
)
ASKED = {"read": "find", "insert": "insert", "update": "update", "delete": "remove"}
"""An action that each of these kinds takes."""


@dataclass(slots=True, kw_only=True)
class DirectClient:
    """A client of the MCP server itself, as one user of the database."""

    process: subprocess.Popen[bytes]
    last: int = 0

    def ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return its answer."""
        assert self.process.stdin
        assert self.process.stdout
        self.last += 1
        message = {"jsonrpc": "2.0", "id": self.last, "method": method, "params": params}
        self.process.stdin.write(ledger.as_json(message) + b"\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            answer: dict[str, Any] = json.loads(line)  # noqa: TID251 - the server's own line
            if answer.get("id") == self.last:
                return answer
        raise AssertionError("the server ended")

    def works(self, call: ledger.Row) -> bool:
        """Whether the call is carried out."""
        answer = self.ask("tools/call", call)
        return "result" in answer and not answer["result"].get("isError", False)


@contextmanager
def server_as(uri: str, home: Path) -> Iterator[DirectClient]:
    """The real MCP server, with every tool that it has for a database."""
    environment = {**BASE, **mongodb_environment(uri, read_only=False, confirmed_tools=[]), "HOME": str(home)}
    with subprocess.Popen(
        [str(parts.installed("mongodb-mcp-server"))],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            client = DirectClient(process=process)
            asked = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
            assert "result" in client.ask("initialize", asked)
            yield client
        finally:
            parts.stop(process)


# --- which calls ------------------------------------------------------------------------------------------------------


def calls(*, every: bool) -> Iterator[tuple[ledger.Row, ledger.Row]]:
    """The calls of the ledger that would touch a database, with what they touch.

    Unless ``every`` one is asked for: of those by one tool that touch the same, one.
    """
    found: dict[str, tuple[ledger.Row, ledger.Row]] = {}
    for row in ledger.rows():
        for call, expected in (
            (row.get("call"), row["expect"]),
            (row.get("near_miss"), row.get("near_miss_expect") or {}),
        ):
            accesses = expected.get("accesses", [])
            if call and accesses and all(len(access) == 3 and access[1] for access in accesses):
                kind = call if every else [call["name"], sorted(accesses), sorted(expected["traits"])]
                found.setdefault(json.dumps(kind, sort_keys=True), (call, expected))
    yield from found.values()


def is_allowed(expected: ledger.Row, *, read_only: bool) -> bool:
    """Whether the shipped policies allow it to a person with every group, at this server."""
    kinds = {access[0] for access in expected["accesses"]}
    every = all(granted(EVERYTHING, access) for access in expected["accesses"])
    return every and OPEN_TRAITS.issuperset(expected["traits"]) and not (read_only and kinds & WRITES)


def is_not_routed(
    needs: frozenset[NeededAccess], expected: ledger.Row, *, read_only: bool, by_collection: bool
) -> bool:
    """Whether it touches a database, or a collection, in a way that policy routes to this server for nobody."""
    routed = [need for need in needs if not (read_only and need.kind in WRITES)]
    anywhere = {(need.database, need.kind) for need in routed}
    return any(
        (database, kind) not in anywhere
        or (by_collection and kind in ASKED and not covers(routed, database, collection, ASKED[kind]))
        for kind, database, collection in expected["accesses"]
        if kind in {*WRITES, "read"}
    )


def explains_a_pipeline(call: ledger.Row) -> bool:
    """What the stand-in asks no rights for; MongoDB asks for those of the explained command (manual, explain)."""
    return call["name"] == "explain" and bool(call["arguments"]["method"][0]["name"] == "aggregate")


# --- the users --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedPolicy:
    """What the shipped policies route to each server."""

    needs: dict[str, frozenset[NeededAccess]]

    def user(self, access: Access, name: str, collections: dict[str, list[str]]) -> str:
        """Make a user with the generated role of a server; return its connection string."""
        nobody = DatabaseUser(name="", privileges=(), version="")
        make, user = role_of(name, self.needs[name], nobody, collections, read_only=SERVERS[name]).commands()
        with MongoClient[dict[str, object]](access.uri("operator")) as client:
            for document in ({"dropRole": make["createRole"]}, {"dropUser": user["createUser"]}):
                client.admin.command(document, check=False)
            client.admin.command(make)
            client.admin.command({**user, "pwd": "secret"})
        return access.uri(str(user["createUser"]))


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> RoutedPolicy:
    folder = tmp_path_factory.mktemp("routed")
    (folder / "shipped").mkdir()
    given = as_it_should_be(folder, policies_on(folder / "shipped"), "mongodb://127.0.0.1/")
    [server] = given["servers"]
    given["servers"] = [{**server, "name": name, "read_only": read_only} for name, read_only in SERVERS.items()]
    nobody = DatabaseUser(name="", privileges=(), version="")
    needs, faults = asyncio.run(needs_of(deployment(given), dict.fromkeys(SERVERS, nobody)))
    assert needs is not None, faults
    return RoutedPolicy(needs=needs)


def judged(
    access: Access, routed: RoutedPolicy, name: str, home: Path, *, by_collection: bool, every: bool
) -> tuple[int, int]:
    """See that each call ends as policy has it; return how many worked and how many the user's rights refused.

    The administrator comes last: what it carries out, such as a drop, changes what is there.
    """
    live: dict[str, list[str]] = {}
    with MongoClient[dict[str, object]](access.uri("operator")) as client:
        for database, collection in SAMPLES:
            client[database][collection].insert_one({"a": 1, "b": 1, "region": "EU"})
            live.setdefault(database, []).append(collection)
    uri, read_only = routed.user(access, name, live), SERVERS[name]
    refused: list[ledger.Row] = []
    failed: list[ledger.Row] = []
    wrong: list[ledger.Row] = []
    worked = 0
    with server_as(uri, home) as user:
        for call, expected in calls(every=every):
            if is_allowed(expected, read_only=read_only):
                works = user.works(call)
                worked += works
                failed += [] if works else [call]
            elif is_not_routed(routed.needs[name], expected, read_only=read_only, by_collection=by_collection) and not (
                explains_a_pipeline(call) and not by_collection
            ):
                (wrong if user.works(call) else refused).append(call)
    assert wrong == [], "policy routes it to nobody, and the user's rights do not refuse it"
    with server_as(access.uri("operator"), home) as administrator:
        lacking = [call for call in failed if administrator.works(call)]
        by_rights = sum(administrator.works(call) for call in refused)
    assert lacking == [], "policy allows it, and the user's rights refuse it"
    return worked, by_rights


@pytest.mark.parametrize("name", [pytest.param("demo-ro", marks=pytest.mark.nightly), "demo-rw"])
def test_what_policy_routes_works_and_what_it_does_not_fails_by_the_users_rights(
    access: Access, folder: Path, routed: RoutedPolicy, name: str
) -> None:
    every = programs.at_night()
    worked, refused = judged(access, routed, name, folder, by_collection=False, every=every)
    assert worked >= 10
    assert refused >= 20


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideAccess(Access):
    """A real MongoDB with access control, as its administrator names it."""

    @override
    def uri(self, user: str = "") -> str:
        if user == "operator":
            return self.address
        place = urlsplit(self.address)
        query = "&".join(["authSource=admin", *(o for o in place.query.split("&") if o and "authSource" not in o)])
        return f"{place.scheme}://{user}:secret@{place.netloc.rpartition('@')[2]}/?{query}"


@pytest.mark.nightly
@pytest.mark.needs(programs.MONGODB)
@pytest.mark.parametrize("name", SERVERS)
def test_on_a_real_mongodb_it_is_so_by_collection(folder: Path, routed: RoutedPolicy, name: str) -> None:
    outside = parts.outside_database()
    assert outside
    assert urlsplit(outside).username, "it takes a MongoDB with access control, and its administrator"
    worked, refused = judged(OutsideAccess(address=outside), routed, name, folder, by_collection=True, every=True)
    assert worked >= 20
    assert refused >= 20
