"""Deployments with one thing wrong each: the doctor names it and nothing else, and of a good one it says nothing.

The stand-in for MongoDB answers as 8.2.11, which lacks fixes; that finding is accepted here, and has its own tests.
"""

import os
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sidecar.audit.record import Facts, refusal
from sidecar.doctor import Check, Posture, examine
from sidecar.store.audit_segments import checkpoints_of
from sidecar.store.file import FileAuditSink
from tests import parts
from tests.doctor.conftest import SERVER_SAYS, Access, await_listener, certificate, deployment, program, secret_file

Given = dict[str, Any]
Found = set[tuple[str, str]]

late = partial(pytest.param, marks=pytest.mark.nightly)
"""A neighbour of a row that every run has."""

FIND_ELSEWHERE = {"resource": {"db": "hr", "collection": "salaries"}, "actions": ["find"]}
INSERT = {"resource": {"db": "example", "collection": ""}, "actions": ["insert"]}
IN_THE_STORE = {"resource": {"db": "mcp_sidecar", "collection": ""}, "actions": ["find"]}


def found(posture: Posture) -> Found:
    return {(one.check.value, one.where) for one in posture.findings}


async def examined(given: Given, access: Access, **more: Any) -> Found:
    held = deployment(given, **{"viewer": access.uri("operator"), **more})
    posture = await examine(held, [Check.DATABASE_VERSION.value])
    assert all(one.what and one.fix for one in posture.findings)
    return found(posture)


# --- nothing wrong ----------------------------------------------------------------------------------------------------


async def test_of_a_good_deployment_it_says_nothing_and_the_real_server_is_the_pinned_one(good, access):
    good["servers"][0]["command"] = [str(parts.installed("mongodb-mcp-server"))]
    assert await examined(good, access) == set()


# --- the database user ------------------------------------------------------------------------------------------------

USERS: dict[str, tuple[list[dict[str, str]], list[dict[str, Any]], set[str]]] = {
    "root": ([{"role": "root", "db": "admin"}], [], {"any_resource", "cluster_actions", "read_only_can_write"}),
    "readAnyDatabase": ([{"role": "readAnyDatabase", "db": "admin"}], [], {"any_resource"}),
    "clusterMonitor": ([{"role": "clusterMonitor", "db": "admin"}], [], {"cluster_actions"}),
    "read on local": ([{"role": "read", "db": "local"}], [], {"system_databases"}),
    "userAdmin": ([{"role": "userAdmin", "db": "example"}], [], {"read_only_can_write"}),
    "a role that inserts": ([], [INSERT], {"read_only_can_write"}),
    "a role that reads elsewhere": ([], [FIND_ELSEWHERE], {"more_than_policy"}),
    "a role that inherits": ([{"role": "inheriting", "db": "admin"}], [], {"more_than_policy"}),
}


@pytest.mark.parametrize(
    "name", [late(name) if name in {"readAnyDatabase", "userAdmin", "a role that inherits"} else name for name in USERS]
)
async def test_a_user_with_too_many_rights_is_named(good, access, name, folder):
    roles, privileges, wanted = USERS[name]
    role = f"role of {name}"
    user = f"u{len(name)}{name[-3:].strip()}"
    commands: list[dict[str, Any]] = [{"createRole": role, "privileges": privileges, "roles": []}] if privileges else []
    if name == "a role that inherits":
        elsewhere = {"createRole": "below", "privileges": [FIND_ELSEWHERE], "roles": []}
        over = {"createRole": "inheriting", "privileges": [], "roles": [{"role": "below", "db": "admin"}]}
        commands = [elsewhere, over]
    given = [*roles, *([{"role": role, "db": "admin"}] if privileges else [])]
    uri = access.make(user, given, *commands)
    secret_file(folder / "reader_uri", uri)
    assert await examined(good, access) == {(check, "servers.main") for check in wanted}


async def test_the_built_in_reader_of_the_whole_database_is_more_than_a_policy_of_some_collections(
    good, access, folder
):
    secret_file(folder / "reader_uri", access.make("builtin", [{"role": "read", "db": "sales"}]))
    assert await examined(good, access) == {("more_than_policy", "servers.main")}


