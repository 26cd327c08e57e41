"""A team's policy that ends OPA is set aside, end to end; other teams' calls go on, and operators see it."""

from functools import partial

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST, LOADER
from tests.hours import policies_on
from tests.integration.deployment import deployed, wait_until
from tests.policyset.test_memory_hogs import HOG

HOG_OF_ANALYTICS = HOG.replace("mcp.teams.red", "mcp.teams.analytics")
THEIRS = {"connectionId": "preconfigured", "database": "sales", "collection": "hog", "query": {}}
OTHERS = {"connectionId": "preconfigured", "database": "staging", "collection": "orders", "query": {}}


def opas(deployment):
    """The process ids of the sidecar's OPAs."""
    return {opa.pid for opa in deployment.children("/opa")}


def one_ended(deployment, serving):
    """Whether one of these is no more."""
    return serving - opas(deployment)


def two_serve(deployment):
    """Whether one decides and one stands by."""
    return len(opas(deployment)) == 2


def source(answer):
    """Where a refusal comes from."""
    return answer.result["_meta"]["mcp-sidecar/decision"]["reasons"][0]["source"]


async def test_a_policy_that_ends_opa_is_set_aside_and_others_go_on(tmp_path, database):
    folder = policies_on(tmp_path)
    (folder / "teams" / "analytics" / "more.rego").write_text(HOG_OF_ANALYTICS)
    with deployed(tmp_path, database, policies=folder) as deployment:
        await demo_database.seed(database)
        async with deployment.plain(ANALYST) as analyst, deployment.plain(LOADER) as loader:
            await analyst.initialize()
            await loader.initialize()
            for _ in range(2):
                serving = opas(deployment)
                assert (await analyst.call("count", THEIRS)).result["isError"]
                wait_until(partial(one_ended, deployment, serving), "one OPA to end")
                assert not (await loader.call("count", OTHERS)).result.get("isError")
                wait_until(partial(two_serve, deployment), "another to stand by")
            wait_until(deployment.ready, "the sidecar to be well")
            assert source(await analyst.call("count", THEIRS)) == "opa.set_aside"
            assert not (await loader.call("count", OTHERS)).result.get("isError")
        assert all(call["arguments"]["database"] == "staging" for call in deployment.all_reached())
        metrics = deployment.admin("/metrics")[1]
    assert 'mcp_sidecar_opa_faults_total{fault="set_aside"}' in metrics
