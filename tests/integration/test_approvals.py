"""Calls that wait for a second person: real OPA, real MongoDB MCP server, real database, and the command line."""

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sidecar.audit.chain import verify
from sidecar.control.client import send
from sidecar.demo.identities import LOADER, Person
from tests import parts
from tests.hours import policies_on
from tests.integration.deployment import Deployment, deployed, search_path, wait_until
from tests.patience import HANG_S

AGENT = replace(LOADER, user="ann", groups=("cleaners",))
OTHER_AGENT = replace(AGENT, agent="support-console")
LEAD = Person(user="lea", agent="approvals-desk", groups=("staging-leads",), scopes=("mongodb:approve",))
SECOND_LEAD = replace(LEAD, user="leo")
OUTSIDER = replace(LEAD, user="otto", groups=("analysts",))
CLEANER_WHO_LEADS = replace(LEAD, user=AGENT.user)
LEADS_AGENT = replace(LEAD, agent="nightly-loader")

SHARE = 30
"""Calls of one user that may wait: what is denied stays until it expires."""

STAGING = {"connectionId": "preconfigured", "database": "staging", "collection": "orders"}
DECISION = "mcp-sidecar/decision"

GRANTS = """
grant contains {"id": "cleaners-delete", "approval": "second_person"} if {
	input.access.kind == "delete"
	lib.on("staging", ["orders"])
	lib.in_group("cleaners")
}

approver contains "lead" if lib.in_group("staging-leads")
"""
APPROVERS = [
    {
        "id": "leads",
        "teams": ["loading"],
        "kinds": ["delete"],
        "groups": ["staging-leads"],
        "agents": ["approvals-desk"],
        "scopes": ["mongodb:approve"],
    }
]


def with_approvals(folder: Path) -> Path:
    """The shipped policies, with deletions in staging that wait for a lead."""
    policies = policies_on(folder)
    module = policies / "teams/loading/policy.rego"
    module.write_text(module.read_text() + GRANTS)
    file = policies / "platform/data.json"
    data: Any = json.loads(file.read_text())  # noqa: TID251 - the repository's own file
    platform = data["mcp"]["platform"]
    platform["approvers"] = APPROVERS
    platform["routes"][1]["groups"].append("cleaners")
    platform["deployments"]["demo"]["databases"]["staging"]["delegated"][0]["kinds"].append("delete")
    for agent in platform["agents"]["registered"].values():
        agent["kinds"].append("delete")
    platform["traits"]["whole_collection"] = {"groups": ["*"]}
    file.write_text(json.dumps(data))
    return policies


@pytest.fixture(scope="module")
def waiting(tmp_path_factory, database) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("approvals")
    extra = (
        f'control_listen = "unix:{folder}/control"\nsuspensions = "file:{folder}/suspensions.json"\n'
        f'[approvals]\nstore = "file:{folder}/approvals.json"\nmost_per_user = {SHARE}\n'
    )
    with deployed(folder, database, extra=extra, policies=with_approvals(folder)) as running:
        yield running


@pytest.fixture
def orders(waiting) -> Iterator[Any]:
    with waiting.database() as client:
        collection = client["staging"]["orders"]
        collection.delete_many({})
        collection.insert_many([{"_id": number, "old": number < 3} for number in range(5)])
        yield collection


def delete(tag: str, **filter_: Any) -> dict[str, Any]:
    """A call that deletes; calls of other tests are others."""
    return {**STAGING, "filter": {"old": True, "tag": {"$ne": tag}, **filter_}}


async def call(deployment: Deployment, person: Person, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the tool result of one deletion."""
    async with deployment.plain(person) as client:
        await client.initialize()
        return (await client.call("delete-many", arguments)).body


async def asked_for(deployment: Deployment, arguments: dict[str, Any], person: Person = AGENT) -> str:
    """Make a call that waits, and return the id of its approval."""
    answer = await call(deployment, person, arguments)
    decision = answer["result"]["_meta"][DECISION]
    assert [one["code"] for one in decision["reasons"]] == ["approval_required"], answer
    approval: str = decision["approval"]["id"]
    assert approval in answer["result"]["content"][0]["text"]
    return approval


def command(deployment: Deployment, person: Person, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, as a second person uses it, with their token on standard input."""
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "approvals", *words, "--token-file", "-"],
        cwd=parts.ROOT,
        env={"PATH": search_path(), "SIDECAR_CONFIG": str(deployment.folder / "sidecar.toml")},
        input=deployment.token(person),
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


async def http(deployment: Deployment, person: Person | None, method: str, path: str, body: Any = None):
    headers = {} if person is None else {"Authorization": f"Bearer {deployment.token(person)}"}
    async with httpx2.AsyncClient(timeout=HANG_S) as client:
        return await client.request(method, f"{deployment.url}/approvals{path}", json=body, headers=headers)