async def test_a_writer_is_judged_by_policy_where_its_server_may_write(good, access, folder):
    """The near miss of the read-only server: the same right is no contradiction, but policy routes no insert here."""
    uri = access.make("writer", [{"role": "writes", "db": "admin"}],
                      {"createRole": "writes", "privileges": [INSERT], "roles": []})  # fmt: skip
    secret_file(folder / "reader_uri", uri)
    good["servers"][0]["read_only"] = False
    assert await examined(good, access) == {("more_than_policy", "servers.main")}


async def test_without_access_control_there_is_no_user(good, access, open_database, folder):
    secret_file(folder / "reader_uri", open_database)
    assert await examined(good, access) == {("no_database_user", "servers.main")}


@pytest.mark.parametrize(
    "uri", ["mongodb://reader:wrong@{0}/?authSource=admin", "mongodb://reader:secret@127.0.0.1:1/"]
)
async def test_rights_that_cannot_be_read_are_a_finding_and_no_pass(good, access, folder, uri):
    secret_file(folder / "reader_uri", uri.format(access.address))
    assert await examined(good, access) == {("privileges_unreadable", "servers.main")}


async def test_a_role_that_its_own_user_cannot_see_is_a_finding(good, access):
    assert await examined(good, access, viewer=None) == {("privileges_unreadable", "servers.main")}


async def test_the_database_that_sidecars_share_is_nothing_for_a_server(good, access, folder):
    role = {"createRole": "store", "privileges": [IN_THE_STORE], "roles": []}
    secret_file(folder / "reader_uri", access.make("storing", [{"role": "store", "db": "admin"}], role))
    good["mongodb"] = {"uri_file": secret_file(folder / "store_uri", access.uri("operator"))}
    good["single_use"] = "mongodb:used"
    assert await examined(good, access) == {("store_within_reach", "servers.main")}


async def test_the_version_of_the_database_is_a_finding_unless_it_is_accepted(good, access):
    held = deployment(good, viewer=access.uri("operator"))
    assert found(await examine(held)) == {("database_version", "servers.main")}
    for accepted in ("database_version", "database_version:servers.main"):
        posture = await examine(held, [accepted])
        assert posture.ok
        assert [one.check for one in posture.accepted] == [Check.DATABASE_VERSION]
    assert not (await examine(held, ["database_version:servers.other"])).ok


# --- the program ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (["npx", "-y", "mongodb-mcp-server@3.0.4"], {"unpinned_command"}),
        late(["/bin/echo", "mongodb-mcp-server@latest"], {"unpinned_command"}),
        (["SERVER", "mongodb://root:secret@db.example/"], {"secret_on_command_line"}),
        late(["SERVER", "--connectionString=x"], {"secret_on_command_line"}),
        late(["SERVER", "--apiClientSecret", "x"], {"secret_on_command_line"}),
        (["SERVER", "mongodb://db.example/", "--readOnly"], set()),
        (["OLDER"], {"server_version"}),
        late(["/bin/true"], {"server_version"}),
    ],
    ids=["npx", "latest", "uri", "option", "option and value", "near miss", "older", "mute"],
)
async def test_what_a_command_says_of_a_server(good, access, folder, command, wanted):
    programs = {
        "SERVER": folder / "server",
        "OLDER": program(folder / "older", SERVER_SAYS.format(version="3.0.3")),
    }
    good["servers"][0]["command"] = [str(programs.get(word, word)) for word in command]
    assert await examined(good, access) == {(check, "servers.main.command") for check in wanted}


# --- files ------------------------------------------------------------------------------------------------------------


async def test_a_secret_that_everybody_can_read_is_named(good, access, folder):
    (folder / "reader_uri").chmod(0o644)
    assert await examined(good, access) == {("secret_readable", "servers.main.connection_string_file")}


@pytest.mark.parametrize("mode", [0o640, late(0o600)])
async def test_a_secret_of_a_group_is_not(good, access, folder, mode):
    (folder / "reader_uri").chmod(mode)
    assert await examined(good, access) == set()


async def test_a_settings_file_with_a_secret_that_everybody_can_read_is_named(good, access, folder):
    file = folder / "sidecar.toml"
    file.write_text('[[servers]]\nconnection_string = "mongodb://u:p@127.0.0.1/"\n')
    assert await examined(good, access, file=file) == {("secret_readable", "SIDECAR_CONFIG")}
    file.write_text('[[servers]]\nconnection_string_file = "/run/secrets/uri"\n')
    assert await examined(good, access, file=file) == set()


