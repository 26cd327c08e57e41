"""The real authorization server (oidc-provider) for tests: started, changed while it runs, rotated, stopped.

How to use it::

    with authorized(folder, resource=url) as server:                # tokens for url, by the people and clients below
        settings = f'[[issuers]]\\nissuer = "{server.issuer}"'       # its keys are found by discovery
        token = await server.token("alice")                          # logs in: code + PKCE, as the client ``DESKTOP``
        token = await server.token("larry", client="nightly-loader", scopes=("mongodb:read", "mongodb:write"))
        token = await server.service_token()                         # client credentials of ``nightly-report``

    server.publish("next"); server.sign_with("next"); server.retire("first")    # a key rotation, step by step
    server.rotate()                                                  # publishes a key and signs with it at once
    server.stop(); server.start()                                    # an outage; keys and clients stay, sessions go
    server.change(resources={url: {"scopes": [...], "tokens": "opaque", "ttl_s": 60}})    # any part, while it runs
    server.served("/jwks")                                           # how often an address was answered

With ``opaque=True`` its tokens are opaque, and ``server.introspection`` is what the settings need. The configuration is
``parts/authorization-server/configuration.js``'s; what is not in ``CLIENTS`` and ``PEOPLE`` is given by ``change``.
"""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sidecar.demo import log_in
from tests import parts
from tests.changed_policies import platform_data

SCOPES: Final = ("mongodb:read", "mongodb:write", "mongodb:admin", "mongodb:export")
CALLBACK: Final = "http://127.0.0.1:8976/callback"
DESKTOP: Final = "claude-desktop"
SERVICE: Final = "nightly-report"
SECRET: Final = "not-a-secret-of-anything-outside-of-tests"
EXCHANGER: Final = "research-agent"
TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
OTHER_RESOURCE: Final = "https://elsewhere.test/mcp"
"""A resource of somebody else, whose tokens are good for nothing here."""

PEOPLE: Final[dict[str, dict[str, Any]]] = {
    name: {"password": f"{name}'s password & more", "claims": {"groups": groups}}
    for name, groups in {
        "alice": ["analysts"],
        "larry": ["loaders"],
        "hanna": ["hr-admins"],
        "mallory": [],
    }.items()
}


def _public(name: str, **more: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "client_name": name,
            "application_type": "native",
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            "redirect_uris": [CALLBACK],
            **more,
        }
    }


def _confidential(*grants: str) -> dict[str, Any]:
    return {
        "client_secret": SECRET,
        "grant_types": [*grants],
        "response_types": [],
        "redirect_uris": [],
    }


CLIENTS: Final[dict[str, dict[str, Any]]] = {
    DESKTOP: _public("Claude Desktop"),
    "nightly-loader": _public("Nightly loader"),
    "bound-agent": _public("Bound agent", dpop_bound_access_tokens=True),
    SERVICE: {"metadata": _confidential("client_credentials"), "claims": {"groups": ["analysts"]}},
    "mcp-sidecar": {"metadata": _confidential(), "introspects": True},
}


