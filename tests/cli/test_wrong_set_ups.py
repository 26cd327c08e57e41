"""Set-ups that are wrong: each is refused with one clear line and status 78, or serves and says what is degraded."""

import asyncio
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import aiohttp
import pytest

from sidecar import app, settings
from sidecar.errors import ConfigurationError
from sidecar.system import SystemClock
from tests import parts
from tests.patience import HANG_S
from tests.signer import ISSUER, Signer

START_S = HANG_S
SECRET = "s3cret-of-the-database"


@dataclass(slots=True, kw_only=True)
class SetUp:
    """A set-up that works, to be spoiled in one thing."""

    folder: Path
    document: dict[str, Any]
    environment: dict[str, str] = field(default_factory=dict)
    held: ExitStack
    text: str = ""
    """The settings file instead of ``document``."""
    file: str = ""
    """What SIDECAR_CONFIG names instead of the settings file."""
    clock_ns: int = 0

    @property
    def server(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document["servers"][0]
        return found

    @property
    def issuer(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document["issuers"][0]
        return found

    @property
    def audit_file(self) -> Path:
        return self.folder / "audit.jsonl"

    def written(self, name: str, content: str | bytes, mode: int = 0o600) -> str:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return str(path)

    def variables(self) -> dict[str, str]:
        path = self.file or self.written("sidecar.toml", self.text or toml_document(self.document))
        return {"SIDECAR_CONFIG": path, "PATH": f"{parts.BIN}:{os.environ['PATH']}", **self.environment}  # noqa: TID251 - the tests' own


def toml(value: object) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{name} = {toml(item)}" for name, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case _:
            return json.dumps(value)


def toml_document(document: dict[str, Any]) -> str:
    return "".join(f"{name} = {toml(value)}\n" for name, value in document.items())


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped policies without their tests, which take longest to check."""
    copy = tmp_path_factory.mktemp("set") / "policies"
    return Path(shutil.copytree(parts.ROOT / "policies", copy, ignore=shutil.ignore_patterns("*_test.rego", "cases")))


@pytest.fixture
def good(tmp_path: Path, policies: Path, database: str) -> Iterator[SetUp]:
    Signer().write_keys(tmp_path / "jwks.json")
    port, admin_port = parts.free_port(), parts.free_port()
    server = str(parts.installed("mongodb-mcp-server"))
    document = {
        "listen": f"127.0.0.1:{port}",
        "admin_listen": f"127.0.0.1:{admin_port}",
        "resource_url": f"http://127.0.0.1:{port}/mcp",
        "policies": str(policies),
        "opa": {"binary": str(parts.installed("opa")), "standby": False},
        "audit": {"store": f"file:{tmp_path / 'audit.jsonl'}"},
        "issuers": [{"issuer": ISSUER, "jwks_file": str(tmp_path / "jwks.json"), "algorithms": ["ES256"]}],
        "servers": [
            {"name": "demo-ro", "command": [server], "connection_string": database},
            {"name": "demo-rw", "command": [server], "connection_string": database, "read_only": False},
        ],
    }
    with ExitStack() as held:
        yield SetUp(folder=tmp_path, document=document, held=held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What became of a start."""

    refused: str = ""
    status: int = 0
    failing: tuple[str, ...] = ()
    degraded: tuple[str, ...] = ()


def begun(set_up: SetUp, monkeypatch: pytest.MonkeyPatch, *, until: tuple[str, ...] = ()) -> Found:
    """Start it, as ``serve`` does, and ask ``/readyz`` until its words have all of ``until``, or once."""
    with monkeypatch.context() as patched:
        for name, value in set_up.variables().items():
            patched.setenv(name, value)
        if set_up.clock_ns:
            patched.setattr(SystemClock, "time_ns", staticmethod(lambda: set_up.clock_ns))
        try:
            return asyncio.run(_begun(until))
        except ConfigurationError as error:
            return Found(refused=str(error))


async def _begun(until: tuple[str, ...]) -> Found:
    async with asyncio.timeout(START_S), app.sidecar(settings.load()) as running, aiohttp.ClientSession() as client:
        while True:
            async with client.get(f"{running.admin_url}/readyz") as answer:
                said = await answer.json()
            found = Found(
                status=answer.status, failing=tuple(said["failing"]), degraded=tuple(said.get("degraded", ()))
            )
            if {*until} <= {*found.failing, *found.degraded}:
                return found
            await asyncio.sleep(0.1)


# --- what is refused --------------------------------------------------------------------------------------------------

Spoil = Callable[[SetUp], None]


def setting(*place: str | int, to: Any) -> Spoil:
    """Another value of one setting; ``to`` may be made from the set-up."""

    def spoil(set_up: SetUp) -> None:
        at: Any = set_up.document
        for step in place[:-1]:
            at = at[step] if isinstance(step, int) else at.setdefault(step, {})
        at[place[-1]] = to(set_up) if callable(to) else to

    return spoil


def without(*place: str | int) -> Spoil:
    def spoil(set_up: SetUp) -> None:
        at: Any = set_up.document
        for step in place[:-1]:
            at = at[step]
        del at[place[-1]]

    return spoil


def both(*spoils: Spoil) -> Spoil:
    def spoil(set_up: SetUp) -> None:
        for one in spoils:
            one(set_up)

    return spoil


def variable(name: str, value: str) -> Spoil:
    return lambda set_up: set_up.environment.update({name: value})


def attribute(name: str, value: Any) -> Spoil:
    return lambda set_up: setattr(set_up, name, value)


def file(name: str, content: str | bytes, mode: int = 0o600) -> Callable[[SetUp], str]:
    return lambda set_up: set_up.written(name, content, mode)


def folder(name: str) -> Callable[[SetUp], str]:
    def made(set_up: SetUp) -> str:
        (set_up.folder / name).mkdir()
        return str(set_up.folder / name)

    return made


def keys(document: Any) -> Spoil:
    return setting("issuers", 0, "jwks_file", to=file("other.json", json.dumps(document)))


def private_keys(set_up: SetUp) -> None:
    held = json.loads((set_up.folder / "jwks.json").read_bytes())  # noqa: TID251 - our own file
    held["keys"].append({**held["keys"][0], "kid": "other", "d": "AAAA"})
    keys(held)(set_up)


def taken(*place: str) -> Spoil:
    """The port of a listener belongs to another process."""

    def spoil(set_up: SetUp) -> None:
        other = set_up.held.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        setting(*place, to=f"127.0.0.1:{other.getsockname()[1]}")(set_up)

    return spoil


def in_use(set_up: SetUp) -> None:
    other = set_up.held.enter_context(set_up.audit_file.open("ab"))
    set_up.audit_file.chmod(0o600)
    fcntl.flock(other, fcntl.LOCK_EX)


def policies_with(name: str, content: str | None) -> Spoil:
    """The shipped policies with one file that is other, or that is not there."""

    def spoil(set_up: SetUp) -> None:
        copy = Path(shutil.copytree(set_up.document["policies"], set_up.folder / "policies"))
        set_up.document["policies"] = str(copy)
        if content is None:
            (copy / name).unlink()
        else:
            (copy / name).write_text(content)

    return spoil


class Fixed(BaseHTTPRequestHandler):
    """Answers everything with one page."""

    page = b"<html>Down for maintenance</html>"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.page)))
        self.end_headers()
        self.wfile.write(self.page)

    do_POST = do_GET  # noqa: N815 - the server calls it so

    def log_message(self, *_arguments: object) -> None:  # type: ignore[explicit-override]
        pass


