"""A call that lacks only scopes says which, on every leg; one that lacks anything else says what it always said."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Self

import httpx2
import jwt
import pytest

from sidecar.demo.identities import ANALYST, LOADER, Person
from tests.integration.deployment import Deployment, deployed
from tests.patience import HANG_S
from tests.signer import ISSUER

DECISION, STEP_UP = "mcp-sidecar/decision", "mcp-sidecar/step-up"
STAGING = {"connectionId": "preconfigured", "database": "staging", "collection": "orders"}
INSERT: dict[str, Any] = {"name": "insert-many", "arguments": {**STAGING, "documents": [{"_id": "step-up"}]}}
FIND: dict[str, Any] = {"name": "find", "arguments": {**STAGING, "filter": {}, "limit": 1}}
READER = replace(LOADER, scopes=("mongodb:read",))
"""The loader with a token that only reads."""
NOBODY = replace(LOADER, scopes=())


class Raw:
    """A session of exact requests; the answers are as they came."""

    def __init__(self, deployment: Deployment, person: Person, token: str | None = None) -> None:
        self.deployment = deployment
        self.headers = {
            "Accept": "application/json, text/event-stream",
            "Authorization": f"Bearer {token or deployment.token(person)}",
        }
        self.http = httpx2.AsyncClient(timeout=HANG_S)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def open(self, revision: str = "2025-11-25") -> Self:
        client = {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        answer = await self.ask("initialize", client)
        assert answer.status_code == 200, answer.text
        self.headers |= {"Mcp-Session-Id": answer.headers["Mcp-Session-Id"], "MCP-Protocol-Version": revision}
        return self

    async def ask(self, method: str, params: dict[str, Any], number: int = 7) -> httpx2.Response:
        return await self.post({"jsonrpc": "2.0", "id": number, "method": method, "params": params})

    async def call(self, call: dict[str, Any]) -> httpx2.Response:
        return await self.ask("tools/call", call)

    async def post(self, body: Any) -> httpx2.Response:
        return await self.http.post(self.deployment.url, json=body, headers=self.headers)

    async def send(self, method: str) -> httpx2.Response:
        return await self.http.request(method, self.deployment.url, headers=self.headers)


def token_with(deployment: Deployment, scope: Any, **claims: Any) -> str:
    """A token of the loader's whose claim ``scope`` is exactly this; none where it is ``...``."""
    now = int(time.time())
    payload: dict[str, Any] = {
        "iss": ISSUER,
        "sub": LOADER.user,
        "aud": deployment.url,
        "iat": now,
        "exp": now + 300,
        "jti": "step-up",
        "client_id": LOADER.agent,
        "groups": [*LOADER.groups],
        **({} if scope is ... else {"scope": scope}),
        **claims,
    }
    return jwt.encode(payload, deployment.issuer._key, algorithm="ES256", headers={"typ": "at+jwt", "kid": "demo"})


def told(deployment: Deployment) -> dict[str, Any]:
    """The last line of the log about a call that lacked scopes."""
    lines = [
        line for line in deployment.log_file.read_text().splitlines() if "call refused: insufficient_scope" in line
    ]
    line: dict[str, Any] = json.loads(lines[-1])  # noqa: TID251 - our own log
    return line


def metadata_url(deployment: Deployment) -> str:
    return f"http://127.0.0.1:{deployment.port}/.well-known/oauth-protected-resource/mcp"


def challenge(deployment: Deployment, scope: str) -> str:
    return (
        f'Bearer resource_metadata="{metadata_url(deployment)}", scope="{scope}", error="insufficient_scope", '
        'error_description="The token\'s scope does not cover this operation."'
    )


