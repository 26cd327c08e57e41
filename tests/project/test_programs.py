"""What a run leaves out is said by name, and ``make nightly`` leaves out nothing but a database that nobody named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import programs
from tests.parts import ROOT

MISSING = "no-such-program-anywhere"


def outcome(*needed: str, night: bool) -> tuple[str, str]:
    try:
        programs.require(needed, night=night)
    except pytest.skip.Exception as skipped:
        return "skipped", str(skipped)
    except pytest.fail.Exception as failed:
        return "failed", str(failed)
    return "run", ""


@pytest.mark.parametrize("night", [False, True])
def test_a_test_runs_where_its_programs_are(night: bool) -> None:
    assert outcome(night=night) == ("run", "")
    assert outcome("sh", night=night) == ("run", "")
    assert outcome(f"{MISSING}|sh", "cat", night=night) == ("run", "")


@pytest.mark.parametrize("needed", [(MISSING,), ("sh", MISSING), (f"{MISSING}|{MISSING}-2",)])
def test_a_missing_program_skips_by_its_name_and_fails_at_night(needed: tuple[str, ...]) -> None:
    verdict, message = outcome(*needed, night=False)
    assert verdict == "skipped"
    assert MISSING in message
    verdict, message = outcome(*needed, night=True)
    assert verdict == "failed"
    assert MISSING in message


def test_a_real_database_may_be_missing_at_night_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIDECAR_TEST_MONGODB_URI", raising=False)
    for night in (False, True):
        verdict, message = outcome(programs.MONGODB, night=night)
        assert verdict == "skipped"
        assert "SIDECAR_TEST_MONGODB_URI" in message
    monkeypatch.setenv("SIDECAR_TEST_MONGODB_URI", "mongodb://127.0.0.1:1/")
    assert outcome(programs.MONGODB, night=True) == ("run", "")
    assert outcome(programs.MONGODB, MISSING, night=True)[0] == "failed"


SAMPLE = """
import pytest

@pytest.mark.nightly
def test_late(): pass

@pytest.mark.needs("no-such-program-anywhere")
def test_needing(): pass

def test_plain(): pass
"""


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "test_sample.py"
    path.write_text(SAMPLE)
    return path


def run(sample: Path, *arguments: str, night: str = "") -> str:
    """Run pytest as this project has it set up on a file of another folder; return its short report."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml"), "-q"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "--rootdir", str(sample.parent), *arguments, str(sample)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "SIDECAR_TEST_NIGHTLY": night},  # noqa: TID251 - the tests' own environment
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def test_what_is_for_the_night_is_left_out_of_other_runs(sample: Path) -> None:
    assert "1 passed, 1 skipped, 1 deselected" in run(sample)
    assert "2 passed, 1 deselected" in run(sample, "-k", "late or plain", night="1")
    assert "1 passed, 2 deselected" in run(sample, "-m", "nightly"), "asked for by name"


def test_the_night_runs_what_is_marked_and_fails_for_what_is_missing(sample: Path) -> None:
    report = run(sample, "-m", "nightly or needs or hypothesis", night="1")
    assert "1 failed, 1 passed, 1 deselected" in report or "1 passed, 1 deselected, 1 error" in report
    assert MISSING in report
