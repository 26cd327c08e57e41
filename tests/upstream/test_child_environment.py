"""The child's environment and its log: what the server needs, and no secret anywhere else."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError
from sidecar.upstream.environment import (
    FURTHER,
    check_command,
    child_environment,
    mongodb_environment,
    read_further,
    secrets_of,
)
from sidecar.upstream.redaction import LogBudget, Redactor
from tests.patience import HANG_S


@pytest.mark.parametrize(
    ("given_uri", "sent"),
    [
        ("mongodb://h", "mongodb://h/?appName=app"),
        ("mongodb://h/", "mongodb://h/?appName=app"),
        ("mongodb://u:p@h:1,i:2/db", "mongodb://u:p@h:1,i:2/db?appName=app"),
        ("mongodb+srv://h/?tls=true", "mongodb+srv://h/?tls=true&appName=app"),
        ("mongodb://h/?", "mongodb://h/?appName=app"),
        ("mongodb://h/?APPNAME=own&x=y", "mongodb://h/?APPNAME=own&x=y"),
        (
            "mongodb://h/?authMechanismProperties=appName:x",
            "mongodb://h/?authMechanismProperties=appName:x&appName=app",
        ),
    ],
)
def test_the_application_is_named_in_the_connection_string_unless_it_is(given_uri, sent):
    environment = mongodb_environment(given_uri, read_only=True, app_name="app")
    assert environment["MDB_MCP_CONNECTION_STRING"] == sent


def test_the_settings_are_the_recommended_ones():
    environment = mongodb_environment("mongodb://h/?appName=x", read_only=True, max_time_ms=5000)
    assert environment == {
        "MDB_MCP_CONNECTION_STRING": "mongodb://h/?appName=x",
        "MDB_MCP_TRANSPORT": "stdio",
        "MDB_MCP_READ_ONLY": "true",
        "MDB_MCP_DISABLE_SERVER_SIDE_JS": "true",
        "MDB_MCP_ALLOW_REQUEST_OVERRIDES": "false",
        "MDB_MCP_PREVIEW_FEATURES": "",
        "MDB_MCP_DISABLED_TOOLS": "assistant,atlas,atlas-local,connect,export",
        "MDB_MCP_MAX_TIME_M_S": "5000",
    }
    assert mongodb_environment("mongodb://h/", read_only=False)["MDB_MCP_READ_ONLY"] == "false"


@pytest.mark.parametrize(
    "wrong",
    [
        {"connection_string": "http://u:s3cret@h/"},
        {"connection_string": ""},
        {"app_name": ""},
        {"app_name": "a&tls=false"},
        {"app_name": "a" * 129},
        {"max_time_ms": 0},
    ],
    ids=repr,
)
def test_a_setting_that_the_server_would_misread_is_refused_without_repeating_it(wrong):
    arguments = {"connection_string": "mongodb://h/", "read_only": True} | wrong
    with pytest.raises(ConfigurationError) as caught:
        mongodb_environment(**arguments)
    assert "s3cret" not in str(caught.value)


def test_what_the_operator_passes_wins_over_the_base():
    assert child_environment({"PATH": "/opt/bin"}, Path("/h"), Path("/h/e"))["PATH"] == "/opt/bin"
    assert child_environment({}, Path("/h"), Path("/h/e"))["HOME"] == "/h"


@pytest.mark.parametrize("argument", ["--exportsPath=/srv", "--exportsPath", "--exports-path", "-exportspath=x"])
def test_a_command_line_that_moves_exports_is_refused(argument):
    with pytest.raises(ConfigurationError, match="where exports are written"):
        check_command(("mongodb-mcp-server", argument, "/srv"), {})
    check_command(("mongodb-mcp-server", "--exportTimeoutMs", "1000", "exportsPath"), {})


def test_where_exports_are_written_is_the_sidecars_to_say():
    passed = {"MDB_MCP_EXPORTS_PATH": "/srv"}
    assert child_environment(passed, Path("/h"), Path("/h/e"))["MDB_MCP_EXPORTS_PATH"] == "/h/e"


@given(
    st.text(st.characters(categories=("L", "M", "N", "P", "S", "Zs")), min_size=1).filter(
        lambda secret: secret.isprintable() and secret not in "<redacted>\ufffd"
    ),
    st.text(),
    st.text(),
)
def test_a_secret_never_survives_in_a_line(secret, before, after):
    line = (before + secret + after).encode("utf-8", "surrogatepass")
    assert secret not in Redactor([secret]).clean(line).replace("<redacted>", "")


@pytest.mark.parametrize(
    "line",
    [
        b"mongodb://u:hunter2@h/",
        b"MongoDB+SRV://u:hunter2@h/",
        b'{"uri":"mongodb:\\/\\/u:hunter2@h"}',
        b"mongodb%3A%2F%2Fu:hunter2@h",
    ],
)
def test_whatever_looks_like_a_connection_string_is_hidden(line):
    assert "hunter2" not in Redactor([]).clean(line)


def test_an_ordinary_line_is_kept():
    assert (
        Redactor(["s3cret"]).clean("mongodb collection orders: é 7 µs".encode()) == "mongodb collection orders: é 7 µs"
    )


def test_a_budget_admits_its_lines_per_window_and_counts_the_rest():
    budget = LogBudget(lines=2, seconds=1.0)
    assert [budget.admit(0.0), budget.admit(0.1), budget.admit(0.2), budget.admit(0.99)] == [True, True, False, False]
    assert budget.admit(1.0)
    assert (budget.take_dropped(), budget.take_dropped()) == (2, 0)


KRB5 = "KRB5_CONFIG=/etc/krb5.conf"


def test_further_environment_is_lines_of_names_and_values():
    text = f"# Kerberos\n{KRB5}\n\n  HTTPS_PROXY=http://u:s3cret@p:1/?a=b  \nNO_PROXY="
    assert read_further(text) == {
        "KRB5_CONFIG": "/etc/krb5.conf",
        "HTTPS_PROXY": "http://u:s3cret@p:1/?a=b",
        "NO_PROXY": "",
    }


@pytest.mark.parametrize(
    "name",
    [
        "NODE_OPTIONS", "LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "HOME", "TMPDIR", "krb5_config", "KRB5_CONFIG2",
        "NODE_TLS_REJECT_UNAUTHORIZED", "SSLKEYLOGFILE", "MDB_MCP_READ_ONLY", "MDB_MCP_DISABLED_TOOLS",
        "MDB_MCP_CONNECTION_STRING", "MDB_MCP_API_BASE_URL", "MDB_MCP_TELEMETRY", "MDB_MCP_LOGGERS",
        "MDB_MCP_TRANSPORT",
        "MDB_MCP_ALLOW_REQUEST_OVERRIDES", "MDB_MCP_DISABLE_SERVER_SIDE_JS", "MDB_MCP_PREVIEW_FEATURES",
        "MDB_MCP_EXPORTS_PATH", "MDB_MCP_CONFIG", "MDB_MCP_API_CLIENT_SECRET",
        "MDB_MCP_MAX_TIME_MS", "mdb_mcp_index_check",
    ],
)  # fmt: skip
def test_any_other_name_is_refused_and_named_without_its_value(name):
    with pytest.raises(ConfigurationError) as caught:
        read_further(f"{KRB5}\n{name}=s3cret")
    assert f"line 2: {name} " in caught.value.detail
    assert "s3cret" not in caught.value.detail


@pytest.mark.parametrize(
    "line",
    [
        "s3cret",
        "=s3cret",
        "KRB5 CONFIG=s3cret",
        "export KRB5CCNAME=s3cret",
        "KRB5_CONFIG=s3cret",
        "KRB5CCNAME=s3cret\0",
    ],
)
def test_a_line_of_another_form_is_refused_without_its_value(line):
    with pytest.raises(ConfigurationError) as caught:
        read_further(f"{KRB5}\n{line}")
    assert "s3cret" not in caught.value.detail


def test_the_password_of_a_proxy_is_not_logged():
    environment = {"HTTPS_PROXY": "http://u:s3cret@p:1/", "AWS_SECRET_ACCESS_KEY": "k3y"}
    cleaned = Redactor(secrets_of(environment)).clean(b"to http://u:s3cret@p:1/ as s3cret with k3y")
    assert "s3cret" not in cleaned
    assert "k3y" not in cleaned
    assert secrets_of({"NO_PROXY": "localhost"}) == ()


@pytest.mark.real
def test_the_real_server_reads_the_limits_and_the_confirmations(mcp_server_command):
    limits = {name: "7" for name in FURTHER if name.startswith("MDB_MCP_MAX") or name.endswith("_CAP")}
    further = read_further(
        "\n".join(f"{name}={value}" for name, value in limits.items()) + "\nMDB_MCP_INDEX_CHECK=true"
    )
    environment = mongodb_environment("mongodb://h/", read_only=True, confirmed_tools=("find", "count"))
    done = subprocess.run(
        [*mcp_server_command, "--dryRun"],
        env={"PATH": os.environ["PATH"], **further, **environment},  # noqa: TID251 - the tests' own environment
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=True,
    )
    read = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{") :])[0]
    names = (
        "maxDocumentsPerQuery",
        "maxBytesPerQuery",
        "maxTimeMS",
        "queryCountMaxTimeMsCap",
        "aggregationCountMaxTimeMsCap",
    )
    assert {read[name] for name in names} == {7}
    assert len(names) == len(limits)
    assert read["indexCheck"] is True
    assert read["confirmationRequiredTools"] == ["find", "count"]
    assert read["readOnly"] is True
