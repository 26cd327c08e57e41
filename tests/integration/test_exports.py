"""Exports of the real server as resources: each caller sees what the same user, agent and session made, and no more."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import mcp
import msgspec
import pytest

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST, Person
from tests.integration.deployment import Deployment, deployed, wait_until
from tests.integration.test_tool_groups import EXPORT, EXPORTER, with_policies
from tests.patience import HANG_S

OTHER_USER = Person(user="erin", agent="claude-desktop", groups=("exporters",), scopes=EXPORTER.scopes)
OTHER_AGENT = Person(user="eve", agent="another-agent", groups=("exporters",), scopes=EXPORTER.scopes)


@pytest.fixture(scope="module")
def exporting(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("exporting")
    with deployed(
        folder,
        database,
        of_servers='tool_groups = ["export"]',
        policies=with_policies(folder),
    ) as running:
        asyncio.run(demo_database.seed(running.uri))
        yield running


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("without")
    with deployed(folder, database, policies=with_policies(folder)) as running:
        yield running


LARGE = {**EXPORT, "exportTarget": [{"name": "find", "arguments": {"filter": {"region": "many"}}}]}


class Session:
    """One session that sends exactly what it is told to."""

    def __init__(self, url: str, http: httpx2.AsyncClient) -> None:
        self._url = url
        self._http = http
        self._ids = count(1)
        self._headers: dict[str, str] = {}
        self.capabilities: dict[str, Any] = {}

    async def initialize(self) -> None:
        self._headers = {"Accept": "application/json, text/event-stream"}
        client = {"name": "test", "version": "1"}
        asked = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        message = {"jsonrpc": "2.0", "id": next(self._ids), "method": "initialize", "params": asked}
        answer = await self._http.post(self._url, json=message, headers=self._headers)
        self._headers |= {"Mcp-Session-Id": answer.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}
        self.capabilities = answer.json()["result"]["capabilities"]

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        message = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        body: dict[str, Any] = (await self._http.post(self._url, json=message, headers=self._headers)).json()
        return body

    @asynccontextmanager
    async def news(self) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Listen to what belongs to no call, besides changes of the tools."""

        async def messages(lines: AsyncIterator[str]) -> AsyncIterator[dict[str, Any]]:
            async for line in lines:
                if line.startswith("data: {") and "list_changed" not in line:
                    yield msgspec.json.decode(line.removeprefix("data: "))

        async with self._http.stream("GET", self._url, headers=self._headers) as answer:
            assert answer.status_code == 200
            yield messages(answer.aiter_lines())

    async def end(self) -> None:
        await self._http.delete(self._url, headers=self._headers)


@asynccontextmanager
async def session(deployment: Deployment, person: Person = EXPORTER) -> AsyncIterator[Session]:
    headers = {"Authorization": f"Bearer {deployment.token(person)}"}
    async with httpx2.AsyncClient(headers=headers, timeout=HANG_S) as http:
        client = Session(deployment.url, http)
        await client.initialize()
        yield client


async def ask(client: Session, method: str, **params: Any) -> dict[str, Any]:
    return await client.ask(method, **params)


async def exported_by(client: Session) -> str:
    """Export, and return the URI once the file is ready."""
    uri, said = await made_by(client)
    assert "result" in said, said
    return uri


async def made_by(client: Session) -> tuple[str, dict[str, Any]]:
    """Export, and return the URI and what a read of it says once the file is ready."""
    result = (await ask(client, "tools/call", name="export", arguments=EXPORT))["result"]
    assert not result.get("isError"), result
    uri: str = next(part["uri"] for part in result["content"] if part["type"] == "resource_link")
    said = await ask(client, "resources/read", uri=uri)
    while "still being generated" in str(said):
        said = await ask(client, "resources/read", uri=uri)
    return uri, said


def resources_read(deployment: Deployment) -> list[str]:
    """The URIs that were read at the server."""
    lines = (deployment.folder / "demo-ro.stdin").read_bytes().splitlines()
    messages = [json.loads(line) for line in lines]  # noqa: TID251 - what we sent ourselves
    return [message["params"]["uri"] for message in messages if message.get("method") == "resources/read"]


