"""Without a session a call ends with the server's question, and its answer counts for that call only, and once."""

import asyncio
import json
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sidecar.errors import NotConfirmed
from sidecar.identity import Suspendable, Suspension, SuspensionTarget
from sidecar.model import JsonObject, Permit
from sidecar.opa.managed import ManagedOpa
from tests.enforcement.streaming import FIND, ORDERS, Streaming, message, streaming
from tests.enforcement.test_confirmations import QUESTION, YES, ChangingPolicy
from tests.policy_sets import served

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]

PREFIX = "io.modelcontextprotocol/"
FORM: Any = {"elicitation": {}}


class AskingServer:
    """A server that asks before it acts, and writes down what it did and the answers that it was given."""

    def __init__(self) -> None:
        self.question: JsonObject = QUESTION
        self.required = False
        self.acted: list[JsonObject | None] = []

    async def __call__(self, permit: Permit) -> str:
        answer = None
        if permit.confirm is not None:
            answer = await permit.confirm(self.question)
        elif self.required:
            raise NotConfirmed("its client cannot be asked")
        permit.leaving()
        self.acted.append(answer)
        return f"acted on {json.dumps(answer)}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opa(opa_binary):
    with tempfile.TemporaryDirectory(prefix="opa-") as folder:
        async with ManagedOpa(opa_binary, served(), directory=Path(folder), timeout_s=10.0) as running:
            yield running


@pytest.fixture
def policy(opa) -> ChangingPolicy:
    return ChangingPolicy(opa)


@pytest.fixture
def server() -> AskingServer:
    return AskingServer()


@pytest.fixture
def endpoint(policy, offered, server) -> Callable[..., AbstractAsyncContextManager[Streaming]]:
    def start(**changes: Any) -> AbstractAsyncContextManager[Streaming]:
        return streaming(policy, offered, server, **changes)

    return start


async def post(
    run: Streaming, params: Any = FIND, user: str = "alice", capabilities: Any = FORM, **more: Any
) -> tuple[int, Any]:
    """Call, and return the status and the message that answers."""
    meta = {f"{PREFIX}protocolVersion": "2026-07-28", f"{PREFIX}clientCapabilities": capabilities}
    headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": params["name"]}
    body = message("tools/call", {**params, "_meta": meta, **more}, 7)
    async with run.http.post(run.url, json=body, headers=run.headers(user=user, **headers)) as answer:
        return answer.status, await answer.json()


async def ask(run: Streaming, params: Any = FIND, user: str = "alice") -> str:
    """Call for the first time, and return the state of the question."""
    status, answer = await post(run, params, user)
    assert (status, answer["result"]["resultType"]) == (200, "input_required"), answer
    state: str = answer["result"]["requestState"]
    return state


def retry(state: str, answer: Any = YES) -> dict[str, Any]:
    return {"requestState": state, "inputResponses": {"confirmation": answer}}


def reason(answer: Any) -> str:
    """The first reason of a refused call."""
    assert answer["result"]["isError"]
    decision = answer["result"]["_meta"]["mcp-sidecar/decision"]
    code: str = decision["reasons"][0]["code"]
    return code


def records(run: Streaming) -> list[Any]:
    return [json.loads(line) for line in run.audit.read_bytes().splitlines()]  # noqa: TID251 - our own file


async def test_a_call_ends_with_its_question_and_is_carried_out_when_it_comes_back_confirmed(endpoint, policy, server):
    async with endpoint() as run:
        status, answer = await post(run)
        result = answer["result"]
        assert (status, answer["id"], result["resultType"]) == (200, 7, "input_required")
        assert result["inputRequests"] == {"confirmation": {"method": "elicitation/create", "params": QUESTION}}
        assert server.acted == []
        assert run.outcomes() == [("cancelled", "input_required")]
        status, answer = await post(run, **retry(result["requestState"]))
        assert (status, answer["result"]["resultType"]) == (200, "complete")
        assert server.acted == [YES]
        assert policy.decisions == 2, "each request is decided"
        assert all("inputResponses" not in str(permit.call) for permit in run.server.permits)
        outcome = [row["outcome"] for row in records(run) if row["event"] == "outcome"][-1]
        assert (outcome["status"], outcome["confirmation"]) == ("ok", "client")


