"""Every attack of the ledger over HTTP, as four people, against a whole deployment of real parts.

Judged where it counts: at the input of the MongoDB MCP servers, and in the database. Not by what the sidecar replies.
"""

from typing import Any

import pytest

from sidecar.demo import database as demo_database
from sidecar.demo.client import PROTOCOL, DemoClient
from sidecar.demo.identities import ANALYST, LOADER, STRANGER, Person
from tests.integration.deployment import Deployment, deployed
from tests.ledger import rows as ledger

EVERYTHING = Person(
    user="erin",
    agent="nightly-loader",
    groups=("analysts", "loaders", "support-leads", "hr-admins"),
    scopes=("mongodb:read", "mongodb:write", "mongodb:admin", "mongodb:export"),
)
"""As many rights as the shipped policies give without an obligation."""

PEOPLE = (ANALYST, LOADER, STRANGER, EVERYTHING)

OPEN_TRAITS = {"unbounded", "cross_database", "executes_plan", "upsert"}
"""What the shipped platform data opens to everybody; every other trait is nobody's."""


LOADED = {"orders", "returns"}
"""The collections that the loading team's data names."""


def granted(person: Person, access: list[str]) -> bool:
    """Whether the shipped policies can grant this access to this person at all; said here a second time, by hand."""
    kind, database, collection, *target = access
    if target:
        return False
    groups = set(person.groups)
    loads = "loaders" in groups and person.agent == "nightly-loader"
    rules = (
        (kind, database, collection) == ("metadata", "", "") and bool(groups),
        (kind, database, collection) == ("read", "sales", "orders") and "analysts" in groups,
        (kind, database) == ("metadata", "sales") and "analysts" in groups and not collection.startswith("system."),
        kind in ("read", "insert") and database == "staging" and collection in LOADED and loads,
        kind in ("read", "metadata") and database == "hr" and "hr-admins" in groups,
        kind in ("read", "metadata") and database == "support" and "support-leads" in groups,
    )
    return any(rules)


def may_reach(person: Person, expected: ledger.Row) -> bool:
    """Whether a row with this expectation may arrive at an MCP server when this person sends it."""
    if "members" in expected or "refused" in expected:
        return False
    covered = all(granted(person, access) for access in expected["accesses"])
    return bool(expected["accesses"]) and covered and OPEN_TRAITS.issuperset(expected["traits"])


def contents(deployment: Deployment) -> dict[tuple[str, str], Any]:
    """Every document and every index of every collection, MongoDB's own databases included where they can be read."""
    with deployment.database() as client:
        return {
            (database, collection): (
                sorted(map(repr, client[database][collection].find())),
                sorted(client[database][collection].index_information()),
            )
            for database in client.list_database_names()
            for collection in client[database].list_collection_names()
        }


async def send(client: DemoClient, body: bytes) -> int:
    """Send one body as it is; the status is for the log only."""
    headers = {**client._headers, "Content-Type": "application/json"}
    async with client._http.post(client._url, data=body, headers=headers) as response:
        await response.read()
        return response.status


def body_of_call(call: ledger.Row, number: int) -> bytes:
    message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call}
    return ledger.as_json(message)


async def send_all(
    deployment: Deployment, person: Person, sent: list[tuple[str, bytes, ledger.Row]]
) -> tuple[list[str], list[str]]:
    """Send all bodies one after the other; return the ids that reached a server, and those that must not have."""
    reached, wrongly = [], []
    async with deployment.plain(person) as client:
        await client.initialize()
        assert client._headers["MCP-Protocol-Version"] == PROTOCOL
        before = len(deployment.all_reached())
        for name, body, expected in sent:
            status = await send(client, body)
            assert status < 500, name
            after = len(deployment.all_reached())
            if after != before:
                reached.append(name)
                wrongly += [] if may_reach(person, expected) else [f"{person.label}: {name}"]
            before = after
    return reached, wrongly


def attacks() -> list[tuple[str, bytes, ledger.Row]]:
    return [
        (row["id"], ledger.body_of(row) or body_of_call(row["call"], number), row["expect"])
        for number, row in enumerate(ledger.rows(), start=100)
    ]


def near_misses(person: Person, *, writing: bool) -> list[tuple[str, bytes, ledger.Row]]:
    """Near misses that only read, or that write, and all of whose accesses the person has."""
    found = []
    for number, row in enumerate(ledger.rows(), start=10_000):
        expected = row["near_miss_expect"]
        if may_reach(person, expected) and any(access[0] not in READING for access in expected["accesses"]) is writing:
            body = row["near_miss_body"].encode() if "near_miss_body" in row else body_of_call(row["near_miss"], number)
            found.append((row["id"], body, expected))
    return found


READING = {"read", "metadata"}


@pytest.mark.timeout(900)
@pytest.mark.real
async def test_no_attack_reaches_a_server_or_changes_the_database(tmp_path, database) -> None:
    with deployed(tmp_path, database) as deployment:
        await demo_database.seed(deployment.uri)
        with deployment.database() as client:
            client.vault.secrets.insert_one({"_id": 1, "secret": "canary"})
            client.sales.secrets.insert_one({"_id": 1, "secret": "canary"})
        before = contents(deployment)
        everything = attacks()
        wrongly, reached = [], {}
        for person in PEOPLE:
            reached[person.user], mistakes = await send_all(deployment, person, everything)
            wrongly += mistakes
        assert wrongly == []
        assert reached[STRANGER.user] == []
        assert "limit:zero" in reached[ANALYST.user]  # a row whose accesses and traits the analyst has
        assert contents(deployment) == before
        # The gate is not simply shut: the benign neighbours of the same attacks go through.
        benign = near_misses(ANALYST, writing=False)
        through, _ = await send_all(deployment, ANALYST, benign)
        assert len(benign) >= 50
        assert [name for name, _, _ in benign if name not in through] == []
        assert contents(deployment) == before
        writing = near_misses(EVERYTHING, writing=True)
        through, _ = await send_all(deployment, EVERYTHING, writing)
        assert writing
        assert [name for name, _, _ in writing if name not in through] == []
        assert contents(deployment) != before
