"""What a call waits for: a confirmation through its client, an approval of a second person, or both."""

import json
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from typing_extensions import override

from sidecar.model import JsonObject, Permit
from sidecar.opa.managed import ManagedOpa
from sidecar.ports import PdpAnswer, Question
from sidecar.store import FileApprovals
from sidecar.system import SystemClock
from tests.enforcement.streaming import ORDERS, Streaming, call, events, message, streaming
from tests.enforcement.test_confirmations import ELICITS, QUESTION, YES, Asked, ChangingPolicy, asking
from tests.enforcement.test_confirmations_stateless import post as post_stateless
from tests.enforcement.test_confirmations_stateless import retry
from tests.policy_sets import quick_copy

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]

NO = {"action": "accept", "content": {"confirmation": "No"}}
APPROVERS = [
    {"id": "hr", "teams": ["*"], "kinds": ["read"], "groups": ["hr-admins"], "agents": ["*"], "scopes": ["*"]},
]


def find(collection: str) -> JsonObject:
    return {"name": "find", "arguments": {**ORDERS, "collection": collection, "filter": {}, "limit": 1}}


def obliged(collection: str, kind: str) -> dict[str, Any]:
    return {"id": f"{collection}-{kind}".lower(), "kinds": ["read"], "collections": [collection], "approval": kind}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opa(opa_binary) -> AsyncIterator[ManagedOpa]:
    """The shipped policies, with collections that wait for one thing, another, or both."""
    with tempfile.TemporaryDirectory(prefix="opa-") as folder:
        policies = quick_copy(Path(folder) / "policies")
        file = policies / "platform/data.json"
        data: Any = json.loads(file.read_text())  # noqa: TID251 - the repository's own file
        platform = data["mcp"]["platform"]
        platform["approvers"] = APPROVERS
        platform["deployments"]["demo"]["databases"]["sales"]["obligations"] = [
            obliged("confirmed", "confirm"),
            obliged("approved", "second_person"),
            obliged("both", "confirm"),
            obliged("both", "second_person"),
        ]
        file.write_text(json.dumps(data))
        module = policies / "teams/analytics/policy.rego"
        text = module.read_text().replace(
            'lib.on("sales", ["orders"])', 'lib.on("sales", ["orders", "confirmed", "approved", "both"])'
        )
        module.write_text(text + '\napprover contains "hr" if lib.in_group("hr-admins")\n')
        async with ManagedOpa(opa_binary, policies, directory=Path(folder) / "run", timeout_s=10.0) as running:
            yield running


class AskingMore(ChangingPolicy):
    """The policies, until a test has them ask for more of a call that waits."""

    more = False

    @override
    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        answer = await super().ask(question, document)
        if self.more and question is Question.DECISION and isinstance(answer.result, dict):
            waits: Any = {"accesses": [{"access": 0, "codes": ["confirm", "second_person"]}]}
            return PdpAnswer(result={**answer.result, "approval": waits}, revision=answer.revision)
        return answer


@pytest.fixture
def policy(opa) -> AskingMore:
    return AskingMore(opa)


async def acts(permit: Permit) -> str:
    permit.leaving()
    return "acted"


@pytest.fixture
def endpoint(policy, offered, tmp_path) -> Callable[..., AbstractAsyncContextManager[Streaming]]:
    @asynccontextmanager
    async def start(script: Any = acts, **changes: Any) -> AsyncIterator[Streaming]:
        store = FileApprovals(tmp_path / "approvals", SystemClock())
        try:
            await store.load()
            async with streaming(policy, offered, script, approvals=store, **changes) as run:
                yield run
        finally:
            store.close()

    return start


class AskedOf(Asked):
    """A call of one collection whose question was read."""

    def __init__(self, run: Streaming, session: str, collection: str) -> None:
        super().__init__(run, session)
        self.collection = collection

    @override
    async def __aenter__(self):
        self.response = await self.run.post(self.session, call(self.number, params=find(self.collection)), self.user)
        self.events = events(self.response)
        self.question = await self.next_question()
        return self

    async def next_question(self) -> Any:
        async for event in self.events:
            if event.message:
                assert event.message.get("method") == "elicitation/create", event.message
                return event.message
        raise AssertionError("the stream ended without a question")


def records(run: Streaming, event: str) -> list[Any]:
    rows = [json.loads(line) for line in run.audit.read_bytes().splitlines()]  # noqa: TID251 - our own file
    return [row for row in rows if row["event"] == event]


