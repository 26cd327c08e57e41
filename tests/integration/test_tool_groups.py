"""Groups of tools in a real deployment: on, they work; off, every place says so; their secrets reach the child."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from sidecar.demo import database as demo_database
from sidecar.demo.identities import Person
from tests import parts
from tests.integration.deployment import Deployment, deployed, search_path, wait_until
from tests.patience import HANG_S
from tests.policy_sets import quick_copy
from tests.signer import ISSUER

EXPORTER = Person(user="eve", agent="claude-desktop", groups=("exporters",), scopes=("mongodb:read", "mongodb:export"))
EXPORT = {
    "connectionId": "preconfigured",
    "database": "sales",
    "collection": "orders",
    "exportTitle": "orders of the EU",
    "exportTarget": [{"name": "find", "arguments": {"filter": {"region": "EU"}}}],
}
ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
GRANTS = """
grant contains {"id": "exporters-export-orders"} if {
	input.access.kind in {"read", "export"}
	lib.on("sales", ["orders"])
	lib.in_group("exporters")
}

grant contains {"id": "exporters-see-organisations"} if {
	input.access.kind == "metadata"
	input.access.target.kind == "organisation"
	lib.in_group("exporters")
}
"""
API_ID, API_SECRET = "mdb_sa_id_0123456789abcdef01234567", "mdb_sa_sk_s3cret-of-atlas"
PROXY_PASSWORD = "s3cret-of-the-proxy"


def with_policies(folder: Path) -> Path:
    """The shipped policies, where one group exports orders and lists organisations."""
    copy = quick_copy(folder / "policies")
    team = copy / "teams/analytics/policy.rego"
    team.write_text(team.read_text() + GRANTS)
    data = copy / "platform/data.json"
    tables = msgspec.json.decode(data.read_bytes())
    platform = tables["mcp"]["platform"]
    reading = platform["routes"][0]
    reading["groups"].append("exporters")
    reading["kinds"].append("export")
    platform["agents"]["default"]["kinds"].append("export")
    platform["traits"]["exports_file"] = {"groups": ["exporters"]}
    demo = platform["deployments"]["demo"]
    demo["databases"]["sales"]["delegated"][0]["kinds"].append("export")
    demo["targets"]["organisation"] = {
        "owner": "analytics",
        "delegated": [{"kinds": ["metadata"], "collections": ["*", ""]}],
        "obligations": [],
    }
    data.write_bytes(msgspec.json.encode(tables))
    return copy


class Proxy:
    """Stands where a proxy to the Atlas Administration API would; keeps what each connection asks, and hangs up."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://user:{PROXY_PASSWORD}@127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with closing(connection):
                    connection.settimeout(5)
                    self.asked.append(connection.recv(4096).decode("latin-1").split("\r\n")[0])

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    made = Proxy()
    yield made
    made.close()


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory, database: str, proxy: Proxy) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("on")
    (folder / "atlas").write_text(API_SECRET + "\n")
    (folder / "further").write_text(
        f"# Kerberos and a proxy\nKRB5_CONFIG=/etc/krb5.conf\nHTTPS_PROXY={proxy.url}\nHTTP_PROXY={proxy.url}\n"
    )
    settings = f"""
tool_groups = ["export", "atlas"]
api_client_id = "{API_ID}"
api_client_secret_file = "{folder / "atlas"}"
environment_file = "{folder / "further"}"
confirmation_required_tools = ["insert-many", "atlas-create-db-user"]
"""
    with deployed(folder, database, of_servers=settings, policies=with_policies(folder)) as running:
        yield running


@pytest.fixture(scope="module")
def off(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Deployment]:
    """The same policies, and no setting."""
    folder = tmp_path_factory.mktemp("off")
    with deployed(folder, database, policies=with_policies(folder)) as running:
        yield running