async def test_a_call_that_lacks_only_a_scope_is_challenged(deployment: Deployment, samples: Any) -> None:
    before = deployment.all_reached()
    async with Raw(deployment, READER) as client:
        await client.open()
        answer = await client.call(INSERT)
        after = await client.call(FIND)
    assert answer.status_code == 403
    assert answer.headers["WWW-Authenticate"] == challenge(deployment, "mongodb:read mongodb:write")
    body = answer.json()
    assert (body["id"], body["error"]["code"]) == (7, 1403)
    assert body["error"]["message"] == (
        "Refused: inserting into staging.orders needs a token that also has the scope mongodb:write; "
        "sign in again with more scope."
    )
    assert body["error"]["data"][STEP_UP] == {
        "error": "insufficient_scope",
        "scope": "mongodb:read mongodb:write",
        "missing": ["mongodb:write"],
    }
    assert body["error"]["data"][DECISION]["allow"] is False
    assert after.json()["result"].get("isError") is not True, "the session goes on"
    assert [call["name"] for call in deployment.all_reached()[len(before) :]] == ["find"]
    with deployment.database() as database:
        assert database.staging.orders.find_one({"_id": "step-up"}) is None


async def test_a_token_with_the_scopes_of_the_challenge_is_enough(deployment: Deployment, samples: Any) -> None:
    async with Raw(deployment, NOBODY) as client:
        await client.open()
        answer = await client.call(INSERT)
    scopes = answer.json()["error"]["data"][STEP_UP]["scope"]
    assert scopes == "mongodb:write"
    async with Raw(deployment, replace(NOBODY, scopes=tuple(scopes.split()))) as client:
        await client.open()
        answer = await client.call(INSERT)
    assert answer.status_code == 200
    assert not answer.json()["result"].get("isError")
    with deployment.database() as database:
        assert database.staging.orders.find_one({"_id": "step-up"}) == {"_id": "step-up"}


async def test_it_is_evidence(deployment: Deployment, samples: Any) -> None:
    async with Raw(deployment, READER) as client:
        await client.open()
        await client.call(INSERT)
    record = deployment.records()[-1]
    assert (record["event"], record["outcome"]["error"], record["tool"]) == (
        "refusal",
        "insufficient_scope",
        "insert-many",
    )
    assert record["decision"]["missing_scopes"] == ["mongodb:write"]
    assert {reason["code"] for reason in record["decision"]["reasons"]} == {"no_route", "scope_missing"}
    metrics = deployment.admin("/metrics")[1]
    refused = [line for line in metrics.splitlines() if line.startswith("mcp_sidecar_refusals_total")]
    assert any('error="insufficient_scope"' in line and 'stage="authorize"' in line for line in refused)
    assert told(deployment)["missing_scopes"] == ["mongodb:write"]


async def test_an_allowed_call_lacks_nothing(deployment: Deployment, samples: Any) -> None:
    async with Raw(deployment, READER) as client:
        await client.open()
        await client.call(FIND)
    assert not any("missing_scopes" in record["decision"] for record in deployment.records()[-2:])


@pytest.mark.parametrize(
    ("person", "call"),
    [
        (ANALYST, INSERT),
        (replace(READER, agent="claude-desktop"), INSERT),
        (READER, {**INSERT, "arguments": {**INSERT["arguments"], "database": "sales"}}),
        (READER, {**INSERT, "arguments": {**INSERT["arguments"], "database": "hr", "collection": "salaries"}}),
        (READER, {**INSERT, "arguments": {**INSERT["arguments"], "database": "nowhere"}}),
        (READER, {**INSERT, "arguments": {**INSERT["arguments"], "database": "admin"}}),
        (READER, {"name": "drop-collection", "arguments": STAGING}),
        (READER, {"name": "no-such-tool", "arguments": {}}),
        (READER, {**INSERT, "arguments": {"documents": 7}}),
    ],
    ids=[
        "no grant in any scope",
        "an agent's ceiling",
        "another database",
        "somebody else's database",
        "a database that is not there",
        "a database of MongoDB's own",
        "a kind that nobody grants",
        "a tool that is not there",
        "arguments of another form",
    ],
)
async def test_a_call_that_lacks_something_else_is_answered_as_with_every_scope(
    deployment: Deployment, samples: Any, person: Person, call: dict[str, Any]
) -> None:
    """The answer names no scope and no challenge, and is in form what a token with every scope gets."""
    every = ("mongodb:read", "mongodb:write", "mongodb:admin", "mongodb:export")
    answers = []
    for scopes in (person.scopes, every):
        async with Raw(deployment, replace(person, scopes=scopes)) as client:
            await client.open()
            answers.append(await client.call(call))
    assert [(answer.status_code, answer.headers.get("WWW-Authenticate")) for answer in answers] == [(200, None)] * 2
    assert STEP_UP not in answers[0].text
    lacking, holding = (answer.json() for answer in answers)
    assert lacking.keys() == holding.keys()
    assert lacking.get("error") == holding.get("error")