async def refused(run: Streaming, session: str, collection: str, user: str = "alice") -> Any:
    """Call, and return the decision part of a refusal, with its text."""
    async with run.post(session, call(params=find(collection)), user) as answer:
        result = (await answer.json())["result"]
    assert result["isError"], result
    decision = result["_meta"]["mcp-sidecar/decision"]
    return {**decision, "text": result["content"][0]["text"], "code": decision["reasons"][0]["code"]}


async def decide(run: Streaming, approval: str, decision: str = "approve", user: str = "hanna") -> int:
    headers = {"Authorization": f"Bearer {user}"}
    async with run.http.post(f"{run.url}/approvals/{approval}", json={"decision": decision}, headers=headers) as answer:
        status: int = answer.status
        return status


async def test_the_user_is_asked_through_the_client_and_the_confirmation_is_evidence(endpoint, policy):
    async with endpoint() as run, AskedOf(run, await run.open(**ELICITS), "confirmed") as asked:
        assert "reading sales.confirmed" in asked.question["params"]["message"]
        assert run.server.permits == [], "nothing is forwarded before"
        assert await asked.reply(YES) == 202
        assert await asked.answer() == "acted"
        assert policy.decisions == 2, "it was decided once more"
        [outcome] = records(run, "outcome")
        assert (outcome["outcome"]["status"], outcome["outcome"]["confirmation"]) == ("ok", "client")
        assert outcome["obligations"][0]["approval"] == ["confirm"]
        assert "approval" not in outcome, "nobody else approved anything"


@pytest.mark.parametrize(
    "reply",
    [NO, {"action": "decline"}, {"action": "accept"}, {"action": "accept", "content": {}}, {"action": "cancel"}],
    ids=repr,
)
async def test_anything_but_yes_ends_the_call(endpoint, reply):
    async with endpoint() as run, AskedOf(run, await run.open(**ELICITS), "confirmed") as asked:
        assert await asked.reply(reply) == 202
        assert "Policy asks that the user confirms" in await asked.answer()
        assert run.server.permits == []
        [refusal] = records(run, "refusal")
        assert refusal["outcome"]["error"] == "confirmation_missing"


async def test_a_client_without_elicitation_reads_that_it_cannot_make_the_call(endpoint):
    async with endpoint() as run:
        found = await refused(run, await run.open(), "confirmed")
        assert (found["code"], "elicitation" in found["text"]) == ("confirmation_missing", True)
        status, answer = await post_stateless(run, find("confirmed"), capabilities={})
        assert (status, answer["error"]["code"]) == (400, -32021)
        session = await run.open(revision="2025-03-26", **ELICITS)
        async with run.post(session, [call(params=find("confirmed"))]) as batch:
            [member] = await batch.json()
        assert member["result"]["_meta"]["mcp-sidecar/decision"]["reasons"][0]["code"] == "confirmation_missing"
        assert run.server.permits == []


async def test_what_no_longer_is_allowed_when_the_user_has_confirmed_is_refused(endpoint, policy):
    async with endpoint() as run, AskedOf(run, await run.open(**ELICITS), "confirmed") as asked:
        policy.refuses = True
        await asked.reply(YES)
        assert "Refused" in await asked.answer()
        assert run.server.permits == []


async def test_what_asks_for_more_when_the_user_has_confirmed_is_refused(endpoint, policy):
    async with endpoint() as run, AskedOf(run, await run.open(**ELICITS), "confirmed") as asked:
        policy.more = True
        await asked.reply(YES)
        assert "confirm" in await asked.answer()
        assert run.server.permits == []


async def test_a_question_of_the_servers_that_policy_changes_under_does_not_slip_past_an_approval(endpoint, policy):
    async with endpoint(asking) as run, AskedOf(run, await run.open(**ELICITS), "orders") as asked:
        assert asked.question["params"] == QUESTION, "the server's own"
        policy.more = True
        await asked.reply(YES)
        assert "acted" not in await asked.answer()


async def test_policy_and_server_ask_one_after_the_other(endpoint):
    async with endpoint(asking) as run, AskedOf(run, await run.open(**ELICITS), "confirmed") as asked:
        assert "Policy asks" in asked.question["params"]["message"]
        await asked.reply(YES)
        asked.question = await asked.next_question()
        assert asked.question["params"] == QUESTION
        await asked.reply(YES)
        assert (await asked.answer()).startswith("acted")


async def test_without_a_session_the_call_is_made_again_with_the_answer(endpoint):
    async with endpoint() as run:
        _, first = await post_stateless(run, find("confirmed"))
        assert first["result"]["resultType"] == "input_required"
        assert run.server.permits == []
        state = first["result"]["requestState"]
        _, second = await post_stateless(run, find("confirmed"), **retry(state))
        assert second["result"]["content"][0]["text"] == "acted"
        _, third = await post_stateless(run, find("confirmed"), **retry(state))
        assert third["result"]["isError"], "once"
        _, other = await post_stateless(run, find("confirmed"))
        _, foreign = await post_stateless(run, find("both"), **retry(other["result"]["requestState"]))
        assert foreign["result"]["isError"], "for that call"
        _, no = await post_stateless(run, find("confirmed"), **retry(other["result"]["requestState"], NO))
        assert no["result"]["isError"]
        assert len(run.server.permits) == 1


