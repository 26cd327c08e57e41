"""The MCP Inspector's web page, driven as a person does, at the real authorization server and the sidecar."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import parts, programs
from tests.authorization_server import CLIENTS, AuthorizationServer, authorized
from tests.authorized.test_log_in import (
    CHROMIUM,
    COUNT,
    HERE,
    LOAD,
    LOADER,
    LOOK,
    PARTS,
    STEPPED_UP,
    actor,
    scopes_asked,
)
from tests.hours import policies_on
from tests.integration.deployment import Deployment, deployed, wait_until
from tests.patience import HANG_S

INSPECTOR = "mcp-inspector"
pytestmark = pytest.mark.needs(INSPECTOR, CHROMIUM)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[tuple[AuthorizationServer, Deployment]]:
    folder = tmp_path_factory.mktemp("inspector")
    port = parts.free_port()
    policies = policies_on(folder)
    with authorized(folder, resource=f"http://127.0.0.1:{port}/mcp") as server:
        issuers = f'[[issuers]]\nissuer = "{server.issuer}"\n'
        with deployed(folder, database, port=port, issuers=issuers, policies=policies) as deployment:
            yield server, deployment


@contextmanager
def inspecting(folder: Path, port: int, entry: dict[str, Any]) -> Iterator[str]:
    """The Inspector with one server in its list; yields the link that it prints."""
    config, log = folder / "servers.json", folder / "inspector.log"
    config.write_text(json.dumps({"mcpServers": {"sidecar": entry}}))
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - the tests' own environment
        "HOME": str(folder),
        "CLIENT_PORT": str(port),
        "MCP_SANDBOX_PORT": "0",
        "MCP_APP_ORIGIN_PORT": "0",
        "MCP_AUTO_OPEN_ENABLED": "false",
        "MCP_INSPECTOR_SECRET_STORE": "memory",
    }
    command = [programs.path_of(INSPECTOR) or "", "--web", "--config", str(config)]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
        )

    def link() -> str | None:
        found = re.search(rf"http://127\.0\.0\.1:{port}\?\S+", log.read_text())
        return found and found[0]

    try:
        wait_until(link, f"the Inspector; its log: {log}", process)
        yield link() or ""
    finally:
        parts.stop(process)


def driven(link: str, who: tuple[str, str], calls: list[dict[str, Any]]) -> dict[str, Any]:
    """What came of a person's way through the page."""
    told = {"link": link, "user": who[0], "password": who[1], "calls": calls}
    done = subprocess.run(
        ["node", str(HERE / "inspector.mjs"), str(PARTS / "clients"), programs.path_of(CHROMIUM) or ""],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)  # noqa: TID251 - the script's own answer
    return found


def test_the_page_registers_itself_logs_its_person_in_and_calls(
    server: AuthorizationServer, deployment: Deployment, tmp_path: Path
) -> None:
    with inspecting(tmp_path, parts.free_port(), {"type": "http", "url": deployment.url}) as link:
        found = driven(link, ("alice", server.password("alice")), [COUNT])
    ((counted,),) = found["outcomes"]
    assert 'Found 12 documents in the collection "orders".' in counted["shown"]
    (asked,) = found["asked"]
    assert (asked["resource"], asked["code_challenge_method"]) == (deployment.url, "S256")
    assert scopes_asked(found) == [{"mongodb:read"}]
    assert actor(deployment) == ("alice", asked["client_id"])


def test_the_page_asks_its_person_again_once_where_its_token_lacks_a_scope(
    server: AuthorizationServer, deployment: Deployment, tmp_path: Path
) -> None:
    port = parts.free_port()
    metadata = {**CLIENTS[LOADER]["metadata"], "redirect_uris": [f"http://127.0.0.1:{port}/oauth/callback"]}
    server.change(clients={**CLIENTS, LOADER: {"metadata": metadata}})
    entry = {"type": "http", "url": deployment.url, "oauth": {"clientId": LOADER}}
    with inspecting(tmp_path, port, entry) as link:
        found = driven(link, ("larry", server.password("larry")), [LOOK, LOAD])
    assert scopes_asked(found) == STEPPED_UP
    (_,), (dialog, loaded) = found["outcomes"]
    assert "additional scope: mongodb:write" in dialog["asks"]
    assert "Results" in loaded["shown"]
    assert actor(deployment) == ("larry", LOADER)
    with deployment.database() as database:
        assert database.staging.orders.count_documents({"total": 1}) == 1