async def called(deployment: Deployment, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The whole JSON-RPC answer."""
    async with deployment.plain(EXPORTER) as client:
        await client.initialize()
        return (await client.call(tool, arguments)).body


async def listed(deployment: Deployment) -> set[str]:
    async with deployment.plain(EXPORTER) as client:
        await client.initialize()
        return {tool["name"] for tool in (await client.tools()).result["tools"]}


def claims() -> dict[str, Any]:
    return {
        "iss": ISSUER,
        "sub": EXPORTER.user,
        "client_id": EXPORTER.agent,
        "groups": list(EXPORTER.groups),
        "scope": " ".join(EXPORTER.scopes),
    }


def command(deployment: Deployment, *words: str, given: object = None) -> subprocess.CompletedProcess[str]:
    """Run the command line under the settings of the deployment."""
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        cwd=parts.ROOT,
        env={"PATH": search_path(), "SIDECAR_CONFIG": str(deployment.folder / "sidecar.toml")},
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


def decided(deployment: Deployment, tool: str, arguments: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    done = command(
        deployment, "decide", "--json", given={"claims": claims(), "call": {"name": tool, "arguments": arguments}}
    )
    found: dict[str, Any] = msgspec.json.decode(done.stdout)
    return done.returncode, found


def shown(deployment: Deployment) -> str:
    policies = str(deployment.folder / "policies")
    done = command(deployment, "policy", "show", policies, "--claims", "-", given=claims())
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment_of(process: psutil.Process) -> dict[str, str]:
    return process.environ()


# --- on ---------------------------------------------------------------------------------------------------------------


async def test_an_export_that_is_on_and_granted_is_listed_decided_done_and_recorded(on):
    await demo_database.seed(on.uri)
    assert "export" in await listed(on)
    status, document = decided(on, "export", EXPORT)
    assert (status, document["enforcement"]["allow"]) == (0, True)
    result = (await called(on, "export", EXPORT))["result"]
    assert not result.get("isError"), result
    assert [call["name"] for call in on.reached("demo-ro")][-1] == "export"
    (link,) = [item for item in result["content"] if item["type"] == "resource_link"]
    assert link["uri"].startswith("exported-data://")
    written = exported(on, link["uri"].removeprefix("exported-data://"))
    assert {order["region"] for order in written} == {"EU"}
    intent, outcome = on.records()[-2:]
    assert (intent["event"], intent["tool"], intent["decision"]["allow"]) == ("intent", "export", True)
    assert (outcome["event"], outcome["outcome"]["status"]) == ("outcome", "ok")


def exported(deployment: Deployment, name: str) -> list[dict[str, Any]]:
    """What the server wrote below the home that its environment names; it goes on writing after its answer."""
    (server,) = [one for one in servers(deployment) if environment_of(one)["MDB_MCP_READ_ONLY"] == "true"]
    home = Path(environment_of(server)["HOME"])
    written: list[dict[str, Any]] = []

    def whole() -> bool:
        for path in home.rglob(Path(name).name):
            with suppress(msgspec.DecodeError):
                written[:] = msgspec.json.decode(path.read_bytes(), type=list[dict[str, Any]])
        return bool(written)

    wait_until(whole, f"{name} below {home}")
    return written


async def test_an_export_of_another_collection_is_refused_by_policy(on):
    result = (await called(on, "export", {**EXPORT, "collection": "customers"}))["result"]
    assert result["isError"]
    reasons = result["_meta"]["mcp-sidecar/decision"]["reasons"]
    assert {reason["code"] for reason in reasons} == {"not_granted"}


async def test_an_atlas_tool_that_is_on_and_granted_goes_out_as_the_service_account(on, proxy):
    assert "atlas-list-orgs" in await listed(on)
    status, document = decided(on, "atlas-list-orgs", {})
    assert (status, document["enforcement"]["allow"]) == (0, True)
    result = (await called(on, "atlas-list-orgs", {}))["result"]
    assert result["isError"], "the proxy lets nobody out"
    assert "_meta" not in result or "mcp-sidecar/decision" not in result["_meta"], "it was the server that failed"
    assert [call["name"] for call in on.reached("demo-ro")][-1] == "atlas-list-orgs"
    assert {line.split(" ")[1] for line in proxy.asked} == {"cloud.mongodb.com:443"}
    assert API_SECRET not in str(result)
    assert PROXY_PASSWORD not in str(result)


def test_policy_show_marks_nothing_where_it_is_on(on):
    table = shown(on)
    assert "export" in table
    assert "OFF" not in table


# --- off --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tool", "arguments"), [("export", EXPORT), ("atlas-list-orgs", {})])
async def test_what_is_off_is_unknown_in_every_place_though_policy_grants_it(off, tool, arguments):
    assert tool not in await listed(off)
    before = off.all_reached()
    error = (await called(off, tool, arguments))["error"]
    never_heard_of = (await called(off, "no-such-tool", {}))["error"]
    assert error == never_heard_of
    assert off.all_reached() == before
    refusal = next(record for record in reversed(off.records()) if record["tool"] == tool)
    assert refusal["event"] == "refusal"
    assert refusal["outcome"]["error"] == "tool_group_off"
    assert not (refusal["decision"] or {}).get("allow")
    status, document = decided(off, tool, arguments)
    assert (status, document["enforcement"]["allow"]) == (1, False)
    assert {reason["code"] for reason in document["enforcement"]["reasons"]} == {"tool_group_off"}


def test_policy_show_marks_what_is_off(off):
    rows = [line for line in shown(off).splitlines() if "OFF" in line]
    assert rows


# --- what reaches whom ------------------------------------------------------------------------------------------------


def servers(deployment: Deployment) -> list[psutil.Process]:
    """The MCP servers themselves, not the pipes before them."""
    return [
        child
        for child in deployment.children("mongodb-mcp-server")
        if child.name() == "node" or "node" in child.cmdline()[0]
    ]


def test_secrets_of_atlas_and_proxy_reach_the_childs_environment_and_nothing_else(on):
    assert len(servers(on)) == 2
    for server in servers(on):
        environment = environment_of(server)
        assert environment["MDB_MCP_API_CLIENT_ID"] == API_ID
        assert environment["MDB_MCP_API_CLIENT_SECRET"] == API_SECRET
        assert environment["KRB5_CONFIG"] == "/etc/krb5.conf"
        assert PROXY_PASSWORD in environment["HTTPS_PROXY"]
    assert on.process is not None
    sidecar = psutil.Process(on.process.pid)
    others = [sidecar, *on.children("/opa")]
    assert len(others) == 3
    for secret in (API_SECRET, PROXY_PASSWORD, on.uri):
        assert not [process.pid for process in others if secret in Path(f"/proc/{process.pid}/environ").read_text()]
        everybody = [sidecar, *sidecar.children(recursive=True)]
        assert not [process.pid for process in everybody if secret in " ".join(process.cmdline())]
        assert secret not in on.log_file.read_text()
        assert secret not in on.audit_file.read_text()
        assert secret not in on.admin("/metrics")[1]


def test_the_child_has_the_listed_environment_and_no_more(on, off):
    base = {"PATH", "LANG", "NODE_ENV", "DO_NOT_TRACK", "HOME", "TMPDIR", "LC_CTYPE"}
    more = {
        frozenset(name for name in environment_of(server) if not name.startswith("MDB_MCP_")) - base
        for server in servers(on)
    }
    assert more == {frozenset({"KRB5_CONFIG", "HTTPS_PROXY", "HTTP_PROXY"})}
    none = [environment_of(server).keys() - base for server in servers(off)]
    assert [name for names in none for name in names if not name.startswith("MDB_MCP_")] == []


def test_the_tools_to_confirm_reach_the_child(on, off):
    name = "MDB_MCP_CONFIRMATION_REQUIRED_TOOLS"
    assert {environment_of(server)[name] for server in servers(on)} == {"insert-many,atlas-create-db-user"}
    assert not any(name in environment_of(server) for server in servers(off))
