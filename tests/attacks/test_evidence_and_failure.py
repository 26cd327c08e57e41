"""Attacks on evidence, secrets and the parts behind: what is written down, and what happens when parts misbehave."""

import asyncio
import json
import os
import random
import resource
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import psutil
import pytest
from typing_extensions import override

from sidecar.audit.chain import verify
from sidecar.demo.identities import ANALYST, LOADER, STRANGER
from sidecar.enforcement import EnforcementPoint
from tests.attacks.attacker import ORDERS, STAGING, rpc
from tests.edge.endpoint import PING, encoded, running
from tests.integration.deployment import wait_until
from tests.patience import HANG_S

linux = pytest.mark.skipif(sys.platform != "linux", reason="stages its fault with /proc or prlimit")


def recorded_since(attacker, count):
    return attacker.deployment.records()[count:]


def test_a_call_withdrawn_at_any_moment_leaves_an_outcome_for_every_intent(attacker):
    session = attacker.open(LOADER)
    records, before = len(attacker.deployment.records()), attacker.reached()
    dice = random.Random(7)  # noqa: S311 - moments, not secrets
    with attacker.deployment.database() as client:
        documents = client["staging"]["orders"].count_documents({})
        for number in range(40):
            arguments = {**STAGING, "documents": [{"race": number}]}
            thread = threading.Thread(target=attacker.call, args=(LOADER, session, "insert-many", arguments, number))
            thread.start()
            time.sleep(dice.choice([0, 0.001, 0.002, 0.004]))
            withdrawal = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}
            attacker.send(LOADER, withdrawal, session=session)
            thread.join()
        time.sleep(0.5)
        inserted = client["staging"]["orders"].count_documents({}) - documents
    found = recorded_since(attacker, records)
    intents = {record["request_id"] for record in found if record["event"] == "intent"}
    outcomes = [record["request_id"] for record in found if record["event"] == "outcome"]
    assert sorted(outcomes) == sorted(intents)
    assert inserted <= attacker.reached() - before <= len(intents)
    with attacker.deployment.audit_file.open("rb") as lines:
        assert verify(lines).fault is None


def test_a_small_call_cannot_write_a_large_record(attacker):
    pipeline: list[dict[str, Any]] = [
        {"$lookup": {"from": f"c{number}", "pipeline": [], "as": "x"}} for number in range(60)
    ]
    for level in range(18):
        pipeline = [{"$facet": {"\U0001f600" * 127 + str(level): pipeline}}]
    body = json.dumps(rpc("tools/call", {"name": "aggregate", "arguments": {**ORDERS, "pipeline": pipeline}}))
    for who in (ANALYST, STRANGER):
        session, size = attacker.open(who), attacker.deployment.audit_file.stat().st_size
        attacker.send(who, body.encode(), session=session)
        assert attacker.deployment.audit_file.stat().st_size - size < 100_000, "43 times the call, before"


def test_values_that_the_database_quotes_in_an_error_stay_out_of_the_log(attacker):
    session = attacker.open(ANALYST)
    with attacker.deployment.database() as client:
        client["sales"]["orders"].insert_one({"_id": "quoted", "value": "canary-one\ncanary-two"})
    for operator in ("$toInt", "$toDate"):
        pipeline = [{"$match": {"_id": "quoted"}}, {"$project": {"x": {operator: "$value"}}}]
        reply = attacker.call(ANALYST, session, "aggregate", {**ORDERS, "pipeline": pipeline})
        assert b"canary-one" in reply.body, "the caller may read it, so may be told"
    wait_until(lambda: "Error executing aggregate" in attacker.deployment.log_file.read_text(), "the server's log")
    assert "canary" not in attacker.deployment.log_file.read_text()


def test_nothing_that_a_caller_makes_up_becomes_a_label(attacker):
    session = attacker.open(ANALYST)
    attacker.call(ANALYST, session, "canary-tool", {})
    attacker.send(ANALYST, rpc("canary/method", {}), session=session)
    attacker.send(ANALYST, rpc("ping", {}), session="canary-session")
    attacker.call(ANALYST, session, "find", {**ORDERS, "database": "canary", "filter": {"canary": "canary"}})
    for path in ("/metrics", "/readyz"):
        assert "canary" not in attacker.deployment.admin(path)[1]


