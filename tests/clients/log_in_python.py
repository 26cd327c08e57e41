"""Run as a process of its own: an official Python client (1.x or 2.x) that gets its tokens itself, then calls tools.

Standard input: ``url``, ``calls``, and ``browser``, a command that is given a link, logs in there and prints where it
was sent. ``client_id`` for a registered client, with ``client_secret`` for a service; without, the client registers
itself. ``callback`` is its redirect URI, ``scope`` what it asks for at first. Prints what came of the calls, what it
asked for and the kind of token it has, as JSON.
"""

# mypy: ignore-errors
# its imports are those of the environment that runs it

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

try:
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client
    from mcp.shared.auth import AuthorizationCodeResult
except ImportError:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    httpx2 = None

SECONDS = 300


class Storage:
    """What a client keeps, in memory."""

    def __init__(self, known: OAuthClientInformationFull | None) -> None:
        self.client = known
        self.tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Person:
    """Opens links as the person in front of the client."""

    def __init__(self, browser: list[str]) -> None:
        self.browser = browser
        self.links: list[str] = []

    async def open(self, link: str) -> None:
        self.links.append(link)

    async def come_back(self) -> Any:
        run = await asyncio.to_thread(
            subprocess.run, [*self.browser, self.links[-1]], capture_output=True, text=True, check=True, timeout=300
        )
        said = {name: values[0] for name, values in parse_qs(urlsplit(run.stdout).query).items()}
        if httpx2 is None:
            return said["code"], said.get("state")
        return AuthorizationCodeResult(code=said["code"], state=said.get("state"), iss=said.get("iss"))


def provider(told: dict[str, Any], storage: Storage, person: Person) -> Any:
    if "client_secret" in told:
        more = {} if httpx2 is None else {"scope": told.get("scope"), "issuer": told["issuer"]}
        if httpx2 is None:
            more = {"scopes": told.get("scope")}
        return ClientCredentialsOAuthProvider(
            told["url"], storage, client_id=told["client_id"], client_secret=told["client_secret"], **more
        )
    metadata = OAuthClientMetadata(
        client_name="A Python client",
        redirect_uris=[told["callback"]],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
        scope=told.get("scope"),
    )
    return OAuthClientProvider(
        server_url=told["url"],
        client_metadata=metadata,
        storage=storage,
        redirect_handler=person.open,
        callback_handler=person.come_back,
    )


@asynccontextmanager
async def caller(url: str, auth: Any) -> Any:
    if httpx2 is None:
        async with (
            streamablehttp_client(url, auth=auth) as (read, write, _),
            ClientSession(read, write, read_timeout_seconds=timedelta(seconds=SECONDS)) as session,
        ):
            await session.initialize()
            yield session
    else:
        async with (
            httpx2.AsyncClient(auth=auth, timeout=SECONDS) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            yield client


async def main(told: dict[str, Any]) -> dict[str, Any]:
    known = None
    if "client_id" in told and "client_secret" not in told:
        known = OAuthClientInformationFull(
            client_id=told["client_id"], redirect_uris=[told["callback"]], token_endpoint_auth_method="none"
        )
        if httpx2 is not None:
            known.issuer = told["issuer"]
    storage, person = Storage(known), Person(told["browser"])
    outcomes = []
    async with caller(told["url"], provider(told, storage, person)) as client:
        for call in told["calls"]:
            result = await client.call_tool(call["name"], call["arguments"])
            outcomes.append(result.model_dump(mode="json", by_alias=True))
    return {
        "outcomes": outcomes,
        "asked": [
            {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()} for link in person.links
        ],
        "token_type": storage.tokens.token_type,
        "scope": storage.tokens.scope,
        "client_id": told.get("client_id") or storage.client.client_id,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(json.load(sys.stdin)))))