async def test_resources_are_offered_where_exports_are_on_and_nowhere_else(exporting, without):
    for deployment, offered in ((exporting, True), (without, False)):
        async with session(deployment) as client:
            assert ("resources" in client.capabilities) is offered
            for method, params in (
                ("resources/list", {}),
                ("resources/templates/list", {}),
                ("resources/read", {"uri": "exported-data://x.json"}),
            ):
                code = (await ask(client, method, **params)).get("error", {}).get("code")
                assert (code == -32601) is not offered, method


async def test_what_a_caller_made_is_listed_and_read_as_often_as_it_is_asked_for(exporting):
    async with session(exporting) as client:
        assert (await ask(client, "resources/list"))["result"] == {"resources": []}
        uri = await exported_by(client)
        (entry,) = (await ask(client, "resources/list"))["result"]["resources"]
        assert entry["uri"] == uri
        assert entry["description"] == "Export of sales.orders."
        for spelling in (uri, uri.replace("exported-data", "EXPORTED-DATA"), uri.replace(".json", "%2Ejson")):
            (content,) = (await ask(client, "resources/read", uri=spelling))["result"]["contents"]
            assert '"region":"EU"' in content["text"].replace(" ", "")
            assert "US" not in content["text"]
        assert set(resources_read(exporting)) <= {uri, *resources_read(exporting)[:-3]}
        assert resources_read(exporting)[-3:] == [uri] * 3
        assert (await ask(client, "resources/templates/list"))["result"] == {"resourceTemplates": []}


async def test_with_several_children_each_session_finds_what_it_made_until_its_child_is_replaced(
    tmp_path_factory, database
):
    folder = tmp_path_factory.mktemp("pooled")
    with deployed(
        folder, database, of_servers='tool_groups = ["export"]\nprocesses = 3', policies=with_policies(folder)
    ) as pooled:
        await demo_database.seed(pooled.uri)
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(session(pooled)) for _ in range(6)]
            made = [await exported_by(client) for client in clients]
            for client, uri in zip(clients * 2, made * 2, strict=True):
                (content,) = (await ask(client, "resources/read", uri=uri))["result"]["contents"]
                assert "EU" in content["text"]
            before = {child.pid for child in pooled.children("mongodb-mcp-server")}
            assert len(before) >= 6
            files = files_of(pooled)
            assert set(made) <= files.keys()
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: pooled.ready() and _renewed(pooled, before), "new children", pooled.process)
            wait_until(lambda: not any(file.exists() for file in files.values()), "files to go with a killed child")
            for client, uri in zip(clients, made, strict=True):
                gone = (await ask(client, "resources/read", uri=uri))["error"]
                unknown = (await ask(client, "resources/read", uri="exported-data://0.json"))["error"]
                assert (gone["code"], gone["message"]) == (unknown["code"], unknown["message"])
                assert (await ask(client, "resources/list"))["result"] == {"resources": []}
                await exported_by(client)  # wherever it is made, its session finds it there


def _renewed(deployment: Deployment, before: set[int]) -> bool:
    now = {child.pid for child in deployment.children("mongodb-mcp-server")}
    return len(now - before) >= len(before)


@pytest.mark.parametrize(
    "person", [OTHER_USER, OTHER_AGENT, EXPORTER, ANALYST], ids=["user", "agent", "session", "none"]
)
async def test_an_export_of_another_user_agent_or_session_does_not_exist(exporting, person):
    async with session(exporting) as owner:
        uri = await exported_by(owner)
        async with session(exporting, person) as other:
            before = len(resources_read(exporting))
            answers = []
            for asked in (uri, uri.replace("exported-data://", "exported-data://0"), "config://config"):
                body = await ask(other, "resources/read", uri=asked)
                assert body["error"].pop("data") == {"uri": asked}
                answers.append(body["error"])
            assert answers[0] == answers[1] == answers[2] == {"code": -32002, "message": "Resource not found."}
            assert (await ask(other, "resources/list"))["result"] == {"resources": []}
            assert len(resources_read(exporting)) == before


def files_of(deployment: Deployment) -> dict[str, Path]:
    """The files of exports that the server has, by the URIs that it links them by."""
    found: dict[str, Path] = {}
    for child in deployment.children("mongodb-mcp-server"):
        folder = Path(child.environ()["MDB_MCP_EXPORTS_PATH"])
        found |= {f"exported-data://{file.name}": file for file in folder.glob("*/*")}
    return found


