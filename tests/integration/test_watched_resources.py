"""Who is told that a resource changed: those who subscribed and may read it, in both eras, and nobody else.

The server is the fixture of the conformance suite, as a child and behind a URL. It tells of changes whether it was
asked to or not, and says what it was asked for.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
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
META: Any = {f"{PREFIX}protocolVersion": "2026-07-28", f"{PREFIX}clientCapabilities": {}}
WATCHED, TEXT, NAMED = "test://watched-resource", "test://static-text", "test://template/7/data"
UPDATED, PROMPTS = "notifications/resources/updated", "notifications/prompts/list_changed"


def person(user: str, *groups: str, agent: str = "claude-desktop") -> Person:
    return Person(user=user, agent=agent, groups=groups, scopes=("mongodb:admin",))


ALICE, BOB = person("alice", "conformance"), person("bob", "conformance")
TOOLS_ONLY, STRANGER, FOR_NOW = person("tom", "tools"), person("sam", "nothing"), person("eve", "revocable")


def _narrowed(shipped: Any, folder: Path) -> Path:
    """The policies of the suite, and a group that may use every tool and no resource."""
    copy: Path = shipped(folder)
    file = copy / "platform/data.json"
    tables = msgspec.json.decode(file.read_bytes())
    platform = tables["mcp"]["platform"]
    platform["routes"][0]["groups"] += ["tools", "revocable"]
    everything = platform["grants"][0]
    platform["grants"] += [
        everything | {"id": "tools", "groups": ["tools"], "targets": ["test_*"]},
        everything | {"id": "revocable", "groups": ["revocable"]},
    ]
    file.write_bytes(msgspec.json.encode(tables))
    return copy


@pytest.fixture(scope="module", params=["child", "url"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp(f"watched-{request.param}")
    shipped = behind.policies_in
    with (
        pytest.MonkeyPatch.context() as patched,
        fixture() if request.param == "url" else nullcontext("") as url,
    ):
        patched.setattr(behind, "policies_in", lambda folder: _narrowed(shipped, folder))
        with behind.sidecar(folder, url=url) as deployment:
            yield deployment


class Client(Caller):
    """One session of one caller, as bytes on the wire."""

    async def ask(self, method: str, **params: Any) -> Any:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        async with self.http.post(self.running.url, json=message, headers=self.headers()) as answer:
            body = await answer.json() if answer.content_type == "application/json" else None
            self.session = answer.headers.get("Mcp-Session-Id", self.session)
            return body if body is not None else [event.message async for event in events(answer)][-1]

    async def call(self, tool: str, **arguments: Any) -> str:
        answer = await self.ask("tools/call", name=tool, arguments=arguments)
        text: str = answer["result"]["content"][0]["text"]
        return text

    async def changes(self, uri: str) -> None:
        assert await self.call("test_trigger_resource_update", uri=uri) == "resource updated"

    async def end(self) -> None:
        async with self.http.delete(self.running.url, headers=self.headers()) as answer:
            assert answer.status in {204, 404}, "it is over"

    @asynccontextmanager
    async def news(self) -> AsyncIterator[AsyncIterator[Any]]:
        """Listen as a session does, and yield the messages."""
        async with self.http.get(self.running.url, headers=self.headers()) as answer:
            assert answer.status == 200
            yield _messages(answer)

    @asynccontextmanager
    async def listening_for_prompts(self) -> AsyncIterator[AsyncIterator[Any]]:
        """Listen without a session for changes of the prompts."""
        async with self.listening(number=9, promptsListChanged=True, resourcesListChanged=True) as (honoured, messages):
            assert honoured == {"promptsListChanged": True}
            yield messages

    @asynccontextmanager
    async def listening(
        self, *uris: str, number: int = 5, **more: bool
    ) -> AsyncIterator[tuple[Any, AsyncIterator[Any]]]:
        """Listen without a session; yield what is honoured, and the messages."""
        headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen"}
        params = {"notifications": {"resourceSubscriptions": [*uris], **more}, "_meta": META}
        message = {"jsonrpc": "2.0", "id": number, "method": "subscriptions/listen", "params": params}
        async with self.http.post(self.running.url, json=message, headers=self.headers(**headers)) as answer:
            messages = _messages(answer)
            first = await anext(messages)
            assert first["method"] == "notifications/subscriptions/acknowledged"
            yield first["params"]["notifications"], messages


async def _messages(answer: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    async for event in events(answer):
        if event.message is not None and event.message.get("method") != "notifications/tools/list_changed":
            yield event.message


@asynccontextmanager
async def clients(running: Deployment, *callers: Person) -> AsyncIterator[list[Client]]:
    async with (
        asyncio.timeout(HANG_S),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http,
        AsyncExitStack(),
    ):
        found = [Client(running, http, caller) for caller in callers]
        for client in found:
            hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
            answer = await client.ask("initialize", **hello)
            assert answer["result"]["capabilities"]["resources"] == {"subscribe": True}
        yield found
        for client in found:
            await client.end()


async def asked_for(client: Client, *uris: str) -> None:
    """Wait until the server is asked for exactly these."""
    while msgspec.json.decode(await client.call("test_watched_resources")) != sorted(uris):  # noqa: ASYNC110 - it is looked at from outside
        await asyncio.sleep(0.02)


async def test_who_subscribed_is_told_and_nobody_else(running):
    async with clients(running, ALICE, BOB) as [alice, bob], alice.news() as of_alice, bob.news() as of_bob:
        assert (await alice.ask("resources/subscribe", uri=WATCHED))["result"] == {}
        assert (await bob.ask("resources/subscribe", uri=TEXT))["result"] == {}
        await bob.changes(WATCHED)
        await bob.changes(NAMED)
        await bob.changes(TEXT)
        notice = {"jsonrpc": "2.0", "method": UPDATED, "params": {"uri": WATCHED}}
        assert await anext(of_alice) == notice
        assert await anext(of_bob) == {**notice, "params": {"uri": TEXT}}, "neither of the two before"
        await alice.changes(WATCHED)
        assert await anext(of_alice) == notice, "nothing of what bob reads came meanwhile"
        intents = [row for row in running.records() if row["event"] == "intent"]
        assert {row["method"] for row in intents if row["method"] != "tools/call"} == {"resources/subscribe"}


async def test_one_that_ends_it_is_told_no_more_and_the_server_hears_of_the_last_one(running):
    async with clients(running, ALICE, BOB) as [alice, bob], alice.news() as of_alice, bob.news() as of_bob:
        for client in (alice, bob):
            await client.ask("resources/subscribe", uri=WATCHED)
        await asked_for(alice, WATCHED)
        assert (await alice.ask("resources/unsubscribe", uri=WATCHED))["result"] == {}
        await alice.ask("resources/subscribe", uri=TEXT)
        await asked_for(alice, TEXT, WATCHED)
        await bob.changes(WATCHED)
        assert (await anext(of_bob))["params"] == {"uri": WATCHED}
        await bob.changes(TEXT)
        assert (await anext(of_alice))["params"] == {"uri": TEXT}
        await bob.end()
        await asked_for(alice, TEXT)
        await alice.ask("resources/unsubscribe", uri=TEXT)
        await asked_for(alice)


async def test_what_may_not_be_read_is_answered_as_what_is_not_there(running):
    async with clients(running, TOOLS_ONLY, STRANGER, ALICE) as [tom, sam, alice]:
        for client, uri in ((tom, WATCHED), (sam, WATCHED), (alice, "test://not-there"), (alice, "config://config")):
            answers = [await client.ask(f"resources/{verb}", uri=uri) for verb in ("subscribe", "read")]
            assert [answer["error"]["code"] for answer in answers] == [-32002, -32002]
            assert answers[0] == answers[1], "to subscribe tells no more than to read"
        for uri in (WATCHED, "test://not-there"):
            assert (await tom.ask("resources/unsubscribe", uri=uri))["result"] == {}, "no telling what there is"


@pytest.mark.parametrize("params", [{}, {"uri": 1}, {"uri": ""}, {"uri": "a:" + "b" * 2048}, {"uri": WATCHED, "x": 1}])
async def test_what_names_no_resource_is_refused(running, params):
    async with clients(running, ALICE) as [alice]:
        for verb in ("subscribe", "unsubscribe"):
            assert (await alice.ask(f"resources/{verb}", **params))["error"]["code"] == -32602


async def test_who_listens_without_a_session_is_told_what_is_honoured_and_then_of_changes(running):
    async with clients(running, BOB) as [bob]:
        alice = Client(running, bob.http, ALICE)
        wanted = (WATCHED, "test://not-there", NAMED, "exported-data://x.json")
        async with alice.listening(*wanted) as (honoured, messages), alice.listening(TEXT, number=6) as (_, other):
            assert honoured == {"resourceSubscriptions": [WATCHED, NAMED]}
            await bob.changes(TEXT)
            await bob.changes(NAMED)
            told = {"uri": NAMED, "_meta": {f"{PREFIX}subscriptionId": 5}}
            assert await anext(messages) == {"jsonrpc": "2.0", "method": UPDATED, "params": told}
            assert (await anext(other))["params"]["uri"] == TEXT
        tom = Client(running, bob.http, TOOLS_ONLY)
        async with tom.listening(*wanted) as (honoured, _):
            assert honoured == {}


async def test_a_change_that_nobody_could_be_told_of_comes_once_its_session_listens(running):
    async with clients(running, ALICE, BOB) as [alice, bob]:
        await alice.ask("resources/subscribe", uri=WATCHED)
        async with bob.news() as of_bob:
            await bob.ask("resources/subscribe", uri=WATCHED)
            await bob.changes(WATCHED)
            assert (await anext(of_bob))["params"] == {"uri": WATCHED}
        async with alice.news() as of_alice:
            assert (await anext(of_alice))["params"] == {"uri": WATCHED}


async def test_a_session_may_watch_so_many_and_no_more(running):
    async with clients(running, ALICE) as [alice]:
        for number in range(64):
            assert "result" in await alice.ask("resources/subscribe", uri=f"test://template/{number}/data")
        assert "result" in await alice.ask("resources/subscribe", uri="test://template/1/data")
        assert (await alice.ask("resources/subscribe", uri=WATCHED))["error"]["code"] == 1429
        await alice.ask("resources/unsubscribe", uri="test://template/1/data")
        assert "result" in await alice.ask("resources/subscribe", uri=WATCHED)
        await alice.end()
        async with clients(running, BOB) as [bob]:
            await asked_for(bob)


SPELLINGS = (
    *("TEST://watched-resource", "test://WATCHED-RESOURCE", "test://watched-resource/", "test://watched-resource#x"),
    *(
        "test://watched-resource?x",
        "test://watched%2Dresource",
        "test://%77atched-resource",
        " test://watched-resource",
    ),
    *(
        "test://user@watched-resource",
        "test://watched-resource:80",
        "test:watched-resource",
        "test://./watched-resource",
    ),
    *("test://watched-resource\0", "test://watched-resource\n", "test://template/../data", "test://template/%37/data"),
    *("test://template/7/data/", "test://TEMPLATE/7/data", "test://template/{id}/data", "test://template//data"),
)


@pytest.mark.parametrize("uri", SPELLINGS, ids=ascii)
async def test_another_spelling_of_a_resource_is_none_and_reaches_no_server(running, uri):
    async with clients(running, ALICE) as [alice]:
        for verb in ("subscribe", "read"):
            assert (await alice.ask(f"resources/{verb}", uri=uri))["error"]["code"] == -32002
        async with Client(running, alice.http, ALICE).listening(uri, WATCHED) as (honoured, _):
            assert honoured == {"resourceSubscriptions": [WATCHED]}
            await asked_for(alice, WATCHED)


async def test_no_way_round_the_method_watches_anything(running):
    """As a notification, in the other era, in a session of another caller, or in one that is over."""
    subscribe = {"jsonrpc": "2.0", "method": "resources/subscribe", "params": {"uri": WATCHED}}
    async with clients(running, ALICE, BOB) as [alice, bob]:
        thief, over = Client(running, alice.http, BOB, alice.session), Client(running, alice.http, ALICE)
        await over.ask("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "t"})
        await over.end()
        for client, message, more, expected in (
            (alice, subscribe, {}, {400}),
            (alice, {**subscribe, "id": None}, {}, {400}),
            (thief, {**subscribe, "id": 1}, {}, {404}),
            (over, {**subscribe, "id": 1}, {}, {404}),
            (Client(running, alice.http, ALICE), {**subscribe, "id": 1}, {}, {400}),
            (alice, [{**subscribe, "id": 1}], {}, {400}),
            (alice, {**subscribe, "id": 1, "method": "subscriptions/listen"}, {}, {200, 404}),
            (
                Client(running, alice.http, ALICE),
                {**subscribe, "id": 1, "params": {"uri": WATCHED, "_meta": META}},
                {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "resources/subscribe"},
                {404},
            ),
        ):
            async with alice.http.post(running.url, json=message, headers=client.headers(**more)) as answer:
                assert answer.status in expected, (message, await answer.text())
                assert "result" not in (await answer.text())
        await asked_for(bob)


async def test_what_another_caller_does_ends_no_watch_of_mine(running):
    async with clients(running, ALICE, BOB) as [alice, bob], alice.news() as of_alice:
        await alice.ask("resources/subscribe", uri=WATCHED)
        thief = Client(running, bob.http, BOB, alice.session)
        for verb in ("unsubscribe", "subscribe"):
            assert (await thief.ask(f"resources/{verb}", uri=WATCHED))["error"]["code"] != -32002, "no such session"
        async with bob.http.delete(running.url, headers=thief.headers()) as answer:
            assert answer.status == 404
        assert (await bob.ask("resources/unsubscribe", uri=WATCHED))["result"] == {}
        second = Client(running, bob.http, ALICE)
        await second.ask("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "t"})
        await second.ask("resources/subscribe", uri=WATCHED)
        await second.end()
        await bob.changes(WATCHED)
        assert (await anext(of_alice))["params"] == {"uri": WATCHED}


@pytest.mark.parametrize("count", [64, 65])
async def test_a_request_to_listen_names_so_many_resources_and_each_counts_once(running, count):
    async with clients(running, ALICE) as [alice]:
        stateless = Client(running, alice.http, ALICE)
        message = {
            "jsonrpc": "2.0",
            "id": 3,
            "method": "subscriptions/listen",
            "params": {"notifications": {"resourceSubscriptions": [WATCHED] * count}, "_meta": META},
        }
        headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen"}
        async with alice.http.post(running.url, json=message, headers=stateless.headers(**headers)) as answer:
            assert answer.status == (200 if count == 64 else 400)
            if count == 64:
                first = await anext(_messages(answer))
                assert first["params"]["notifications"] == {"resourceSubscriptions": [WATCHED]}


async def test_a_change_of_policies_ends_what_may_not_be_read_any_more_and_nothing_else(running):
    file = running.folder / "policies/platform/data.json"
    before = file.read_bytes()
    tables = msgspec.json.decode(before)
    tables["mcp"]["platform"]["grants"] = [
        grant for grant in tables["mcp"]["platform"]["grants"] if grant["id"] != "revocable"
    ]
    async with clients(running, FOR_NOW, BOB) as [eve, bob], bob.news() as of_bob, eve.news() as of_eve:
        stateless = Client(running, bob.http, FOR_NOW)
        async with stateless.listening(NAMED) as (honoured, messages):
            assert honoured == {"resourceSubscriptions": [NAMED]}
            for client, uri in ((eve, WATCHED), (eve, TEXT), (bob, TEXT)):
                assert "result" in await client.ask("resources/subscribe", uri=uri)
            try:
                file.write_bytes(msgspec.json.encode(tables))
                await asked_for(bob, TEXT)
                for uri in (WATCHED, NAMED, TEXT):
                    await bob.changes(uri)
                assert (await anext(of_bob))["params"] == {"uri": TEXT}
                assert (await eve.ask("resources/subscribe", uri=TEXT))["error"]["code"] == -32002
            finally:
                file.write_bytes(before)
            while "error" in await eve.ask("resources/subscribe", uri=TEXT):  # noqa: ASYNC110 - it is looked at from outside
                await asyncio.sleep(0.05)
            async with stateless.listening(TEXT, number=6) as (_, others):
                await bob.changes(TEXT)
                assert (await anext(others))["params"]["uri"] == TEXT
                assert (await anext(of_eve))["params"] == {"uri": TEXT}, "and nothing before"
            await bob.end()
            await eve.end()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await anext(messages)


async def test_a_change_of_prompts_reaches_who_listens_for_it_and_nobody_else(running):
    async with clients(running, ALICE, BOB) as [alice, bob], alice.news() as of_alice:
        stateless = Client(running, bob.http, ALICE)
        await alice.ask("resources/subscribe", uri=WATCHED)
        async with stateless.listening(WATCHED) as (_, other), stateless.listening_for_prompts() as messages:
            assert await bob.call("test_trigger_prompt_change") == "prompt list changed"
            await bob.changes(WATCHED)
            assert (await anext(messages))["method"] == PROMPTS
            assert (await anext(other))["method"] == UPDATED, "nothing before it"
            assert [(await anext(of_alice))["method"] for _ in range(2)] == [PROMPTS, UPDATED]