async def decided(deployment: Deployment, approval: str, decision: str = "approve", person: Person = LEAD) -> int:
    """Decide as the command line does, and return the status."""
    answer = await http(deployment, person, "POST", f"/{approval}", {"decision": decision})
    return int(answer.status_code)


def of_kind(deployment: Deployment, event: str) -> list[dict[str, Any]]:
    return [row for row in deployment.records() if row["event"] == event]


async def test_a_call_waits_is_approved_by_another_person_and_passes_once(waiting, orders):
    arguments = delete("once")
    before = len(waiting.all_reached())
    approval = await asked_for(waiting, arguments)
    assert await asked_for(waiting, arguments) == approval, "the same call waits once"
    assert orders.count_documents({}) == 5
    listed = command(waiting, LEAD, "list")
    assert (listed.returncode, approval in listed.stdout) == (0, True), listed
    assert "delete staging.orders of team loading (waits)" in listed.stdout
    shown = command(waiting, LEAD, "show", approval)
    assert '"$ne": "once"' in shown.stdout, "who approves a deletion sees what it deletes"
    assert "ann" in shown.stdout
    approved = command(waiting, LEAD, "approve", approval, "--reason", "month end")
    assert approved.returncode == 0, approved
    passed = await call(waiting, AGENT, arguments)
    assert not passed["result"].get("isError"), passed
    assert orders.count_documents({}) == 2
    again = await asked_for(waiting, arguments)
    assert again != approval, "a second time it waits anew"
    assert len(waiting.all_reached()) == before + 1
    command(waiting, LEAD, "deny", again)

    rows = waiting.records()
    requested = [row for row in rows if row.get("approval") == {"action": "requested", "id": approval}]
    of_people = [row for row in rows if row["event"] == "approval" and row["approval"]["id"] == approval]
    assert [row["approval"]["action"] for row in of_people] == ["shown", "approved"]
    decided = of_people[1:]
    spent = [row for row in rows if row["event"] == "intent" and row.get("approval", {}).get("id") == approval]
    assert (len(requested), len(decided), len(spent)) == (1, 1, 1)
    assert (decided[0]["approval"]["action"], decided[0]["approval"]["reason"]) == ("approved", "month end")
    assert decided[0]["subject"]["id"] == LEAD.user
    assert decided[0]["approval"]["request_id"] == requested[0]["request_id"]
    assert decided[0]["approval"]["trace_id"] == requested[0]["trace_id"]
    assert decided[0]["trace_id"] != requested[0]["trace_id"]
    assert spent[0]["approval"]["approver"] == {
        "issuer": decided[0]["subject"]["issuer"],
        "id": "lea",
        "agent": LEAD.agent,
    }
    assert decided[0]["approval"]["arguments_sha256"] == spent[0]["arguments_sha256"]
    assert "once" not in json.dumps(rows), "no record holds arguments"
    assert verify(waiting.audit_file.read_bytes().splitlines(keepends=True)).holds
    metrics = waiting.admin("/metrics")[1]
    for action in ("requested", "approved", "spent"):
        assert f'mcp_sidecar_approvals_total{{action="{action}"}}' in metrics


async def test_a_denied_call_is_refused_and_does_not_wait_again(waiting, orders):
    arguments = delete("denied")
    approval = await asked_for(waiting, arguments)
    assert await decided(waiting, approval, "deny") == 200
    answer = await call(waiting, AGENT, arguments)
    decision = answer["result"]["_meta"][DECISION]
    assert (decision["approval"]["state"], decision["approval"]["id"]) == ("denied", approval)
    assert "denied" in answer["result"]["content"][0]["text"]
    assert orders.count_documents({}) == 5
    assert await decided(waiting, approval) == 409, "what is denied is not approved afterwards"


@pytest.mark.parametrize(
    ("person", "arguments"),
    [
        (OTHER_AGENT, delete("bound")),
        (replace(AGENT, user="bea"), delete("bound")),
        (AGENT, delete("bound", more=1)),
        (AGENT, {**delete("bound"), "collection": "orders", "filter": {"old": {"$eq": True}, "tag": {"$ne": "bound"}}}),
    ],
    ids=["another agent", "another user", "another filter", "an equal filter in other words"],
)
async def test_an_approval_is_good_for_that_call_of_that_caller_only(waiting, orders, person, arguments):
    approval = await asked_for(waiting, delete("bound"))
    assert await decided(waiting, approval) == 200
    other = await asked_for(waiting, arguments, person)
    assert other != approval
    assert orders.count_documents({}) == 5
    turned_round = {key: delete("bound")[key] for key in reversed([*delete("bound")])}
    passed = await call(waiting, AGENT, turned_round)
    assert not passed["result"].get("isError"), "the order of members means nothing"
    assert await decided(waiting, other, "deny") == 200


