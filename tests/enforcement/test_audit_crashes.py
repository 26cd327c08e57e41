"""SIGKILL at random points under load: no effect without its intent on disk, and the next start continues the chain."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests import parts
from tests.patience import HANG_S


def killed(folder: Path, offered: object, *, rounds: int, seed: int, sync: str) -> dict:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.enforcement.crash_rounds",
            str(folder / "audit.jsonl"),
            str(rounds),
            str(seed),
            sync,
        ],
        input=msgspec.json.encode(offered),
        cwd=parts.ROOT,
        capture_output=True,
        check=False,
        timeout=HANG_S * max(1, rounds // 40),
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    found: dict = json.loads(done.stdout)  # noqa: TID251 - our own program's words
    return found


def check(found: dict) -> None:
    assert found["findings"] == []
    assert found["head"] == found["records"]
    assert found["forwarded"] > 0
    assert found["forwarded without intent"] == 0
    assert found["replies"] <= found["outcomes"]
    assert found["forwarded"] - found["replies"] <= found["unfinished"] + found["outcomes"]


@pytest.mark.parametrize(("sync", "rounds"), [("os", 8), ("group", 8), ("always", 4)])
def test_killed_at_random_points_every_effect_has_its_intent_and_the_chain_goes_on(tmp_path, offered, sync, rounds):
    check(killed(tmp_path, offered, rounds=rounds, seed=1, sync=sync))


@pytest.mark.nightly
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("sync", ["os", "group", "always"])
def test_killed_a_hundred_times_the_same(tmp_path, offered, sync):
    check(killed(tmp_path, offered, rounds=100, seed=2, sync=sync))
