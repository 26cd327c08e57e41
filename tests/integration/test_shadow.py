"""A candidate policy folder is compared with the serving one; the answer stays the serving set's."""

import json
import shutil
import subprocess
import sys

import pytest

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST
from sidecar.policyset.folder import PolicySet
from tests import parts
from tests.integration.deployment import deployed, search_path, wait_until
from tests.patience import HANG_S
from tests.policy_sets import quick_copy

ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
SALARIES = {"connectionId": "preconfigured", "database": "hr", "collection": "salaries"}


@pytest.fixture(scope="module")
def shadowed(tmp_path_factory, database):
    """The candidate takes orders from the analysts and gives them salaries."""
    folder = tmp_path_factory.mktemp("shadowed")
    quick_copy(folder / "candidate")
    analytics = folder / "candidate" / "teams" / "analytics" / "policy.rego"
    analytics.write_text(analytics.read_text().replace('lib.in_group("analysts")', 'lib.in_group("nobody")', 1))
    people = folder / "candidate" / "teams" / "people" / "policy.rego"
    people.write_text(
        "package mcp.teams.people\n\nimport data.mcp.lib\n\n"
        'grant contains {"id": "everybody-reads"} if {\n\tlib.reads\n\tlib.on("hr", ["*"])\n}\n\ndeny := set()\n'
    )
    for team in ("analytics", "people"):
        (folder / "candidate" / "teams" / team / "policy_test.rego").unlink()
    extra = f'policies_candidate = "{folder / "candidate"}"\n'
    with deployed(folder, database, extra=extra) as deployment:
        yield deployment


async def test_differences_are_recorded_and_counted_and_change_nothing(shadowed):
    await demo_database.seed(shadowed.uri)
    async with shadowed.client(ANALYST) as client:
        allowed = await client.call_tool("find", {**ORDERS, "filter": {}})
        refused = await client.call_tool("find", {**SALARIES, "filter": {}})
        same = await client.call_tool("find", {**ORDERS, "database": "nobodys", "filter": {}})
    assert not allowed.is_error
    assert refused.is_error
    assert same.is_error
    records = [r for r in shadowed.records() if r["tool"] == "find" and r["event"] != "outcome"]
    assert [r["shadow"]["difference"] for r in records] == ["would_deny", "would_allow", "same"]
    assert all(r["shadow"]["revision"] != r["decision"]["revision"] for r in records)
    assert [call["arguments"]["database"] for call in shadowed.all_reached()] == ["sales"]
    metrics = shadowed.admin("/metrics")[1]
    assert 'difference="would_deny"' in metrics
    assert 'difference="would_allow"' in metrics


async def test_a_candidate_that_is_gone_stops_nobody(shadowed):
    async with shadowed.client(ANALYST) as client:
        await client.call_tool("count", {**ORDERS, "query": {}})
        compared = max(shadowed.children("/opa"), key=lambda process: process.create_time())
        compared.suspend()
        result = await client.call_tool("collection-schema", {**ORDERS})
        compared.resume()
    assert not result.is_error
    last = [r for r in shadowed.records() if r["tool"] == "collection-schema" and r["event"] == "intent"][-1]
    assert last["shadow"]["difference"] == "unavailable"


# --- a candidate that is refused --------------------------------------------------------------------------------------

QUICK = {"SIDECAR_OPA__RELOAD_MS": "100", "SIDECAR_OPA__MEMO_MS": "0"}
BROKEN = "package mcp.teams.people\n\nimport data.mcp.lib\n\ngrant contains {\n"
LOADED, REFUSED = {"loaded": 1.0, "refused": 0.0}, {"loaded": 0.0, "refused": 1.0}


def readiness(deployment):
    status, body = deployment.admin("/readyz")
    return status, json.loads(body)  # noqa: TID251 - our own answer


def degraded(deployment):
    return readiness(deployment)[1].get("degraded", [])


def loads(deployment, metric):
    lines = deployment.admin("/metrics")[1].splitlines()
    values = {line.split('"')[1]: float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(metric + "{")}
    assert values
    return values


def last_shadow(deployment):
    return [record["shadow"] for record in deployment.records() if "shadow" in record][-1]


async def counted(client, query):
    assert not (await client.call_tool("count", {**ORDERS, "query": query})).is_error


@pytest.fixture
def candidate(tmp_path):
    return quick_copy(tmp_path / "candidate")


