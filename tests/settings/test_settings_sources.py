"""Where settings come from, what is refused, and that a refusal names the setting and never its value."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sidecar import os_environment, servers_behind, set_up, settings
from sidecar.errors import ConfigurationError
from sidecar.listener_settings import split_address
from sidecar.settings import Settings
from sidecar.system.clock import SystemClock
from tests.signer import Signer
from tools import settings_reference

SECRET = "s3cret-of-the-database"
URI = f"mongodb://reader:{SECRET}@127.0.0.1:27017/"
ISSUER = {"issuer": "https://idp.example", "jwks_file": "/etc/keys.json"}
SERVER = {"name": "demo-ro", "command": ["mongodb-mcp-server"], "connection_string_file": "/etc/mongodb"}
MINIMUM = {"resource_url": "https://mcp.example/mcp", "issuers": [ISSUER], "servers": [SERVER]}


@pytest.fixture(autouse=True)
def given_environment(monkeypatch):
    """Set the variables of a run; the tests' own border has removed everybody else's."""

    def given_variables(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return given_variables


def loaded(**changes: Any) -> Settings:
    return settings.load(**(MINIMUM | changes))


def refused(**changes: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        loaded(**changes)
    assert "\n" not in caught.value.detail
    assert SECRET not in caught.value.detail
    return caught.value.detail


def file_of(folder: Path, text: str) -> str:
    path = folder / "sidecar.toml"
    path.write_text(text)
    return str(path)


# --- sources ----------------------------------------------------------------------------------------------------------


def test_the_environment_beats_the_file_and_the_file_beats_defaults(given_environment, tmp_path):
    text = 'environment = "file"\nlisten = "127.0.0.1:1"\n[audit]\nstore = "file:/file"\narguments = "full"\n'
    given_environment(
        SIDECAR_CONFIG=file_of(tmp_path, text),
        SIDECAR_ENVIRONMENT="variable",
        SIDECAR_AUDIT__STORE="file:/variable",
    )
    found = loaded(environment="default", listen="127.0.0.1:3", admin_listen="127.0.0.1:4")
    assert found.environment == "variable"
    assert found.listen == "127.0.0.1:1"
    assert found.admin_listen == "127.0.0.1:4"
    assert found.audit.store == "file:/variable"
    assert found.audit.arguments == "full", "one variable of a group leaves the file's others alone"
    assert found.log_level == "INFO"


def test_lists_of_groups_come_whole_from_a_variable(given_environment):
    given_environment(SIDECAR_SERVERS=json.dumps([SERVER | {"name": "other"}]))
    assert [server.name for server in loaded().servers] == ["other"]


@pytest.mark.parametrize(
    "name",
    [
        "SIDECAR_LISTNE",
        "SIDECAR_AUDIT_STORE",
        "SIDECAR_LISTEN__PORT",
        "SIDECAR_OPA__",
        "SIDECAR_AUDIT__STORAGE",
        "SIDECAR_AUDIT__STORE__PATH",
        "sidecar_audit_store",
        "SIDECAR_",
    ],
)
def test_a_variable_that_is_not_a_setting_is_refused(given_environment, name):
    given_environment(**{name: "127.0.0.1:9"})
    refused()


@pytest.mark.parametrize("name", ["SIDECAR_LISTEN", "SIDECARS_LISTNE", "SIDECAR_TEST_MONGODB_URI", "sidecar_listen"])
def test_its_near_miss_is_not(given_environment, name):
    given_environment(**{name: "127.0.0.1:9"})
    expected = "127.0.0.1:9" if name.upper() == "SIDECAR_LISTEN" else "127.0.0.1:8080"
    assert loaded().listen == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('listne = "127.0.0.1:1"', "listne"),
        ('[audit]\nstorage = "file:x"', "audit.storage"),
        ('[opa]\nurl = ""\nfail_open = true', "opa.fail_open"),
        ('[[issuers]]\nissuer = "https://i"\nalgorithm = ["RS256"]', "issuers.0.algorithm"),
        ('[[issuers]]\nissuer = "https://i"\n[issuers.claims]\nuser = "sub"', "issuers.0.claims.user"),
        ('[[servers]]\nname = "a"\nreadonly = true\ncommand = ["x"]', "servers.0.readonly"),
    ],
)
def test_a_misspelt_key_of_the_file_is_refused_and_named(given_environment, tmp_path, text, named):
    given_environment(SIDECAR_CONFIG=file_of(tmp_path, text))
    assert named in refused()


@pytest.mark.parametrize(
    "text", ["listen = ", "[audit\n", f'listen = "{SECRET}', f"connection_string = {SECRET}", "\udcff", "a = 1\na = 2"]
)
def test_a_file_that_is_not_toml_is_refused_without_its_text(given_environment, tmp_path, text):
    path = tmp_path / "sidecar.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    given_environment(SIDECAR_CONFIG=str(path))
    refused()


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_a_file_that_is_not_there_is_refused(given_environment, tmp_path, name):
    given_environment(SIDECAR_CONFIG=str(tmp_path / name))
    assert "SIDECAR_CONFIG" in refused()


# --- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["listen", "admin_listen"])
@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ("127.0.0.1", "127.0.0.1:80"),
        (":8080", "[::1]:8080"),
        ("127.0.0.1:", "127.0.0.1:0"),
        ("127.0.0.1:65536", "127.0.0.1:65535"),
        ("127.0.0.1:http", "localhost:8080"),
        ("::1:8080:", "[::1]:1"),
        ("127.0.0.1:80/mcp", "127.0.0.1:80"),
        ("127.0.0.1:80?x", "127.0.0.1:80"),
        ("127.0.0.1:80#x", "127.0.0.1:80"),
        ("user@127.0.0.1:80", "127.0.0.1:80"),
        ("http://127.0.0.1:80", "127.0.0.1:80"),
        ("127.0.0.1:80\n", "127.0.0.1:80"),
        ("127.0.0.1:+80", "127.0.0.1:80"),
        ("0.0.0.0:8080", "127.0.0.2:8080"),
        ("[::]:8080", "[::1]:8080"),
        ("mcp.example:8080", "localhost:8080"),
        ("", "127.0.0.1:8090"),
    ],
)
def test_an_address_is_a_host_and_a_port(setting, bad, good):
    assert setting in refused(**{setting: bad})
    assert getattr(loaded(**{setting: good}), setting) == good


@pytest.mark.parametrize("setting", ["listen", "admin_listen"])
def test_others_may_reach_a_listener_where_it_is_said_who_ends_tls(setting):
    assert "tls_ended_by" in refused(**{setting: "0.0.0.0:80"})
    assert "tls_ended_by" in refused(**{setting: "0.0.0.0:80"}, tls_ended_by="nobody")
    assert getattr(loaded(**{setting: "0.0.0.0:80"}, tls_ended_by="proxy"), setting) == "0.0.0.0:80"


def test_own_tls_ends_that_of_the_listener_and_not_of_the_admin_listener():
    own = {"certificate_file": "/etc/cert.pem", "key_file": "/etc/key.pem"}
    assert loaded(listen="0.0.0.0:80", tls=own).tls_ended_by == ""
    assert "admin_listen" in refused(admin_listen="0.0.0.0:80", tls=own)
    assert loaded(listen="unix:/run/sidecar.sock").listen.startswith("unix:")


@given(st.text())
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_address_however_odd_ends_in_another_error(text):
    try:
        host, port = split_address(text)
    except ValueError:
        return
    assert host
    assert 0 <= port <= 65535


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ("mcp.example/mcp", "https://mcp.example/mcp"),
        ("ftp://mcp.example/mcp", "http://127.0.0.1:8080/mcp"),
        ("http://mcp.example/mcp", "http://localhost/mcp"),
        ("http://127.0.0.1.example/mcp", "http://[::1]:8080/mcp"),
        ("https:///mcp", "https://mcp.example"),
        ("https://mcp.example/mcp?x=1", "https://mcp.example/mcp"),
        ("https://mcp.example/mcp#x", "https://mcp.example/mcp"),
        ("https://MCP.example/mcp", "https://mcp.example/MCP"),
        (f"https://user:{SECRET}@mcp.example/mcp", "https://mcp.example:8443/mcp"),
    ],
)
def test_the_resource_is_a_plain_url(bad, good):
    assert "resource_url" in refused(resource_url=bad)
    assert loaded(resource_url=good).resource_url == good


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ({"issuer": ""}, {"issuer": "https://i"}),
        ({"algorithms": []}, {"algorithms": ["ES256"]}),
        ({"algorithms": ["none"]}, {"algorithms": ["RS256"]}),
        ({"algorithms": ["HS256"]}, {"algorithms": ["PS256"]}),
        ({"algorithms": "RS256"}, {"algorithms": ["EdDSA"]}),
        ({"jwks_uri": "https://idp.example/jwks"}, {"jwks_uri": "https://idp.example/jwks", "jwks_file": None}),
        ({"token_types": []}, {"token_types": ["at+jwt"]}),
        ({"leeway_s": -1}, {"leeway_s": 0}),
        ({"leeway_s": 121}, {"leeway_s": 120}),
        ({"claims": {"agent": []}}, {"claims": {"agent": ["azp"]}}),
        ({"claims": {"extras": ["region"]}}, {"claims": {"extra": ["region"]}}),
    ],
)
def test_an_issuer_says_whose_keys_and_which_algorithms(bad, good):
    assert "issuers.0" in refused(issuers=[ISSUER | bad])
    loaded(issuers=[ISSUER | good])


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ({"name": "Sales"}, {"name": "sales"}),
        ({"name": ""}, {"name": "s"}),
        ({"name": "a" * 64}, {"name": "a" * 63}),
        ({"name": "../x"}, {"name": "x-1"}),
        ({"name": "sales\n"}, {"name": "sales"}),
        ({"command": []}, {"command": ["node", "server.js"]}),
        ({"url": "http://127.0.0.1:3000/mcp"}, {"url": ""}),
        (
            {"command": [], "url": "http://127.0.0.1:3000/mcp"},
            {"command": [], "url": "http://127.0.0.1:3000/mcp", "connection_string_file": None},
        ),
        ({"connection_string": URI}, {"connection_string": URI, "connection_string_file": None}),
        ({"connection_string_file": None}, {"connection_string_file": "/run/secrets/uri"}),
        ({"headers_file": "/run/secrets/headers"}, {"headers_file": None}),
        ({"timeout_ms": 0}, {"timeout_ms": 1}),
        ({"read_only": "perhaps"}, {"read_only": False}),
    ],
)
def test_a_server_has_one_transport_and_one_connection(bad, good):
    assert "servers.0" in refused(servers=[SERVER | bad])
    loaded(servers=[SERVER | good])


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        ({"issuers": []}, {}),
        ({"servers": []}, {}),
        ({"issuers": [ISSUER, ISSUER]}, {"issuers": [ISSUER, ISSUER | {"issuer": "https://second"}]}),
        ({"servers": [SERVER, SERVER]}, {"servers": [SERVER, SERVER | {"name": "demo-rw"}]}),
        ({"opa": {"url": "ftp://opa:8181"}}, {"opa": {"url": "http://opa:8181"}}),
        ({"opa": {"url": "opa:8181"}}, {"opa": {"url": "unix:///run/opa.sock"}}),
        ({"opa": {"timeout_ms": 0}}, {"opa": {"timeout_ms": 1}}),
        ({"opa": {"memory_mb": 255}}, {"opa": {"memory_mb": 256}}),
        ({"opa": {"memo_ms": 1001}}, {"opa": {"memo_ms": 0}}),
        ({"audit": {"store": "audit.jsonl"}}, {"audit": {"store": "file:audit.jsonl"}}),
        ({"audit": {"store": "file:"}}, {"audit": {"store": "file:x"}}),
        ({"audit": {"store": ""}}, {"audit": {"store": "file:/x"}}),
        ({"audit": {"on_failure": "ignore"}}, {"audit": {"on_failure": "deny"}}),
        ({"audit": {"arguments": "none"}}, {"audit": {"arguments": "full"}}),
        ({"audit": {"sync": "never"}}, {"audit": {"sync": "always"}}),
        ({"audit": {"rotate_mb": -1}}, {"audit": {"rotate_mb": 0}}),
        ({"audit": {"checkpoint_s": 0}}, {"audit": {"checkpoint_s": 1}}),
        ({"sessions": {"total": 0}}, {"sessions": {"total": 1}}),
        ({"sessions": {"per_identity": 0}}, {"sessions": {"per_identity": 1}}),
        ({"sessions": {"idle_s": 0}}, {"sessions": {"idle_s": 1}}),
        ({"max_request_bytes": 1_000_001}, {"max_request_bytes": 1_000_000}),
        ({"max_request_bytes": 1023}, {"max_request_bytes": 1024}),
        ({"log_level": "LOUD"}, {"log_level": "DEBUG"}),
        ({"allowed_origins": ["https://a.example/app"]}, {"allowed_origins": ["https://A.example/"]}),
        ({"allowed_origins": ["*"]}, {"allowed_origins": ["chrome-extension://abcdef"]}),
        ({"allowed_hosts": ["https://a.example"]}, {"allowed_hosts": ["A.example:8443"]}),
        ({"admin_allowed_hosts": ["a.example/"]}, {"admin_allowed_hosts": ["a.example"]}),
        ({"connections": {"total": 63}}, {"connections": {"total": 64}}),
        ({"connections": {"head_s": 0}}, {"connections": {"head_s": 1}}),
        *(
            ({"issuers": [ISSUER | {"scope_prefix": bad}]}, {"issuers": [ISSUER | {"scope_prefix": good}]})
            for bad, good in (
                ("api://a /", "api://a/"),
                ('"', ""),
                ("a\\", "a!"),
                ("a\n", "a:"),
                ("x" * 257, "x" * 256),
            )
        ),
    ],
)
def test_a_value_that_does_not_fit_is_refused_and_its_near_miss_is_not(bad, good):
    assert next(iter(bad)) in refused(**bad).replace("server names", "servers")
    loaded(**good)


def test_origins_and_hosts_are_spelt_as_clients_send_them():
    found = loaded(allowed_origins=["https://App.Example:443/"], allowed_hosts=["MCP.example"])
    assert (found.allowed_origins, found.allowed_hosts) == (("https://app.example",), ("mcp.example",))


def test_what_is_required_is_named():
    with pytest.raises(ConfigurationError) as caught:
        settings.load()
    for name in ("resource_url", "issuers", "servers"):
        assert name in caught.value.detail


def test_settings_cannot_be_changed_afterwards():
    found = loaded()
    for group, name in ((found, "listen"), (found.audit, "on_failure"), (found.opa, "url")):
        with pytest.raises(Exception, match="frozen"):
            setattr(group, name, "x")


def test_calls_without_evidence_are_no_longer_a_choice_and_the_error_names_the_replacement():
    with pytest.raises(ConfigurationError) as caught:
        loaded(audit={"on_failure": "allow"})
    assert "audit.on_failure" in caught.value.detail
    assert 'use "deny"' in caught.value.detail


# --- secrets ----------------------------------------------------------------------------------------------------------


def secret_server(**more: Any) -> dict[str, Any]:
    return {"name": "demo-ro", "command": ["mongodb-mcp-server"], "connection_string": URI, **more}


def test_a_secret_is_used_and_never_shown():
    found = loaded(servers=[secret_server()])
    assert settings.secret(found.servers[0].connection_string, None) == URI
    for shown in (repr(found), str(found), found.model_dump_json(), f"{found.servers[0]!r}"):
        assert SECRET not in shown


@pytest.mark.parametrize(
    "broken",
    [
        [secret_server(url="http://127.0.0.1:1")],
        [secret_server(connection_string_file="/x")],
        [secret_server(surprise=1)],
        [secret_server(name="NO")],
        [secret_server(), secret_server()],
        [secret_server(connection_string=[URI])],
        {"0": secret_server()},
        URI,
    ],
)
def test_a_refusal_does_not_repeat_the_secret_beside_it(given_environment, broken):
    refused(servers=broken)
    given_environment(SIDECAR_SERVERS=json.dumps(broken))
    refused()


@pytest.mark.parametrize("text", [URI, f'[{{"connection_string": "{URI}"', f"[{URI}]"])
def test_nor_where_the_variable_is_not_json(given_environment, text):
    given_environment(SIDECAR_SERVERS=text)
    refused()


def test_a_secret_file_is_read_without_the_white_space_around_it(tmp_path):
    file = tmp_path / "secret"
    file.write_text(f"\n {URI} \n")
    assert settings.secret(None, file) == URI


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe", None])
def test_an_empty_unreadable_or_missing_secret_is_refused(tmp_path, content):
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError):
        settings.secret(None, file)


def test_no_secret_at_all_is_refused():
    with pytest.raises(ConfigurationError):
        settings.secret(None, None)


# --- what the settings name -------------------------------------------------------------------------------------------


@pytest.fixture
def complete(tmp_path):
    """Settings whose every file is there; keys are settings, values are files that they need."""
    for name in ("jwks.json", "uri", "headers", "ca", "token"):
        (tmp_path / name).write_text("x")
    Signer().write_keys(tmp_path / "jwks.json")
    (tmp_path / "policies").mkdir()
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    return {
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "policies": tmp_path / "policies",
        "issuers": [ISSUER | {"jwks_file": tmp_path / "jwks.json"}],
        "servers": [
            SERVER | {"command": [str(program)], "connection_string_file": tmp_path / "uri"},
            {"name": "far", "url": "https://mcp.example/mcp", "headers_file": tmp_path / "headers"},
        ],
        "opa": {"binary": str(program), "ca_file": tmp_path / "ca", "token_file": tmp_path / "token"},
    }


def test_settings_whose_files_are_there_are_fine(complete):
    set_up.require(loaded(**complete), SystemClock())


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("jwks.json", "issuers.0.jwks_file"),
        ("uri", "servers.0.connection_string_file"),
        ("headers", "servers.1.headers_file"),
        ("ca", "opa.ca_file"),
        ("token", "opa.token_file"),
        ("program", "opa.binary"),
        ("policies", "policies"),
    ],
)
def test_a_file_that_is_missing_is_refused_by_the_name_of_its_setting(complete, tmp_path, name, named):
    (tmp_path / name).rename(tmp_path / "moved")
    with pytest.raises(ConfigurationError, match=f"^{named}: "):
        set_up.require(loaded(**complete), SystemClock())


def test_an_outside_opa_needs_neither_program_nor_policies(complete, tmp_path):
    complete["opa"] = {"url": "http://127.0.0.1:8181", "binary": "/nonexistent"}
    (tmp_path / "policies").rmdir()
    set_up.require(loaded(**complete), SystemClock())


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_is_up_to_date_and_explains_every_setting():
    page = settings_reference.render()
    assert settings_reference.PAGE.read_text() == page
    for name in Settings.model_fields:
        assert f"`{name}`" in page or f"`[{name}]`" in page


def test_every_secret_of_the_models_is_marked():
    marked = {line.split("`")[1] for line in settings_reference.render().splitlines() if "🔑" in line and "| `" in line}
    assert {"connection_string", "connection_string_file", "headers_file"} <= marked


def test_telemetry_goes_nowhere_unless_told(given_environment):
    assert settings.exporter("TRACES").endpoint == ""
    given_environment(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318")
    assert settings.exporter("TRACES").endpoint == "http://127.0.0.1:4318"
    assert settings.exporter("METRICS").endpoint == "", "metrics are at /metrics; most collectors of traces take none"
    given_environment(OTEL_METRICS_EXPORTER="otlp", OTEL_TRACES_EXPORTER="none")
    assert settings.exporter("TRACES").endpoint == ""
    assert settings.exporter("METRICS").endpoint == "http://127.0.0.1:4318"
    given_environment(OTEL_SDK_DISABLED="true")
    assert settings.exporter("METRICS").endpoint == ""


def test_programs_are_found_where_the_environment_says():
    assert os_environment.search_path() == os.environ["PATH"]  # noqa: TID251 - what the product must have read


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"processes": 0}, "processes"),
        ({"processes": 33}, "processes"),
        ({"processes": 2, "tool_groups": ["export", "connect"]}, "connect"),
        ({"processes": 2, "tool_groups": ["connect", "assistant"]}, "connect"),
        ({"processes": 2, "command": [], "connection_string_file": None, "url": "http://127.0.0.1/mcp"}, "command"),
        ({"headers_file": "/run/secrets/headers"}, "headers_file"),
    ],
)
def test_what_children_or_an_address_cannot_have_is_refused(more, why):
    with pytest.raises(ConfigurationError, match=why):
        loaded(servers=[SERVER | more])


@pytest.mark.parametrize(
    "more",
    [
        {"processes": 4},
        {"stateless": True},
        {"processes": 4, "tool_groups": ["assistant", "export"]},
        {"processes": 1, "tool_groups": ["export", "connect"]},
        {"command": [], "connection_string_file": None, "url": "http://127.0.0.1/mcp", "stateless": True},
    ],
)
def test_the_near_miss_of_each_is_accepted(more):
    [server] = loaded(servers=[SERVER | more]).servers
    assert {name: getattr(server, name) for name in more if name in {"processes", "stateless"}}.items() <= more.items()


SHARED = {"suspensions": "mongodb:suspensions", "mongodb": {"uri_file": "/run/secrets/uri"}}


@pytest.mark.parametrize(
    "good",
    [
        SHARED,
        {**SHARED, "single_use": "mongodb:marks"},
        {"mongodb": {"uri_file": "/uri", "usage": "usage"}},
        {"suspensions": "file:/kept", "single_use": "mongodb:marks", "mongodb": {"uri": "mongodb://127.0.0.1/"}},
    ],
)
def test_what_several_sidecars_share_is_accepted_with_its_store(good):
    assert loaded(**good).mongodb.given


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"suspensions": "mongodb:suspensions"}, "needs uri"),
        ({"single_use": "mongodb:marks"}, "needs uri"),
        ({"mongodb": {"uri_file": "/uri"}}, "nothing is kept there"),
        ({**SHARED, "suspensions": "file:/kept"}, "nothing is kept there"),
        ({**SHARED, "single_use": "mongodb:suspensions"}, "same collection"),
        ({**SHARED, "suspensions": "mongodb:"}, "name of a collection"),
        ({**SHARED, "suspensions": "mongodb:system.users"}, "name of a collection"),
        ({**SHARED, "suspensions": "mongodb:a$b"}, "name of a collection"),
        ({**SHARED, "suspensions": "mongodb:a\n"}, "name of a collection"),
        ({**SHARED, "suspensions": "mongodb://127.0.0.1/db"}, "name of a collection"),
        ({**SHARED, "single_use": "file:/marks"}, "single_use"),
        ({**SHARED, "single_use": "memory"}, "single_use"),
        ({**SHARED, "mongodb": {"uri_file": "/uri", "uri": "mongodb://127.0.0.1/"}}, "at most one"),
        ({**SHARED, "mongodb": {"uri_file": "/uri", "database": "admin"}}, "MongoDB itself"),
        ({**SHARED, "mongodb": {"uri_file": "/uri", "database": "a.b"}}, "database"),
        ({"mongodb": {"usage": "usage"}}, "needs uri"),
        ({**SHARED, "mongodb": {"uri_file": "/uri", "usage": "a$b"}}, "name of a collection"),
        ({**SHARED, "mongodb": {"uri_file": "/uri", "usage": "suspensions"}}, "same collection"),
    ],
)
def test_what_several_sidecars_share_is_refused_without_a_place_for_it(bad, why):
    with pytest.raises(ConfigurationError, match=why):
        loaded(**bad)


CONTROL_TLS = {"certificate": "/c", "key": "/k", "client_ca": "/a", "operators": ["commonName=ann"]}
KEPT = {"suspensions": "file:/kept"}


@pytest.mark.parametrize(
    "good",
    [
        KEPT,
        {**KEPT, "control_listen": "unix:/run/control"},
        {**KEPT, "control_listen": "127.0.0.1:1", "control_tls": CONTROL_TLS},
    ],
)
def test_a_whole_control_listener_is_accepted(good):
    assert loaded(**good).suspensions == "file:/kept"


@pytest.mark.parametrize(
    "bad",
    [
        {"control_listen": "unix:/run/control"},
        {**KEPT, "control_listen": "unix:run/control"},
        {**KEPT, "control_listen": "127.0.0.1:1"},
        {**KEPT, "control_listen": "somewhere"},
        *(
            {
                **KEPT,
                "control_listen": "127.0.0.1:1",
                "control_tls": {k: v for k, v in CONTROL_TLS.items() if k != left},
            }
            for left in CONTROL_TLS
        ),
        {**KEPT, "control_listen": "127.0.0.1:1", "control_tls": CONTROL_TLS | {"operators": []}},
        {"suspensions": "file:"},
        {"suspensions": "/kept"},
    ],
)
def test_a_control_listener_that_lacks_something_is_refused(bad):
    with pytest.raises(ConfigurationError):
        loaded(**bad)


OWN_TLS = {"certificate_file": "/c", "key_file": "/k", "client_certificates": "required", "client_ca_file": "/a"}
NAMING = {"certificate_header": "client-cert", "certificate_subjects": ["commonName=p"], "trusted": ["10.0.0.0/8"]}


def test_certificates_count_where_they_can_be_shown():
    bound = {**ISSUER, "mtls": "required"}
    assert loaded(tls=OWN_TLS, issuers=[bound]).issuers[0].mtls == "required"
    assert loaded(tls=OWN_TLS, issuers=[bound], proxies=NAMING).proxies.certificate_header == "client-cert"
    assert loaded(tls=OWN_TLS, proxies={**NAMING, "trusted": [], "unix": True}).proxies.unix


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"issuers": [{"mtls": "allowed"}]}, "client_certificates"),
        ({"issuers": [{"mtls": "required", "dpop": "allowed"}], "tls": OWN_TLS}, "must be off"),
        ({"issuers": [{"mtls": "allowed", "dpop": "required"}], "tls": OWN_TLS}, "must be off"),
        ({"issuers": [{"mtls": "yes"}], "tls": OWN_TLS}, "mtls"),
        ({"proxies": NAMING}, "client_certificates"),
        ({"proxies": {**NAMING, "trusted": []}, "tls": OWN_TLS}, "certificate_subjects"),
        ({"proxies": {**NAMING, "certificate_subjects": []}, "tls": OWN_TLS}, "certificate_subjects"),
        ({"proxies": {**NAMING, "certificate_header": "x-client-cert"}, "tls": OWN_TLS}, "certificate_header"),
    ],
)
def test_certificates_that_nobody_could_show_or_everybody_could_name_are_refused(bad, named):
    whole = {**bad, "issuers": [{**ISSUER, **one} for one in bad.get("issuers", [{}])]}
    with pytest.raises(ConfigurationError, match=named):
        loaded(**whole)


ATLAS = {"tool_groups": ["atlas"], "api_client_id": "mdb_sa_id_1", "api_client_secret": SECRET}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"tool_groups": ["exports"]}, {"tool_groups": ["export", "connect", "atlas-local", "assistant"]}),
        ({"tool_groups": ["atlas"]}, ATLAS),
        (ATLAS | {"api_client_id": ""}, ATLAS),
        (
            ATLAS | {"api_client_secret_file": "/etc/x"},
            {**ATLAS, "api_client_secret": None, "api_client_secret_file": "/x"},
        ),
        (ATLAS | {"tool_groups": ["export"]}, {"tool_groups": ["export"]}),
        ({"api_client_secret": SECRET}, {}),
    ],
)
def test_tool_groups_are_of_a_closed_set_and_the_service_account_goes_with_atlas(wrong, right):
    assert "servers.0" in refused(servers=[SERVER | wrong])
    loaded(servers=[SERVER | right])


def test_a_server_behind_a_url_says_its_groups_and_takes_no_service_account():
    behind = {"name": "demo-ro", "url": "http://127.0.0.1:3000/mcp"}
    assert loaded(servers=[behind | {"tool_groups": ["atlas"]}]).servers[0].tool_groups == ("atlas",)
    assert "servers.0" in refused(servers=[behind | ATLAS])


def test_every_group_is_off_unless_it_is_named():
    assert loaded().servers[0].tool_groups == ()


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"confirmation_required_tools": ["drop-databse"]}, {"confirmation_required_tools": ["drop-database"]}),
        ({"confirmation_required_tools": ["find,count"]}, {"confirmation_required_tools": []}),
        ({"confirmation_required_tools": ["exports"]}, {"confirmation_required_tools": ["export"]}),
    ],
)
def test_confirmations_are_asked_for_tools_that_there_are(wrong, right):
    assert "servers.0" in refused(servers=[SERVER | wrong])
    loaded(servers=[SERVER | right])


@pytest.mark.parametrize("more", [{"environment_file": "/etc/x"}, {"confirmation_required_tools": ["find"]},
                                  {"require_confirmation": True}])  # fmt: skip
def test_what_is_of_a_child_does_not_go_with_a_url(more):
    assert re.search(
        "go(es)? with command", refused(servers=[{"name": "demo-ro", "url": "http://127.0.0.1:3000/mcp"} | more])
    )
    loaded(servers=[SERVER | more])


def test_a_server_whose_environment_file_has_another_name_is_refused(tmp_path, caplog):
    (tmp_path / "uri").write_text(URI)
    (tmp_path / "environment").write_text(f"NODE_OPTIONS={SECRET}")
    server = SERVER | {
        "connection_string_file": str(tmp_path / "uri"),
        "confirmation_required_tools": ["drop-database"],
    }
    servers_behind.connect(loaded(servers=[server]).servers[0])
    assert not caplog.records
    with pytest.raises(ConfigurationError, match="environment_file: line 1: NODE_OPTIONS") as caught:
        servers_behind.connect(
            loaded(servers=[server | {"environment_file": str(tmp_path / "environment")}]).servers[0]
        )
    assert SECRET not in caught.value.detail


async def test_a_connection_string_that_is_read_again_has_to_be_as_protected_as_at_the_start(tmp_path):
    """Else a changed file would do what the start refuses."""
    for name in ("uri", "views"):
        (tmp_path / name).write_text(URI)
    server = SERVER | {
        "connection_string_file": str(tmp_path / "uri"),
        "views_connection_string_file": str(tmp_path / "views"),
    }
    server.pop("connection_string", None)
    named = loaded(servers=[server], insecure_connections=["servers.demo-ro.connection_string"])
    config = loaded(servers=[server])
    read = servers_behind.child_renewal(config.servers[0], ()).environment
    assert read is not None
    assert servers_behind.views_connections(config) == [URI]
    assert read()
    for name in ("uri", "views"):
        (tmp_path / name).write_text("mongodb://reader:secret@db.corp.example/?tls=true&tlsInsecure=true")
    for again in (read, lambda: servers_behind.views_connections(config)):
        with pytest.raises(ConfigurationError, match="does not verify the certificate") as refused:
            again()
        assert "secret" not in refused.value.detail
    allowed = servers_behind.child_renewal(named.servers[0], named.insecure_connections).environment
    assert allowed is not None
    assert allowed()


# --- tools outside of the catalog -------------------------------------------------------------------------------------

REPORT = {"name": "report", "sha256": "0" * 64, "policy_arguments": ["/region"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "find"}, "is a tool of the catalog"),
        ({"name": "Insert_Many"}, "looks like one"),
        ({"name": "f\u0456nd"}, "letters, digits"),
        ({"name": ""}, "letters, digits"),
        ({"sha256": "0" * 63}, "sha256"),
        ({"sha256": "A" * 64}, "sha256"),
        ({"policy_arguments": ["region"]}, "JSON pointer"),
        ({"policy_arguments": ["/__proto__"]}, "JavaScript"),
        ({"policy_arguments": ["/region", "/region"]}, "twice"),
        ({"policy_arguments": [f"/{number}" for number in range(17)]}, "policy_arguments"),
        ({"schema": {}}, "schema"),
    ],
)
def test_a_tool_outside_of_the_catalog_is_named_exactly_and_pinned(change, said):
    assert said in refused(servers=[SERVER | {"generic_tools": [REPORT | change]}])


def test_a_tool_outside_of_the_catalog_is_off_until_it_is_named():
    assert loaded().servers[0].generic_by_name() == {}
    tool = loaded(servers=[SERVER | {"generic_tools": [REPORT]}]).servers[0].generic_by_name()["report"]
    assert (tool.pin, tool.pointers) == ("0" * 64, ("/region",))


def test_a_tool_is_named_once_on_a_server_and_alike_on_all():
    assert "twice" in refused(servers=[SERVER | {"generic_tools": [REPORT, REPORT]}])
    other = SERVER | {"name": "other", "generic_tools": [REPORT | {"sha256": "1" * 64, "policy_arguments": ["/x"]}]}
    assert "the same on every server" in refused(servers=[SERVER | {"generic_tools": [REPORT]}, other])
    alike = other | {"generic_tools": [REPORT | {"sha256": "1" * 64}]}
    assert len(loaded(servers=[SERVER | {"generic_tools": [REPORT]}, alike]).servers) == 2


RESOURCE = {"uri": "reports://{region}/latest", "name": "latest"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"uri": "latest"}, "absolute URI"),
        ({"uri": "Reports://x"}, "absolute URI"),
        ({"uri": "reports://{a}/{a}"}, "absolute URI"),
        ({"uri": "reports://{+a}"}, "absolute URI"),
        ({"uri": "reports://{a"}, "absolute URI"),
        ({"uri": "reports://a b"}, "absolute URI"),
        ({"uri": "exported-data://{name}"}, "exported-data"),
        ({"policy_arguments": ["/id"]}, "no variable"),
        ({"name": ""}, "name"),
        ({"text": "x"}, "text"),
    ],
)
def test_a_resource_is_named_by_its_uri_or_a_simple_template(change, said):
    assert said in refused(servers=[SERVER | {"generic_resources": [RESOURCE | change]}])


def test_resources_and_prompts_are_named_beside_tools_and_mixed_up_with_none():
    prompt = {"name": "report", "sha256": "0" * 64}
    server = SERVER | {"generic_tools": [REPORT], "generic_prompts": [prompt], "generic_resources": [RESOURCE]}
    named = loaded(servers=[server]).servers[0].generic_by_name()
    assert sorted(named) == ["prompt/report", "report", "resource/reports://{region}/latest"]
    assert "twice" in refused(servers=[SERVER | {"generic_prompts": [prompt, prompt]}])
    template = named["resource/reports://{region}/latest"].template
    assert template is not None
    assert template.fullmatch("reports://EU/latest")
    for uri in ("reports://E%55/latest", "reports://a/b/latest", "reports:///latest", "reports://../latest"):
        assert not template.fullmatch(uri)
