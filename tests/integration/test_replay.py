"""Real traffic of several people, decided anew: nothing differs under the same policies, exactly the edit otherwise."""

import json
import shutil
import subprocess
import sys

import pytest

from sidecar.audit.chain import FIELDS
from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST, LOADER, STRANGER
from tests import parts
from tests.hours import policies_on
from tests.integration.deployment import HR_ADMIN, deployed, search_path
from tests.patience import HANG_S

ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
SALARIES = {"connectionId": "preconfigured", "database": "hr", "collection": "salaries"}
JOIN = [{"$lookup": {"from": {"db": "hr", "coll": "salaries"}, "pipeline": [], "as": "x"}}]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, database):
    """A sidecar that records its questions, for as long as the tests of this file need it."""
    folder = tmp_path_factory.mktemp("recorded")
    environment = {"SIDECAR_AUDIT__QUESTION": "true"}
    with deployed(folder, database, environment=environment, policies=policies_on(folder)) as deployment:
        yield deployment


@pytest.fixture
async def traffic(recorded):
    """Eleven tool calls: allowed, denied, refused before the decision, and of a caller who sees no tools."""
    await demo_database.seed(recorded.uri)
    async with recorded.client(ANALYST) as client:
        await client.call_tool("find", {**ORDERS, "filter": {"status": "open"}})
        await client.call_tool("count", {**ORDERS, "query": {}})
        await client.call_tool("aggregate", {**ORDERS, "pipeline": JOIN})
        await client.call_tool("find", {**SALARIES, "filter": {}})
        await client.call_tool("find", {**ORDERS, "filter": {"$where": "1"}})
        await client.call_tool("find", {**ORDERS, "no-such-argument": {}})
    async with recorded.client(LOADER) as client:
        await client.call_tool("insert-many", {**ORDERS, "documents": [{"a": 1}]})
    async with recorded.plain(LOADER) as client:
        await client.initialize()
        await client.call("drop-collection", ORDERS)
        await client.call("drop-collection", {**ORDERS, "no-such-argument": {}})
    async with recorded.client(HR_ADMIN) as client:
        await client.call_tool("find", {**SALARIES, "filter": {}})
    async with recorded.plain(STRANGER) as client:
        await client.initialize()
        await client.call("find", {**ORDERS, "filter": {}})
    return recorded


def replay(file, policies, *options, **environment):
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "replay", "--audit", str(file), "--policies", str(policies), *options],
        cwd=parts.ROOT,
        env={"PATH": search_path(), **environment},
        capture_output=True,
        timeout=HANG_S,
        check=False,
    )


def answer(done):
    assert done.returncode in {0, 1}, done.stderr
    return json.JSONDecoder().decode(done.stdout.decode())


async def test_the_traffic_of_a_serving_sidecar_is_the_same_under_its_own_policies(traffic):
    before = traffic.audit_file.read_bytes()
    done = replay(traffic.audit_file, traffic.folder / "policies", "--json")
    document = answer(done)
    assert done.returncode == 0, document
    assert document["counts"]["same"] == document["compared"] == len(put_to_opa(traffic))
    assert document["counts"]["not_asked"] >= 2
    configured = replay(
        traffic.audit_file, traffic.folder / "policies", "--json", SIDECAR_CONFIG=str(traffic.folder / "sidecar.toml")
    )
    assert answer(configured)["counts"] == document["counts"], "the configured servers are those of the data"
    assert traffic.audit_file.read_bytes() == before, "the file is only read"


async def test_under_a_candidate_exactly_the_calls_differ_that_it_was_edited_for(traffic, tmp_path):
    """The candidate takes orders from the analysts and gives them salaries."""
    candidate = shutil.copytree(traffic.folder / "policies", tmp_path / "candidate")
    analytics = candidate / "teams" / "analytics" / "policy.rego"
    analytics.write_text(analytics.read_text().replace('lib.in_group("analysts")', 'lib.in_group("nobody")', 1))
    people = candidate / "teams" / "people" / "policy.rego"
    people.write_text(
        people.read_text().replace('lib.in_group("hr-admins")', 'lib.in_any_group({"hr-admins", "analysts"})', 1)
    )
    for team in ("analytics", "people"):
        (candidate / "teams" / team / "policy_test.rego").unlink()
    done = replay(traffic.audit_file, candidate, "--json")
    document = answer(done)
    assert done.returncode == 1
    listed = {
        (row["difference"], row["subject"]["id"], row["tool"], *(access["database"] for access in row["accesses"]))
        for row in document["differences"]
    }
    assert listed == {
        ("would_deny", "alice", "find", "sales"),
        ("would_deny", "alice", "count", "sales"),
        ("would_allow", "alice", "find", "hr"),
        ("changed", "alice", "aggregate", "sales", "hr"),
        ("changed", "alice", "find", "sales"),
    }, "denied for $where before and now, and now for the lack of a grant too"
    untouched = [r for r in put_to_opa(traffic) if r["subject"]["id"] != "alice"]
    assert document["counts"]["same"] == len(untouched)


async def test_what_was_put_to_opa_has_its_question_and_nothing_else_has(traffic):
    asked = put_to_opa(traffic)
    for record in asked:
        question = json.JSONDecoder().decode(record["question"])
        assert question["subject"]["id"] == record["subject"]["id"]
        assert question["action"]["tool"] == record["tool"]
        assert question["accesses"] == record["accesses"]
        assert question["context"]["environment"] == "test"
        assert "arguments" not in question
    others = [record for record in traffic.records() if record not in asked]
    assert any(record["event"] == "outcome" for record in others)
    assert any(record["outcome"]["error"] == "unknown_argument" for record in others if record["event"] == "refusal")
    assert all("question" not in record for record in others)


async def test_an_answer_out_of_the_memo_is_recorded_with_its_question(recorded):
    async with recorded.client(ANALYST) as client:
        for _ in range(
            20
        ):  # two like calls within one second: all but never does a second end between all of the pairs
            await client.call_tool("count", {**ORDERS, "query": {}})
            await client.call_tool("count", {**ORDERS, "query": {}})
    counted = [r for r in recorded.records() if r["event"] == "intent" and r["tool"] == "count"]
    decisions = {r["decision"]["opa_decision_id"] for r in counted}
    assert len(decisions) < len(counted), "some answers were out of the memo"
    assert all(r["question"] for r in counted)


async def test_an_edited_record_ends_the_replay_at_its_line(traffic, tmp_path):
    edited = tmp_path / "audit.jsonl"
    content = traffic.audit_file.read_bytes()
    edited.write_bytes(content.replace(b'"hanna"', b'"hanni"', 1))
    line = 1 + content[: content.index(b'"hanna"')].count(b"\n")
    done = replay(edited, traffic.folder / "policies")
    assert done.returncode == 1
    assert f"broken at line {line}".encode() in done.stdout


async def test_by_default_no_record_has_a_question(deployment, samples):
    async with deployment.client(ANALYST) as client:
        await client.call_tool("find", {**ORDERS, "filter": {}})
        await client.call_tool("find", {**SALARIES, "filter": {}})
    assert deployment.records()
    assert all(record.keys() == FIELDS | {"token"} for record in deployment.records())
    done = replay(deployment.audit_file, deployment.folder / "policies", "--json")
    document = answer(done)
    assert done.returncode == 1, "nothing could be compared"
    assert document["counts"]["not_recorded"] >= 2
    assert "SIDECAR_AUDIT__QUESTION" in document["notes"][0]


def put_to_opa(deployment):
    return [r for r in deployment.records() if r["event"] != "outcome" and r["decision"] is not None]
