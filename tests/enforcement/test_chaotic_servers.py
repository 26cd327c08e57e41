"""A child that dies, hangs, floods, or answers what nobody asked, as clients see it.

Each gets its own answer or an error. ``tests/upstream/test_stdio_faults.py`` has each fault at the child; here are the
same through the endpoint, in both eras, while another user is served by the same child.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sidecar.model import JsonObject
from sidecar.opa.managed import ManagedOpa
from sidecar.upstream.process import StdioUpstream
from tests.enforcement.streaming import ORDERS, Streaming, call, message, streaming
from tests.patience import HANG_S
from tests.policy_sets import served

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]

SERVER = Path(__file__).with_name("chaotic_server.py")
STATELESS = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "find"}
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
HONEST = {"flooding", "answering twice", "answering unknown ids", "answering in a batch", "garbage", "asking"}
LOST = {"killed": "upstream_unreachable", "silent": "upstream_timeout", "hung": "upstream_timeout"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def run(opa_binary, offered) -> AsyncIterator[Streaming]:
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        tools = Path(folder) / "tools.json"
        tools.write_text(json.dumps(offered))
        upstream = StdioUpstream(
            "demo-ro",
            [sys.executable, str(SERVER), str(tools)],
            {},
            timeout_s=4.0,
            start_timeout_s=HANG_S,
            ready_wait_s=HANG_S,
            stop_grace_s=0.5,
        )
        await upstream.start()
        try:
            async with (
                ManagedOpa(opa_binary, served(), directory=Path(folder), timeout_s=HANG_S) as opa,
                streaming(opa, offered, _nobody, lasts_s=None, upstream=upstream) as running,
            ):
                yield running
        finally:
            await upstream.stop()


async def _nobody(_: object) -> str:
    raise AssertionError("the scripted server is not used")


def find(text: str, fault: str = "") -> JsonObject:
    return {"name": "find", "arguments": {**ORDERS, "filter": {"of": text, "fault": fault}, "limit": 1}}


async def ask(run: Streaming, session: str | None, user: str, number: int, params: JsonObject) -> Any:
    body = call(number, params=params) if session else message("tools/call", {**params, "_meta": ENVELOPE}, number)
    more = {} if session else STATELESS
    async with run.http.post(run.url, json=body, headers=run.headers(session, user, **more)) as answer:
        return await answer.json()


def text(answer: Any) -> str:
    said: str = answer["result"]["content"][0]["text"]
    return said


@pytest.mark.parametrize("era", ["handshake", "stateless"])
@pytest.mark.parametrize("fault", sorted(HONEST))
async def test_what_a_server_says_beside_its_answers_reaches_nobody(run: Streaming, fault: str, era: str) -> None:
    session = await run.open() if era == "handshake" else None
    other = await run.open("bob")
    calls = [ask(run, session, "alice", 7, find("alice", fault))]
    calls += [ask(run, other, "bob", number, find(f"bob {number}")) for number in range(1, 6)]
    async with asyncio.timeout(HANG_S):
        first, *others = await asyncio.gather(*calls)
    assert (first["id"], text(first)) == (7, "alice")
    assert [(one["id"], text(one)) for one in others] == [(number, f"bob {number}") for number in range(1, 6)]


@pytest.mark.parametrize("era", ["handshake", "stateless"])
@pytest.mark.parametrize("fault", sorted(LOST))
async def test_a_call_that_its_server_does_not_answer_ends_with_an_error_and_the_next_one_works(
    run: Streaming, fault: str, era: str
) -> None:
    session = await run.open() if era == "handshake" else None
    async with asyncio.timeout(HANG_S):
        lost = await ask(run, session, "alice", 7, find("alice", fault))
    assert lost["id"] == 7
    assert "stolen" not in json.dumps(lost)
    assert lost["result"]["isError"]
    assert run.outcomes()[-1][1] == LOST[fault]
    other = await run.open("bob")
    async with asyncio.timeout(HANG_S):
        while (answer := await ask(run, other, "bob", 8, find("bob")))["result"].get("isError"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert (answer["id"], text(answer)) == (8, "bob")
    assert not run.pep._calls._under_way._calls