async def test_a_candidate_that_is_refused_at_the_start_stops_nobody_and_is_taken_when_it_is_repaired(
    tmp_path, database, candidate
):
    broken = candidate / "teams" / "people" / "more.rego"
    broken.write_text(BROKEN)
    folder = tmp_path / "deployment"
    folder.mkdir()
    with deployed(folder, database, extra=f'policies_candidate = "{candidate}"\n', environment=QUICK) as running:
        await demo_database.seed(database)
        log = running.log_file.read_text
        assert readiness(running) == (200, {"ready": True, "failing": [], "degraded": ["candidate"]})
        assert "the candidate policy folder is not loaded, nothing is compared: " in log()
        assert "teams/people/more.rego:6: rego_parse_error" in log()
        assert loads(running, "mcp_sidecar_policy_candidate_load") == REFUSED
        assert loads(running, "mcp_sidecar_policy_load") == LOADED, "who serves is as it should be"
        async with running.client(ANALYST) as client:
            await counted(client, {})
            assert last_shadow(running) == {"difference": "unavailable", "revision": "", "reasons": []}
            assert 'mcp_sidecar_shadow_total{difference="unavailable"' in running.admin("/metrics")[1]
            broken.unlink()
            wait_until(lambda: degraded(running) == [], "the repaired candidate to be taken")
            revision = PolicySet.read(candidate).revision
            assert f"opa compares with policy set {revision}" in log()
            assert loads(running, "mcp_sidecar_policy_candidate_load") == LOADED
            await counted(client, {"region": "EU"})
            assert last_shadow(running) == {"difference": "same", "revision": revision, "reasons": []}
            broken.write_text("package mcp.main\n\nallow := true\n")
            wait_until(lambda: degraded(running) == ["candidate"], "the later refusal to be said")
            assert f"not loaded, {revision} stays the one that is compared: " in log()
            assert "teams/people/more.rego:1: package mcp.main" in log()
            assert loads(running, "mcp_sidecar_policy_candidate_load") == REFUSED
            await counted(client, {"region": "US"})
            assert last_shadow(running)["revision"] == revision, "the last good candidate is still compared"
            broken.unlink()
            wait_until(lambda: degraded(running) == [], "the good set to be taken again")


async def test_an_opa_that_is_killed_comes_back_for_a_candidate_that_was_repaired(tmp_path, database, candidate):
    """The watch over the process begins with the first set that is not refused, whenever that is."""
    broken = candidate / "teams" / "people" / "more.rego"
    broken.write_text(BROKEN)
    folder = tmp_path / "deployment"
    folder.mkdir()
    with deployed(folder, database, extra=f'policies_candidate = "{candidate}"\n', environment=QUICK) as running:
        serving = running.children("/opa")
        broken.unlink()
        wait_until(lambda: degraded(running) == [], "the repaired candidate to be taken")
        [compared] = [child for child in running.children("/opa") if child not in serving]
        compared.kill()
        wait_until(lambda: "opa is back" in running.log_file.read_text(), "the candidate's OPA to be back")
        assert all(opa.is_running() for opa in serving)
        assert readiness(running) == (200, {"ready": True, "failing": []})


ENDLESS = """package mcp.teams.people.more_test

many := [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30]

pairs := count([1 | some a in many; some b in many; some c in many; some d in many; some e in many; a + b + c + d > e])
"""


async def test_a_candidate_that_is_long_in_checking_keeps_nobody_from_serving(tmp_path, database, candidate):
    """Its tests may take a minute, each some seconds."""
    tests = "".join(f"\ntest_{number} if pairs > {number}\n" for number in range(12))
    (candidate / "teams" / "people" / "more_test.rego").write_text(ENDLESS + tests)
    folder = tmp_path / "deployment"
    folder.mkdir()
    with deployed(folder, database, extra=f'policies_candidate = "{candidate}"\n', environment=QUICK) as running:
        await demo_database.seed(database)
        log = running.log_file.read_text()
        assert "the candidate policy folder is still being checked" in log
        assert "the candidate policy folder is not loaded" not in log
        assert degraded(running) == ["candidate"]
        async with running.client(ANALYST) as client:
            await counted(client, {})
        assert last_shadow(running)["difference"] == "unavailable"


@pytest.mark.parametrize(
    "spoil",
    [shutil.rmtree, lambda folder: (folder / "platform" / ".manifest").unlink()],
    ids=["no folder", "no manifest"],
)
def test_a_candidate_folder_that_is_none_is_a_refused_candidate(tmp_path, database, candidate, spoil):
    spoil(candidate)
    folder = tmp_path / "deployment"
    folder.mkdir()
    with deployed(folder, database, extra=f'policies_candidate = "{candidate}"\n', environment=QUICK) as running:
        assert degraded(running) == ["candidate"]
        assert "the candidate policy folder is not loaded, nothing is compared: " in running.log_file.read_text()
        shutil.rmtree(candidate, ignore_errors=True)
        quick_copy(candidate)
        wait_until(lambda: degraded(running) == [], "the candidate to be taken")


def test_the_same_set_in_the_serving_place_is_status_78(tmp_path, database, candidate):
    (candidate / "teams" / "people" / "more.rego").write_text(BROKEN)
    folder = tmp_path / "deployment"
    folder.mkdir()
    with deployed(folder, database) as running:
        running.stop()
        done = subprocess.run(
            [sys.executable, "-m", "sidecar", "serve"],
            cwd=parts.ROOT,
            env={
                "PATH": search_path(),
                "SIDECAR_CONFIG": str(running.folder / "sidecar.toml"),
                "SIDECAR_POLICIES": str(candidate),
            },
            capture_output=True,
            text=True,
            timeout=HANG_S,
            check=False,
        )
    assert done.returncode == 78
    assert "teams/people/more.rego:6: rego_parse_error" in done.stderr