def page(set_up: SetUp) -> str:
    """The URL of a web server that is no part of a set-up."""
    web = ThreadingHTTPServer(("127.0.0.1", 0), Fixed)
    thread = Thread(target=web.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    set_up.held.callback(thread.join)
    set_up.held.callback(web.server_close)
    set_up.held.callback(web.shutdown)
    return f"http://127.0.0.1:{web.server_port}/here"


def nowhere(_set_up: SetUp) -> str:
    return f"http://127.0.0.1:{parts.free_port()}/mcp"


def loop(set_up: SetUp) -> str:
    path = set_up.folder / "loop"
    path.symlink_to(path)
    return str(path)


def pipe(set_up: SetUp) -> str:
    os.mkfifo(set_up.folder / "pipe")
    return str(set_up.folder / "pipe")


def old_opa(set_up: SetUp) -> str:
    return set_up.written("opa", "#!/bin/sh\necho 'Version: 0.60.0'\n", 0o700)


def behind(url: Callable[[SetUp], str], **more: Any) -> Spoil:
    def spoil(set_up: SetUp) -> None:
        made = {name: value(set_up) if callable(value) else value for name, value in more.items()}
        set_up.document["servers"] = [{"name": "demo-ro", "url": url(set_up), "timeout_ms": 3000, **made}]

    return spoil


def only_server(*command: Any, **more: Any) -> Spoil:
    def spoil(set_up: SetUp) -> None:
        words = [word(set_up) if callable(word) else word for word in command]
        set_up.document["servers"] = [set_up.server | {"command": words, "timeout_ms": 3000} | more]

    return spoil


def node_is_old(set_up: SetUp) -> None:
    """What Node 18 says of a program that uses what it does not have."""
    (set_up.folder / "old").mkdir()
    script = (
        "#!/bin/sh\necho \"SyntaxError: The requested module 'node:util' does not provide an export\" >&2\nexit 1\n"
    )
    set_up.written("old/node", script, 0o700)
    set_up.environment["PATH"] = f"{set_up.folder / 'old'}:{parts.BIN}:/usr/bin:/bin"


TOO_LONG = "a" * 300
"""No file system of Linux has such a name (NAME_MAX is 255)."""

REFUSED: dict[str, tuple[Spoil, str]] = {
    # the settings as such
    "a settings file that is not there": (attribute("file", "/nowhere/sidecar.toml"), "SIDECAR_CONFIG"),
    "a folder as settings file": (attribute("file", "/"), "SIDECAR_CONFIG"),
    "a settings file that is not TOML": (attribute("text", "listen = \n"), "line 1"),
    "an unknown setting": (setting("resource_uri", to="x"), "did you mean resource_url?"),
    "an unknown setting of a group": (setting("audit", "on_failur", to="deny"), "did you mean on_failure?"),
    "an unknown setting of a server": (setting("servers", 0, "commands", to=[]), "did you mean command?"),
    "an unknown variable": (
        variable("SIDECAR_LISTENS", "x"),
        "SIDECAR_LISTENS is not a setting; did you mean SIDECAR_LISTEN?",
    ),
    "an unknown variable of a group": (variable("SIDECAR_OPA__TIMEOUT", "5"), "did you mean SIDECAR_OPA__TIMEOUT_MS?"),
    "a text where a number belongs": (setting("max_request_bytes", to="much"), "max_request_bytes"),
    "a number out of range": (setting("opa", "timeout_ms", to=0), "opa.timeout_ms"),
    "a list that is not JSON": (variable("SIDECAR_SERVERS", "demo-ro"), "servers"),
    "an unknown log level": (setting("log_level", to="LOUD"), "log_level"),
    "no resource URL": (without("resource_url"), "resource_url"),
    "no issuer": (setting("issuers", to=[]), "issuers"),
    "no server": (setting("servers", to=[]), "servers"),
    "a claim without a name": (setting("issuers", 0, "claims", to={"subject": ""}), "claim"),
    "a generic tool with half a digest": (
        setting("servers", 0, "generic_tools", to=[{"name": "report", "sha256": "0f2c"}]),
        "servers.0.generic_tools.0.sha256: 64 hexadecimal digits in lower case are needed, as mcp-sidecar inspect",
    ),
    "a generic tool that is only a name": (
        setting("servers", 0, "generic_tools", to=["report"]),
        "servers.0.generic_tools.0: a table is needed",
    ),
    "session keys that are none": (
        setting("session_keys_file", to=lambda s: s.written("session-keys", "abc\n")),
        "session_keys_file: ",
    ),
    "a host that is a URL": (setting("allowed_hosts", to=["https://x/"]), "allowed_hosts"),
    # listeners
    "an address without a port": (setting("listen", to="127.0.0.1"), "listen"),
    "a listener that others reach without TLS": (setting("listen", to="0.0.0.0:8080"), "tls_ended_by"),
    "a listener of IPv6 that others reach without TLS": (setting("listen", to="[::]:8080"), "tls_ended_by"),
    "an admin listener that others reach": (setting("admin_listen", to="10.0.0.1:8081"), "tls_ended_by"),
    "one address for both listeners": (setting("admin_listen", to=lambda s: s.document["listen"]), "admin_listen"),
    "a port in use": (taken("listen"), "listen: cannot listen on"),
    "an admin port in use": (taken("admin_listen"), "admin_listen: cannot listen on"),
    "a public URL in the clear": (setting("resource_url", to="http://mcp.corp.example/mcp"), "https://"),
    "a resource URL with a fragment": (setting("resource_url", to="https://mcp.corp.example/mcp#x"), "resource_url"),
    # issuers and keys
    "one issuer twice": (lambda s: s.document["issuers"].append(s.issuer), f"{ISSUER} occurs twice"),
    "two sources of keys": (setting("issuers", 0, "jwks_uri", to="https://idp.example/keys"), "jwks_uri"),
    "keys from an address in the clear": (
        both(without("issuers", 0, "jwks_file"), setting("issuers", 0, "jwks_uri", to="http://idp.example/keys")),
        "HTTPS",
    ),
    "a key file that is not there": (setting("issuers", 0, "jwks_file", to="/nowhere.json"), "issuers.0.jwks_file"),
    "a folder as key file": (setting("issuers", 0, "jwks_file", to=folder("keys")), "issuers.0.jwks_file"),
    "a key file that is not JSON": (setting("issuers", 0, "jwks_file", to=file("k", "---")), "issuers.0.jwks_file"),
    "a key file that is not text": (
        setting("issuers", 0, "jwks_file", to=file("k", b"\xff\xfe")),
        "issuers.0.jwks_file",
    ),
    "a key set without keys": (keys({"keys": []}), "no usable key"),
    "a key set of shared secrets": (keys({"keys": [{"kty": "oct", "k": "AAAA"}]}), "shared secret"),
    "a key set with a private key": (private_keys, "private key"),
    "an address of keys with a web page": (
        both(without("issuers", 0, "jwks_file"), setting("issuers", 0, "jwks_uri", to=page)),
        "issuers: the keys of",
    ),
    # servers
    "two servers of one name": (setting("servers", 1, "name", to="demo-ro"), "demo-ro occurs twice"),
    "a name that no route could have": (setting("servers", 0, "name", to="Demo RO"), "servers.0.name"),
    "a server with two transports": (setting("servers", 0, "url", to="http://127.0.0.1:1/mcp"), "exactly one"),
    "a server without a transport": (without("servers", 0, "command"), "exactly one"),
    "a server without a database": (without("servers", 0, "connection_string"), "connection_string"),
    "two connection strings": (setting("servers", 0, "connection_string_file", to="/x"), "connection_string"),
    "a secret that is not there": (
        both(
            without("servers", 0, "connection_string"), setting("servers", 0, "connection_string_file", to="/nowhere")
        ),
        "servers.0.connection_string_file",
    ),
    "an empty secret": (
        both(
            without("servers", 0, "connection_string"),
            setting("servers", 0, "connection_string_file", to=file("u", "\n")),
        ),
        "empty",
    ),
    "a secret that is not text": (
        both(
            without("servers", 0, "connection_string"),
            setting("servers", 0, "connection_string_file", to=file("u", b"\xff\xfe")),
        ),
        "servers",
    ),
    "a connection string that is none": (
        setting("servers", 0, "connection_string", to=f"reader:{SECRET}@db"),
        "mongodb://",
    ),
    "a connection string without a host": (setting("servers", 0, "connection_string", to="mongodb:///x"), "host"),
    "a connection string with a wrong port": (
        setting("servers", 0, "connection_string", to=f"mongodb://u:{SECRET}@127.0.0.1:what/"),
        "connection string",
    ),
    "a certificate of the database that is not there": (
        setting("servers", 0, "connection_string", to="mongodb://127.0.0.1/?tls=true&tlsCAFile=/nowhere.pem"),
        "connection string",
    ),
    "a server's program that is not there": (setting("servers", 0, "command", to=["no-such-server"]), "no-such-server"),
    "a server's program that ends at once": (only_server("/bin/false"), "servers (demo-ro)"),
    "a server's program that does not speak MCP": (only_server("/bin/echo", "hello"), "servers (demo-ro)"),
    "a Node that is too old": (node_is_old, "node:util"),
    "a server behind a URL that is not there": (behind(nowhere), "servers (demo-ro)"),
    "a web page in place of a server": (behind(page), "servers (demo-ro)"),
    "headers that are none": (behind(nowhere, headers_file=file("h", "secret\n")), "Name: value"),
    "a connection for views that is none": (setting("servers", 0, "views_connection_string", to="x://y"), "servers"),
    "no route to any server": (lambda s: s.document.update(servers=[s.server | {"name": "other"}]), "no route"),
    # OPA and policies
    "an OPA that is not there": (setting("opa", "binary", to="/nowhere/opa"), "opa.binary"),
    "an OPA that is too old": (setting("opa", "binary", to=old_opa), "0.60.0"),
    "a program in place of OPA": (setting("opa", "binary", to="/bin/true"), "opa"),
    "an outside OPA that is not there": (setting("opa", "url", to=nowhere), "opa"),
    "a web page in place of an outside OPA": (setting("opa", "url", to=page), "opa"),
    "an address of OPA that is none": (setting("opa", "url", to="ftp://opa"), "opa.url"),
    "a certificate for an OPA without TLS": (
        both(setting("opa", "url", to="http://127.0.0.1:1"), setting("opa", "ca_file", to=file("ca", "x"))),
        "opa.ca_file",
    ),
    "a token that would leave in the clear": (
        both(
            both(setting("opa", "url", to="http://opa.example:8181"), setting("opa", "token_file", to=file("t", "x"))),
            setting("insecure_connections", to=["opa.url"]),
        ),
        "opa.token_file",
    ),
    "a database on another machine in the clear": (
        setting("servers", 0, "connection_string", to=f"mongodb://u:{SECRET}@db.example/"),
        "insecure_connections",
    ),
    "policies that are not there": (setting("policies", to="/nowhere"), "policies"),
    "an empty policy folder": (setting("policies", to=folder("empty")), "platform/.manifest"),
    "policies without a route": (
        policies_with("platform/data.json", '{"mcp": {"platform": {"routes": []}}}'),
        "platform/data.json",
    ),
    "policies that do not parse": (policies_with("teams/analytics/policy.rego", "package x\nallow {"), "policy.rego"),
    "policies without the platform's data": (
        policies_with("platform/data.json", None),
        "no route of platform/data.json",
    ),
    # evidence
    "a folder as audit file": (setting("audit", "store", to=lambda s: f"file:{s.folder}"), "audit.store"),
    "an audit file in a folder that is not there": (
        setting("audit", "store", to="file:/nowhere/a.jsonl"),
        "audit.store",
    ),
    "an audit file that others can write": (
        setting("audit", "store", to=lambda s: f"file:{s.written('a', '', 0o666)}"),
        "chmod 600",
    ),
    "an audit file of another sidecar": (in_use, "in use by another process"),
    "another file as audit file": (
        setting("audit", "store", to=lambda s: "file:" + s.written("a", "notes\n")),
        "audit.store",
    ),
    "one file for audit and suspensions": (
        lambda s: s.document.update(suspensions=s.document["audit"]["store"]),
        "audit.store: ",
    ),
    "an audit file that is a key file": (
        setting("audit", "store", to=lambda s: f"file:{s.folder / 'jwks.json'}"),
        "is also issuers.0.jwks_file",
    ),
    "an audit file in the policy folder": (
        setting("audit", "store", to=lambda s: f"file:{s.document['policies']}/audit.jsonl"),
        "lies in the policy folder",
    ),
    "a folder for suspensions": (setting("suspensions", to=lambda s: f"file:{s.folder}"), "is a folder"),
    "an audit file that leads to itself": (
        setting("audit", "store", to=lambda s: f"file:{loop(s)}"),
        "audit.store",
    ),
    "a pipe as audit file": (setting("audit", "store", to=lambda s: f"file:{pipe(s)}"), "not a regular file"),
    "a device as audit file": (setting("audit", "store", to="file:/dev/null"), "not a regular file"),
    "an audit file in the home of a shell": (setting("audit", "store", to="file:~/nowhere/a"), "audit.store"),
    "an unknown store": (setting("audit", "store", to="postgres://x"), "file:<path>"),
    # what a person writes in a hurry
    "a settings file that leads to itself": (lambda s: setattr(s, "file", loop(s)), "SIDECAR_CONFIG"),
    "a settings file in another encoding": (
        lambda s: setattr(s, "file", s.written("l.toml", 'environment = "B\u00fcro"\n'.encode("latin-1"))),
        "the settings cannot be read",
    ),
    "a settings file with a setting twice": (attribute("text", "listen = 'a:1'\nlisten = 'b:2'\n"), "line 2"),
    "an empty settings file": (lambda s: setattr(s, "file", s.written("e.toml", "")), "resource_url: is not set"),
    "no settings file": (variable("SIDECAR_CONFIG", ""), "SIDECAR_CONFIG names no settings file"),
    "a variable for the settings file": (variable("SIDECAR_CONFIGS", "x"), "did you mean SIDECAR_CONFIG?"),
    "a group with one underscore": (variable("SIDECAR_OPA_TIMEOUT_MS", "5"), "did you mean SIDECAR_OPA__TIMEOUT_MS?"),
    "a command that is one text": (setting("servers", 0, "command", to="mongodb-mcp-server"), "a list is needed"),
    "a command with its arguments in one text": (
        setting("servers", 0, "command", to=["mongodb-mcp-server --readOnly"]),
        "servers.0.command: program",
    ),
    "a folder as the server's program": (setting("servers", 0, "command", to=["/usr"]), "servers.0.command"),
    "an argument that the server does not know": (
        lambda s: s.server["command"].append("--no-such-argument"),
        "--no-such-argument",
    ),
    "a server's name in capitals": (setting("servers", 1, "name", to="DEMO-RW"), "servers.1.name"),
    "a connection string with a line break": (
        setting("servers", 0, "connection_string", to="mongodb://127.0.0.1:1/\nmongodb://127.0.0.1:2/"),
        "a space or a line break",
    ),
    "a connection string with a space at its end": (
        setting("servers", 0, "connection_string", to="mongodb://127.0.0.1:1/ "),
        "a space or a line break",
    ),
    "a connection string in quotes": (
        both(
            without("servers", 0, "connection_string"),
            setting("servers", 0, "connection_string_file", to=file("u", '"mongodb://127.0.0.1:1/"\n')),
        ),
        "begins with mongodb://",
    ),
    "a group of tools that is none": (setting("servers", 0, "tool_groups", to=["Export"]), "tool_groups.0"),
    "Atlas without an account": (setting("servers", 0, "tool_groups", to=["atlas"]), "api_client_id"),
    "an environment file of a shell": (
        setting("servers", 0, "environment_file", to=file("e", "export KRB5_CONFIG=/x\n")),
        "line 1 is not NAME=value",
    ),
    "an environment that runs other code": (
        setting("servers", 0, "environment_file", to=file("e", "NODE_OPTIONS=--inspect\n")),
        "NODE_OPTIONS",
    ),
    "a tool to confirm that is none": (
        setting("servers", 0, "confirmation_required_tools", to=["drop-everything"]),
        "drop-everything",
    ),
    "an algorithm with a shared secret": (
        setting("issuers", 0, "algorithms", to=["HS256"]),
        "issuers.0.algorithms.0: ",
    ),
    "an address with a port beyond all ports": (setting("listen", to="127.0.0.1:99999"), "listen: "),
    "an address of IPv6 without brackets": (setting("listen", to="::1:8080"), "listen: use host:port"),
    "a URL as address": (setting("listen", to="http://127.0.0.1:8080"), "listen: use host:port"),
    "a socket in a folder that is not there": (setting("listen", to="unix:/nowhere/s"), "listen: cannot listen on"),
    "a file where a socket should be": (
        setting("listen", to=lambda s: "unix:" + s.written("precious", "x")),
        "a file that is no socket",
    ),
    "a policy folder that leads to itself": (setting("policies", to=loop), "is not a folder"),
    "a file as policy folder": (setting("policies", to=file("p", "x")), "is not a folder"),
    "a program of another machine in place of OPA": (
        setting("opa", "binary", to=file("opa", b"\x7fELF of elsewhere", 0o700)),
        "cannot be executed",
    ),
    # what no program of the system takes
    "a settings file with too long a name": (attribute("file", f"/{TOO_LONG}"), "SIDECAR_CONFIG names"),
    "a key file with too long a name": (setting("issuers", 0, "jwks_file", to=f"/{TOO_LONG}"), "issuers.0.jwks_file"),
    "policies with too long a name": (setting("policies", to=f"/{TOO_LONG}"), "policies: "),
    "suspensions with too long a name": (setting("suspensions", to=f"file:/{TOO_LONG}"), "suspensions: "),
    "approvals with too long a name": (
        lambda s: s.document.update(approvals={"store": f"file:/{TOO_LONG}"}),
        "approvals.store: ",
    ),
    "a NUL in the command": (
        setting("servers", 0, "command", to=["/bin/cat", "a\0b"]),
        "servers.0.command.1 has a NUL",
    ),
    "a NUL in the name of the audit file": (setting("audit", "store", to="file:/a\0b"), "audit.store has a NUL"),
    "a NUL in the name of a candidate": (setting("policies_candidate", to="/a\0b"), "policies_candidate has a NUL"),
    "a NUL in a secret": (
        setting("servers", 0, "connection_string", to=f"mongodb://u:{SECRET}\0@127.0.0.1/"),
        "servers.0.connection_string has a NUL",
    ),
    "an environment that is not UTF-8": (variable("SIDECAR_ENVIRONMENT", "B\udcfcro"), "environment has a NUL"),
    "settings that are nested too deeply": (attribute("text", f"a = {'[' * 5000}{']' * 5000}"), "nested too deeply"),
    "a variable that is nested too deeply": (variable("SIDECAR_SERVERS", "[" * 100_000), "nested too deeply"),
    "a secret that is a database": (
        both(
            without("servers", 0, "connection_string"),
            setting("servers", 0, "connection_string_file", to=file("db", b"mongodb://" + bytes(70_000))),
        ),
        "so it is no secret",
    ),
    # one thing in the place of another
    "a server that is no list": (setting("servers", to={"name": "demo-ro"}), "each below a line [[servers]]"),
    "scopes in one text": (setting("scopes", to=["mongodb:read mongodb:write"]), "scopes.0: what may stand in a scope"),
    "an issuer without a scheme": (setting("issuers", 0, "issuer", to="idp.example"), "issuers.0.issuer: a URL is"),
    "an issuer with a space behind it": (
        setting("issuers", 0, "issuer", to="https://idp.example/ "),
        "issuers.0.issuer: a URL is needed",
    ),
    "one file for audit and approvals": (
        lambda s: s.document.update(approvals={"store": s.document["audit"]["store"]}),
        "is also approvals.store",
    ),
    "one file for suspensions and approvals": (
        lambda s: s.document.update(suspensions="file:/x/y", approvals={"store": "file:/x/y"}),
        "suspensions: /x/y is also approvals.store",
    ),
    "a folder for approvals": (lambda s: s.document.update(approvals={"store": f"file:{s.folder}"}), "is a folder"),
    # the machine
    "a clock at its beginning": (attribute("clock_ns", 5 * 10**9), "clock"),
    "a clock far ahead": (attribute("clock_ns", 5_000_000_000 * 10**9), "clock"),
    "an exporter's address without a scheme": (
        variable("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318"),
        "OTEL_EXPORTER_OTLP_ENDPOINT is no http://",
    ),
    "an exporter's address without a host": (
        variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://"),
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is no http://",
    ),
    "a word for an exporter's number": (variable("OTEL_BSP_SCHEDULE_DELAY", "often"), "OTEL_BSP_SCHEDULE_DELAY"),
    "an exporter without support": (
        both(
            variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
            variable("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ),
        "http/protobuf",
    ),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_it_is_refused_with_one_line_that_names_what_is_wrong(
    good: SetUp, wrong: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spoil, named = REFUSED[wrong]
    spoil(good)
    found = begun(good, monkeypatch)
    assert named in found.refused, f"it started: {found}" if not found.refused else ""
    assert len(found.refused.splitlines()) == 1
    assert SECRET not in found.refused
    assert [record.getMessage() for record in caplog.records if record.exc_info] == [], "no stack anywhere"


@pytest.mark.parametrize(
    "wrong",
    [
        "a key set without keys",
        "an unknown setting",
        "an audit file of another sidecar",
        "session keys that are none",
    ],
)
def test_the_command_prints_that_line_and_ends_with_78(good: SetUp, wrong: str) -> None:
    spoil, named = REFUSED[wrong]
    spoil(good)
    environment = good.variables() | {"PYTHONPATH": str(parts.ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "serve"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
    )
    assert done.returncode == 78
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert named in done.stderr


# --- what serves and says so ------------------------------------------------------------------------------------------


def away(set_up: SetUp) -> str:
    return f"mongodb://reader:{SECRET}@127.0.0.1:{parts.free_port()}/"


@pytest.mark.parametrize("option", ["bogus=1", "maxPoolSize=ten", "readPreference=nearby", "authMechanism=NOPE"])
def test_an_option_that_no_driver_takes_is_degraded_because_every_call_would_fail(
    good: SetUp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, option: str
) -> None:
    good.server["connection_string"] += f"?appName=x&{option}&retryWrites=true"
    found = begun(good, monkeypatch)
    assert found == Found(status=200, degraded=("connection_string:demo-ro",))
    name = option.partition("=")[0]
    assert caplog.text.count(f"options that no driver takes, so every call would fail: {name}\n") == 1


def other_issuer(set_up: SetUp) -> None:
    set_up.document["issuers"].append({"issuer": "http://127.0.0.1:1", "jwks_uri": nowhere(set_up)})


def several(set_up: SetUp) -> None:
    """Five mistakes at once, each of which would leave the others as they are."""
    set_up.server["connection_string"] = away(set_up)
    other_issuer(set_up)
    set_up.document["servers"][1]["name"] = "demo-wr"
    set_up.document["resource_url"] = "http://127.0.0.1:9/mcp"
    broken = Path(shutil.copytree(set_up.document["policies"], set_up.folder / "candidate"))
    (broken / "platform/routing.rego").write_text("package x\nallow {")
    set_up.document["policies_candidate"] = str(broken)


def test_what_can_wait_is_degraded_and_logged_once(
    good: SetUp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    several(good)
    words = ("candidate", "database:demo-ro", "keys:http://127.0.0.1:1", "routes", "resource_url")
    assert begun(good, monkeypatch, until=words) == Found(status=200, degraded=words)
    for said in ("candidate policy folder", "database of demo-ro", "keys of http", "a route leads to demo-rw", "9/mcp"):
        assert (
            len([r for r in caplog.records if said in r.getMessage() and r.levelname in {"WARNING", "ERROR"}]) == 1
        ), said
    assert [record for record in caplog.records if record.exc_info] == []
    assert SECRET not in caplog.text


def test_approvals_that_cannot_be_read_are_degraded(
    good: SetUp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    good.document["approvals"] = {"store": f"file:{good.written('approvals', 'notes')}"}
    assert begun(good, monkeypatch) == Found(status=200, degraded=("approvals",))
    assert caplog.text.count("the file of approvals cannot be used") == 1


def test_without_any_keys_it_is_not_ready(good: SetUp, monkeypatch: pytest.MonkeyPatch) -> None:
    good.document["servers"].pop()
    del good.issuer["jwks_file"]
    good.issuer["jwks_uri"] = nowhere(good)
    assert begun(good, monkeypatch) == Found(status=503, failing=("keys",), degraded=(f"keys:{ISSUER}", "routes"))


def test_a_set_up_with_nothing_wrong_is_ready_also_for_others_behind_a_proxy(
    good: SetUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    good.document |= {"listen": f"0.0.0.0:{parts.free_port()}", "tls_ended_by": "proxy"}
    good.document["approvals"] = {"store": f"file:{good.folder / 'approvals'}"}
    good.document["resource_url"] = "https://mcp.corp.example/mcp"
    assert begun(good, monkeypatch) == Found(status=200)
