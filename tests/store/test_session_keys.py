"""The file of session keys: what it may hold, and what happens when it changes while sessions are open."""

import base64
import logging
from pathlib import Path

import pytest

from sidecar.errors import ConfigurationError
from sidecar.mcp import McpRevision, SealedSession, identity_digest
from sidecar.store.session_keys import SessionKeyFile

RESOURCE = "https://mcp.example/mcp"
ONE, TWO, THREE = (base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))
SESSION = SealedSession(
    identity=identity_digest(("i", "s", "a")), revision=McpRevision.V2025_06_18, client_name="c", created=1, expires=2
)


def replaced(path: Path, text: str) -> None:
    beside = path.with_name("beside")
    beside.write_text(text)
    beside.replace(path)


@pytest.mark.parametrize("text", [ONE, f"{ONE}\n", f"{ONE}\n{TWO}\n", f"\n {ONE} \r\n\n{TWO}\n"])
def test_one_or_two_lines_of_base64_are_keys(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_bytes(text.encode())
    keys = SessionKeyFile(tmp_path / "keys", RESOURCE).keys
    assert keys.read(keys.seal(SESSION, "u")) == SESSION


@pytest.mark.parametrize(
    "text", ["", "\n", "secret", ONE[:-4], f"{ONE}{ONE}", f"{ONE}\n{ONE}", f"{ONE}\n{TWO}\n{THREE}", "é" * 10]
)
def test_anything_else_is_refused_without_being_repeated(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ConfigurationError, match="openssl rand -base64 32") as refused:
        SessionKeyFile(tmp_path / "keys", RESOURCE)
    assert len(refused.value.detail.splitlines()) == 1
    assert ONE[:10] not in refused.value.detail


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        SessionKeyFile(tmp_path / "keys", RESOURCE)


def test_a_rotation_loses_nothing_and_damage_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    path.write_text(ONE)
    file = SessionKeyFile(path, RESOURCE)
    old = file.keys.seal(SESSION, "u")
    replaced(path, f"{TWO}\n{ONE}")
    file.refresh()
    new = file.keys.seal(SESSION, "v")
    assert file.keys.read(old) == file.keys.read(new) == SESSION
    with caplog.at_level(logging.ERROR):
        for damaged in ("", TWO[:-1]):
            replaced(path, damaged)
            file.refresh()
            file.refresh()
        path.unlink()
        file.refresh()
        file.refresh()
    assert len(caplog.records) == 3, "each once"
    assert TWO[:10] not in caplog.text
    assert file.keys.read(old) == file.keys.read(new) == SESSION
    replaced(path, TWO)
    file.refresh()
    assert file.keys.read(old) is None
    assert file.keys.read(new) == SESSION
