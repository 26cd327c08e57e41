"""The comparison of two OPAs that a pin has to pass: equal ones are equal, and one that differs is told."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import parts

pytestmark = [pytest.mark.nightly, pytest.mark.real, pytest.mark.timeout(1800)]

OPA = parts.BIN / "opa"


def compared(new: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tools/compare_opa.py", str(OPA), str(new)],
        cwd=parts.ROOT,
        env={"PATH": f"{parts.BIN}:{os.environ['PATH']}"},  # noqa: TID251 - the tests' own environment
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_opa_does_not_differ_from_itself() -> None:
    done = compared(OPA)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 differences" in done.stdout


def test_an_opa_whose_tests_come_out_otherwise_differs(tmp_path: Path) -> None:
    other = tmp_path / "opa"
    other.write_text(f'#!/bin/sh\n[ "$1" = test ] && echo "[]" && exit 0\nexec {OPA} "$@"\n')
    other.chmod(0o700)
    done = compared(other)
    assert done.returncode == 1, done.stdout + done.stderr
    assert ", 0 differences" not in done.stdout