@pytest.mark.parametrize(
    "capabilities", [{}, {"elicitation": None}, {"elicitation": {"url": {}}}, {"sampling": {}}], ids=repr
)
async def test_a_client_that_does_not_say_that_it_can_be_asked_is_not_asked(endpoint, server, capabilities):
    async with endpoint() as run:
        _, answer = await post(run, capabilities=capabilities)
        assert answer["result"]["content"][0]["text"] == "acted on null"
        await ask(run)
        _, answer = await post(run, capabilities=capabilities)
        assert answer["result"]["resultType"] == "complete", "what another request said does not count"


async def test_where_a_confirmation_is_required_the_client_is_told_which_capability_it_lacks(endpoint, server):
    server.required = True
    async with endpoint() as run:
        status, answer = await post(run, capabilities={})
        assert (status, answer["error"]["code"], answer["id"]) == (400, -32021, 7)
        assert answer["error"]["data"] == {"requiredCapabilities": {"elicitation": {"form": {}}}}
        assert server.acted == []
        assert run.outcomes() == [("cancelled", "not_confirmed")]
        assert [row["event"] for row in records(run)] == ["intent", "outcome"]
        assert (await ask(run)) != ""


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_a_user_who_does_not_confirm_uses_the_question_up(endpoint, server, action):
    async with endpoint() as run:
        state = await ask(run)
        _, answer = await post(run, **retry(state, {"action": action}))
        assert reason(answer) == "not_confirmed"
        _, answer = await post(run, **retry(state))
        assert reason(answer) == "request_state_rejected"
        assert len(run.server.permits) == 1, "neither reached the server"
        assert server.acted == []


@pytest.mark.parametrize(
    "answer",
    [
        {"action": "accept"},
        {"action": "accept", "content": {"confirmation": "Yes", "more": 1}},
        {"action": "accept", "content": {"confirmation": {"$ne": 1}}},
        {"action": "accept", "content": {"Confirmation": "Yes"}},
    ],
    ids=str,
)
async def test_what_is_not_of_the_form_that_was_asked_for_confirms_nothing(endpoint, server, answer):
    async with endpoint() as run:
        _, said = await post(run, **retry(await ask(run), answer))
        assert reason(said) == "not_confirmed"
        assert len(run.server.permits) == 1


