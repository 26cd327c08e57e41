"""A server's question reaches the client whose call it is, and only that client's answer counts, once."""

import asyncio
import json
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Self

import pytest
import pytest_asyncio

from sidecar.enforcement import SharedSessions
from sidecar.identity import Suspendable, SuspensionTarget
from sidecar.mcp import EndedSessions, HandleKeys
from sidecar.mcp.questions import MAX_FORM_BYTES
from sidecar.model import JsonObject, Permit
from sidecar.opa.managed import ManagedOpa
from sidecar.ports import PdpAnswer, Question
from sidecar.system.clock import SystemClock
from tests.enforcement.streaming import Streaming, call, events, message, streaming
from tests.patience import HANG_S
from tests.policy_sets import served

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]

QUESTION: JsonObject = {
    "message": "Delete it?",
    "requestedSchema": {
        "type": "object",
        "properties": {"confirmation": {"type": "string", "enum": ["Yes", "No"]}},
        "required": ["confirmation"],
    },
}
YES = {"action": "accept", "content": {"confirmation": "Yes"}}
ELICITS: dict[str, Any] = {"elicitation": {}}


async def asking(permit: Permit) -> str:
    """What a server does that asks before it acts: the text tells whether it acted."""
    if permit.confirm is None:
        return "not asked"
    answer = await permit.confirm(QUESTION)
    permit.leaving()
    return f"acted on {json.dumps(answer)}"


class ChangingPolicy:
    """The real policies, until a test withdraws what they allowed."""

    def __init__(self, real: ManagedOpa) -> None:
        self.real = real
        self.refuses = False
        self.decisions = 0
        self.times: list[Any] = []

    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        if question is Question.DECISION:
            self.decisions += 1
            self.times.append(document["context"]["time_ns"])  # type: ignore[index,call-overload]
            if self.refuses:
                document = {**document, "subject": {**document["subject"], "groups": []}}  # type: ignore[dict-item]
        return await self.real.ask(question, document)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opa(opa_binary):
    with tempfile.TemporaryDirectory(prefix="opa-") as folder:
        async with ManagedOpa(opa_binary, served(), directory=Path(folder), timeout_s=10.0) as running:
            yield running


@pytest.fixture
def policy(opa) -> ChangingPolicy:
    return ChangingPolicy(opa)


@pytest.fixture
def endpoint(policy, offered) -> Callable[..., AbstractAsyncContextManager[Streaming]]:
    def start(**changes: Any) -> AbstractAsyncContextManager[Streaming]:
        return streaming(policy, offered, asking, **changes)

    return start


class Asked:
    """A call whose question was read, and its stream."""

    def __init__(self, run: Streaming, session: str, user: str = "alice", number: int = 5) -> None:
        self.run, self.session, self.user, self.number = run, session, user, number
        self.question: Any = None
        self.last_id = ""
        self.rest: list[Any] = []

    async def __aenter__(self) -> Self:
        self.response = await self.run.post(self.session, call(self.number), self.user)
        self.events = events(self.response)
        async for event in self.events:
            if event.message:
                self.question, self.last_id = event.message, event.id
                break
        assert self.question["method"] == "elicitation/create", self.question
        return self

    async def __aexit__(self, *_: object) -> None:
        self.response.close()

    async def reply(self, result: Any, session: str | None = None, user: str | None = None, number: Any = None) -> int:
        body = {"jsonrpc": "2.0", "id": self.question["id"] if number is None else number, "result": result}
        async with self.run.post(session or self.session, body, user or self.user) as answer:
            status: int = answer.status
            return status

    async def answer(self) -> str:
        async with asyncio.timeout(HANG_S):
            async for event in self.events:
                if event.message and event.message.get("id") == self.number:
                    said: str = event.message["result"]["content"][0]["text"]
                    return said
                self.rest.append(event.message)
        raise AssertionError("the stream ended without an answer")


async def test_the_question_is_on_the_stream_of_its_call_and_a_confirmation_is_evidence(endpoint, policy):
    async with endpoint() as run, Asked(run, await run.open(**ELICITS)) as asked:
        assert asked.question["params"] == QUESTION
        assert await asked.reply(YES) == 202
        assert await asked.answer() == f"acted on {json.dumps(YES)}"
        assert policy.decisions == 2, "it was decided once more"
        rows = [json.loads(line) for line in run.audit.read_bytes().splitlines()]  # noqa: TID251 - our own file
        [outcome] = [row["outcome"] for row in rows if row["event"] == "outcome"]
        assert (outcome["status"], outcome["confirmation"]) == ("ok", "client")
        assert len(run.pep._calls.asked) == 0