@pytest.mark.parametrize(
    "person",
    [OUTSIDER, CLEANER_WHO_LEADS, LEADS_AGENT, replace(LEAD, scopes=("mongodb:read",)), AGENT],
    ids=["of no group", "the requester as a lead", "a lead's agent", "a token without the scope", "the requester"],
)
async def test_nobody_else_sees_or_decides_it_and_all_are_answered_as_if_it_were_not_there(waiting, orders, person):
    arguments = delete(f"theirs {person}")
    approval = await asked_for(waiting, arguments)
    absent = "0" * 32
    for method, body in (("GET", None), ("POST", {"decision": "approve"}), ("POST", {"decision": "deny"})):
        answers = [await http(waiting, person, method, f"/{one}", body) for one in (approval, absent)]
        assert [one.status_code for one in answers] == [404, 404]
        assert answers[0].content == answers[1].content
        assert {**answers[0].headers, "date": ""} == {**answers[1].headers, "date": ""}
    listed = await http(waiting, person, "GET", "")
    assert (listed.status_code, listed.json()["approvals"]) == (200, [])
    assert await asked_for(waiting, arguments) == approval
    assert orders.count_documents({}) == 5
    assert await decided(waiting, approval, "deny") == 200


async def test_of_many_calls_at_once_one_passes(waiting, orders):
    arguments = delete("race")
    approval = await asked_for(waiting, arguments)
    assert await decided(waiting, approval) == 200
    before = len(waiting.all_reached())
    answers = await asyncio.gather(*(call(waiting, AGENT, arguments) for _ in range(8)))
    passed = [one for one in answers if not one["result"].get("isError")]
    assert (len(passed), len(waiting.all_reached()) - before) == (1, 1)


async def test_of_two_people_who_decide_at_once_one_does(waiting, orders):
    approval = await asked_for(waiting, delete("two"))
    answers = await asyncio.gather(
        http(waiting, LEAD, "POST", f"/{approval}", {"decision": "approve"}),
        http(waiting, SECOND_LEAD, "POST", f"/{approval}", {"decision": "deny"}),
    )
    assert sorted(one.status_code for one in answers) == [200, 409]


@pytest.mark.parametrize("name", ["ann", "lea"])
async def test_a_suspension_of_either_voids_it_for_good(waiting, orders, name):
    arguments = delete(f"suspended {name}")
    approval = await asked_for(waiting, arguments)
    assert await decided(waiting, approval) == 200
    control = f"unix:{waiting.folder}/control"
    send(control, "suspend", {"kind": "user", "subject": name, "reason": "a test"}, None)
    file = waiting.folder / "approvals.json"
    wait_until(lambda: approval not in file.read_text(), "the approval to be void")
    send(control, "resume", {"kind": "user", "subject": name}, None)
    assert await asked_for(waiting, arguments) != approval
    assert orders.count_documents({}) == 5


async def test_what_waits_and_what_was_approved_survive_a_restart(waiting, orders):
    one, two = delete("restart one"), delete("restart two")
    first, second = await asked_for(waiting, one), await asked_for(waiting, two)
    assert await decided(waiting, first) == 200
    waiting.stop()
    assert (waiting.folder / "approvals.json").stat().st_mode & 0o777 == 0o600
    waiting.start()
    assert not (await call(waiting, AGENT, one))["result"].get("isError")
    assert await asked_for(waiting, two) == second
    assert await decided(waiting, second, "deny") == 200


async def test_other_policies_void_it(waiting, orders):
    arguments = delete("other policies")
    approval, other = await asked_for(waiting, arguments), delete("other policies too")
    assert await decided(waiting, approval) == 200
    unapproved = await asked_for(waiting, other)
    module = waiting.folder / "policies/teams/loading/policy.rego"
    loads = waiting.admin("/readyz")[1]
    module.write_text(module.read_text() + "\n# another revision\n")
    revision = of_kind(waiting, "refusal")[-1]["decision"]["revision"]

    async def reloaded() -> bool:
        answer = await call(waiting, AGENT, delete("other policies, seen"))
        return bool(answer and of_kind(waiting, "refusal")[-1]["decision"]["revision"] != revision)

    deadline = time.monotonic() + HANG_S
    while not await reloaded():
        assert time.monotonic() < deadline, loads
        await asyncio.sleep(0.2)
    stale = await http(waiting, LEAD, "POST", f"/{unapproved}", {"decision": "approve"})
    assert stale.status_code == 409, "who approves is asked about a call that this policy set has not seen"
    assert await asked_for(waiting, arguments) != approval
    assert orders.count_documents({}) == 5


