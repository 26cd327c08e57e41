"""The child's environment and its log: what the server needs, and no secret anywhere else."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError
from sidecar.upstream.environment import child_environment, mongodb_environment
from sidecar.upstream.redaction import LogBudget, Redactor


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
    assert child_environment({"PATH": "/opt/bin"}, Path("/h"))["PATH"] == "/opt/bin"
    assert child_environment({}, Path("/h"))["HOME"] == "/h"


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
