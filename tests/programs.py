"""Outside programs that ``make setup`` does not install: a test names what it needs, and is skipped by that name.

``@pytest.mark.needs("nginx")``, with ``"chromium|google-chrome"`` where either will do. Where ``SIDECAR_TEST_NIGHTLY``
is set, as it is by ``make nightly``, a missing program fails the test instead: a check that never runs anywhere is
none. The one exception is ``MONGODB``, a database that few machines have (``SIDECAR_TEST_MONGODB_URI``).
"""

import os
import shutil
from typing import Final

import pytest

from tests import parts

MONGODB: Final = "a real MongoDB"


def at_night() -> bool:
    """Whether this is a run of ``make nightly``."""
    return os.environ.get("SIDECAR_TEST_NIGHTLY", "") not in {"", "0"}  # noqa: TID251 - the tests' own switch


def path_of(program: str) -> str | None:
    """Where the first of the programs is, named as in the marker."""
    return next((path for name in program.split("|") if (path := shutil.which(name))), None)


def require(programs: tuple[str, ...], *, night: bool) -> None:
    """Return if all programs are there; else skip or fail the test that is about to run, by the missing name."""
    if MONGODB in programs and not parts.outside_database():
        pytest.skip(f"{MONGODB} is not named: set SIDECAR_TEST_MONGODB_URI")
    for program in programs:
        if program == MONGODB or path_of(program):
            continue
        message = f"{program.replace('|', ' or ')} is not installed"
        if night:
            pytest.fail(f"{message}, and `make nightly` runs every check", pytrace=False)
        pytest.skip(message)
