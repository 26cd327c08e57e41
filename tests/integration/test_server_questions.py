"""What a server asks during a call reaches the client of that call, where settings, policy and the client allow it.

The server is the fixture of the conformance suite, on the official SDK, which speaks both eras.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from sidecar.demo.identities import Person
from tests.conformance import behind
from tests.conformance.run import fixture
from tests.enforcement.streaming import events
from tests.integration.caller import Caller
from tests.integration.deployment import Deployment
from tests.patience import HANG_S

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

PREFIX = "io.modelcontextprotocol/"
EVERYTHING: Any = {"elicitation": {}, "sampling": {}, "roots": {}}
SECRET = "the user's own words"


def person(user: str, group: str) -> Person:
    return Person(user=user, agent="claude-desktop", groups=(group,), scopes=("mongodb:admin",))


ALICE, BOB = person("alice", "conformance"), person("bob", "conformance")
FORMS, QUIET = person("fay", "forms"), person("quin", "quiet")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A sidecar before the fixture; one group may be asked anything, one only for forms, and one nothing."""
    shipped = behind.policies_in

    def narrowed(folder: Path) -> Path:
        copy = shipped(folder)
        file = copy / "platform/data.json"
        tables = msgspec.json.decode(file.read_bytes())
        platform = tables["mcp"]["platform"]
        platform["routes"][0]["groups"] += ["forms", "quiet"]
        everything = platform["grants"][0]
        platform["grants"] += [
            everything | {"id": "forms", "groups": ["forms"], "targets": ["test_*", "elicitation"]},
            everything | {"id": "quiet", "groups": ["quiet"], "targets": ["test_*"]},
        ]
        file.write_bytes(msgspec.json.encode(tables))
        return copy

    folder = tmp_path_factory.mktemp("questions")
    with pytest.MonkeyPatch.context() as patched, fixture() as url:
        patched.setattr(behind, "policies_in", narrowed)
        with behind.sidecar(folder, url=url) as deployment:
            yield deployment


class Client(Caller):
    """One session of one caller, as bytes on the wire."""

    async def send(self, message: Any) -> int:
        async with self.http.post(self.running.url, json=message, headers=self.headers()) as answer:
            return answer.status

    @asynccontextmanager
    async def calling(self, tool: str, **arguments: Any) -> AsyncIterator[AsyncIterator[Any]]:
        """Call a tool, and yield the messages that come on the stream of the call."""
        params = {"name": tool, "arguments": arguments}
        message = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}

        async def messages(answer: aiohttp.ClientResponse) -> AsyncIterator[Any]:
            if answer.content_type == "application/json":
                yield await answer.json()
                return
            async for event in events(answer):
                if event.message is not None:
                    yield event.message

        async with self.http.post(self.running.url, json=message, headers=self.headers()) as answer:
            yield messages(answer)

    async def answered(self, tool: str, answer: Any = None, **arguments: Any) -> tuple[list[Any], str]:
        """Call a tool and answer each question alike; return the questions and the text of the result."""
        asked: list[Any] = []
        async with self.calling(tool, **arguments) as messages:
            async for message in messages:
                if "result" in message:
                    return asked, message["result"]["content"][0]["text"]
                if "method" in message and "id" in message:
                    asked.append(message)
                    assert await self.send({"jsonrpc": "2.0", "id": message["id"], "result": answer}) == 202
        raise AssertionError("the call has no result")

    async def stateless(self, tool: str, capabilities: Any = EVERYTHING, **more: Any) -> Any:
        """Call without a session, and return the message that answers."""
        meta = {f"{PREFIX}protocolVersion": "2026-07-28", f"{PREFIX}clientCapabilities": capabilities}
        headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": tool}
        params = {"name": tool, "arguments": {}, "_meta": meta, **more}
        message = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}
        async with self.http.post(self.running.url, json=message, headers=self.headers(**headers)) as answer:
            return await answer.json()


