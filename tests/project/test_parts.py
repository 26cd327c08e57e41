"""The real parts are the pinned ones, and tests cannot leave this machine."""

import json
import socket
import subprocess

import pytest
from pymongo import MongoClient

from tests import parts


def test_opa_is_the_pinned_version_or_newer(opa_binary: str) -> None:
    printed = subprocess.run([opa_binary, "version"], check=True, capture_output=True, text=True).stdout
    version = tuple(int(part) for part in printed.split()[1].split("."))
    assert (1, 22, 2) <= version < (2,)


def test_the_mcp_server_is_the_locked_version(mcp_server_command: list[str]) -> None:
    wanted = json.loads((parts.ROOT / "parts/package.json").read_text())["dependencies"]["mongodb-mcp-server"]  # noqa: TID251 - a file of ours
    printed = subprocess.run([*mcp_server_command, "--version"], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == wanted


def test_a_database_answers_and_keeps_what_is_written(database: str, database_name: str) -> None:
    with MongoClient[dict[str, object]](database) as client:
        client[database_name]["things"].insert_one({"_id": 1})
        assert client[database_name]["things"].count_documents({}) == 1


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "0.0.0.1"])
def test_a_connection_beyond_loopback_is_refused(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as client, pytest.raises(ConnectionRefusedError, match="loopback"):
        client.connect((host, 9))


def test_a_connection_on_loopback_is_not_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