@pytest.mark.parametrize(
    ("what", "where"),
    [
        ("policies/teams/example/policy.rego", "policies"),
        late("policies/teams", "policies"),
        ("audit.jsonl", "audit.store"),
        late("reader_uri", "servers.main.connection_string_file"),
        ("server", "servers.main.command"),
        late("sidecar.toml", "SIDECAR_CONFIG"),
    ],
)
async def test_what_another_user_can_change_is_named(good, access, folder, what, where):
    (folder / "sidecar.toml").write_text("")
    secret_file(folder / "audit.jsonl", "")
    path = folder / what
    path.chmod(path.stat().st_mode | 0o002)
    wanted = {("writable_by_others", where)}
    assert await examined(good, access, file=folder / "sidecar.toml") == wanted


async def test_a_folder_above_that_another_user_can_change_is_the_same(good, access, folder):
    secret_file(folder / "audit.jsonl", "")
    folder.chmod(0o777)
    places = {
        "policies",
        "audit.store",
        "audit.signing_key_file",
        "servers.main.connection_string_file",
        "servers.main.command",
    }
    assert await examined(good, access) == {("writable_by_others", place) for place in places}
    folder.chmod(0o1777)
    assert await examined(good, access) == set(), "in a folder like /tmp only the owner replaces an entry"


async def test_evidence_that_everybody_can_read_is_named(good, access, folder):
    secret_file(folder / "audit.jsonl", "").chmod(0o644)
    assert await examined(good, access) == {("evidence_readable", "audit.store")}


async def test_heads_of_the_evidence_that_nobody_signs_are_named(good, access):
    good["audit"].pop("signing_key_file")
    assert await examined(good, access) == {("heads_unsigned", "audit.signing_key_file")}


async def stored(path: Path) -> None:
    """An audit file of an hour ago, with its published heads."""
    sink = FileAuditSink(path)
    facts = Facts(request_id="r")
    await sink.append(refusal(facts, "policy_denied", record_id="r1", time_ns=int((time.time() - 3600) * 1e9)))
    await sink.close()


async def test_evidence_whose_heads_are_not_published_is_named(good, access, folder):
    path = folder / "audit.jsonl"
    await stored(path)
    assert await examined(good, access) == set()
    checkpoints_of(path).unlink()
    assert await examined(good, access) == {("heads_unpublished", "audit.store")}
    good["audit"]["checkpoint_s"] = 3600
    assert await examined(good, access) == set(), "it is not late yet"


async def test_evidence_whose_last_record_does_not_hold_is_named(good, access, folder):
    path = folder / "audit.jsonl"
    await stored(path)
    path.write_bytes(path.read_bytes().replace(b"policy_denied", b"policy_allows"))
    assert await examined(good, access) == {("evidence_unreadable", "audit.store")}


@pytest.mark.parametrize(
    ("roles", "named"),
    [
        ([{"role": "appending", "db": "admin"}], set()),
        ([{"role": "readWrite", "db": "kept"}], {("evidence_changeable", "audit.store")}),
        (None, {("evidence_unreadable", "audit.store")}),
    ],
    ids=["may append", "may change", "is away"],
)
async def test_a_database_user_who_may_change_evidence_is_named(good, access, folder, roles, named):
    uri = "mongodb://a:secret@127.0.0.1:1/"
    if roles is not None:
        privilege = {"resource": {"db": "kept", "collection": ""}, "actions": ["find", "insert"]}
        role = {"createRole": "appending", "privileges": [privilege], "roles": []}
        uri = access.make(f"keeper{len(named)}", roles, *([] if named else [role]))
    good["mongodb"] = {"uri_file": secret_file(folder / "store_uri", uri), "database": "kept"}
    good["audit"]["store"] = "mongodb:evidence"
    assert await examined(good, access) == named


