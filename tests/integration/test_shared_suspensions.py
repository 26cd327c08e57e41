"""Two sidecars of one shared store, as two processes: a command to one of them binds at both."""

import asyncio

import msgspec
import pytest

from sidecar.control.client import ControlError, send
from sidecar.demo.identities import ANALYST, LOADER
from tests.integration.deployment import deployed, wait_until
from tests.store.shared_database import way_to

ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders", "limit": 1}


def settings(folder, uri, name):
    (folder / "store").write_text(uri)
    return (
        f'control_listen = "unix:{folder}/control"\nsuspensions = "mongodb:suspensions"\n'
        f'[mongodb]\nuri_file = "{folder}/store"\ndatabase = "{name}"\ntimeout_ms = 1000\nstale_after_s = 2\n'
    )


@pytest.fixture
def pair(tmp_path, database, database_name):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    with (
        deployed(here, database, extra=settings(here, database, database_name)) as first,
        deployed(there, database, extra=settings(there, database, database_name)) as second,
    ):
        yield first, second


def command(deployment, name, **of_it):
    return send(f"unix:{deployment.folder}/control", name, of_it, None)


def answered(deployment):
    """Whether a call of the analyst's agent is let through (a new session each time)."""

    async def ask():
        async with deployment.plain(ANALYST) as client:
            if (await client.initialize()).status != 200:
                return False
            answer = await client.call("find", ORDERS)
            return answer.status == 200 and bool(answer.result) and not answer.result.get("isError", False)

    return asyncio.run(ask())


def test_a_suspension_at_one_sidecar_binds_at_the_other_and_so_does_its_end(pair):
    first, second = pair
    wait_until(lambda: answered(first) and answered(second), "both to answer")
    target = {"kind": "user", "subject": ANALYST.user}
    done = command(first, "suspend", reason="a test", **target)
    assert done["stored"]
    assert not answered(first)
    wait_until(lambda: not answered(second), "the other to refuse")
    [listed] = command(second, "suspended")["suspended"]
    assert (listed["subject"], listed["operator"]) == (ANALYST.user, done["suspended"]["operator"])
    command(second, "resume", **target)
    wait_until(lambda: answered(first) and answered(second), "both to answer again")
    with pytest.raises(ControlError, match="not suspended"):
        command(first, "resume", **target)


async def test_no_call_touches_the_database_of_the_shared_store_even_where_policy_allows_it(tmp_path, database):
    with deployed(tmp_path, database, extra=settings(tmp_path, database, "sales")) as one:
        assert "the shared store (sales) is in the deployment of the server demo-ro" in one.log_file.read_text()
        status, body = one.admin("/readyz")
        assert status == 200
        assert {"shared_store:demo-ro", "shared_store:demo-rw"} <= set(msgspec.json.decode(body)["degraded"])
        lookup = {"$lookup": {"from": {"db": "sales", "coll": "orders"}, "pipeline": [], "as": "x"}}
        near = {"connectionId": "preconfigured", "database": "staging", "collection": "orders"}
        async with one.plain(LOADER) as client:
            await client.initialize()
            for tool, arguments in (
                ("find", ORDERS),
                ("count", {**near, "database": "SALES"}),
                ("aggregate", {**near, "pipeline": [lookup]}),
            ):
                refused = await client.call(tool, arguments)
                assert refused.result["isError"], (tool, refused)
            answer = await client.call("count", near)
            assert not answer.result.get("isError", False)
        assert [call["arguments"]["database"] for call in one.all_reached()] == ["staging"]
        refusals = [row for row in one.records() if row["event"] == "refusal"]
        assert len(refusals) == 3
        assert "own_database" in str(refusals)


async def test_a_sidecar_that_cannot_read_the_shared_store_refuses_and_is_not_ready(tmp_path, database, database_name):
    async with way_to(database) as way:
        # The way runs on this loop, so everything that blocks is given to a thread.
        def run(stage):
            with deployed(tmp_path, database, extra=settings(tmp_path, way.uri, database_name)) as one:
                before = answered(one)
                stage(way.vanish())
                wait_until(lambda: one.admin("/readyz")[0] == 503, "readiness to say so")
                without = (one.admin("/readyz")[1], answered(one))
                stage(way.appear())
                wait_until(lambda: one.ready() and answered(one), "it to come back by itself")
                return before, without

        loop = asyncio.get_running_loop()
        before, (readiness, served) = await asyncio.to_thread(
            run, lambda step: asyncio.run_coroutine_threadsafe(step, loop).result(30)
        )
        assert before
        assert "suspensions" in readiness
        assert not served
