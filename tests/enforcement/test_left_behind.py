"""What a client leaves behind: an answer that it never read, a list whose session is over; nothing of it stays."""

import asyncio
import json
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from sidecar.enforcement import notices
from sidecar.enforcement.notices import MAX_OF_SESSION
from sidecar.model import JsonObject, Permit
from sidecar.opa.managed import ManagedOpa
from sidecar.ports import PdpAnswer, Question
from tests.enforcement.streaming import Streaming, call, message, streaming
from tests.enforcement.test_streams import Held, told
from tests.patience import HANG_S, until
from tests.policy_sets import served

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opa(opa_binary):
    with tempfile.TemporaryDirectory(prefix="opa-") as folder:
        async with ManagedOpa(opa_binary, served(), directory=Path(folder), timeout_s=10.0) as running:
            yield running


class SlowPolicies:
    """The real policies, which answer when a test lets them."""

    def __init__(self, real: ManagedOpa) -> None:
        self.real = real
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        self.asked.set()
        await self.go_on.wait()
        return await self.real.ask(question, document)


async def call_and_leave(run: Streaming, held: Held, session: str, number: int) -> Permit:
    """Send a call, and leave once it is with its server and before its answer has become a stream."""
    address = urlsplit(run.url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    body = json.dumps(call(number, token=number)).encode()
    head = {"Host": address.netloc, "Content-Length": str(len(body)), **run.headers(session)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    writer.write(f"POST {address.path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
    permit = await asyncio.wait_for(held.arrived.get(), HANG_S)
    writer.close()
    await asyncio.sleep(0.05)  # the endpoint has seen that it left
    return permit


async def test_answers_that_were_never_read_make_room_like_those_that_were(opa, offered):
    held = Held()
    async with streaming(opa, offered, held) as run:
        session = await run.open()
        for number in range(MAX_OF_SESSION + 10):
            held.release.clear()
            told(await call_and_leave(run, held, session, number), 1)
            await until(lambda: not run.pep._answering._under_way or len(run.pep._notices))
            held.release.set()
            await until(lambda: not run.pep._answering._under_way)
        assert 0 < len(run.pep._notices) <= MAX_OF_SESSION


async def test_an_answer_that_was_never_read_is_not_kept_for_ever(opa, offered, monkeypatch):
    monkeypatch.setattr(notices, "KEEP_S", 0.0)
    held = Held()
    async with streaming(opa, offered, held) as run:
        session = await run.open()
        told(await call_and_leave(run, held, session, 1), 1)
        await until(lambda: len(run.pep._notices) == 1)
        held.release.set()
        await until(lambda: not run.pep._answering._under_way)
        await until(lambda: not len(run.pep._notices))


async def test_answers_that_were_never_read_count_towards_what_is_held(opa, offered, monkeypatch):
    monkeypatch.setattr(notices, "MAX_UNREAD_BYTES", 100_000)
    held = Held()
    held.text = "x" * 60_000
    async with streaming(opa, offered, held) as run:
        session = await run.open()
        for number in range(3):
            held.release.clear()
            told(await call_and_leave(run, held, session, number), 1)
            held.release.set()
            await until(lambda: not run.pep._answering._under_way)
        assert sum(stream.size for stream in run.pep._notices._streams.values()) <= 100_000


async def test_a_list_that_comes_after_the_end_of_its_session_is_not_kept(opa, offered):
    policies = SlowPolicies(opa)
    async with streaming(policies, offered, Held()) as run:
        session = await run.open()
        listing = asyncio.create_task(_status(run, session))
        await asyncio.wait_for(policies.asked.wait(), HANG_S)
        async with run.http.delete(run.url, headers=run.headers(session)) as ended:
            assert ended.status == 204
        policies.go_on.set()
        assert await listing in {200, 404}
        assert not run.pep._news._sent


async def _status(run: Streaming, session: str) -> int:
    async with run.post(session, message("tools/list")) as answer:
        status: int = answer.status
        return status