async def test_the_file_of_an_export_goes_with_its_session_and_no_other_file_does(exporting):
    async with session(exporting) as client, session(exporting) as same_user, session(exporting, OTHER_USER) as other:
        uris = [await exported_by(one) for one in (client, client, same_user, other)]
        files = files_of(exporting)
        assert set(uris) <= files.keys()
        await client.end()
        wait_until(lambda: not any(files[uri].exists() for uri in uris[:2]), "the files of the session to be deleted")
        assert all(files[uri].exists() for uri in uris[2:])
        for owner, uri in zip((same_user, other), uris[2:], strict=True):
            assert "result" in await ask(owner, "resources/read", uri=uri)


@pytest.mark.usefixtures("many_orders")
async def test_the_file_of_an_export_that_is_being_made_when_its_session_ends_goes_too(exporting):
    """The server opens it after it has answered; what is not there yet is waited for."""
    for _ in range(3):
        async with session(exporting) as client:
            result = (await ask(client, "tools/call", name="export", arguments=LARGE))["result"]
            await client.end()
        uri = next(part["uri"] for part in result["content"] if part["type"] == "resource_link")
        async with session(exporting) as later:
            await exported_by(later)  # by then the earlier one has been opened
            wait_until(lambda: uri not in files_of(exporting), "the file to be deleted")  # noqa: B023 - called here


async def test_a_session_that_ends_around_an_export_leaves_no_file(exporting):
    before = files_of(exporting).keys()
    for _ in range(5):
        async with session(exporting) as client:
            await asyncio.gather(ask(client, "tools/call", name="export", arguments=EXPORT), client.end())
    async with session(exporting) as later:
        uri = await exported_by(later)
        wait_until(lambda: files_of(exporting).keys() - before <= {uri}, "the files to be deleted")


async def test_an_export_is_gone_with_its_session(exporting):
    async with session(exporting) as client:
        uri = await exported_by(client)
        await client.end()
        await client.initialize()
        assert (await ask(client, "resources/read", uri=uri))["error"]["code"] == -32002
        assert (await ask(client, "resources/list"))["result"] == {"resources": []}


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "exported-data://",
            "exported-data://*",
            "exported-data://..%2fx.json",
            "exported-data:x.json",
            "debug://mongodb",
        ),
        *("config://config", "file:///etc/passwd", "CONFIG://config", "exported-data://%00", " config://config"),
    ],
)
async def test_no_other_resource_of_the_server_can_be_read(exporting, uri):
    before = len(resources_read(exporting))
    async with session(exporting) as client:
        await exported_by(client)
        read_before = len(resources_read(exporting))
        assert (await ask(client, "resources/read", uri=uri))["error"]["code"] == -32002
        assert len(resources_read(exporting)) == read_before > before


@pytest.mark.parametrize(
    "altered",
    [
        *("{uri}/", "{uri}#x", "{uri}?x", "{uri} ", " {uri}", "{uri}%00", "{uri}\0", "{uri}%", "{uri}:80", "./{uri}"),
        *("{scheme}:/{name}", "{scheme}:{name}", "{scheme}:///{name}", "{scheme}://u@{name}", "{scheme}://./{name}"),
        *("{scheme}://x/../{name}", "{scheme}://{double}", "{scheme}://{upper}", "{scheme}%3A//{name}", "//{name}"),
        *(
            "{scheme}s://{name}",
            "{wide}://{name}",
            "{scheme}://{name}{name}",
            "{scheme}://*",
            "{scheme}://{{exportName}}",
        ),
    ],
)
async def test_nearly_the_uri_of_an_own_export_is_none_and_reaches_no_server(exporting, altered):
    """What the server takes to be the same is read (the test of spellings); of everything else it never hears."""
    async with session(exporting) as client:
        uri = await exported_by(client)
        scheme, _, name = uri.partition("://")
        wide = "".join(chr(ord(letter) + 0xFEE0) if letter.isalpha() else letter for letter in scheme)
        upper = name.removesuffix(".json").upper() + ".JSON"
        asked = altered.format(
            uri=uri, scheme=scheme, name=name, double=name.replace(".", "%252E"), upper=upper, wide=wide
        )
        before = sent(exporting)
        for method in ("resources/read", "resources/subscribe"):
            assert (await ask(client, method, uri=asked))["error"]["code"] == -32002
        assert sent(exporting) == before


