"""The benches that are held to something: two revisions compared, what floods cost, many sessions at once."""

import os
import subprocess
import sys

import msgspec
import pytest

from tests import parts

pytestmark = pytest.mark.real


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_two_revisions_are_played_in_one_run_and_both_are_measured() -> None:
    done = subprocess.run(
        [sys.executable, "bench/against.py", "HEAD", "--rounds=2", "--calls=16", "--json"],
        cwd=parts.ROOT,
        env={"PATH": f"{parts.BIN}:{os.environ['PATH']}"},  # noqa: TID251 - the tests' own environment
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = msgspec.json.decode(done.stdout)
    assert {(row["operation"], row["at once"]) for row in rows} == {
        (operation, at_once) for operation in ("tools/list", "count", "find") for at_once in (1, 8)
    }
    measured = [row[f"{side} {what}"] for row in rows for side in ("other", "this") for what in ("calls/s", "CPU µs")]
    assert min(measured) > 0


@pytest.mark.nightly
def test_a_revision_that_does_not_exist_is_said() -> None:
    done = subprocess.run(
        [sys.executable, "bench/against.py", "no-such-revision"],
        cwd=parts.ROOT,
        env={"PATH": f"{parts.BIN}:{os.environ['PATH']}"},  # noqa: TID251 - the tests' own environment
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "no-such-revision" in done.stderr


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_what_floods_cost_is_within_its_aims() -> None:
    """Memory of large answers, CPU time of refused megabytes, and a suspension past idle connections."""
    done = subprocess.run(
        [sys.executable, "bench/floods.py"],
        cwd=parts.ROOT,
        env={"PATH": f"{parts.BIN}:{os.environ['PATH']}"},  # noqa: TID251 - the tests' own environment
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "size",
    [
        pytest.param(("--sessions=30", "--streams=5", "--in-flight=8", "--flood=70"), id="a glance"),
        pytest.param((), id="whole", marks=pytest.mark.nightly),
    ],
)
def test_many_sessions_at_once_lose_and_cross_no_answer(size: tuple[str, ...]) -> None:
    """Also: what an idle session weighs, and that a flood of new ones of one user touches nobody else."""
    done = subprocess.run(
        [sys.executable, "bench/sessions.py", "--json", *size],
        cwd=parts.ROOT,
        env={"PATH": f"{parts.BIN}:{os.environ['PATH']}"},  # noqa: TID251 - the tests' own environment
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout, done.stderr
    rows = msgspec.json.decode(done.stdout)
    few = {"an idle session weighs, kB"} if size else set[str]()  # of so few, it is what one page of memory weighs
    assert [row for row in rows if not row["met"] and row["what"] not in few] == []
    assert len(rows) == 9
