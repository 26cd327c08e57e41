"""The demo's authorization server: oidc-provider as a program of its own, with the demo's people and their agents.

The tour logs in there as people do afterwards with their own clients. Everything about it is made at the start and gone
with it: passwords, signing key, registered clients.
"""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from sidecar.demo.identities import EVERYBODY, SCOPES, TOKEN_SECONDS
from sidecar.errors import ConfigurationError
from sidecar.system import StandardStreams, spawn

PROGRAM: Final = "demo-authorization-server"
"""Its configuration is described in ``parts/authorization-server/configuration.js``."""

CALLBACK: Final = "http://127.0.0.1/callback"
"""Where the demo's own clients are sent back to, at any port (RFC 8252 section 7.3)."""

INSPECTOR: Final = ("http://localhost:6274", "http://127.0.0.1:6274")
"""The page of the MCP Inspector, which is a client of its own in version 1: where it is unless told otherwise."""

START_SECONDS: Final = 30.0
PASSWORD_BYTES: Final = 9


def made_passwords() -> dict[str, str]:
    """Make a password for each of the demo's people."""
    return {person.user: secrets.token_urlsafe(PASSWORD_BYTES) for person in EVERYBODY}


@asynccontextmanager
async def running(
    program: Path, issuer: str, *, resource: str, passwords: Mapping[str, str], private: Path
) -> AsyncIterator[None]:
    """Run it for as long as the block lasts.

    Args:
        program: what is run.
        issuer: its own address, on loopback.
        resource: what its tokens are for (RFC 8707).
        passwords: of the demo's people.
        private: a folder that only this user can enter.

    Raises:
        ConfigurationError: there is no Node, or it does not start.
    """
    if shutil.which("node") is None:
        raise ConfigurationError("node is not on PATH; the demo's people log in with a program that needs it")
    file = private / "authorization-server.json"
    file.touch(mode=0o600)
    file.write_bytes(msgspec.json.encode(_configuration(issuer, resource, passwords)))
    process = await spawn((str(program), str(file)), StandardStreams())
    try:
        await _answers(issuer, process)
        yield
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def _configuration(issuer: str, resource: str, passwords: Mapping[str, str]) -> dict[str, Any]:
    return {
        "issuer": issuer,
        "resources": {resource: {"scopes": [*SCOPES], "ttl_s": TOKEN_SECONDS}},
        "people": {
            person.user: {"password": passwords[person.user], "claims": {"groups": [*person.groups]}}
            for person in EVERYBODY
        },
        "clients": {agent: {"metadata": _metadata(agent)} for agent in {person.agent for person in EVERYBODY}},
        "registration": True,
        "origins": [*INSPECTOR],
    }


def _metadata(agent: str) -> dict[str, Any]:
    """A client of this machine, which keeps no secret (RFC 7591 section 2)."""
    return {
        "client_name": agent,
        "application_type": "native",
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"],
        "redirect_uris": [CALLBACK, "http://localhost/callback"],
    }


async def _answers(issuer: str, process: asyncio.subprocess.Process) -> None:
    async with aiohttp.ClientSession(trust_env=False) as http:
        with suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                while process.returncode is None:
                    with suppress(aiohttp.ClientError):
                        async with http.get(f"{issuer}/.well-known/oauth-authorization-server") as response:
                            if response.status == 200:  # noqa: PLR2004 - OK
                                return
                    await asyncio.sleep(0.05)
    said = "did not answer" if process.returncode is None else f"ended with status {process.returncode}"
    raise ConfigurationError(f"{PROGRAM} {said}")