async def test_without_a_session_policy_and_server_ask_one_after_the_other(endpoint):
    async with endpoint(asking) as run:
        _, first = await post_stateless(run, find("confirmed"))
        states = [first["result"]["requestState"]]
        _, second = await post_stateless(run, find("confirmed"), **retry(states[0]))
        assert second["result"]["inputRequests"]["confirmation"]["params"] == QUESTION
        states.append(second["result"]["requestState"])
        _, third = await post_stateless(run, find("confirmed"), **retry(states[1]))
        assert third["result"]["content"][0]["text"].startswith("acted")
        for state in states:
            _, again = await post_stateless(run, find("confirmed"), **retry(state))
            assert again["result"]["isError"]


async def test_the_answer_to_the_servers_question_does_not_answer_policys(endpoint, policy):
    async with endpoint(asking) as run:
        _, first = await post_stateless(run, find("orders"))
        state = first["result"]["requestState"]
        _, other = await post_stateless(run, find("confirmed"), **retry(state))
        assert other["result"]["isError"]
        policy.more = True  # from now on the same call waits as well
        _, same = await post_stateless(run, find("orders"), **retry(state))
        assert same["result"]["isError"]


async def test_a_second_person_approves_and_the_users_yes_is_not_enough(endpoint):
    async with endpoint() as run:
        session = await run.open(**ELICITS)
        found = await refused(run, session, "both")
        assert found["code"] == "approval_required", "no user is asked in vain"
        approval = found["approval"]["id"]
        assert await decide(run, approval, user="bob") == 404
        assert await decide(run, approval, user="alice") == 404
        assert await decide(run, approval) == 200
        async with AskedOf(run, session, "both") as asked:
            await asked.reply(NO)
            assert "Policy asks" in await asked.answer()
        async with AskedOf(run, session, "both") as asked:  # the approval is still there: a no uses nothing up
            await asked.reply(YES)
            assert await asked.answer() == "acted"
        [intent] = records(run, "intent")
        assert intent["approval"]["id"] == approval
        assert intent["approval"]["approver"]["id"] == "hanna"
        assert (await refused(run, session, "both"))["approval"]["id"] != approval


async def test_each_state_of_it_reads_differently(endpoint):
    async with endpoint() as run:
        session = await run.open()
        waits = await refused(run, session, "approved")
        approval = waits["approval"]["id"]
        assert waits["owner"] == "analytics"
        assert f"mcp-sidecar approvals approve {approval}" in waits["text"]
        assert await decide(run, approval, "deny") == 200
        denied = await refused(run, session, "approved")
        assert (denied["approval"]["state"], "Do not repeat it" in denied["text"]) == ("denied", True)
        assert await decide(run, approval) == 409
        other = await refused(run, await run.open("bob"), "approved", "bob")
        assert other["approval"]["id"] != approval


async def test_where_no_approvals_are_kept_the_call_is_refused_and_there_is_no_desk(policy, offered):
    async with streaming(policy, offered, acts) as run:
        found = await refused(run, await run.open(), "approved")
        assert found["code"] == "obligation_unsupported"
        assert "after an approval" in found["text"]
        assert await decide(run, "0" * 32) == 404


async def test_arguments_that_nobody_can_read_do_not_wait(endpoint):
    async with endpoint() as run:
        session = await run.open()
        large: Any = {"name": "find", "arguments": {**find("approved")["arguments"], "filter": {"a": "x" * 20_000}}}  # type: ignore[dict-item]
        async with run.post(session, message("tools/call", large)) as answer:
            decision = (await answer.json())["result"]["_meta"]["mcp-sidecar/decision"]
        assert decision["reasons"][0]["code"] == "obligation_unsupported"


async def test_a_suspended_approver_or_requester_is_noticed_when_it_is_used(endpoint):
    async with endpoint() as run:
        session = await run.open()
        approval = (await refused(run, session, "approved"))["approval"]["id"]
        assert await decide(run, approval) == 200
        [kept] = [one for one in [await run.pep.approvals._store.get(approval)] if one is not None]
        assert kept.approver is not None
        assert kept.concerns(("user", "https://idp.example", "hanna"))
        assert kept.concerns(("agent", "https://idp.example", "claude-desktop"))
