"""What the doctor's rules say of versions and connections, and what its commands print."""

import json
import os
import subprocess
import sys

import pytest

from sidecar.doctor import Check
from sidecar.doctor.database_versions import FIXED, newest_fix, version_problem
from sidecar.doctor.needs import NeededAccess, covers
from sidecar.errors import ConfigurationError
from sidecar.outgoing import demand_named, hosts_in, tls_fault
from sidecar.settings import Settings
from tests import parts
from tests.doctor.conftest import Access, secret_file
from tests.parts import ROOT
from tools.virtual_patches import PATCHES

# --- versions of MongoDB ----------------------------------------------------------------------------------------------


def test_the_fixed_versions_are_the_newest_that_the_page_of_advisories_names():
    newest: dict[tuple[int, int], tuple[int, int, int]] = {}
    for patch in PATCHES:
        for text in patch.fixed.split(";")[0].split(","):
            major, minor, fix = (
                (int(part) for part in text.strip().split(".")) if text.strip()[0].isdigit() else (0, 0, 0)
            )
            newest[major, minor] = max(newest.get((major, minor), (0, 0, 0)), (major, minor, fix))
    supported = {line: version for line, version in newest.items() if line in FIXED}
    assert supported == dict(FIXED)
    assert newest.keys() - FIXED.keys() <= {(0, 0), (6, 0), (8, 1)}, "lines that have ended"


@pytest.mark.parametrize(
    ("version", "good"),
    [
        ("8.0.37", True),
        ("8.0.36", False),
        ("8.0.100", True),
        ("9.0.7", True),
        ("9.1.0", True),
        ("8.1.2", False),
        ("6.0.30", False),
        ("8.0", False),
        ("", False),
        ("8.0.37-rc1", True),
    ],
)
def test_a_version_is_good_from_its_lines_last_fix_on(version, good):
    assert (version_problem(version) == "") is good


def test_the_fix_is_on_the_same_line_where_that_has_one():
    assert (newest_fix("8.2.1"), newest_fix("5.0.1"), newest_fix("x")) == ("8.2.12", "8.0.37", "8.0.37")


# --- what policy covers -----------------------------------------------------------------------------------------------

NEEDS = [
    NeededAccess(database="sales", collection="orders", kind="read"),
    NeededAccess(database="sales", collection="log_*", kind="insert"),
    NeededAccess(database="hr", collection="{a,b}", kind="read"),
]


@pytest.mark.parametrize(
    ("database", "collection", "action", "covered"),
    [
        ("sales", "orders", "find", True),
        ("sales", "orders", "insert", False),
        ("sales", "log_1", "insert", True),
        ("sales", "lag_1", "insert", False),
        ("sales", "", "find", False),
        ("sales", "", "insert", True),
        ("sales", "", "listCollections", True),
        ("support", "", "listCollections", False),
        ("hr", "a", "find", True),
        ("hr", "a", "changeStream", False),
        ("sales", "orders", "anyAction", False),
    ],
)
def test_which_right_policy_has_a_use_for(database, collection, action, covered):
    assert covers(NEEDS, database, collection, action) is covered


# --- connections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("mongodb://h/?tls=true", ""),
        ("mongodb://h/?ssl=true", ""),
        ("mongodb+srv://h/", ""),
        ("mongodb://h/", "is not encrypted"),
        ("mongodb://h/?tls=false", "is not encrypted"),
        ("mongodb+srv://h/?tls=false", "is not encrypted"),
        ("mongodb://h/?tls=true&tls=false", "is not encrypted"),
        ("mongodb://h/?TLS=true&tlsInsecure=TRUE", "does not verify the certificate"),
        ("mongodb://h/?tls=true&tlsAllowInvalidHostnames=true", "does not verify the certificate"),
        ("mongodb://h/?tls=true&tlsAllowInvalidHostnames=false", ""),
        ("mongodb://h/?tls=true&tlsInsecure=false&tlsInsecure=true", "does not verify the certificate"),
        ("mongodb://h/?tls=", "is not encrypted"),
        ("mongodb+srv://h/?a=b;tlsInsecure=true", "does not verify the certificate"),
    ],
)
def test_what_a_connection_string_asks_for(uri, fault):
    assert tls_fault(uri) == fault


@pytest.mark.parametrize(
    ("uri", "hosts"),
    [
        ("mongodb://u:p@a:1,b/db?x=y", ("a", "b")),
        ("mongodb://u:p@[::1]:27017/", ("[::1]",)),
        ("mongodb://%2Frun%2Fmongodb-27017.sock/", ("/run/mongodb-27017.sock",)),
        ("mongodb://u:p@127.0.0.1@evil/", ("evil",)),
    ],
)
def test_which_hosts_a_connection_string_names(uri, hosts):
    assert hosts_in(uri) == hosts


def settings(uri: str, *named: str, opa: str = "") -> Settings:
    return Settings(
        resource_url="https://mcp.corp.example/mcp",
        issuers=[{"issuer": "https://idp.corp.example"}],
        servers=[{"name": "main", "command": ["x"], "connection_string": uri}],
        opa={"url": opa},
        insecure_connections=named,
    )


@pytest.mark.parametrize(
    "uri",
    [
        "mongodb://127.0.0.1/",
        "mongodb://localhost:27017,[::1]:27018/",
        "mongodb://%2Ftmp%2Fmongodb-27017.sock/",
        "mongodb://db.corp.example/?tls=true",
    ],
)
def test_a_connection_that_is_protected_needs_no_name(uri):
    demand_named(settings(uri))