async def test_a_batch_member_waits_like_a_call_of_its_own(waiting, orders):
    member = {"method": "tools/call", "params": {"name": "delete-many", "arguments": delete("batch")}}
    headers = {
        "Authorization": f"Bearer {waiting.token(AGENT)}",
        "Accept": "application/json, text/event-stream",
    }
    async with httpx2.AsyncClient(timeout=HANG_S, headers=headers) as client:
        start = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "b", "version": "1"}}
        opened = await client.post(
            waiting.url, json={"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": start}
        )
        client.headers["Mcp-Session-Id"] = opened.headers["Mcp-Session-Id"]
        batch = [{"jsonrpc": "2.0", "id": number, **member} for number in (2, 3)]
        answers = (await client.post(waiting.url, json=batch)).json()
        approvals = {one["result"]["_meta"][DECISION]["approval"]["id"] for one in answers}
        assert len(approvals) == 1
        assert await decided(waiting, approvals.pop()) == 200
        answers = (await client.post(waiting.url, json=batch)).json()
        assert sorted(bool(one["result"].get("isError")) for one in answers) == [False, True]


async def test_without_a_session_it_waits_and_passes_once_too(waiting, orders):
    arguments = delete("stateless")
    prefix = "io.modelcontextprotocol/"
    meta = {f"{prefix}protocolVersion": "2026-07-28", f"{prefix}clientCapabilities": {}}
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "delete-many", "arguments": arguments, "_meta": meta},
    }
    headers = {
        "Authorization": f"Bearer {waiting.token(AGENT)}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call",
        "Mcp-Name": "delete-many",
    }
    async with httpx2.AsyncClient(timeout=HANG_S, headers=headers) as client:
        first = (await client.post(waiting.url, json=body)).json()
        approval = first["result"]["_meta"][DECISION]["approval"]["id"]
        assert await decided(waiting, approval) == 200
        second = (await client.post(waiting.url, json=body)).json()
        third = (await client.post(waiting.url, json=body)).json()
    assert not second["result"].get("isError"), second
    assert third["result"]["_meta"][DECISION]["approval"]["id"] != approval


async def test_one_caller_cannot_make_more_wait_than_their_share(waiting, orders):
    person = replace(AGENT, user="many")
    async with waiting.plain(person) as client:
        await client.initialize()
        answers = [await client.call("delete-many", delete(f"many {number}")) for number in range(SHARE + 2)]
    codes = [one.decision["reasons"][0]["code"] for one in answers]
    assert codes == ["approval_required"] * SHARE + ["too_many_approvals"] * 2
    assert await asked_for(waiting, delete("of another")), "the others still can"
    listed = (await http(waiting, LEAD, "GET", "")).json()["approvals"]
    for one in listed:
        await http(waiting, LEAD, "POST", f"/{one['id']}", {"decision": "deny"})


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "", {"decision": "approve"}, 405),
        ("DELETE", f"/{'0' * 32}", None, 405),
        ("GET", "/..%2f..", None, 404),
        ("GET", f"/{'0' * 32}/more", None, 404),
        ("GET", "?all=1", None, 400),
        ("POST", f"/{'0' * 32}", {"decision": "maybe"}, 400),
        ("POST", f"/{'0' * 32}", {"decision": "approve", "as": "lea"}, 400),
        ("POST", f"/{'0' * 32}", {"decision": "approve", "reason": "x" * 257}, 400),
        ("POST", f"/{'0' * 32}", ["approve"], 400),
        ("POST", f"/{'0' * 32}", {"decision": "approve", "reason": "x" * 5000}, 413),
    ],
)
async def test_what_is_no_request_is_refused(waiting, method, path, body, status):
    answer = await http(waiting, LEAD, method, path, body)
    assert answer.status_code == status, answer.text


async def test_without_a_token_there_is_a_challenge(waiting):
    answer = await http(waiting, None, "GET", "")
    assert (answer.status_code, "resource_metadata" in answer.headers["WWW-Authenticate"]) == (401, True)


def test_a_damaged_file_refuses_what_waits_and_nothing_else(waiting, tmp_path):
    file = waiting.folder / "approvals.json"
    kept = file.read_bytes()
    file.write_bytes(kept.replace(b'"v":1', b'"v":2'))
    answer = asyncio.run(call(waiting, AGENT, delete("damaged")))
    assert answer["result"]["_meta"][DECISION]["reasons"][0]["code"] == "approvals_unavailable"
    assert asyncio.run(http(waiting, LEAD, "GET", "")).status_code == 503
    refused = command(waiting, LEAD, "list")
    assert (refused.returncode, "Approvals cannot be read" in refused.stderr) == (1, True)
    waiting.stop()
    waiting.start()
    answer = asyncio.run(call(waiting, AGENT, delete("damaged")))
    assert answer["result"]["_meta"][DECISION]["reasons"][0]["code"] == "approvals_unavailable"
    waiting.stop()
    shutil.move(file, tmp_path / "damaged")
    waiting.start()
    assert asyncio.run(asked_for(waiting, delete("damaged")))
