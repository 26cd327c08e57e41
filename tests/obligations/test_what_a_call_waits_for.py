"""Which approvals an allow asks for: two kinds and no other, for calls and for what is no tool call."""

from dataclasses import replace
from typing import Any

import pytest

from sidecar.commands import derive
from sidecar.enforcement.discharge import unchanged
from sidecar.errors import ObligationNotSupported
from sidecar.model import AccessVerdict, Command, Decision, ToolCall
from sidecar.obligations import possible
from sidecar.obligations.approvals import Waits

ORDERS: Any = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
OPEN = AccessVerdict(owner="red", grants=("g",))


def allow(*codes: list[Any], verdict: AccessVerdict = OPEN) -> Decision:
    """An allow whose accesses ask for these approvals."""
    entries: list[Any] = [{"access": index, "codes": asked} for index, asked in enumerate(codes) if asked]
    return Decision(
        allow=True,
        reasons=(),
        server="rw",
        accesses=(verdict,) * max(1, len(codes)),
        revision="r",
        approval={"accesses": entries} if entries else None,
    )


def command(accesses: int) -> Command:
    """A read with so many accesses."""
    one = derive(ToolCall(name="find", arguments=ORDERS)).command
    return replace(one, accesses=one.accesses * accesses)


@pytest.mark.parametrize(
    ("decision", "waits"),
    [
        (allow(), Waits()),
        (allow(["confirm"]), Waits(confirm=(0,))),
        (allow(["second_person"]), Waits(second_person=(0,))),
        (allow([], ["confirm", "second_person"], ["confirm"]), Waits(confirm=(1, 2), second_person=(1,))),
    ],
    ids=["nothing", "the user", "a second person", "both"],
)
def test_what_waits_is_in_the_plan_of_every_use(decision: Decision, waits: Waits) -> None:
    assert possible(decision, "find") == waits
    assert unchanged(decision, (), command(len(decision.accesses))).waits == waits
    assert bool(waits) is bool(waits.confirm or waits.second_person)


@pytest.mark.parametrize("code", ["lead", "", "Confirm", "second-person", 1, None], ids=repr)
def test_an_approval_of_another_kind_is_refused(code: Any) -> None:
    with pytest.raises(ObligationNotSupported) as refused:
        possible(allow([], ["confirm", code]), "find")
    assert (refused.value.access, refused.value.conditions) == (1, ("approval",))


@pytest.mark.parametrize("approval", [{}, {"accesses": []}, {"accesses": "x"}, {"accesses": [1]}, {"more": []}])
def test_an_approval_of_nothing_is_never_none(approval: Any) -> None:
    decision = Decision(allow=True, reasons=(), server="rw", accesses=(OPEN,), revision="r", approval=approval)
    with pytest.raises(ObligationNotSupported):
        possible(decision, "find")


def test_what_else_cannot_be_met_still_refuses() -> None:
    limited = AccessVerdict(owner="red", grants=("g",), max_documents=5)
    with pytest.raises(ObligationNotSupported):
        possible(allow(["confirm"], verdict=limited), "drop-index")