async def test_a_certificate_that_a_connection_string_names_counts_too(good, access, folder):
    shown = certificate(folder / "shown.pem", days=10)
    uri = f"mongodb://db.corp.example/?tls=true&tlsCertificateKeyFile={shown}"
    good["servers"][0]["views_connection_string_file"] = secret_file(folder / "views_uri", uri)
    assert await examined(good, access) == {("certificate_expires", "servers.main.views_connection_string")}
    good["servers"][0].pop("views_connection_string_file")
    good["issuers"][0]["introspection"] = {
        "uri": "https://idp.corp.example/introspect",
        "client_id": "sidecar",
        "method": "tls_client_auth",
        "secret_file": shown.with_suffix(".key"),
        "certificate_file": shown,
    }
    assert await examined(good, access) == {("certificate_expires", "issuers.0.introspection.certificate_file")}


@pytest.mark.parametrize(("days", "named"), [late(-1, True), (10, True), (60, False)])
async def test_a_certificate_near_its_end_is_named(good, access, folder, days, named):
    file = certificate(folder / "tls.pem", days=days)
    good["tls"] = {"certificate_file": file, "key_file": file.with_suffix(".key")}
    assert await examined(good, access) == ({("certificate_expires", "tls.certificate_file")} if named else set())


async def test_a_secret_in_the_environment_is_named(good, access, monkeypatch):
    monkeypatch.setenv("SIDECAR_MONGODB__URI", access.uri("operator"))
    good["single_use"] = "mongodb:used"
    assert await examined(good, access) == {("secret_in_environment", "SIDECAR_MONGODB__URI")}


# --- the network ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"listen": "0.0.0.0:8080", "tls_ended_by": "proxy"}, {"listen"}),
        late({"admin_listen": "[::]:8081", "tls_ended_by": "proxy"}, {"admin_listen"}),
        ({"listen": "192.0.2.7:8080", "tls_ended_by": "proxy"}, set()),
    ],
)
async def test_a_listener_on_every_address_is_named(good, access, change, where):
    assert await examined({**good, **change}, access) == {("public_binding", one) for one in where}


@pytest.mark.parametrize(
    ("uri", "named"),
    [
        ("mongodb://views:secret@db.corp.example/", True),
        ("mongodb://views:secret@db.corp.example/?tls=true&tlsAllowInvalidCertificates=true", True),
        ("mongodb://views:secret@db.corp.example/?tls=true", False),
        late("mongodb+srv://views:secret@db.corp.example/", False),
        late("mongodb+srv://views:secret@db.corp.example/?tls=false", True),
    ],
)
async def test_a_connection_without_verified_tls_is_named_until_the_settings_name_it(good, access, folder, uri, named):
    good["servers"][0]["views_connection_string_file"] = secret_file(folder / "views_uri", uri)
    name = "servers.main.views_connection_string"
    assert await examined(good, access) == ({("insecure_connection", name)} if named else set())
    held = deployment({**good, "insecure_connections": [name]}, viewer=access.uri("operator"))
    posture = await examine(held, ["database_version"])
    assert (found(posture), posture.insecure) == (set(), (name,) if named else ())


@asynccontextmanager
async def an_issuer(date: float) -> AsyncIterator[str]:
    """An issuer whose clock shows something."""

    async def keys(request: web.Request) -> web.Response:
        said = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(date))
        return web.json_response({"keys": []}, headers={"Date": said})

    application = web.Application()
    application.router.add_get("/keys", keys)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
    await runner.cleanup()


@pytest.mark.parametrize(("away", "named"), [(300, True), late(-300, True), (0, False)])
async def test_a_clock_that_is_not_the_issuers_is_named(good, access, away, named):
    async with an_issuer(time.time() + away) as address:
        good["issuers"] = [{"issuer": "https://idp.corp.example", "jwks_uri": address}]
        assert await examined(good, access) == ({("clock", address)} if named else set())


async def test_an_issuer_that_does_not_answer_is_named(good, access):
    address = f"http://127.0.0.1:{parts.free_port()}/keys"
    good["issuers"] = [{"issuer": "https://idp.corp.example", "jwks_uri": address}]
    assert await examined(good, access) == {("issuer_unreachable", address)}


# --- OPA --------------------------------------------------------------------------------------------------------------


async def test_an_opa_that_is_too_old_is_named(good, access, folder):
    real = parts.installed("opa")
    script = f'#!/bin/sh\n[ "$1" != version ] || {{ echo "Version: 1.20.0"; exit; }}\nexec {real} "$@"\n'
    good["opa"]["binary"] = str(program(folder / "opa", script))
    assert await examined(good, access) == {("opa_version", "opa.binary")}