@asynccontextmanager
async def client(running: Deployment, caller: Person, capabilities: Any = None) -> AsyncIterator[Client]:
    """A client of a caller; within a session, if it declares capabilities."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=HANG_S)) as http:
        made = Client(running, http, caller)
        if capabilities is not None:
            about = {"name": "test", "version": "1"}
            params = {"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": about}
            message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
            async with http.post(running.url, json=message, headers=made.headers()) as answer:
                made.session = answer.headers["Mcp-Session-Id"]
        yield made


def outcomes(running: Deployment) -> list[Any]:
    """What became of the calls so far, the last one last."""
    rows = [json.loads(line) for line in running.audit_file.read_bytes().splitlines()]  # noqa: TID251 - our own file
    return [row["outcome"] for row in rows if row["event"] == "outcome"]


def accepted(**content: Any) -> Any:
    return {"action": "accept", "content": content}


SAMPLED = {"role": "assistant", "content": {"type": "text", "text": SECRET}, "model": "m", "more": 1}


async def test_a_form_goes_to_the_client_of_the_call_and_its_answer_to_the_server(running):
    async with client(running, ALICE, EVERYTHING) as alice:
        asked, text = await alice.answered("test_elicitation", accepted(response=SECRET), message="Who?")
    assert [one["method"] for one in asked] == ["elicitation/create"]
    assert asked[0]["params"]["message"] == "Who?"
    assert SECRET in text
    assert outcomes(running)[-1]["questions"] == {"asked": {"elicitation": 1}, "answered": {"elicitation": 1}}
    assert SECRET.encode() not in running.audit_file.read_bytes(), "evidence has no content"


async def test_a_user_who_declines_is_told_to_the_server(running):
    async with client(running, ALICE, EVERYTHING) as alice:
        _, text = await alice.answered("test_elicitation", {"action": "decline"}, message="Who?")
    assert "action=decline" in text


async def test_the_model_of_the_client_is_asked(running):
    async with client(running, ALICE, EVERYTHING) as alice:
        asked, text = await alice.answered("test_sampling", SAMPLED, prompt="Hello")
    assert [one["method"] for one in asked] == ["sampling/createMessage"]
    assert SECRET in text
    assert outcomes(running)[-1]["questions"]["asked"] == {"sampling": 1}


@pytest.mark.parametrize(
    ("caller", "capabilities", "tool"),
    [
        (QUIET, EVERYTHING, "test_elicitation"),
        (QUIET, EVERYTHING, "test_sampling"),
        (FORMS, EVERYTHING, "test_sampling"),
        (ALICE, {}, "test_elicitation"),
        (ALICE, {"elicitation": {}}, "test_sampling"),
        (ALICE, {"elicitation": {"url": {}}}, "test_elicitation"),
    ],
    ids=lambda value: value.user if isinstance(value, Person) else str(value),
)
async def test_a_client_is_not_asked_what_policy_or_the_client_does_not_allow(running, caller, capabilities, tool):
    named = "prompt" if tool == "test_sampling" else "message"
    async with client(running, caller, capabilities) as alone:
        asked, text = await alone.answered(tool, **{named: "Hello"})
    assert asked == []
    assert "not supported or error" in text, "the server is told so, and goes on"
    assert "questions" not in outcomes(running)[-1]


async def test_the_near_miss_of_a_refused_question_is_carried(running):
    async with client(running, FORMS, EVERYTHING) as forms:
        asked, text = await forms.answered("test_elicitation", accepted(response="yes"), message="Who?")
    assert len(asked) == 1
    assert "action=accept" in text


async def test_only_the_session_that_was_asked_answers_and_only_once(running):
    async with (
        client(running, ALICE, EVERYTHING) as alice,
        client(running, ALICE, EVERYTHING) as elsewhere,
        client(running, BOB, EVERYTHING) as bob,
        alice.calling("test_elicitation", message="Who?") as messages,
    ):
        asked = await anext(messages)
        for other, word in ((bob, "bob"), (elsewhere, "elsewhere")):
            answer = {"jsonrpc": "2.0", "id": asked["id"], "result": accepted(response=word)}
            assert await other.send(answer) == 202, "nobody learns whether there is such a question"
        for number in (asked["id"] + "x", 7, "ask-1"):
            await alice.send({"jsonrpc": "2.0", "id": number, "result": accepted(response="wrong id")})
        await alice.send({"jsonrpc": "2.0", "id": asked["id"], "result": accepted(response="first")})
        await alice.send({"jsonrpc": "2.0", "id": asked["id"], "result": accepted(response="second")})
        text = (await anext(messages))["result"]["content"][0]["text"]
    assert "first" in text


@pytest.mark.parametrize(
    "answer",
    [
        accepted(response="yes", more=1),
        accepted(response={"$ne": 1}),
        {"action": "accepted"},
        {"action": "accept"},
        accepted(response="x" * 20_000),
        {},
    ],
    ids=lambda answer: str(answer)[:40],
)
async def test_an_answer_of_another_form_reaches_no_server(running, answer):
    async with client(running, ALICE, EVERYTHING) as alice:
        asked, text = await alice.answered("test_elicitation", answer, message="Who?")
    assert len(asked) == 1
    assert "not supported or error" in text
    assert outcomes(running)[-1]["questions"] == {"asked": {"elicitation": 1}}


ELICIT = "test_input_required_result_elicitation"


async def test_without_a_session_the_call_ends_with_the_question_and_its_answer_counts_once(running):
    async with client(running, ALICE) as alice:
        required = (await alice.stateless(ELICIT))["result"]
        assert required["resultType"] == "input_required"
        assert required["inputRequests"]["user_name"]["method"] == "elicitation/create"
        again = {"requestState": required["requestState"], "inputResponses": {"user_name": accepted(name=SECRET)}}
        result = (await alice.stateless(ELICIT, **again))["result"]
        assert (result["resultType"], SECRET in result["content"][0]["text"]) == ("complete", True)
        assert outcomes(running)[-1]["questions"] == {"answered": {"elicitation": 1}}
        assert (await alice.stateless(ELICIT, **again))["error"]["code"] == -32602, "it is used up"


async def test_a_state_is_good_for_its_caller_its_call_and_what_may_still_be_asked(running):
    async with client(running, ALICE) as alice, client(running, BOB) as bob, client(running, FORMS) as forms:
        required = (await alice.stateless(ELICIT))["result"]
        again = {"requestState": required["requestState"], "inputResponses": {"user_name": accepted(name="eve")}}
        for other in (bob, forms):
            assert (await other.stateless(ELICIT, **again))["error"]["code"] == -32602
        foreign = await alice.stateless("test_input_required_result_request_state", **again)
        assert foreign["error"]["code"] == -32602
        altered = again | {"requestState": required["requestState"][:-2] + "AA"}
        assert (await alice.stateless(ELICIT, **altered))["error"]["code"] == -32602
        undeclared = (await alice.stateless(ELICIT, {}, **again))["result"]
        assert undeclared["isError"], "the client does not say any more that it can be asked"
        result = (await alice.stateless(ELICIT, **again))["result"]
        assert result["content"][0]["text"] == "Hello, eve!", "what was refused did not use it up"


async def test_answers_that_nobody_asked_for_never_reach_a_server(running):
    async with client(running, ALICE) as alice:
        answers = {"inputResponses": {"user_name": accepted(name="eve")}}
        assert (await alice.stateless(ELICIT, **answers))["result"]["resultType"] == "input_required"
        state = (await alice.stateless(ELICIT))["result"]["requestState"]
        more = {"other": accepted(name="mallory"), "user_name": accepted(name="alice")}
        result = (await alice.stateless(ELICIT, requestState=state, inputResponses=more))["result"]
        assert result["content"][0]["text"] == "Hello, alice!"


async def test_without_a_session_nothing_is_asked_that_is_not_allowed(running):
    async with client(running, QUIET) as quiet, client(running, FORMS) as forms, client(running, ALICE) as alice:
        for alone, capabilities in ((quiet, EVERYTHING), (forms, {"sampling": {}}), (alice, {})):
            answer = await alone.stateless("test_input_required_result_sampling", capabilities)
            assert "inputRequests" not in str(answer)
        lacking = await alice.stateless("test_missing_capability", {})
        assert lacking["error"]["code"] == -32021
        assert lacking["error"]["data"] == {"requiredCapabilities": {"sampling": {}}}
        declared = await quiet.stateless("test_missing_capability", {"sampling": {}})
        assert declared["result"]["isError"], "it has what the server wants, and may not use it"


async def test_two_users_who_are_asked_at_once_get_each_their_own(running):
    async def one(caller: Person, word: str) -> str:
        async with client(running, caller, EVERYTHING) as alone:
            _, text = await alone.answered("test_elicitation", accepted(response=word), message=word)
            return text

    words = [f"word-{number}" for number in range(6)]
    texts = await asyncio.gather(*(one((ALICE, BOB)[number % 2], word) for number, word in enumerate(words)))
    assert [word in text for word, text in zip(words, texts, strict=True)] == [True] * len(words)