async def test_no_other_method_finds_reads_or_names_an_export(exporting):
    async with session(exporting) as client, session(exporting, OTHER_USER) as other:
        uri = await exported_by(client)
        before = sent(exporting)
        argument = {"name": "exportName", "value": ""}
        for caller in (client, other):
            for reference in (uri, "exported-data://{exportName}"):
                ref = {"type": "ref/resource", "uri": reference}
                answer = await ask(caller, "completion/complete", ref=ref, argument=argument)
                assert "error" in answer
            for name, arguments in (
                ("export", {"uri": uri}),
                ("export", {**EXPORT, "uri": uri}),
                (f"resource/{uri}", {"uri": uri}),
                ("resources/read", {"uri": uri}),
                ("exported-data", {"exportName": uri}),
            ):
                answer = await ask(caller, "tools/call", name=name, arguments=arguments)
                assert "error" in answer or answer["result"]["isError"], name
        assert sent(exporting) == before


async def stateless(deployment: Deployment, person: Person, method: str, mirrored: str = "", /, **params: Any) -> Any:
    """Ask without a session; of a stream, return the first message."""
    meta = {f"io.modelcontextprotocol/{key}": value for key, value in ENVELOPE.items()}
    headers = {
        "Authorization": f"Bearer {deployment.token(person)}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": method,
        **({"Mcp-Name": mirrored} if mirrored else {}),
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        http.stream("POST", deployment.url, json=message) as answer,
    ):
        if answer.headers["content-type"] == "application/json":
            return msgspec.json.decode(await answer.aread())
        return msgspec.json.decode(
            (await anext(line async for line in answer.aiter_lines() if line.startswith("data: {")))[6:]
        )


ENVELOPE: dict[str, Any] = {"protocolVersion": "2026-07-28", "clientCapabilities": {}}


async def test_an_export_does_not_cross_the_eras_nor_reach_who_listens(exporting):
    """Without sessions exports are the caller's; those of a session stay in it, and the other way round."""
    made = await stateless(exporting, EXPORTER, "tools/call", "export", name="export", arguments=EXPORT)
    theirs = next(part["uri"] for part in made["result"]["content"] if part["type"] == "resource_link")
    async with session(exporting) as client:
        own = await exported_by(client)
        before = resources_read(exporting)
        assert (await ask(client, "resources/read", uri=theirs))["error"]["code"] == -32002
        assert (await stateless(exporting, EXPORTER, "resources/read", own, uri=own))["error"]["code"] == -32602
        for person in (OTHER_USER, OTHER_AGENT):
            for uri in (own, theirs):
                answer = await stateless(exporting, person, "resources/read", uri, uri=uri)
                assert answer["error"] == {"code": -32602, "message": "Resource not found.", "data": {"uri": uri}}
        assert resources_read(exporting) == before
        for person, honoured in ((EXPORTER, {"resourceSubscriptions": [theirs]}), (OTHER_USER, {}), (OTHER_AGENT, {})):
            wanted = {"resourceSubscriptions": [own, theirs]}
            first = await stateless(exporting, person, "subscriptions/listen", notifications=wanted)
            assert first["params"]["notifications"] == honoured
        listed = (await stateless(exporting, EXPORTER, "resources/list"))["result"]["resources"]
        assert theirs in {one["uri"] for one in listed}
        assert own not in {one["uri"] for one in listed}


async def test_an_export_is_not_read_with_a_token_that_may_less_by_now(exporting):
    """The same user, agent and session: only what the token says of groups is less than when the export was made."""
    fewer = Person(user=EXPORTER.user, agent=EXPORTER.agent, groups=("nobody",), scopes=EXPORTER.scopes)
    async with session(exporting) as client:
        uri = await exported_by(client)
        before = resources_read(exporting)
        client._http.headers["Authorization"] = f"Bearer {exporting.token(fewer)}"
        assert "error" in await ask(client, "resources/read", uri=uri)
        assert resources_read(exporting) == before
        client._http.headers["Authorization"] = f"Bearer {exporting.token(EXPORTER)}"
        assert "result" in await ask(client, "resources/read", uri=uri)


@pytest.mark.parametrize("params", [{}, {"uri": 1}, {"uri": ""}, {"uri": "x" * 2049}, {"uri": "a:b", "cursor": "x"}])
async def test_parameters_of_another_form_are_refused(exporting, params):
    async with session(exporting) as client:
        assert (await ask(client, "resources/read", **params))["error"]["code"] == -32602
        assert (await ask(client, "resources/list", cursor="x"))["error"]["code"] == -32602


