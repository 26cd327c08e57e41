"""``client-config`` prints what each client reads, with the address of the settings and without any secret."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from sidecar.client_config import MCP_REMOTE, Client
from sidecar.command_line import cli
from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST
from tests import programs
from tests.integration.deployment import deployed
from tests.patience import HANG_S

URL = "https://mcp.corp.example/mcp"
SECRET = "mongodb://user:a-password-of-the-database@db.example/"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "connection").write_text(SECRET)
    written = tmp_path / "sidecar.toml"
    written.write_text(
        f"""
resource_url = "{URL}"
[[issuers]]
issuer = "https://idp.corp.example"
[[servers]]
name = "main"
command = ["mongodb-mcp-server"]
connection_string_file = "{tmp_path / "connection"}"
"""
    )
    monkeypatch.setenv("SIDECAR_CONFIG", str(written))
    return written


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["client-config", *arguments])


def printed(*arguments: str) -> Any:
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    return msgspec.json.decode(result.stdout)


def test_each_client_gets_its_own_form(file: Path) -> None:
    http = {"type": "http", "url": URL}
    assert printed("claude-code") == {"mcpServers": {"mongodb": http}}
    assert printed("vscode") == {"servers": {"mongodb": http}}
    assert printed("inspector") == {"mcpServers": {"mongodb": {"type": "streamable-http", "url": URL}}}
    assert printed("claude-desktop") == {"mcpServers": {"mongodb": {"command": "npx", "args": ["-y", MCP_REMOTE, URL]}}}


def test_administrators_get_what_they_distribute(file: Path) -> None:
    assert printed("claude-code", "--managed") == {"mcpServers": {"mongodb": {"type": "http", "url": URL}}}
    assert f'"allowedMcpServers": [{{"serverUrl": "{URL}"}}]' in run("claude-code", "--managed").stderr
    assert printed("claude-desktop", "--managed")["managedMcpServers"] == [
        {"name": "mongodb", "transport": "http", "url": URL, "oauth": True}
    ]
    entry = printed("vscode", "--managed")
    assert (entry["name"], entry["remotes"]) == (
        "example.corp.mcp/mongodb",
        [{"type": "streamable-http", "url": URL}],
    )


def test_a_client_can_launch_the_sidecar_itself(file: Path) -> None:
    for client, table in (("claude-desktop", "mcpServers"), ("claude-code", "mcpServers"), ("vscode", "servers")):
        entry = printed(client, "--stdio")[table]["mongodb"]
        assert entry["args"][-1] == "stdio"
        assert Path(entry["command"]).is_absolute()
        assert entry["env"] == {"SIDECAR_CONFIG": str(file)}


def test_launching_is_for_one_machine_with_a_settings_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("claude-code", "--stdio", "--managed").exit_code == 2
    monkeypatch.delenv("SIDECAR_CONFIG")
    monkeypatch.setenv("SIDECAR_RESOURCE_URL", URL)
    monkeypatch.setenv("SIDECAR_ISSUERS", '[{"issuer": "https://idp.corp.example"}]')
    monkeypatch.setenv("SIDECAR_SERVERS", '[{"name": "s", "url": "http://127.0.0.1:1/mcp"}]')
    assert run("claude-code", "--stdio").exit_code == 2
    assert run("claude-code").exit_code == 0


def test_what_nobody_manages_is_wrong_usage(file: Path) -> None:
    assert run("inspector", "--managed").exit_code == 2


@pytest.mark.parametrize("name", ["", "Mongo", "-x", "a b", "x" * 33, "é", "a/b", "$(id)"])
def test_a_name_that_some_client_does_not_take_is_wrong_usage(file: Path, name: str) -> None:
    assert run("vscode", "--name", name).exit_code == 2


def test_a_name_that_all_clients_take_is_used(file: Path) -> None:
    assert list(printed("vscode", "--name", "sales_db-1")["servers"]) == ["sales_db-1"]


@pytest.mark.parametrize("client", [client.value for client in Client])
def test_nothing_secret_is_printed(file: Path, client: str) -> None:
    result = run(client)
    assert "password" not in result.output
    assert "Bearer" not in result.output


def test_without_settings_it_says_that_the_configuration_is_not_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIDECAR_CONFIG", raising=False)
    assert run("vscode").exit_code == 78


@pytest.mark.needs("mcp-inspector")
def test_the_inspector_calls_with_what_is_printed_for_it(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with deployed(tmp_path, database) as running:
        asyncio.run(demo_database.seed(running.uri))
        monkeypatch.setenv("SIDECAR_CONFIG", str(tmp_path / "sidecar.toml"))
        config = tmp_path / "inspector.json"
        config.write_text(run("inspector").stdout)
        found = inspected(config, running.token(ANALYST))
        assert [call["name"] for call in running.reached("demo-ro")] == ["count"]
    assert "isError" not in found or found["isError"] is False


def inspected(config: Path, token: str) -> dict[str, Any]:
    """Return the result of a call by the Inspector, which is given a token on its command line."""
    program = programs.path_of("mcp-inspector")
    assert program is not None
    call = ["--tool-name", "count", "--tool-arg", "connectionId=preconfigured", "database=sales", "collection=orders"]
    command = [program, "--cli", "--config", str(config), "--server", "mongodb", "--method", "tools/call", *call]
    header = ["--header", f"Authorization: Bearer {token}"]
    done = subprocess.run([*command, *header], capture_output=True, text=True, timeout=HANG_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return msgspec.json.decode(done.stdout, type=dict[str, Any])
