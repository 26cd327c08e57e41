"""The page about networks: what it names is real, its example decides, and mutual TLS reaches a database."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from sidecar.control_settings import ControlTls
from sidecar.demo.client import DemoClient
from sidecar.demo.identities import ANALYST
from sidecar.outgoing import demand_named
from sidecar.settings import Settings
from sidecar.store.mongodb.connection import require_verified_tls
from sidecar.upstream.environment import mongodb_environment, read_further
from tests import parts
from tests.edge.test_tls import issue
from tests.integration.deployment import deployed
from tests.patience import HANG_S
from tests.project.test_named_evidence import missing, rows

PAGE = (parts.ROOT / "docs/network.md").read_text()
CONNECTIONS = re.findall(r"^(mongodb\S+)$", PAGE, re.MULTILINE)


def test_every_connection_of_the_picture_is_in_the_table_and_names_a_test() -> None:
    picture = PAGE.partition("```\n")[2].partition("```")[0]
    drawn = {int(number) for number in re.findall(r"\((\d+)\)", picture)}
    header, *table = rows(PAGE[PAGE.index("| | connection |") : PAGE.index("A connection to another")])
    assert header == ["", "connection", "who proves what", "test"] or header[-1] == "test"
    assert {int(cells[0].strip("| ")) for cells in table} == drawn == set(range(1, 13))
    assert all(re.fullmatch(r"`tests/\S+::\w+`", cells[-1]) for cells in table)
    assert missing(PAGE) == []


def test_every_secret_that_can_be_replaced_names_a_test() -> None:
    header, *table = rows(PAGE[PAGE.index("| secret | how |") :])
    assert header == ["secret", "how", "test"]
    assert all(re.fullmatch(r"`tests/\S+::\w+`", cells[-1]) for cells in table)
    reference = (parts.ROOT / "docs/reference/settings.md").read_text()
    files = {name for name in re.findall(r"`(\w+)` \| path \|", reference) if name.endswith("_file")}
    files |= set(ControlTls.model_fields) - {"operators"}
    section = PAGE[PAGE.index("## Replacing a secret") :]
    assert len(files) >= 17
    assert {name for name in files if not re.search(rf"`(\w+\.)?{name}`", section)} == set()


def test_each_way_to_log_in_is_a_connection_that_the_sidecar_and_the_child_take() -> None:
    assert [re.findall(r"authMechanism=([A-Z0-9-]+)", uri) for uri in CONNECTIONS] == [
        [],
        ["MONGODB-X509"],
        ["MONGODB-OIDC"],
        ["GSSAPI"],
    ]
    for uri in CONNECTIONS:
        server = {"name": "a", "command": ["mongodb-mcp-server"], "connection_string": uri}
        issuers = [{"issuer": "https://idp.corp.example"}]
        demand_named(Settings(resource_url="https://mcp.corp.example/mcp", servers=[server], issuers=issuers))
        given = mongodb_environment(uri, read_only=True)["MDB_MCP_CONNECTION_STRING"]
        assert given.startswith(uri), "what the page says reaches the server"


MECHANISMS = ["", "MONGODB-X509", "MONGODB-OIDC", "GSSAPI"]
_PARSED = """
const { MongoClient } = require(process.argv[1]);
for (const uri of process.argv.slice(2)) {
  const { credentials, tls, srvHost, hosts } = new MongoClient(uri).options;
  console.log(JSON.stringify([credentials.mechanism, credentials.source, tls, srvHost ?? hosts[0].host]));
}
"""


def test_the_driver_of_the_mcp_server_takes_each_way_to_log_in() -> None:
    """``new MongoClient`` reads the whole string, its mechanism and what goes with it; it dials nothing."""
    driver = parts.ROOT / ".parts/node_modules/mongodb"
    uris = [uri.replace("<password>", "secret") for uri in CONNECTIONS]
    done = subprocess.run(["node", "-e", _PARSED, str(driver), *uris], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read = [json.loads(line) for line in done.stdout.splitlines()]  # noqa: TID251 - our own script's output
    sources = ["admin", "$external", "$external", "$external"]
    assert [(one[0], one[1], one[2]) for one in read] == [
        (mechanism or "DEFAULT", source, True) for mechanism, source in zip(MECHANISMS, sources, strict=True)
    ]
    assert {one[3] for one in read} == {"cluster0.example.mongodb.net", "db.corp.example"}
    wrong = uris[2].replace("ENVIRONMENT:k8s", "ENVIRONMENT:moon")
    assert subprocess.run(["node", "-e", _PARSED, str(driver), wrong], capture_output=True, check=False).returncode


def test_pymongo_takes_each_way_to_log_in_for_views_and_the_shared_store(tmp_path: Path) -> None:
    certificate, key = issue(tmp_path, "client")
    shown = tmp_path / "shown.pem"
    shown.write_bytes(certificate.read_bytes() + key.read_bytes())
    for uri, mechanism in zip(CONNECTIONS, MECHANISMS, strict=True):
        # Of a name of SRV records PyMongo asks the DNS at once.
        given = re.sub("/etc/mcp-sidecar/db-ca.pem", str(certificate), uri.replace("mongodb+srv://", "mongodb://"))
        given = re.sub("/run/secrets/sales-ro.pem", str(shown), given.replace("<password>", "secret"))
        assert not require_verified_tls(given)
        with MongoClient[dict[str, Any]](given, connect=False) as client:
            credentials = client.options.pool_options._credentials
            assert credentials is not None
            assert credentials.mechanism == (mechanism or "DEFAULT")


def test_the_page_says_of_each_way_what_was_tried() -> None:
    section = PAGE[PAGE.index("What was tried of it") : PAGE.index("## Replacing a secret")]
    header, *table = rows(section)
    assert header == ["way", "read by both drivers", "logged in"]
    assert [cells[0] for cells in table] == ["SCRAM", "SCRAM over mutual TLS", "X.509", "OIDC", "Kerberos"]
    assert [cells[2].startswith("`tests/") for cells in table] == [True, True, False, False, False]
    assert all(cells[1].startswith("`tests/") for cells in table)


def test_the_environment_of_each_way_is_what_a_child_may_have() -> None:
    blocks = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)
    assert [sorted(read_further(block)) for block in blocks] == [
        ["AZURE_FEDERATED_TOKEN_FILE"],
        ["KRB5CCNAME", "KRB5_CLIENT_KTNAME", "KRB5_CONFIG"],
    ]


# --- the example ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped set, in which the loading team has the page's grant instead of its own for writes."""
    [grant] = re.findall(r"```rego\n(.*?)```", PAGE, re.DOTALL)
    folder = tmp_path_factory.mktemp("example")
    policies = folder / "policies"
    subprocess.run(["cp", "-r", str(parts.ROOT / "policies"), str(policies)], check=True)
    file = policies / "teams/loading/policy.rego"
    changed, times = re.subn(
        r'grant contains \{"id": "loader-inserts-on-weekdays"\} if \{\n.*?\n\}\n',
        lambda _: grant,
        file.read_text(),
        flags=re.DOTALL,
    )
    assert times == 1
    file.write_text(changed)
    return policies


