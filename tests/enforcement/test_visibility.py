"""Which tools show: what is kept, for whom, for how long, and what happens where partial evaluation cannot be had."""

from dataclasses import dataclass, field

import pytest
from typing_extensions import override

from sidecar.enforcement.visibility import KEPT_S, MAX_CALLERS, MAX_POSSIBLE, RETRY_S, TOOLS, UNNAMED_S, Visibility
from sidecar.errors import DecisionUnavailable
from sidecar.model import Actor, Identity, JsonObject, JsonValue, Principal, RequestContext
from sidecar.ports import PdpAnswer, Question

CONTEXT = RequestContext(time_ns=0, client_ip="192.0.2.7", protocol="2025-11-25", environment="test")
OWNER: JsonValue = {
    "terms": [
        {"type": "ref", "value": [{"type": "var", "value": "eq"}]},
        {"type": "var", "value": "owner"},
        {"type": "string", "value": "red"},
    ]
}
WAY: JsonValue = {"queries": [[OWNER]]}


def caller(name: str = "alice", **claims: JsonValue) -> Identity:
    principal = Principal(issuer="https://idp.example", subject=name, groups=("g",), claims=claims)
    return Identity(principal=principal, actor=Actor(id="a"), expires_at=0.0)


@dataclass
class Stage:
    """A decision point that answers as it is told, and the clock beside it."""

    open_now: list[str] = field(default_factory=lambda: ["count", "find", "insert-many"])
    granted: list[str] = field(default_factory=lambda: ["find"])
    residual: JsonValue = field(default_factory=lambda: WAY)
    revision: str = "r1"
    failing: frozenset[str] = frozenset()
    now: float = 0.0
    asked: list[str] = field(default_factory=list)

    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        what = "residual" if question is Question.RESIDUAL else "open" if document["possible"] is None else "granted"
        self.asked.append(what)
        if what in self.failing:
            raise DecisionUnavailable(what)
        if what == "residual":
            return PdpAnswer(result=self.residual, revision=self.revision)
        names = self.open_now if what == "open" else self.granted
        return PdpAnswer(result={"v": 1, "tools": [*names], "servers": ["s"]}, revision=self.revision)

    def time_ns(self) -> int:
        return 0

    def monotonic(self) -> float:
        return self.now

    def visibility(self) -> Visibility:
        return Visibility(self.ask, self, {"s"}, step_ns=1)


async def test_what_no_grant_could_allow_does_not_show() -> None:
    stage = Stage()
    assert (await stage.visibility().of(caller(), CONTEXT)).tools == {"find"}
    assert stage.asked == ["open", "residual", "granted"]


async def test_the_second_list_of_a_caller_costs_one_question() -> None:
    stage = Stage()
    visibility = stage.visibility()
    for _ in range(3):
        assert (await visibility.of(caller(), CONTEXT)).tools == {"find"}
    assert stage.asked == ["open", "residual", "granted", "open", "open"]


@pytest.mark.parametrize("other", [caller("bob"), caller(region="EU")])
async def test_another_caller_is_asked_about_anew(other: Identity) -> None:
    stage = Stage()
    visibility = stage.visibility()
    await visibility.of(caller(), CONTEXT)
    stage.granted = ["count"]
    assert (await visibility.of(other, CONTEXT)).tools == {"count"}
    assert (await visibility.of(caller(), CONTEXT)).tools == {"find"}


async def test_another_revision_is_asked_about_anew() -> None:
    stage = Stage()
    visibility = stage.visibility()
    await visibility.of(caller(), CONTEXT)
    stage.revision, stage.granted = "r2", ["count"]
    assert (await visibility.of(caller(), CONTEXT)).tools == {"count"}


async def test_what_is_kept_does_not_outlive_its_time() -> None:
    stage = Stage()
    visibility = stage.visibility()
    await visibility.of(caller(), CONTEXT)
    stage.granted, stage.now = ["count"], KEPT_S - 1
    assert (await visibility.of(caller(), CONTEXT)).tools == {"find"}
    stage.now = KEPT_S
    assert (await visibility.of(caller(), CONTEXT)).tools == {"count"}


