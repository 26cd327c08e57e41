"""The benches that are held to something: the comparison of two revisions, and what floods cost."""

import os
import subprocess
import sys

import msgspec
import pytest

from tests import parts

pytestmark = [pytest.mark.nightly, pytest.mark.real]


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