@pytest.mark.parametrize(
    "capabilities", [{}, {"elicitation": None}, {"elicitation": {"url": {}}}, {"sampling": {}}], ids=repr
)
async def test_a_client_that_cannot_be_asked_is_not_asked(endpoint, capabilities):
    async with endpoint() as run:
        session = await run.open(**capabilities)
        async with run.post(session, call()) as answer:
            assert (await answer.json())["result"]["content"][0]["text"] == "not asked"
        [outcome] = run.outcomes()
        assert outcome == ("ok", None)


@pytest.mark.parametrize("capabilities", [{}, {"form": {}}, {"form": {}, "url": {}}], ids=repr)
async def test_a_client_that_can_be_asked_in_a_form_is(endpoint, capabilities):
    async with endpoint() as run, Asked(run, await run.open(elicitation=capabilities)) as asked:
        assert asked.question["params"] == QUESTION


@pytest.mark.parametrize(
    "reply",
    [
        {"action": "decline"},
        {"action": "cancel"},
        {"action": "Accept", "content": {"confirmation": "Yes"}},
        {"action": "accept"},
        {"action": "accept", "content": {"confirmation": "Yes", "more": 1}},
        {"action": "accept", "content": {"confirmation": {"$ne": 1}}},
        {"action": "accept", "content": {"confirmation": "Y" * (MAX_FORM_BYTES + 1)}},
        {},
    ],
    ids=lambda reply: str(reply)[:60],
)
async def test_anything_but_a_filled_in_form_ends_the_call_as_not_confirmed(endpoint, policy, reply):
    async with endpoint() as run, Asked(run, await run.open(**ELICITS)) as asked:
        assert await asked.reply(reply) == 202
        assert "asks for a confirmation" in await asked.answer()
        assert run.outcomes() == [("cancelled", "not_confirmed")]
        assert policy.decisions == 1


async def test_an_error_for_an_answer_and_no_answer_in_time_do_not_confirm(endpoint):
    async with endpoint() as run:
        session = await run.open(**ELICITS)
        async with Asked(run, session) as asked:
            body = {"jsonrpc": "2.0", "id": asked.question["id"], "error": {"code": -32601, "message": "no"}}
            async with run.post(session, body) as answer:
                assert answer.status == 202
            assert "asks for a confirmation" in await asked.answer()
        run.pep._calls.asked._wait_s = 0.1
        async with Asked(run, session, number=6) as late:
            assert "asks for a confirmation" in await late.answer()
            assert late.rest[0]["params"] == {"requestId": late.question["id"]}
            assert await late.reply(YES) == 202, "too late, and dropped"
        assert run.outcomes() == [("cancelled", "not_confirmed")] * 2


async def test_only_the_asked_session_of_the_asked_identity_answers(endpoint):
    async with endpoint() as run:
        session, other, foreign = await run.open(**ELICITS), await run.open(**ELICITS), await run.open("bob", **ELICITS)
        async with Asked(run, session) as asked, Asked(run, foreign, "bob") as bobs:
            assert await asked.reply(YES, session, "bob") == 404
            assert await asked.reply(YES, foreign, "bob") == 202
            assert await asked.reply(YES, other) == 202
            for number in ("ask-1", asked.question["id"] + "x", asked.question["id"].upper(), 5, 0, "5"):
                assert await asked.reply(YES, number=number) == 202
            assert await asked.reply(YES, number=bobs.question["id"]) == 202, "bob's question in alice's session"
            assert len(run.pep._calls.asked) == 2, "both are still open"
            assert await bobs.reply({"action": "decline"}) == 202
            assert "asks for a confirmation" in await bobs.answer()
            assert len(run.pep._calls.asked) == 1
            assert await asked.reply(YES) == 202
            assert (await asked.answer()).startswith("acted")


async def test_what_a_session_has_at_one_sidecar_is_not_had_at_another_one(endpoint):
    """An answer that gets there is dropped, and the call ends as not confirmed; an event id is one of no stream."""
    keys = HandleKeys([b"k" * 32], "http://127.0.0.1/mcp")
    here, there = (SharedSessions(lambda: keys, EndedSessions(), SystemClock(), lifetime_s=1000) for _ in range(2))
    async with endpoint(shared_sessions=here) as run, endpoint(shared_sessions=there) as other:
        run.pep._calls.asked._wait_s = 0.5
        session = await run.open(**ELICITS)
        async with Asked(run, session) as asked:
            answer = {"jsonrpc": "2.0", "id": asked.question["id"], "result": YES}
            async with other.post(session, answer) as taken:
                assert taken.status == 202, "the session is good there"
            async with other.listen(session, asked.last_id) as stream:
                other.pep.tools_changed()
                found = await anext(event.message async for event in events(stream) if event.message)
                assert found["method"] == "notifications/tools/list_changed", "a new stream, and no replay"
            assert "asks for a confirmation" in await asked.answer()
        async with other.post(session, call(6)) as elsewhere:
            text = (await elsewhere.json())["result"]["content"][0]["text"]
        assert text == "not asked", "what its client can be asked was said at the first sidecar"
        assert run.outcomes() == [("cancelled", "not_confirmed")]
        async with run.listen(session, asked.last_id) as stream:
            again = [event.message async for event in events(stream) if event.message]
            assert again[-1]["id"] == asked.number, "at its own sidecar it is resumed"