async def test_one_of_two_accesses_that_no_scope_opens_is_enough_for_no_challenge(
    deployment: Deployment, samples: Any
) -> None:
    own: dict[str, Any] = {"$match": {}}
    foreign = {"$lookup": {"from": {"db": "hr", "coll": "salaries"}, "as": "s", "pipeline": []}}
    async with Raw(deployment, NOBODY) as client:
        await client.open()
        alone, both = [
            await client.call({"name": "aggregate", "arguments": {**STAGING, "pipeline": stages}})
            for stages in ([own], [own, foreign])
        ]
    assert (alone.status_code, both.status_code) == (403, 200)
    assert "salaries" in both.text
    assert STEP_UP not in both.text


async def test_the_list_shows_what_more_scopes_would_open(deployment: Deployment) -> None:
    lists = []
    for person in (READER, NOBODY, LOADER):
        async with Raw(deployment, person) as client:
            await client.open()
            answer = await client.ask("tools/list", {})
        lists.append({tool["name"] for tool in answer.json()["result"]["tools"]})
    assert lists[0] == lists[1] == lists[2]
    assert "insert-many" in lists[0]
    async with Raw(deployment, ANALYST) as client:
        await client.open()
        answer = await client.ask("tools/list", {})
    assert "insert-many" not in answer.text


async def test_what_touches_no_data_needs_no_scope(deployment: Deployment) -> None:
    async with Raw(deployment, NOBODY) as client:
        await client.open()
        assert (await client.ask("ping", {})).status_code == 200
        assert (await client.ask("tools/list", {})).status_code == 200
        refused = await client.ask("resources/list", {})
        assert (refused.status_code, refused.json()["error"]["code"]) == (200, -32601)
        async with client.http.stream(
            "GET", deployment.url, headers={**client.headers, "Accept": "text/event-stream"}
        ) as stream:
            assert stream.status_code == 200
        assert (await client.send("DELETE")).status_code == 204


