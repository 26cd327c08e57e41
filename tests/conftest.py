"""What every test may ask for, and what no test may do."""

import os
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from uuid import uuid4

import psutil
import pytest
from pymongo import MongoClient
from pymongo.uri_parser import parse_uri

from tests import parts, programs
from tests.examples import load_profile

# --- the environment of a run -----------------------------------------------------------------------------------------

# What a developer has exported for a demo must not change what a test means, nor reach a real deployment.
for _name in [name for name in os.environ if name.startswith(("SIDECAR_", "OTEL_", "MDB_MCP_"))]:  # noqa: TID251 - the tests' own border
    if not _name.startswith("SIDECAR_TEST_"):
        del os.environ[_name]  # noqa: TID251 - the tests' own border

# A run in the background of a shell without job control ignores Ctrl-C, and so would every program that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# An OPA that a test starts by itself collects as seldom as those of the product (policyset/opa_command.py).
os.environ.setdefault("GOGC", "400")  # noqa: TID251 - the tests' own border

load_profile()


def _outside_hosts() -> frozenset[str]:
    """Addresses of the MongoDB that the caller chose for tests, if any: the only way off this machine."""
    if not (uri := parts.outside_database()):
        return frozenset()
    nodes = parse_uri(uri)["nodelist"]
    return frozenset(str(found[4][0]) for host, port in nodes for found in socket.getaddrinfo(host, port))


_OUTSIDE_HOSTS = _outside_hosts()


def refuse_outside_connections(event: str, args: tuple[object, ...]) -> None:
    """Audit hook: a connection that leaves loopback is a defect of the test that makes it.

    Sees the ``socket`` module and therefore asyncio's own loops, not uvloop and not child processes.
    """
    if event != "socket.connect":
        return
    match args:
        case (_, (str(host), *_)) if host not in _OUTSIDE_HOSTS and not _is_loopback(host):
            msg = f"a test tried to reach {host}; tests stay on loopback"
            raise ConnectionRefusedError(msg)
        case _:
            return


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


sys.addaudithook(refuse_outside_connections)


# --- what runs when ---------------------------------------------------------------------------------------------------


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what is marked ``nightly`` to ``make nightly``, unless it was asked for by that name (``-m nightly``)."""
    if programs.at_night() or "nightly" in config.option.markexpr:
        return
    late = [item for item in items if item.get_closest_marker("nightly")]
    if late:
        config.hook.pytest_deselected(items=late)
        items[:] = [item for item in items if item not in late]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before any fixture: what a test needs is there, or the test is skipped by the name of what is missing."""
    needed = (str(name) for marker in item.iter_markers("needs") for name in marker.args)
    programs.require(tuple(needed), night=programs.at_night())


# --- real parts -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_running() -> Iterator[None]:
    """Set up first and torn down last: by then every part that a test of this process started has ended."""
    yield
    children = psutil.Process().children(recursive=True)
    left = [name for child in children if (name := _part_name(child))]
    assert not left, f"tests left these running: {left}"


def _part_name(process: psutil.Process) -> str:
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return ""
    return next((part for part in ("opa", "mongodb-mcp-server", "secantusd-py") if f"/{part} " in f"{line} "), "")


@pytest.fixture(scope="session")
def opa_binary() -> str:
    """Path of the OPA that setup installed."""
    return str(parts.installed("opa"))


@pytest.fixture(scope="session")
def mcp_server_command() -> list[str]:
    """Command of the MongoDB MCP server that setup installed; add its settings through the environment."""
    return [str(parts.installed("mongodb-mcp-server"))]


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """Connection string of a database that lives as long as this test process. Use names from ``database_name``."""
    with parts.running_database() as uri:
        yield uri


@pytest.fixture
def database_name(database: str) -> Iterator[str]:
    """Name of a database that is this test's alone; dropped afterwards."""
    name = f"t_{uuid4().hex[:16]}"
    yield name
    with MongoClient[dict[str, object]](database) as client:
        client.drop_database(name)


@pytest.fixture
def free_port() -> int:
    """A loopback port that nothing listens on at this moment."""
    return parts.free_port()


# --- the report -------------------------------------------------------------------------------------------------------


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the soundness run on the wire has checked (tests/soundness), and the oracle (tests/obligations)."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    for counted, title in (("soundness", "soundness on the wire"), ("oracle", "row filters against the oracle")):
        rows = [
            dict(value)
            for report in reports
            if report.when == "call"
            for name, value in report.user_properties
            if name == counted
        ]
        if rows:
            total: Counter[str] = Counter()
            for row in rows:
                total.update(row)
            line = ", ".join(f"{count} {what}" for what, count in total.items())
            terminalreporter.write_line(f"{title} ({len(rows)} runs): {line}")