async def test_an_answer_counts_once(endpoint):
    async with endpoint() as run:
        session = await run.open(**ELICITS)
        async with Asked(run, session) as asked:
            assert await asked.reply({"action": "decline"}) == 202
            assert await asked.reply(YES) == 202
            assert "asks for a confirmation" in await asked.answer()
        async with Asked(run, session, number=6) as again:
            assert again.question["id"] != asked.question["id"]
            assert await again.reply(YES, number=asked.question["id"]) == 202
            assert len(run.pep._calls.asked) == 1, "an earlier answer confirms no later call"


async def test_an_answer_without_a_session_is_refused(endpoint):
    async with endpoint() as run, Asked(run, await run.open(**ELICITS)) as asked:
        body = {"jsonrpc": "2.0", "id": asked.question["id"], "result": YES}
        headers = {**run.headers(), "MCP-Protocol-Version": "2025-11-25"}
        async with run.http.post(run.url, json=body, headers=headers) as answer:
            assert answer.status == 400
        assert len(run.pep._calls.asked) == 1


async def test_what_is_no_longer_allowed_when_the_user_confirms_is_not_carried_out(endpoint, policy):
    async with endpoint() as run, Asked(run, await run.open(**ELICITS)) as asked:
        policy.refuses = True
        assert await asked.reply(YES) == 202
        assert "acted" not in await asked.answer()
        assert run.outcomes() == [("error", "policy_denied")]


async def test_a_confirmed_call_is_decided_as_of_its_confirmation(endpoint, policy):
    """Hours and grants that ended while the user thought must not allow it."""
    async with endpoint() as run, Asked(run, await run.open(**ELICITS)) as asked:
        await asyncio.sleep(1.1)  # questions have whole seconds
        assert await asked.reply(YES) == 202
        assert (await asked.answer()).startswith("acted")
        first, second = policy.times
        assert second > first


async def test_a_call_is_not_confirmed_once_its_token_has_expired(endpoint, policy):
    """A later token may have fewer rights; the session is its identity's still."""
    async with endpoint() as run:
        session = await run.open(**ELICITS)
        async with Asked(run, session, "alice-2") as asked:
            await asyncio.sleep(2.1)
            assert await asked.reply(YES, user="alice") == 202
            async with asyncio.timeout(HANG_S):
                while not run.outcomes():  # noqa: ASYNC110 -- evidence has no event of its own
                    await asyncio.sleep(0.01)
            assert run.outcomes() == [("cancelled", "not_confirmed")]
            assert policy.decisions == 1


@pytest.mark.parametrize("how", ["cancel", "suspend", "delete"])
async def test_a_call_that_is_ended_while_its_user_thinks_is_not_carried_out(endpoint, how):
    async with endpoint() as run:
        session = await run.open(**ELICITS)
        async with Asked(run, session) as asked:
            match how:
                case "cancel":
                    body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}
                    async with run.post(session, body) as answer:
                        assert answer.status == 202
                case "suspend":
                    ended = run.pep.take_away(
                        SuspensionTarget(kind=Suspendable.USER, issuer="https://idp.example", subject="alice")
                    )
                    assert (ended.calls, ended.writes) == (1, 0)
                case _:
                    async with run.http.delete(run.url, headers=run.headers(session)) as answer:
                        assert answer.status == 204
            assert await asked.reply(YES) == (202 if how == "cancel" else 404)
            async with asyncio.timeout(HANG_S):
                while not run.outcomes():  # noqa: ASYNC110 -- evidence has no event of its own
                    await asyncio.sleep(0.01)
            assert run.outcomes()[0][0] == "cancelled"
            assert len(run.pep._calls.asked) == 0


async def test_the_members_of_a_batch_are_not_asked_about(endpoint):
    async with endpoint() as run:
        session = await run.open(revision="2025-03-26", **ELICITS)
        async with run.post(session, [call(1), message("ping", number=2)]) as answer:
            first, _ = await answer.json()
        assert first["result"]["content"][0]["text"] == "not asked"