async def test_a_member_of_a_batch_has_a_result_and_the_others_theirs(deployment: Deployment, samples: Any) -> None:
    async with Raw(deployment, READER) as client:
        await client.open("2025-03-26")
        members = [
            {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": call}
            for number, call in enumerate((FIND, INSERT))
        ]
        answer = await client.post(members)
    assert (answer.status_code, answer.headers.get("WWW-Authenticate")) == (200, None)
    found, refused = (member["result"] for member in answer.json())
    assert not found.get("isError")
    assert refused["isError"] is True
    assert refused["_meta"][STEP_UP]["missing"] == ["mongodb:write"]


@pytest.mark.parametrize(
    ("scope", "asked"),
    [
        (..., "mongodb:write"),
        ("", "mongodb:write"),
        ("openid profile", "mongodb:write"),
        (["mongodb:read"], "mongodb:read mongodb:write"),
        ("mongodb:read mongodb:read mongodb:read", "mongodb:read mongodb:write"),
        ("MONGODB:WRITE mongodb:read", "mongodb:read mongodb:write"),
        ("mongodb:writ mongodb:write2 mongodb: mongodb", "mongodb:write"),
        (" ".join(f"s{number}" for number in range(500)), "mongodb:write"),
        ("offline_access mongodb:read", "mongodb:read mongodb:write"),
        ("*", "mongodb:write"),
    ],
    ids=["absent", "empty", "others", "list", "repeated", "capitals", "near misses", "500", "offline", "star"],
)
async def test_whatever_the_token_says_the_challenge_names_the_platforms_scopes_only(
    deployment: Deployment, samples: Any, scope: Any, asked: str
) -> None:
    async with Raw(deployment, LOADER, token_with(deployment, scope)) as client:
        await client.open()
        answer = await client.call(INSERT)
    assert answer.status_code == 403
    assert answer.headers["WWW-Authenticate"] == challenge(deployment, asked)


async def test_a_client_that_asks_again_and_again_is_answered_alike(deployment: Deployment, samples: Any) -> None:
    async with Raw(deployment, READER) as client:
        await client.open()
        answers = {(await client.call(INSERT)).headers["WWW-Authenticate"] for _ in range(20)}
    assert answers == {challenge(deployment, "mongodb:read mongodb:write")}
    assert deployment.reached("demo-rw") == [] or deployment.reached("demo-rw")[-1]["name"] != "drop-collection"


async def test_a_token_of_more_scopes_than_are_read_is_refused_itself(deployment: Deployment) -> None:
    scope = " ".join(f"s{number}" for number in range(513))
    async with Raw(deployment, LOADER, token_with(deployment, scope)) as client:
        answer = await client.ask("ping", {})
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert 'scope="mongodb:read"' in answer.headers["WWW-Authenticate"]


@pytest.fixture(scope="module")
def gentle(tmp_path_factory: Any, database: str) -> Iterator[Deployment]:
    """One with ``step_up = "result"``, which asks clients for a scope that is misspelt."""
    extra = 'step_up = "result"\nscopes = ["mongodb:read", "mongodb:rea"]'
    with deployed(tmp_path_factory.mktemp("gentle"), database, extra=extra) as running:
        yield running


async def test_where_it_is_set_the_scopes_are_in_a_tool_result(gentle: Deployment) -> None:
    async with Raw(gentle, READER) as client:
        await client.open()
        answer = await client.call(INSERT)
    assert (answer.status_code, answer.headers.get("WWW-Authenticate")) == (200, None)
    result = answer.json()["result"]
    assert result["isError"] is True
    assert result["_meta"][STEP_UP] == {
        "error": "insufficient_scope",
        "scope": "mongodb:read mongodb:write",
        "missing": ["mongodb:write"],
    }
    assert result["_meta"][DECISION]["allow"] is False
    assert "needs a token that also has the scope mongodb:write" in result["content"][0]["text"]
    record = gentle.records()[-1]
    assert record["outcome"]["error"] == "insufficient_scope"
    assert record["decision"]["missing_scopes"] == ["mongodb:write"]
    assert told(gentle)["missing_scopes"] == ["mongodb:write"]
    assert gentle.all_reached() == []


async def test_a_tool_result_of_what_lacks_something_else_names_no_scope(gentle: Deployment) -> None:
    async with Raw(gentle, replace(READER, agent="claude-desktop")) as client:
        await client.open()
        answer = await client.call({**FIND, "arguments": {**FIND["arguments"], "collection": "elsewhere"}})
    assert answer.status_code == 200
    assert STEP_UP not in answer.text


def test_a_scope_that_clients_are_asked_for_and_that_opens_nothing_is_told_at_the_start(
    gentle: Deployment, deployment: Deployment
) -> None:
    said = "the setting scopes asks for"
    (line,) = [line for line in gentle.log_file.read_text().splitlines() if said in line]
    assert '"mongodb:rea", which opens nothing here: did you mean mongodb:read?' in line.replace("\\", "")
    assert said not in deployment.log_file.read_text(), "the near miss"
