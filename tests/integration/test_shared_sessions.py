"""Two sidecars of one address as two processes that share session keys: what one opened, the other goes on with."""

import asyncio
import base64
import os
from functools import partial

import pytest

from sidecar.demo.client import DemoClient
from sidecar.demo.identities import ANALYST, LOADER
from tests.integration.deployment import deployed, wait_until
from tests.patience import HANG_S
from tests.signer import ISSUER

ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders", "limit": 1}


@pytest.fixture
def pair(tmp_path, database, database_name):
    keys = tmp_path / "keys"
    keys.write_text(base64.b64encode(os.urandom(32)).decode() + "\n")
    (tmp_path / "store").write_text(database)
    shared = (
        f'session_keys_file = "{keys}"\nsessions = {{ ended = "mongodb:ended" }}\n'
        f'mongodb = {{ uri_file = "{tmp_path}/store", database = "{database_name}" }}\n'
    )
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    with deployed(here, database, extra=shared) as first:
        trusted = f'[[issuers]]\nissuer = "{ISSUER}"\njwks_file = "{here}/jwks.json"\nalgorithms = ["ES256"]\n'
        same_address = {"SIDECAR_RESOURCE_URL": first.url}
        with deployed(there, database, extra=shared, issuers=trusted, environment=same_address) as second:
            yield first, second


class Agent:
    """An agent behind a balancer: one session and one token, at either sidecar."""

    def __init__(self, first, person=ANALYST):
        self.token = first.token(person)
        self.headers: dict[str, str] = {}

    async def open(self, deployment):
        async with DemoClient(deployment.url, self.token, "test") as client:
            answer = await client.initialize()
            self.headers = dict(client._headers)
        return answer.status

    async def call(self, deployment, token=None):
        async with DemoClient(deployment.url, self.token, "test") as client:
            client._headers = {**self.headers, "Authorization": f"Bearer {token or self.token}"}
            answer = await client.call("find", ORDERS)
        allowed = answer.status == 200 and bool(answer.result) and not answer.result.get("isError", False)
        return answer.status, allowed

    async def end(self, deployment):
        async with (
            DemoClient(deployment.url, self.token, "test") as client,
            client._http.delete(deployment.url, headers=self.headers) as answer,
        ):
            return answer.status


def rotated(path, *lines):
    beside = path.with_name("beside")
    beside.write_text("\n".join(lines) + "\n")
    beside.replace(path)


async def test_a_session_goes_on_at_the_other_sidecar_also_when_its_own_is_killed(pair):
    first, second = pair
    agent = Agent(first)
    assert await agent.open(first) == 200
    assert await agent.call(first) == (200, True)
    assert await agent.call(second) == (200, True)
    another = first.token(LOADER)
    assert [await agent.call(one, another) for one in pair] == [(404, False)] * 2, "the token counts, at both"
    first.process.kill()
    first.process.wait(HANG_S)
    assert await agent.call(second) == (200, True)
    assert len(second.records()) >= 4, "each sidecar has evidence of its own"


async def test_what_was_ended_at_one_is_ended_at_the_other(pair):
    first, second = pair
    agent, other = Agent(first), Agent(first)
    for one in (agent, other):
        await one.open(first)
        assert await one.call(second) == (200, True)
    assert await agent.end(second) < 300
    assert await agent.call(second) == (404, False)
    await asyncio.to_thread(wait_until, lambda: asyncio.run(agent.call(first)) == (404, False), "the other to know")
    assert await other.call(first) == (200, True)


async def test_keys_are_rotated_under_open_sessions(pair):
    first, second = pair
    path = first.folder.parent / "keys"
    old, new = path.read_text().strip(), base64.b64encode(os.urandom(32)).decode()
    before = Agent(first)
    await before.open(first)
    for times, lines in enumerate(((old, new), (new, old)), 1):
        rotated(path, *lines)
        for deployment in pair:
            await asyncio.to_thread(wait_until, partial(took_up, deployment, times), "the keys to be read")
        assert [await before.call(one) for one in pair] == [(200, True)] * 2
    after = Agent(first)
    await after.open(second)
    assert await after.call(first) == (200, True)


def took_up(deployment, times):
    """Whether the log says so often that a changed file is used."""
    return deployment.log_file.read_text().count("session_keys_file: what changed is used") == times
