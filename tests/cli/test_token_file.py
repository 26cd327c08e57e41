"""The file with the token of a client that launches the sidecar: what is wrong with it is said when it is read."""

import logging
from pathlib import Path

import pytest

from sidecar.launching import TokenFile


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    told = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return told


@pytest.fixture(autouse=True)
def warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


def test_a_file_that_is_not_there_is_said_once_until_it_comes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "token"
    file = TokenFile(path)
    assert file.read() is None
    assert said(caplog) == ["stdio.token_file cannot be read"]
    assert file.read() is None
    assert said(caplog) == []
    path.write_text("a.b.c\n")
    path.chmod(0o600)
    assert file.read() == "a.b.c"
    assert said(caplog) == []


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_file_that_others_may_open_is_said_at_each_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    path = tmp_path / "token"
    path.write_text("a.b.c\n")
    path.chmod(mode)
    file = TokenFile(path)
    assert [file.read(), file.read()] == ["a.b.c"] * 2
    assert said(caplog) == ["stdio.token_file is open to other users of this machine: run chmod 600 on it"]
    path.chmod(0o600)
    assert file.read() == "a.b.c"
    assert said(caplog) == []


def test_a_file_that_holds_no_text_is_said_without_its_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"\xff\xfe")
    path.chmod(0o600)
    assert TokenFile(path).read() is None
    assert [(record.getMessage(), record.__dict__["why"]) for record in caplog.records] == [
        ("stdio.token_file cannot be read", "it holds more than a token")
    ]
