"""Copies of the repository's policies that a test may change."""

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from tests.parts import ROOT

POLICIES = ROOT / "policies"

_KEPT_CASES = {"cases_test.rego", "people.json"}
_FIXTURES = "fixture_test.rego"
"""What the tests of teams are written with."""


def quick_copy(place: Path) -> Path:
    """The set that serves, with every team and its tests, and a seventh of the work for ``policy test``.

    The platform's own tests and the golden cases of all teams but one are left out: for what is claimed of a team's
    files, and of commands, whatever the rest of the tests would say.
    """

    def left_out(folder: str, names: list[str]) -> set[str]:
        room = Path(folder).relative_to(POLICIES).parts[:1]
        match room:
            case ("platform",) | ("system",):
                return {name for name in names if name.endswith("_test.rego") and name != _FIXTURES}
            case ("cases",):
                return {*names} - _KEPT_CASES
            case _:
                return set()

    return Path(shutil.copytree(os.fspath(POLICIES), place, ignore=left_out, dirs_exist_ok=True))


@cache
def served() -> Path:
    """A quick copy for all tests of this process that serve the set and change nothing of it."""
    folder = tempfile.TemporaryDirectory(prefix="policies-")
    atexit.register(folder.cleanup)
    return quick_copy(Path(folder.name) / "policies")
