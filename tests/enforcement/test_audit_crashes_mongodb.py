"""SIGKILL under load while the audit store stalls, cuts and steps down: every effect has its intent, in one chain."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from sidecar.enforcement.turn import OutcomeNotRecorded
from sidecar.errors import AuditUnavailable
from tests import parts
from tests.patience import HANG_S

EXPECTED = (AuditUnavailable.public, OutcomeNotRecorded.public)
"""What a refused call is told."""


@contextmanager
def unsteady(uri: str, seed: int) -> Iterator[str]:
    """A way to the database that changes its mood, as a process of its own; yields its connection string."""
    command = [sys.executable, "-m", "tests.store.unsteady_way", uri, str(seed)]
    process = subprocess.Popen(command, cwd=parts.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        yield f"mongodb://127.0.0.1:{port}/?directConnection=true"
    finally:
        process.stdin.close()
        process.wait(HANG_S)
        process.stdout.close()


def killed(uri: str, folder: Path, offered: object, *, rounds: int, seed: int, on_failure: str) -> dict:
    place = folder / f"crash_{folder.name[-20:]}"
    place.mkdir()
    with unsteady(uri, seed) as way:
        program = [
            "-m",
            "tests.enforcement.crash_rounds_mongodb",
            uri,
            way,
            str(place),
            str(rounds),
            str(seed),
            on_failure,
        ]
        done = subprocess.run(
            [sys.executable, *program],
            input=msgspec.json.encode(offered),
            cwd=parts.ROOT,
            capture_output=True,
            check=False,
            timeout=HANG_S * max(1, rounds // 20),
        )
    assert done.returncode == 0, done.stderr.decode()[-6000:]
    found: dict = json.loads(done.stdout)  # noqa: TID251 - our own program's words
    return found


def check(found: dict) -> None:
    assert found["findings"] == []
    assert found["head"] == found["records"]
    intents, outcomes = found["intents"], found["outcomes"]
    assert len(set(intents)) == len(intents), "an intent is there once"
    assert found["forwarded"]
    assert not set(found["forwarded"]) - set(intents), "forwarded without intent"
    assert found["replies"] <= len(outcomes)
    odd = [line for line in found["refused"] if not any(name in line for name in EXPECTED)]
    assert odd == []


@pytest.mark.parametrize("on_failure", ["spool", "deny"])
def test_killed_while_the_store_fails_every_effect_has_its_intent(tmp_path, database, offered, on_failure):
    check(killed(database, tmp_path, offered, rounds=3, seed=1, on_failure=on_failure))


@pytest.mark.nightly
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(2, 5))
@pytest.mark.parametrize("on_failure", ["spool", "deny"])
def test_killed_a_hundred_times_the_same(tmp_path, database, offered, on_failure, seed):
    check(killed(database, tmp_path, offered, rounds=100, seed=seed, on_failure=on_failure))
