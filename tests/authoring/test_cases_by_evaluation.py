"""Golden cases are decided in one evaluation, and come out as ``opa test`` has them."""

import json
import shutil
from pathlib import Path

import pytest

from sidecar.authoring import cases
from sidecar.authoring.engine import engine
from tests.parts import ROOT

pytestmark = pytest.mark.real


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the repository's policies with the platform's cases about routes alone."""
    copy = Path(shutil.copytree(ROOT / "policies", tmp_path / "policies"))
    for file in (copy / "cases").glob("*.json"):
        if file.name != "routes.json":
            file.unlink()
    return copy


async def test_cases_that_are_decided_otherwise_fail_by_name(folder: Path, opa_binary: str) -> None:
    file = folder / "cases/routes.json"
    known = json.loads(file.read_text())  # noqa: TID251 - the repository's own file
    wrong, missing = sorted(known)[:2]
    known[wrong]["decision"]["server"] = "elsewhere"
    known[missing]["decision"]["accesses"].append({"owner": "nobody-here"})
    file.write_text(json.dumps(known))
    assert cases.has_these_tests(folder)
    async with engine(opa_binary, folder) as held:
        tally = await cases.tally(held)
    assert tally is not None
    assert [one.message for one in tally.failed] == [f"test_case[{wrong}] fails"]
    assert tally.passed == len(known) - 2, "and what nobody decides is left out"


async def test_without_a_case_that_can_be_decided_only_opa_test_can_tell(folder: Path, opa_binary: str) -> None:
    (folder / "cases/routes.json").write_text("{}")
    async with engine(opa_binary, folder) as held:
        assert await cases.tally(held) is None


def test_other_tests_of_cases_are_left_to_opa_test(folder: Path) -> None:
    more = folder / "cases/more_test.rego"
    more.write_text("package mcp.cases_test\n\ntest_more if true\n")
    assert not cases.has_these_tests(folder)
    more.unlink()
    tests = folder / "cases/cases_test.rego"
    tests.write_text(tests.read_text() + "\ntest_more if true\n")
    assert not cases.has_these_tests(folder)
    tests.unlink()
    assert not cases.has_these_tests(folder)