SHAPES: dict[str, Callable[[str], dict[str, Any]]] = {
    "no state": lambda _: {"inputResponses": {"confirmation": YES}},
    "no answers": lambda state: {"requestState": state},
    "no answer among them": lambda state: {"requestState": state, "inputResponses": {}},
    "answers are null": lambda state: {"requestState": state, "inputResponses": None},
    "answers are a list": lambda state: {"requestState": state, "inputResponses": [YES]},
    "one more": lambda state: {"requestState": state, "inputResponses": {"confirmation": YES, "other": YES}},
    "another": lambda state: {"requestState": state, "inputResponses": {"Confirmation": YES}},
    "an answer that is a text": lambda state: retry(state, "accept"),
    "no action": lambda state: retry(state, {"content": {"confirmation": "Yes"}}),
    "another action": lambda state: retry(state, {**YES, "action": "Accept"}),
    "an action that is a list": lambda state: retry(state, {**YES, "action": ["accept"]}),
    "a content that is a list": lambda state: retry(state, {**YES, "content": ["Yes"]}),
    "a state that is null": lambda _: {"requestState": None, "inputResponses": {"confirmation": YES}},
    "a state that is a list": lambda state: {"requestState": [state], "inputResponses": {"confirmation": YES}},
    "an empty state": lambda _: retry(""),
    "a state that is too long": lambda state: retry(state + "A" * 20_000),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_what_is_no_retry_is_refused_and_the_state_is_still_good(endpoint, server, shape):
    async with endpoint() as run:
        state = await ask(run)
        status, answer = await post(run, **SHAPES[shape](state))
        assert (status, answer["error"]["code"]) == (400, -32602)
        assert len(run.server.permits) == 1
        await post(run, **retry(state))
        assert server.acted == [YES]


OTHERS: dict[str, Any] = {
    "another argument": {**FIND, "arguments": {**ORDERS, "filter": {}, "limit": 2}},
    "one argument less": {**FIND, "arguments": {**ORDERS, "filter": {}}},
    "another collection": {**FIND, "arguments": {**ORDERS, "collection": "customers", "filter": {}, "limit": 1}},
    "another tool": {"name": "count", "arguments": ORDERS},
}


@pytest.mark.parametrize("other", OTHERS)
async def test_an_answer_confirms_no_other_call(endpoint, server, other):
    async with endpoint() as run:
        _, answer = await post(run, OTHERS[other], **retry(await ask(run)))
        assert answer["result"]["isError"]
        assert len(run.server.permits) == 1
        refusals = [row for row in records(run) if row["event"] == "refusal"]
        assert "state_foreign" in str(refusals[-1]) or "denied" in str(refusals[-1])


async def test_a_state_of_somebody_else_is_no_state_of_mine(endpoint, server):
    async with endpoint() as run:
        state = await ask(run)
        _, answer = await post(run, user="bob", **retry(state))
        assert reason(answer) == "request_state_rejected"
        assert "state_foreign" in str(records(run)[-1])
        assert server.acted == []
        await post(run, **retry(state))
        assert server.acted == [YES], "bob did not use it up"


async def test_arguments_in_another_order_are_the_same_call(endpoint, server):
    async with endpoint() as run:
        state = await ask(run)
        turned: Any = {"name": "find", "arguments": dict(reversed(FIND["arguments"].items()))}  # type: ignore[union-attr]
        await post(run, turned, **retry(state))
        assert server.acted == [YES]


async def test_an_altered_state_is_refused(endpoint, server):
    async with endpoint() as run:
        state = await ask(run)
        for place in (0, 5, 30, len(state) // 2, len(state) - 1):
            letter = "A" if state[place] != "A" else "E"
            altered = state[:place] + letter + state[place + 1 :]
            _, answer = await post(run, **retry(altered))
            assert reason(answer) == "request_state_rejected"
            assert "state_unreadable" in str(records(run)[-1])
        for spelled in (state + "=", state + " ", "é" + state, "abc"):
            _, answer = await post(run, **retry(spelled))
            assert reason(answer) == "request_state_rejected"
        assert len(run.server.permits) == 1


async def test_a_state_lasts_as_long_as_a_user_may_take(endpoint, server):
    async with endpoint() as run:
        state = await ask(run)
        run.pep._calls.confirmations._states.lifetime_s = 0
        _, answer = await post(run, **retry(state))
        assert reason(answer) == "request_state_rejected"
        assert "state_expired" in str(records(run)[-1])
        assert len(run.server.permits) == 1


async def test_another_process_without_the_keys_cannot_read_it(endpoint, server):
    async with endpoint() as run, endpoint() as other:
        _, answer = await post(other, **retry(await ask(run)))
        assert reason(answer) == "request_state_rejected"
        assert server.acted == []


async def test_of_many_retries_at_once_one_is_carried_out(endpoint, server):
    async with endpoint() as run:
        state = await ask(run)
        answers = await asyncio.gather(*(post(run, **retry(state)) for _ in range(6)))
        done = [answer for _, answer in answers if not answer["result"].get("isError")]
        assert len(done) == 1
        assert server.acted == [YES]
        assert len(run.server.permits) == 2
        refused = [answer for _, answer in answers if answer["result"].get("isError")]
        assert {reason(answer) for answer in refused} == {"request_state_rejected"}
        assert "state_used" in str(records(run))


async def test_a_question_that_changed_is_not_answered(endpoint, server):
    async with endpoint() as run:
        state = await ask(run)
        server.question = {**QUESTION, "message": "Delete them all?"}
        _, answer = await post(run, **retry(state))
        assert reason(answer) == "not_confirmed"
        assert server.acted == []


async def test_what_is_no_longer_allowed_when_it_comes_back_is_not_carried_out(endpoint, policy, server):
    async with endpoint() as run:
        state = await ask(run)
        policy.refuses = True
        _, answer = await post(run, **retry(state))
        assert "request_state_rejected" not in str(answer)
        assert len(run.server.permits) == 1
        policy.refuses = False
        await post(run, **retry(state))
        assert server.acted == [YES], "a refusal by policy uses nothing up"


async def test_a_user_who_was_suspended_meanwhile_confirms_nothing(endpoint, server):
    async with endpoint() as run:
        state = await ask(run)
        target = SuspensionTarget(kind=Suspendable.USER, issuer="https://idp.example", subject="alice")
        run.pep._suspensions.add(Suspension(target=target, until=None, reason="r", operator="o", since=1))
        status, _ = await post(run, **retry(state))
        assert status == 403
        assert server.acted == []
