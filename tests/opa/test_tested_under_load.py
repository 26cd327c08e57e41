"""What an OPA runs is tested while much else is asked: what was not asked, or not answered, proves nothing."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.errors import DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.model import JsonObject
from sidecar.opa.client import OpaClient
from sidecar.opa.external import ExternalOpa
from sidecar.opa.managed import ManagedOpa
from sidecar.opa.policy_state import Load, PolicyState
from sidecar.opa.self_test import self_test
from sidecar.ports import PdpAnswer, Question
from sidecar.saturation import Overloaded
from tests.patience import HANG_S


class Unanswered:
    """An OPA that answers all but the question that must fail."""

    def __init__(self, opa: ManagedOpa, error: DecisionUnavailable) -> None:
        self._opa = opa
        self._error = error

    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        if "fail" in document:
            raise self._error
        return await self._opa.ask(question, document)


@pytest.mark.real
async def test_a_question_that_must_fail_has_to_be_answered(
    make_policies: Callable[..., Path], opa_binary: str, runtime: Path
) -> None:
    async with ManagedOpa(
        opa_binary, make_policies(), directory=runtime, timeout_s=HANG_S, start_timeout_s=HANG_S
    ) as managed:
        await self_test(managed)
        for error in (
            Overloaded("not sent", retry_after_s=1),
            Overloaded("no answer, in which this process was busy", retry_after_s=1, fault=PdpFault.LAGGING),
            *(DecisionUnavailable("away", fault=fault) for fault in (PdpFault.TIMEOUT, PdpFault.UNREACHABLE)),
        ):
            with pytest.raises(DecisionUnavailable):
                await self_test(Unanswered(managed, error))


@pytest.fixture
def external() -> ExternalOpa:
    """One that has accepted a set before, and asks nobody here."""
    found = ExternalOpa(OpaClient("http://127.0.0.1:1"), binary="opa", timeout_s=0.05)
    found._state = PolicyState(revision="before", since=0.0, result=Load.LOADED)
    return found


async def test_a_set_whose_questions_were_not_sent_is_not_refused_for_that(
    external: ExternalOpa, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crowded(_: set[str]) -> None:
        raise Overloaded("not sent: the wait was too long", retry_after_s=1)

    monkeypatch.setattr(external, "_settled", crowded)
    await external._examine("new")
    assert external.policy_state.result is Load.LOADED
    assert "new" not in external._refused
    assert external._why().fault is PdpFault.OVERLOADED
    assert not external._believes("new")


async def test_what_a_question_waited_to_be_sent_takes_nothing_from_the_examination_after_it(
    external: ExternalOpa, monkeypatch: pytest.MonkeyPatch
) -> None:
    believed: list[str] = []

    async def late(_question: Question, _document: JsonObject, sent: Callable[[], None]) -> PdpAnswer:
        await asyncio.sleep(0.1)
        sent()
        return PdpAnswer(result={}, revision="new", decision_id="", engine="1.22.2")

    async def examined(revision: str) -> None:
        await asyncio.sleep(0)
        external._engines.put("1.22.2", None)
        believed.append(revision)

    monkeypatch.setattr(external._client, "ask", late)
    monkeypatch.setattr(external, "_examined", examined)
    monkeypatch.setattr(external, "_believes", lambda revision: revision in believed)
    assert (await external.ask(Question.DECISION, {})).revision == "new"