@contextmanager
def an_opa(policies: Path, *options: str) -> Iterator[str]:
    url = f"http://127.0.0.1:{parts.free_port()}"
    command = [str(parts.installed("opa")), "run", "--server", "--addr", url.removeprefix("http://"), *options]
    bundles = ["--ignore", "*_test.rego", "--bundle", "platform", "system", "teams/example"]
    process = subprocess.Popen([*command, *bundles], cwd=policies, stderr=subprocess.DEVNULL)
    try:
        await_listener(url, process)
        yield url
    finally:
        parts.stop(process)


@pytest.mark.parametrize(("options", "named"), [((), True), (("--authorization=basic",), False)])
async def test_an_opa_whose_policies_anyone_may_change_is_named(good, access, policies, options, named):
    with an_opa(policies, *options) as url:
        good["opa"] = {"url": url, "binary": good["opa"]["binary"]}
        found_ = await examined(good, access, policies=policies)
        assert found_ == ({("opa_open", "opa.url")} if named else set())


async def test_an_opa_that_does_not_answer_is_named_and_policy_is_not_taken_for_read(good, access):
    good["opa"] = {"url": f"http://127.0.0.1:{parts.free_port()}", "binary": good["opa"]["binary"]}
    assert await examined(good, access) == {("opa_unreachable", "opa.url"), ("policy_unreadable", "opa.url")}


async def test_a_policy_that_cannot_be_evaluated_is_a_finding_and_no_pass(good, access, folder):
    (folder / "policies/teams/example/policy.rego").write_text("package mcp.teams.example\n\ngrant contains {\n")
    assert await examined(good, access) == {("policy_unreadable", "policies")}


# --- servers behind a URL ---------------------------------------------------------------------------------------------


@contextmanager
def a_server(database: str, host: str, **environment: str) -> Iterator[str]:
    port = parts.free_port()
    command = [str(parts.installed("mongodb-mcp-server")), "--transport", "http", "--httpHost", host]
    settings = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - the tests' own environment
        "MDB_MCP_CONNECTION_STRING": database,
        "MDB_MCP_TELEMETRY": "disabled",
        "MDB_MCP_LOGGERS": "stderr",
        "DO_NOT_TRACK": "1",
        **environment,
    }
    process = subprocess.Popen(
        [*command, "--httpPort", str(port)], env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await_listener(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        parts.stop(process)


def behind(good: Given, url: str, **more: Any) -> Given:
    return {**good, "servers": [{"name": "main", "url": url, **more}]}


async def test_a_server_behind_a_url_that_is_closed_to_others_is_not_named(good, access, reader, folder):
    headers = secret_file(folder / "headers", "x-shared-secret: s3cret\n")
    environment = {"MDB_MCP_READ_ONLY": "true", "MDB_MCP_HTTP_HEADERS": '{"x-shared-secret":"s3cret"}'}
    with a_server(reader, "127.0.0.1", **environment) as url:
        more = {"databases": {"main": reader}, "own_addresses": lambda: ["127.0.0.2"]}
        assert await examined(behind(good, url, headers_file=headers), access, **more) == set()
        found_ = await examined(behind(good, url, headers_file=headers), access, own_addresses=list)
        assert found_ == {("privileges_unreadable", "servers.main")}, "its user is not known, which is no pass"


async def test_a_server_behind_a_url_that_is_open_is_named(good, access, reader):
    """127.0.0.2 stands for an address that other machines reach: a server on 127.0.0.1 alone does not answer there."""
    with a_server(reader, "0.0.0.0", MDB_MCP_DANGEROUS_HOST_BINDING="true") as url:  # noqa: S104 - what is looked for
        more = {"databases": {"main": reader}, "own_addresses": lambda: ["127.0.0.2"]}
        checks = {"server_without_secret", "server_exposed", "read_only_has_writing_tools"}
        assert await examined(behind(good, url), access, **more) == {(one, "servers.main.url") for one in checks}


async def test_a_server_behind_a_url_that_does_not_answer_is_named(good, access, reader):
    url = f"http://127.0.0.1:{parts.free_port()}/mcp"
    found_ = await examined(behind(good, url), access, databases={"main": reader})
    assert found_ == {("server_unreachable", "servers.main.url")}
