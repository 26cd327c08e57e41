"""Which calls of the example policies share one evaluation, by the ids of OPA's decisions."""

import copy
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sidecar.opa.managed import ManagedOpa
from sidecar.ports import PdpAnswer, Question
from tests.parts import ROOT
from tests.patience import HANG_S

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]

HOUR_NS = 3_600_000_000_000


ALLOWED, REFUSED, IN_HOURS = (
    ("analytics", "analyst-finds-orders"),
    ("analytics", "analyst-reads-customers"),
    ("loading", "loader-on-wednesday"),
)


def golden(file: str, case: str) -> dict[str, Any]:
    """The question of a golden case."""
    cases = json.loads((ROOT / f"policies/cases/{file}.json").read_text())  # noqa: TID251 - the repository's own files
    question: dict[str, Any] = cases[case]["input"]
    return question


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def opa(opa_binary: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ManagedOpa]:
    directory = Path(tmp_path_factory.mktemp("opa")) / "run"
    opa = ManagedOpa(opa_binary, ROOT / "policies", directory=directory, timeout_s=10.0, memo_s=HANG_S)
    await opa.start()
    yield opa
    await opa.stop()


async def decided(opa: ManagedOpa, question: dict[str, Any], *place: str, value: Any) -> str:
    other = copy.deepcopy(question)
    inner = other
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return (await opa.ask(Question.DECISION, other)).decision_id


@pytest.mark.parametrize("case", [ALLOWED, REFUSED], ids=["allowed", "refused"])
async def test_what_no_rule_looks_at_makes_no_other_question(opa: ManagedOpa, case: tuple[str, str]) -> None:
    question = golden(*case)
    first = (await opa.ask(Question.DECISION, question)).decision_id
    for place, value in (
        (("command", "limit"), 77),
        (("command", "fields", "filtered"), ["made", "up"]),
        (("context", "client_ip"), "198.51.100.1"),
        (("context", "protocol"), "2026-07-28"),
        (("subject", "roles"), ["another"]),
    ):
        assert await decided(opa, question, *place, value=value) == first, place
    for place, value in (
        (("subject", "groups"), ["strangers"]),
        (("subject", "id"), "mallory"),
        (("actor", "id"), "another"),
        (("command", "traits"), ["server_side_js"]),
        (("command", "limit"), "not a number"),
    ):
        assert await decided(opa, question, *place, value=value) != first, place


async def test_the_time_makes_another_question_only_where_the_owners_rules_look_at_it(opa: ManagedOpa) -> None:
    for case, same in ((ALLOWED, True), (REFUSED, False), (IN_HOURS, False)):
        question = golden(*case)
        first = (await opa.ask(Question.DECISION, question)).decision_id
        later = question["context"]["time_ns"] + HOUR_NS
        assert (await decided(opa, question, "context", "time_ns", value=later) == first) is same, case


ANALYST_SEES: dict[str, Any] = {
    "v": 1,
    "subject": golden(*ALLOWED)["subject"],
    "actor": golden(*ALLOWED)["actor"],
    "action": {"method": "tools/list"},
    "tools": {
        "find": {"needs": ["read"], "may_need": []},
        "insert-many": {"needs": ["insert"], "may_need": ["create"]},
    },
    "possible": None,
    "context": golden(*ALLOWED)["context"],
}
"""The question which tools show."""


async def listed(opa: ManagedOpa, *place: str, value: Any) -> PdpAnswer:
    other = copy.deepcopy(ANALYST_SEES)
    inner = other
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    return await opa.ask(Question.VISIBILITY, other)


async def test_a_list_is_asked_for_again_for_everything_but_the_time(opa: ManagedOpa) -> None:
    first = await opa.ask(Question.VISIBILITY, ANALYST_SEES)
    assert first.result
    now = ANALYST_SEES["context"]["time_ns"]
    for hours in (1, 24, 24 * 365):
        assert (await listed(opa, "context", "time_ns", value=now + hours * HOUR_NS)).decision_id == first.decision_id
    for place, value in (
        (("subject", "groups"), ["strangers"]),
        (("subject", "scopes"), []),
        (("actor", "id"), "another"),
        (("possible",), []),
        (("tools",), {}),
        (("context", "client_ip"), "198.51.100.1"),
        (("context", "environment"), "another"),
    ):
        assert (await listed(opa, *place, value=value)).decision_id != first.decision_id, place
    for malformed in (-1, "now", True):
        found = await listed(opa, "context", "time_ns", value=malformed)
        assert found.decision_id != first.decision_id
        assert found.result != first.result, "an ill-formed question shows nothing"


async def test_the_time_changes_no_list_of_policies_without_closed_hours(opa: ManagedOpa) -> None:
    """What the memo goes by, asked of OPA without the memo: other addresses make other questions."""
    now = ANALYST_SEES["context"]["time_ns"]
    for groups in (["analysts"], ["loaders"], ["strangers"], ["analysts", "loaders"]):
        found = []
        for number, hours in enumerate((0, 1, 7, 24, 24 * 31, 24 * 365 * 9)):
            context = {**ANALYST_SEES["context"], "time_ns": now + hours * HOUR_NS, "client_ip": f"203.0.113.{number}"}
            subject = {**ANALYST_SEES["subject"], "groups": groups}
            question = {**ANALYST_SEES, "context": context, "subject": subject}
            found.append((await opa.ask(Question.VISIBILITY, question)).result)
        assert all(each == found[0] for each in found), groups