async def test_without_a_revision_a_list_is_kept_for_a_moment_only() -> None:
    stage = Stage(revision="")
    visibility = stage.visibility()
    await visibility.of(caller(), CONTEXT)
    stage.granted = ["count"]
    assert (await visibility.of(caller(), CONTEXT)).tools == {"find"}
    stage.now = UNNAMED_S
    assert (await visibility.of(caller(), CONTEXT)).tools == {"count"}


async def test_what_the_platform_closes_is_hidden_at_once() -> None:
    stage = Stage()
    visibility = stage.visibility()
    await visibility.of(caller(), CONTEXT)
    stage.open_now = ["count"]
    assert (await visibility.of(caller(), CONTEXT)).tools == frozenset()


async def test_who_may_do_nothing_costs_no_partial_evaluation() -> None:
    stage = Stage(open_now=[])
    assert (await stage.visibility().of(caller(), CONTEXT)).tools == frozenset()
    assert stage.asked == ["open"]


@pytest.mark.parametrize("failing", ["residual", "granted"])
async def test_where_it_cannot_be_told_nothing_is_hidden_and_it_is_not_tried_at_every_list(failing: str) -> None:
    stage = Stage(failing=frozenset({failing}))
    visibility = stage.visibility()
    for _ in range(2):
        assert (await visibility.of(caller(), CONTEXT)).tools == {"count", "find", "insert-many"}
    assert stage.asked.count(failing) == 1
    stage.failing, stage.now = frozenset(), RETRY_S
    assert (await visibility.of(caller(), CONTEXT)).tools == {"find"}


async def test_where_the_platform_cannot_be_asked_nothing_is_told() -> None:
    with pytest.raises(DecisionUnavailable):
        await Stage(failing=frozenset({"open"})).visibility().of(caller(), CONTEXT)


@pytest.mark.parametrize("residual", [None, {"queries": [[]]}, {"queries": "x"}])
async def test_a_residual_that_is_not_of_its_form_hides_nothing(residual: JsonValue) -> None:
    stage = Stage(residual=residual)
    assert (await stage.visibility().of(caller(), CONTEXT)).tools == {"count", "find", "insert-many"}


async def test_too_many_ways_to_a_grant_hide_nothing() -> None:
    def text(value: str) -> JsonValue:
        return {"type": "string", "value": value}

    def owned(owner: str) -> JsonValue:
        equals: JsonValue = {"type": "ref", "value": [{"type": "var", "value": "eq"}]}
        return [{"terms": [equals, {"type": "var", "value": "owner"}, text(owner)]}]

    stage = Stage(residual={"queries": [owned(str(number)) for number in range(MAX_POSSIBLE + 1)]})
    assert (await stage.visibility().of(caller(), CONTEXT)).tools == {"count", "find", "insert-many"}
    stage = Stage(residual={"queries": [owned(str(number)) for number in range(MAX_POSSIBLE)]})
    assert (await stage.visibility().of(caller(), CONTEXT)).tools == {"find"}


async def test_a_set_that_changes_between_the_questions_is_not_believed_by_halves() -> None:
    class Switching(Stage):
        @override
        async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
            answer = await super().ask(question, document)
            if question is Question.RESIDUAL:
                self.revision = "r2"
            return answer

    stage = Switching()
    visibility = stage.visibility()
    assert (await visibility.of(caller(), CONTEXT)).tools == {"count", "find", "insert-many"}
    assert (await visibility.of(caller(), CONTEXT)).tools == {"find"}


async def test_the_number_of_callers_that_are_kept_is_bounded() -> None:
    stage = Stage()
    visibility = stage.visibility()
    for number in range(MAX_CALLERS + 1):
        await visibility.of(caller(str(number)), CONTEXT)
    stage.asked.clear()
    await visibility.of(caller(str(MAX_CALLERS)), CONTEXT)
    assert stage.asked == ["open"]
    await visibility.of(caller("0"), CONTEXT)
    assert stage.asked == ["open", "open", "residual", "granted"]


def test_every_tool_needs_something_or_may() -> None:
    assert all(tool.needs or tool.may_need for tool in TOOLS.values())
