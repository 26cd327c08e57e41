"""After a change of policies those are told whose list of tools is another one, and nobody else."""

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sidecar.errors import DecisionUnavailable
from sidecar.model import JsonObject, Permit
from sidecar.opa.managed import ManagedOpa
from sidecar.ports import PdpAnswer, Question
from tests.enforcement.streaming import Streaming, events, message, streaming
from tests.enforcement.test_without_sessions import TOOLS, listening
from tests.patience import HANG_S
from tests.policy_sets import quick_copy, served

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]


class NextPolicies:
    """The real policies, and another set of them to which bob is nobody's analyst."""

    def __init__(self, real: ManagedOpa) -> None:
        self.real = real
        self.changed = False
        self.away = False
        self.asked = asyncio.Event()
        self.answering = asyncio.Event()
        self.answering.set()

    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        self.asked.set()
        await self.answering.wait()
        if self.away:
            raise DecisionUnavailable("away")
        if not self.changed:
            return await self.real.ask(question, document)
        subject = document["subject"]
        assert isinstance(subject, dict)
        if subject["id"] == "bob":
            document = {**document, "subject": {**subject, "groups": []}}
        answer = await self.real.ask(question, document)
        return replace(answer, revision=f"{answer.revision}-next")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opa(opa_binary):
    with tempfile.TemporaryDirectory(prefix="opa-") as folder:
        async with ManagedOpa(opa_binary, served(), directory=Path(folder), timeout_s=10.0) as running:
            yield running


async def never_called(permit: Permit) -> str:
    raise AssertionError("nothing is called here")


async def listed(run: Streaming, session: str, user: str) -> list[str]:
    async with run.post(session, message("tools/list"), user) as answer:
        return [tool["name"] for tool in (await answer.json())["result"]["tools"]]


async def heard(stream: Any) -> list[str]:
    """What a stream has to tell until it is quiet; a keep-alive is no news."""
    found = []
    try:
        async for event in events(stream):
            if event.message:
                found.append(event.message["method"])
                if len(found) == 2:
                    break
    except TimeoutError:
        pass
    return found


async def test_only_the_caller_whose_list_changes_is_told(opa, offered) -> None:
    policies = NextPolicies(opa)
    async with streaming(policies, offered, never_called) as run:
        hers, his, unlisted = await run.open(), await run.open("bob"), await run.open()
        before = {"alice": await listed(run, hers, "alice"), "bob": await listed(run, his, "bob")}
        async with (
            run.listen(hers) as alices,
            run.listen(his, user="bob") as bobs,
            run.listen(unlisted) as others,
        ):
            for stream in (alices, bobs, others):
                await stream.content.readuntil(b": keep-alive\n\n")
            policies.changed = True
            run.pep.policies_changed()
            news = run.pep._news._looking
            assert news is not None
            await asyncio.wait_for(news, HANG_S)
            assert await listed(run, hers, "alice") == before["alice"]
            assert await listed(run, his, "bob") != before["bob"]
            async with run.http.delete(run.url, headers=run.headers(hers)):
                assert await heard(alices) == []
            async with run.http.delete(run.url, headers=run.headers(his, "bob")):
                assert await heard(bobs) == ["notifications/tools/list_changed"]
            async with run.http.delete(run.url, headers=run.headers(unlisted)):
                assert await heard(others) == ["notifications/tools/list_changed"], "it is not known what it has"
        assert not run.pep._news._sent, "nothing is kept of sessions that are over"


async def test_who_listens_without_a_session_is_told_of_its_own_list_and_of_no_other(opa, offered) -> None:
    policies = NextPolicies(opa)
    async with (
        streaming(policies, offered, never_called) as run,
        listening(run, TOOLS) as alices,
        listening(run, TOOLS, 2, "bob") as bobs,
        listening(run, {"promptsListChanged": True}, 3, "bob") as others,
    ):
        for stream in (alices, bobs, others):
            assert (await anext(stream))["method"] == "notifications/subscriptions/acknowledged"
        for changed in (True, False):
            policies.changed = changed
            run.pep.policies_changed()
            news = run.pep._news._looking
            assert news is not None
            await asyncio.wait_for(news, HANG_S)
            told: Any = await asyncio.wait_for(anext(bobs), HANG_S)
            assert told["method"] == "notifications/tools/list_changed"
            assert told["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": 2}
        run.pep.close_streams()
        for stream, number in ((alices, 1), (bobs, 2), (others, 3)):
            assert [one.get("id") async for one in stream] == [number], "it ends, and nothing was told before"
    assert not run.pep._news._sent
    assert not run.pep._news._without_session, "nothing is kept of requests that are over"


async def test_a_caller_whose_list_cannot_be_made_now_is_told(opa, offered) -> None:
    policies = NextPolicies(opa)
    async with streaming(policies, offered, never_called) as run:
        session = await run.open()
        await listed(run, session, "alice")
        async with run.listen(session) as stream:
            await stream.content.readuntil(b": keep-alive\n\n")
            policies.away = True
            run.pep.policies_changed()
            first = await anext(event async for event in events(stream) if event.message)
        assert first.message["method"] == "notifications/tools/list_changed"


async def test_a_caller_who_listens_anew_while_lists_are_compared_is_told(opa, offered) -> None:
    policies = NextPolicies(opa)
    async with streaming(policies, offered, never_called) as run:
        his = await run.open("bob")
        before = await listed(run, his, "bob")
        async with run.listen(his, user="bob") as stream:
            began = await anext(events(stream))
        policies.changed = True
        policies.asked.clear()
        policies.answering.clear()
        run.pep.policies_changed()
        await asyncio.wait_for(policies.asked.wait(), HANG_S)
        async with run.listen(his, began.id, "bob") as stream:
            await stream.content.readuntil(b": keep-alive\n\n")
            policies.answering.set()
            told = await asyncio.wait_for(anext(event async for event in events(stream) if event.message), HANG_S)
        assert told.message["method"] == "notifications/tools/list_changed"
        assert await listed(run, his, "bob") != before


async def test_a_managed_opa_tells_of_every_set_that_serves_after_the_first(opa_binary, tmp_path) -> None:

    policies = quick_copy(tmp_path / "policies")
    served: list[str] = []
    told = asyncio.Event()
    with tempfile.TemporaryDirectory(prefix="opa-") as folder:
        async with ManagedOpa(opa_binary, policies, directory=Path(folder), timeout_s=10.0, reload_s=0.2) as running:

            def note() -> None:
                served.append(running.revision)
                told.set()

            running.on_served(note)
            first = running.revision
            file = policies / "platform" / "data.json"
            file.write_text(file.read_text() + "\n")
            async with asyncio.timeout(HANG_S):
                await told.wait()
            assert served == [running.revision]
            assert running.revision != first