def decided(policies: Path, environment: str, tool: str, **arguments: Any) -> int:
    claims = {
        "sub": "larry",
        "client_id": "nightly-loader",
        "groups": ["loaders"],
        "scope": "mongodb:read mongodb:write",
    }
    named = {"database": "staging", "collection": "orders", "connectionId": "preconfigured"}
    asked = {"claims": claims, "call": {"name": tool, "arguments": {**named, **arguments}}}
    command = [sys.executable, "-m", "sidecar", "decide", "--policies", str(policies), "--environment", environment]
    done = subprocess.run(
        command,
        cwd=parts.ROOT,
        env={"PATH": f"{parts.BIN}:{os.defpath}"},
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode


@pytest.mark.nightly
@pytest.mark.real
@pytest.mark.parametrize(
    ("environment", "tool", "arguments", "status"),
    [
        ("staging", "insert-many", {"documents": [{}]}, 0),
        ("production", "insert-many", {"documents": [{}]}, 1),
        ("production", "find", {"filter": {}}, 0),
    ],
    ids=["a write in staging", "a write in production", "a read in production"],
)
def test_the_example_writes_in_staging_and_reads_in_production(
    example: Path, environment: str, tool: str, arguments: dict[str, Any], status: int
) -> None:
    assert decided(example, environment, tool, **arguments) == status


# --- mutual TLS to a database -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A database with users that lets nobody in without a certificate."""

    port: int
    authority: Path
    shown: Path

    def uri(self, *, shown: bool = True) -> str:
        certificate = f"&tlsCertificateKeyFile={self.shown}" if shown else ""
        return (
            f"mongodb://reader:secret@localhost:{self.port}/?directConnection=true&authSource=admin"
            f"&tls=true&tlsCAFile={self.authority}{certificate}"
        )


@contextmanager
def stand_in(folder: Path, port: int, uri: str, *options: str) -> Iterator[None]:
    command = [str(parts.installed("secantusd-py")), "--host", "127.0.0.1", "--port", str(port), "--log-level", "ERROR"]
    process = subprocess.Popen([*command, "--storage-path", str(folder / "data"), *options], cwd=folder)
    try:
        with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=500) as client:
            ends = time.monotonic() + HANG_S
            while True:
                try:
                    client.admin.command("hello")
                except PyMongoError:
                    assert process.poll() is None
                    assert time.monotonic() < ends
                else:
                    break
        yield
    finally:
        parts.stop(process)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "data").mkdir()
    port = parts.free_port()
    server, key = issue(folder, "server")
    client, client_key = issue(folder, "client")
    shown = folder / "shown.pem"
    shown.write_bytes(client.read_bytes() + client_key.read_bytes())
    found = Guarded(port=port, authority=server, shown=shown)
    plain = f"mongodb://127.0.0.1:{port}/"
    with stand_in(folder, port, plain), MongoClient[dict[str, Any]](plain) as made:
        made.sales.orders.insert_one({"_id": 1, "region": "EU"})
        made.admin.command({"createUser": "reader", "pwd": "secret", "roles": [{"role": "read", "db": "sales"}]})
    options = ("--tls-cert-file", str(server), "--tls-key-file", str(key), "--tls-ca-file", str(client))
    with stand_in(folder, port, found.uri(), *options, "--tls-require-client-cert", "--auth"):
        yield found


async def found_by(folder: Path, uri: str) -> bool:
    """Whether a sidecar with the real MCP server finds something with this connection string."""
    with deployed(folder, uri) as running:
        async with DemoClient(running.url, running.token(ANALYST), "test") as client:
            assert (await client.initialize()).status == 200
            wanted = {"database": "sales", "collection": "orders", "connectionId": "preconfigured", "filter": {}}
            answer = await client.call("find", wanted)
    return not answer.result.get("isError", False)


@pytest.mark.nightly
@pytest.mark.real
async def test_a_database_that_asks_for_certificates_is_reached_with_one_and_not_without(
    guarded: Guarded, tmp_path: Path
) -> None:
    assert await found_by(tmp_path, guarded.uri())
    assert not await found_by(tmp_path, guarded.uri(shown=False))