async def test_a_read_is_recorded_with_the_accesses_of_the_export(exporting):
    async with session(exporting) as client:
        await exported_by(client)
    intent, outcome = [one for one in exporting.records() if one["method"] == "resources/read"][-2:]
    assert (intent["event"], outcome["event"]) == ("intent", "outcome")
    assert {(one["kind"], one["database"], one["collection"]) for one in intent["accesses"]} == {
        ("read", "sales", "orders"),
        ("export", "sales", "orders"),
    }
    assert outcome["outcome"]["status"] == "ok"


async def test_a_read_is_decided_anew(tmp_path, database):
    policies = with_policies(tmp_path)
    with deployed(tmp_path, database, of_servers='tool_groups = ["export"]', policies=policies) as running:
        async with session(running) as client:
            uri = await exported_by(client)
            before = len(resources_read(running))
            revision = running.records()[-1]["decision"]["revision"]
            data = policies / "platform/data.json"
            tables = msgspec.json.decode(data.read_bytes())
            tables["mcp"]["platform"]["refused_kinds"].append("export")
            data.write_bytes(msgspec.json.encode(tables))
            while "error" not in (body := await ask(client, "resources/read", uri=uri)):
                before += 1
            assert body["error"]["data"]["mcp-sidecar/decision"]["reasons"][0]["code"] == "kind_refused"
            assert len(resources_read(running)) == before
            refusal = running.records()[-1]
            assert (refusal["event"], refusal["method"]) == ("refusal", "resources/read")
            assert refusal["decision"]["revision"] != revision


async def test_the_official_client_lists_and_reads(exporting):
    async with exporting.client(EXPORTER) as client:
        result = await client.call_tool("export", EXPORT)
        (uri,) = [part.uri for part in result.content if part.type == "resource_link"]
        assert str(uri) in {str(one.uri) for one in (await client.list_resources()).resources}
        async with asyncio.timeout(HANG_S):
            while "still being generated" in (text := (await client.read_resource(uri)).contents[0].text):
                """It is written after the call was answered."""
        assert "EU" in text
        with pytest.raises(mcp.MCPError):
            await client.read_resource("config://config")


@pytest.fixture
def many_orders(exporting: Deployment) -> Iterator[None]:
    """So many that an export of them takes a while."""
    with exporting.database() as client:
        orders = client["sales"]["orders"]
        orders.insert_many([{"region": "many", "number": number, "filler": "x" * 200} for number in range(5000)])
        yield
        orders.delete_many({"region": "many"})


@pytest.mark.usefixtures("many_orders")
async def test_an_export_that_is_being_made_is_watched_by_its_own_session_and_by_no_other(exporting):
    async with session(exporting) as client, session(exporting) as same_user, session(exporting, OTHER_USER) as other:
        async with client.news() as news, other.news() as of_other:
            while True:
                result = (await ask(client, "tools/call", name="export", arguments=LARGE))["result"]
                uri = next(part["uri"] for part in result["content"] if part["type"] == "resource_link")
                for stranger in (same_user, other):
                    answer = await ask(stranger, "resources/subscribe", uri=uri)
                    assert answer["error"]["code"] == -32002
                spelled = uri.replace(".json", "%2Ejson")
                assert (await ask(client, "resources/subscribe", uri=spelled))["result"] == {}
                read = (await ask(client, "resources/read", uri=uri))["result"]["contents"][0]["text"]
                if "still being generated" in read:
                    break  # else it was ready before anybody could subscribe, and is not told of
            told = await anext(news)
            assert told["method"] == "notifications/resources/updated"
            assert told["params"] == {"uri": spelled}
            read = (await ask(client, "resources/read", uri=uri))["result"]["contents"][0]["text"]
            assert "still being generated" not in read
            await client.end()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(of_other)
        wait_until(
            lambda: {"resources/subscribe", "resources/unsubscribe"} <= set(sent(exporting)), "the server to be told"
        )
    watched = [row for row in exporting.records() if row["method"] == "resources/subscribe"]
    assert {row["event"] for row in watched} == {"intent", "outcome", "refusal"}


def sent(deployment: Deployment) -> list[str]:
    """The methods that were sent to the server."""
    lines = (deployment.folder / "demo-ro.stdin").read_bytes().splitlines()
    return [msgspec.json.decode(line).get("method", "") for line in lines]