@pytest.mark.parametrize(
    "uri", ["mongodb://db.corp.example/", "mongodb://127.0.0.1,10.0.0.1/", "mongodb+srv://localhost/?tls=false"]
)
def test_a_connection_that_is_not_has_to_be_named(uri):
    with pytest.raises(ConfigurationError, match=r"servers\.main\.connection_string: the connection to .* insecure"):
        demand_named(settings(uri))
    with pytest.raises(ConfigurationError, match="insecure"):
        demand_named(settings(uri, "otlp.traces"))
    demand_named(settings(uri, "servers.main.connection_string"))


def test_a_name_of_no_connection_is_refused_with_what_was_meant():
    with pytest.raises(ConfigurationError, match=r"did you mean servers\.main\.connection_string"):
        demand_named(settings("mongodb://127.0.0.1/", "servers.main.conection_string"))


@pytest.mark.parametrize(
    ("url", "named"),
    [("http://opa.corp.example:8181", True), ("https://opa.corp.example", False), ("unix:///o", False)],
)
def test_an_opa_in_the_clear_has_to_be_named(url, named):
    given = settings("mongodb://127.0.0.1/", opa=url)
    if named:
        with pytest.raises(ConfigurationError, match=r"opa\.url"):
            demand_named(given)
    else:
        demand_named(given)


@pytest.mark.parametrize(("endpoint", "named"), [("http://otel.corp.example:4318", True), ("http://[::1]:4318", False)])
def test_traces_in_the_clear_have_to_be_named(monkeypatch, endpoint, named):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
    if named:
        with pytest.raises(ConfigurationError, match=r"otlp\.traces"):
            demand_named(settings("mongodb://127.0.0.1/"))
    demand_named(settings("mongodb://127.0.0.1/", "otlp.traces"))


# --- the commands -----------------------------------------------------------------------------------------------------


def command(file, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{parts.BIN}:{os.defpath}", "PYTHONPATH": str(ROOT), "SIDECAR_CONFIG": str(file)}
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        env=environment,
        cwd=file.parent,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def file(folder, good):
    path = folder / "sidecar.toml"
    [server] = good["servers"]
    path.write_text(
        f'resource_url = "{good["resource_url"]}"\npolicies = "{good["policies"]}"\n'
        f'[[issuers]]\nissuer = "https://idp.corp.example"\njwks_file = "{good["issuers"][0]["jwks_file"]}"\n'
        f'[[servers]]\nname = "main"\ncommand = {json.dumps(server["command"])}\n'
        f'connection_string_file = "{server["connection_string_file"]}"\n'
        f'[audit]\nstore = "{good["audit"]["store"]}"\nsigning_key_file = "{good["audit"]["signing_key_file"]}"\n'
    )
    return path


def test_the_command_says_what_it_found_for_programs_and_for_people(file, access: Access, folder):
    (folder / "reader_uri").chmod(0o644)
    viewer = str(secret_file(folder / "operator_uri", access.uri("operator")))
    done = command(file, "doctor", "--json", "--roles-as", viewer, "--accept", "database_version")
    assert done.returncode == 1, done.stderr
    document = json.loads(done.stdout)  # noqa: TID251 - the product's own output
    assert [(one["check"], one["where"]) for one in document["findings"]] == [
        ("secret_readable", "servers.main.connection_string_file")
    ]
    assert [one["check"] for one in document["accepted"]] == ["database_version"]
    (folder / "reader_uri").chmod(0o600)
    done = command(file, "doctor", "--roles-as", viewer, "--accept", "database_version:servers.main")
    assert done.returncode == 0, done.stdout
    assert "nothing found" in done.stdout
    assert "accepted: database_version" in done.stdout
    assert "secret@" not in done.stdout + done.stderr


def test_the_role_is_printed_for_mongosh_and_as_json(file, access: Access, folder):
    viewer = str(secret_file(folder / "operator_uri", access.uri("operator")))
    done = command(file, "roles", "--server", "main", "--roles-as", viewer)
    assert done.returncode == 0, done.stderr
    assert 'db.getSiblingDB("admin").runCommand({"updateRole": "mcp-sidecar-main"' in done.stdout
    document = json.loads(command(file, "roles", "--server", "main", "--json").stdout)  # noqa: TID251 - the product's own
    assert document["commands"][0]["privileges"][0]["resource"] == {"db": "example", "collection": ""}


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["roles", "--server", "maain"], 78, "did you mean main"),
        (["doctor", "--accept", "databse_version"], 2, "did you mean database_version"),
        (["doctor", "--database", "main=/dev/null"], 2, "no server behind a URL"),
    ],
)
def test_a_name_that_is_none_is_refused(file, words, status, said):
    done = command(file, *words)
    assert done.returncode == status
    assert said in " ".join(done.stderr.split()).replace("│ ", "")


def test_every_check_is_on_its_page():
    page = (ROOT / "docs/doctor.md").read_text()
    assert [check for check in Check if f"| `{check}` |" not in page] == []
    bad = (ROOT / "tests/doctor/test_bad_deployments.py").read_text()
    assert [check for check in Check if f'"{check}"' not in bad] == [], "each has a deployment with that fault"