@dataclass(slots=True, kw_only=True)
class AuthorizationServer:
    """A running authorization server of a test."""

    folder: Path
    configuration: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    _kids: int = field(default=1)

    @property
    def issuer(self) -> str:
        return str(self.configuration["issuer"])

    @property
    def introspection(self) -> str:
        """Settings of an issuer whose tokens are opaque, below ``[[issuers]]``."""
        secret = self.folder / "introspection"
        secret.write_text(SECRET)
        return (
            f'introspection = {{ uri = "{self.issuer}/token/introspection", client_id = "mcp-sidecar", '
            f'secret_file = "{secret}" }}'
        )

    @property
    def resource(self) -> str:
        """The first of its resources."""
        return str(next(iter(self.configuration["resources"])))

    # --- the process --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it; returns when it answers."""
        self._write()
        with self._log.open("ab") as log:
            command = [str(parts.installed("demo-authorization-server")), str(self._file)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._until(self._answers)

    def stop(self) -> None:
        """End it, with all sessions and tokens that it remembers."""
        if self.process is not None:
            parts.stop(self.process)

    def change(self, **changes: Any) -> None:
        """Change parts of its configuration while it runs; returns when they count."""
        assert self.process is not None
        self.configuration |= changes
        self._write()
        before = self._log.read_text().count("the configuration")
        self.process.send_signal(signal.SIGHUP)
        self._until(lambda: self._log.read_text().count("the configuration") > before)
        assert "stays as it was" not in self._log.read_text()

    def served(self, path: str) -> int:
        """How often it has answered for a path."""
        return sum(line.split(" ")[1:2] == [path] for line in self._log.read_text().splitlines())

    # --- keys ---------------------------------------------------------------------------------------------------------

    def publish(self, kid: str) -> None:
        """Publish one more key, which signs nothing yet."""
        self.change(keys=[*self.configuration["keys"], made_key(kid)])

    def sign_with(self, kid: str) -> None:
        """Sign with a published key from now on."""
        keys = self.configuration["keys"]
        self.change(keys=sorted(keys, key=lambda key: key["kid"] != kid))

    def retire(self, kid: str) -> None:
        """Publish a key no longer."""
        self.change(keys=[key for key in self.configuration["keys"] if key["kid"] != kid])

    def rotate(self) -> str:
        """Sign with a new key, which nobody could have fetched before; the old ones stay published."""
        self._kids += 1
        kid = f"key-{self._kids}"
        self.change(keys=[made_key(kid), *self.configuration["keys"]])
        return kid

    # --- tokens -------------------------------------------------------------------------------------------------------

    def password(self, user: str) -> str:
        return str(self.configuration["people"][user]["password"])

    async def answer(
        self,
        user: str,
        *,
        client: str = DESKTOP,
        scopes: tuple[str, ...] = ("mongodb:read",),
        resource: str | None = None,
    ) -> dict[str, Any]:
        """What the token endpoint answers when a person logs in for a client."""
        return await log_in.tokens_of(
            self.issuer,
            log_in.Registered(client_id=client, redirect_uri=CALLBACK),
            (user, self.password(user)),
            resource=resource or self.resource,
            scopes=scopes,
        )

    async def token(self, user: str, **asked: Any) -> str:
        """An access token of a person; what can be asked for is ``answer``'s."""
        return str((await self.answer(user, **asked))["access_token"])

    async def service_token(self, client: str = SERVICE, scope: str = "mongodb:read") -> str:
        """An access token that a client gets for itself (client credentials)."""
        form = {"grant_type": "client_credentials", "scope": scope, "resource": self.resource}
        status, answer = await self.post("/token", form, client=client)
        assert status == 200, answer
        return str(answer["access_token"])

    async def post(self, path: str, form: dict[str, str], *, client: str | None = None) -> tuple[int, dict[str, Any]]:
        """Post a form, as a client with its secret where one is named; returns status and answer."""
        headers = {"Authorization": aiohttp.encode_basic_auth(client, SECRET)} if client else {}
        async with (
            aiohttp.ClientSession(trust_env=False) as http,
            http.post(f"{self.issuer}{path}", data=form, headers=headers) as response,
        ):
            return response.status, await response.json(content_type=None) or {}

    # ------------------------------------------------------------------------------------------------------------------

    @property
    def _file(self) -> Path:
        return self.folder / "authorization-server.json"

    @property
    def _log(self) -> Path:
        return self.folder / "authorization-server.log"

    def _write(self) -> None:
        self._file.touch(mode=0o600)
        self._file.write_text(json.dumps(self.configuration))

    def _answers(self) -> bool:
        address = urlsplit(self.issuer)
        try:
            with socket.create_connection((address.hostname or "", address.port or 80), timeout=5):
                return True
        except OSError:
            return False

    def _until(self, true: Any) -> None:
        deadline = time.monotonic() + parts.START_DEADLINE_S
        while not true():
            assert self.process is not None
            if self.process.poll() is not None or time.monotonic() > deadline:
                msg = f"the authorization server does not answer; its log:\n{self._log.read_text()}"
                raise RuntimeError(msg)
            time.sleep(0.02)


def made_key(kid: str) -> dict[str, str]:
    """A new signing key as the configuration has it."""
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return {"kid": kid, "pem": pem.decode()}


def exchanging(resource: str) -> dict[str, Any]:
    """A client that exchanges people's tokens for ``OTHER_RESOURCE`` for such for another resource, and reads there."""
    return {
        "metadata": _confidential(TOKEN_EXCHANGE),
        "exchanges": {"from": [OTHER_RESOURCE], "to": [resource], "scopes": ["mongodb:read"]},
    }


def register_agent(policies: Path, agent: str) -> None:
    """Register an agent that reads in a copy of the policies, as a service needs it."""
    with platform_data(policies) as platform:
        reads = {"kinds": ["read", "metadata"], "servers": ["*"], "deployments": ["*"]}
        platform["agents"]["registered"][agent] = reads


@contextmanager
def authorized(
    folder: Path, *, resource: str, opaque: bool = False, ttl_s: int = 3600, **changes: Any
) -> Iterator[AuthorizationServer]:
    """A real authorization server with ``PEOPLE`` and ``CLIENTS``, for as long as the block lasts.

    Args:
        folder: where its configuration and log are.
        resource: what its tokens are for, the sidecar's ``resource_url``.
        opaque: whether its access tokens are opaque.
        ttl_s: seconds for which they are valid.
        changes: parts of the configuration that replace the default ones.
    """
    of_resource = {"scopes": [*SCOPES], "tokens": "opaque" if opaque else "jwt", "ttl_s": ttl_s}
    server = AuthorizationServer(
        folder=folder,
        configuration={
            "issuer": f"http://127.0.0.1:{parts.free_port()}",
            "keys": [made_key("first")],
            "resources": {resource: of_resource, OTHER_RESOURCE: {**of_resource, "tokens": "jwt"}},
            "people": PEOPLE,
            "clients": CLIENTS,
            "registration": True,
            **changes,
        },
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()
