"""``mcp-sidecar decide`` says what the sidecar that serves does with the same call of the same person."""

import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST, Person
from tests import parts
from tests.integration.deployment import HR_ADMIN, Deployment, search_path
from tests.patience import HANG_S
from tests.signer import ISSUER

pytestmark = pytest.mark.real

SUPPORT = Person(user="sue", agent="claude-desktop", groups=("support",), scopes=("mongodb:read",))
LEAD = Person(user="lena", agent="claude-desktop", groups=("support", "support-leads"), scopes=("mongodb:read",))


def find(database: str, collection: str) -> tuple[str, dict[str, Any]]:
    return "find", {"connectionId": "preconfigured", "database": database, "collection": collection, "filter": {}}


ORDERS, TICKETS, SALARIES = find("sales", "orders"), find("support", "tickets"), find("hr", "salaries")
NOWHERE = find("nobodys", "things")
BY_EMAIL = {
    "connectionId": "preconfigured",
    "database": "support",
    "collection": "tickets",
    "query": {"customer.email": "ann@example.com"},
}
COUNTED = {"connectionId": "preconfigured", "database": "support", "collection": "tickets", "query": {}}
UNSUPPORTED = [{"code": "obligation_unsupported", "source": "sidecar", "access": None}]

CALLS: dict[str, tuple[Person, tuple[str, dict[str, Any]], bool, str]] = {
    "a grant without a condition": (ANALYST, ORDERS, True, ""),
    "a grant without a condition, of another team": (HR_ADMIN, SALARIES, True, ""),
    "a masked grant": (SUPPORT, TICKETS, True, ""),
    "a masked grant, to count": (SUPPORT, ("count", COUNTED), True, ""),
    "a masked grant, to count by the field": (SUPPORT, ("count", BY_EMAIL), False, "obligation_unsupported"),
    "a masked grant, for one who leads": (LEAD, TICKETS, True, ""),
    "no grant": (ANALYST, SALARIES, False, "not_granted"),
    "no owner": (ANALYST, NOWHERE, False, "no_owner"),
    "a stage that reaches further": (
        ANALYST,
        (
            "aggregate",
            {
                **{key: ORDERS[1][key] for key in ("connectionId", "database", "collection")},
                "pipeline": [{"$lookup": {"from": {"db": "hr", "coll": "salaries"}, "pipeline": [], "as": "x"}}],
            },
        ),
        False,
        "",
    ),
    "arguments that are none": (ANALYST, ("find", {**ORDERS[1], "surprise": 1}), False, "unknown_argument"),
}


def decided(deployment: Deployment, person: Person, call: tuple[str, dict[str, Any]]) -> tuple[int, Any]:
    """Ask ``decide`` under the settings of the deployment."""
    claims = {"iss": ISSUER, "sub": person.user, "client_id": person.agent, "groups": list(person.groups)}
    claims["scope"] = " ".join(person.scopes)
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "decide"],
        cwd=parts.ROOT,
        env={"PATH": search_path(), "SIDECAR_CONFIG": str(deployment.folder / "sidecar.toml")},
        input=json.dumps({"claims": claims, "call": {"name": call[0], "arguments": call[1]}}),
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode, msgspec.json.decode(done.stdout)


async def served(deployment: Deployment, person: Person, call: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """Make the call."""
    async with deployment.plain(person) as client:
        await client.initialize()
        result = (await client.call(*call)).result
    if not result.get("isError"):
        return {"allow": True, "reasons": []}
    meta = result["_meta"]["mcp-sidecar/decision"]
    return {"allow": meta["allow"], "reasons": meta["reasons"]}


@pytest.mark.parametrize("name", CALLS)
async def test_decide_and_serve_agree(deployment: Deployment, name: str) -> None:
    await demo_database.seed(deployment.uri)
    person, call, allow, code = CALLS[name]
    status, document = decided(deployment, person, call)
    done = await served(deployment, person, call)
    assert done["allow"] is allow
    assert status == (0 if allow else 1)
    if "refused" in document:
        assert [(reason["code"]) for reason in done["reasons"]] == [document["refused"]["code"]] == [code]
        return
    assert document["enforcement"] == done
    assert not code or code in {reason["code"] for reason in done["reasons"]}
    if code == "obligation_unsupported":
        assert document["enforcement"]["reasons"] == UNSUPPORTED
        assert document["decision"]["allow"] is True, "what policy says is still to be read"


async def test_the_revision_that_decides_is_the_one_that_serves(deployment: Deployment) -> None:
    await served(deployment, ANALYST, ORDERS)
    record = deployment.records()[-1]
    _, document = decided(deployment, ANALYST, ORDERS)
    assert document["decision"]["revision"] == record["decision"]["revision"]
    assert document["decision"]["server"] == record["server"]