@linux
def test_an_opa_that_hangs_allows_nothing_that_was_not_answered_before(attacker):
    session = attacker.open(ANALYST)
    assert not attacker.call(ANALYST, session, "find", {**ORDERS, "limit": 1}).code
    both = attacker.deployment.children("/opa")
    assert len(both) == 2, "one decides and one stands by"
    for opa in both:
        opa.suspend()
    try:
        before = attacker.reached()
        asked = {**ORDERS, "collection": "returns", "limit": 1}
        assert attacker.call(ANALYST, session, "find", asked).code == "decision_unavailable"
        assert attacker.reached() == before
    finally:
        for opa in both:
            with suppress(psutil.NoSuchProcess):
                opa.resume()
    wait_until(attacker.deployment.ready, "OPA to answer again")
    wait_until(lambda: not attacker.call(ANALYST, session, "find", {**ORDERS, "limit": 1}).code, "calls to be allowed")


@linux
def test_on_a_full_disk_a_result_without_evidence_is_withheld_and_nothing_more_is_forwarded(attacker):
    session = attacker.open(ANALYST)
    process = psutil.Process(attacker.deployment.process.pid)
    attacker.call(ANALYST, session, "find", {**ORDERS, "limit": 1})
    intent, outcome = (len(line) for line in attacker.deployment.audit_file.read_bytes().splitlines()[-2:])
    soft, hard = process.rlimit(resource.RLIMIT_FSIZE)
    room = intent + outcome // 2
    process.rlimit(resource.RLIMIT_FSIZE, (attacker.deployment.audit_file.stat().st_size + room, hard))
    try:
        before = attacker.reached()
        withheld = attacker.call(ANALYST, session, "find", {**ORDERS, "limit": 1})
        refused = [attacker.call(ANALYST, session, "find", {**ORDERS, "limit": 1}).code for _ in range(3)]
    finally:
        process.rlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert withheld.code == "outcome_not_recorded"
    assert refused == ["audit_unavailable"] * 3
    assert attacker.reached() == before + 1
    assert not attacker.call(ANALYST, session, "find", {**ORDERS, "limit": 1}).code
    with attacker.deployment.audit_file.open("rb") as lines:
        assert verify(lines).fault is None


@linux
def test_no_child_holds_a_descriptor_of_the_sidecar_or_of_another_child(attacker):
    """Also after a restart while connections are open: uvloop does not honour ``close_fds``."""
    deployment = attacker.deployment
    session = attacker.open(ANALYST)
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            attacker.call(ANALYST, session, "find", {**ORDERS, "limit": 1}, os.urandom(6).hex())

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for opa in deployment.children("/opa"):
            opa.kill()
        time.sleep(0.3)
        wait_until(lambda: len(deployment.children("/opa")) == 2, "both to be back")
        wait_until(deployment.ready, "OPA to be back")
        children = deployment.children("/opa") + deployment.children("recording_pipe.py")
        held = [descriptors(child.pid) for child in (psutil.Process(deployment.process.pid), *children)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(held) == 5
    shared = {name for index, one in enumerate(held) for other in held[index + 1 :] for name in one & other}
    assert shared == set()


def descriptors(pid):
    """The sockets, pipes and files of a process, by identity; what belongs to everybody left out."""
    folder = f"/proc/{pid}/fd"
    links = set()
    for name in os.listdir(folder):  # noqa: PTH208 - names are all there is
        try:
            links.add(os.readlink(f"{folder}/{name}"))  # noqa: PTH115 - not a path but an identity
        except FileNotFoundError:
            continue
    return {link for link in links if not link.startswith(("/dev/", "/sys/", "anon_inode:"))}


# --- the same edge and enforcement point in this process, where the fault cannot be staged from outside ---------------


async def test_a_stream_ends_with_its_session(tmp_path):
    async with running(tmp_path) as endpoint:
        session = await endpoint.open_session()
        stream = asyncio.create_task(endpoint.ask("GET", Mcp_Session_Id=session))
        await asyncio.sleep(0.5)
        assert not stream.done()
        [ended] = endpoint.sessions.close_all(lambda each: each.id == session)
        assert ended.id == session
        assert (await asyncio.wait_for(stream, HANG_S)).status == 200


class Defective(EnforcementPoint):
    @override
    async def _dispatch(self, message, turn):
        raise RuntimeError("canary")


async def test_a_defect_of_ours_is_answered_without_its_text_and_leaves_evidence(tmp_path):
    async with running(tmp_path, point=Defective) as endpoint:
        answer = await endpoint.ask(body=encoded(PING))
        assert answer.status == 500
        assert b"canary" not in answer.body
        assert [refusal["error"] for refusal in endpoint.refusals] == ["internal"]


async def test_strangers_cannot_fill_the_audit_disk(deployment):
    before = len(deployment.records())
    async with deployment.plain(None) as client:
        statuses = {(await client.call("find", {})).status for _ in range(200)}
    written = deployment.records()[before:]
    assert statuses == {401}
    assert len(written) <= 60, "at most two windows' worth"
    assert {record["outcome"]["error"] for record in written} <= {"token_missing"}
