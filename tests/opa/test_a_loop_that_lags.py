"""While our own loop is busy with something else, OPA answers in time and is believed to; and so where all are slow."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.errors import DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.opa.hot_standby import HotStandby
from sidecar.opa.managed import ManagedOpa
from sidecar.ports import Question
from tests.patience import HANG_S
from tests.standing_still import standing_still

pytestmark = pytest.mark.real

TIMEOUT_S = 3.0


async def test_a_loop_that_stands_still_times_out_no_question_and_takes_no_opa_out(
    make_policies: Callable[..., Path], opa_binary: str, runtime: Path
) -> None:
    managed = ManagedOpa(
        opa_binary,
        make_policies(),
        directory=runtime,
        timeout_s=TIMEOUT_S,
        start_timeout_s=HANG_S,
        probe_interval_s=0.3,
    )
    await managed.start(standby=True)
    try:
        pair = managed._current
        assert isinstance(pair, HotStandby)
        before = pair.pids
        for turn in range(2):
            asked = [
                asyncio.create_task(managed.ask(Question.VISIBILITY, {"echo": [turn, number]})) for number in range(8)
            ]
            await asyncio.sleep(0.1)  # they are on their way
            time.sleep(TIMEOUT_S + 1)  # noqa: ASYNC251 - the loop stands still: that is what is staged
            assert [(await one).result for one in asked] == [[turn, number] for number in range(8)]
            await asyncio.sleep(1)  # several probes
        assert pair.pids == before
        assert managed._current is pair
    finally:
        await managed.stop()


@pytest.mark.parametrize("also_the_standby", [True, False])
async def test_an_opa_that_is_slow_is_taken_out_only_where_the_standby_is_not(
    make_policies: Callable[..., Path], opa_binary: str, runtime: Path, also_the_standby: bool
) -> None:
    """Both stand still where the machine does: to start a third would make it slower."""
    managed = ManagedOpa(
        opa_binary, make_policies(), directory=runtime, timeout_s=0.5, start_timeout_s=HANG_S, probe_interval_s=HANG_S
    )
    await managed.start(standby=True)
    try:
        pair = managed._current
        assert isinstance(pair, HotStandby)
        before = pair.pids
        with standing_still(*before[: 2 if also_the_standby else 1]):
            if also_the_standby:
                while await fault_of(managed) is not PdpFault.TIMEOUT:
                    """Our own loop was away meanwhile, so nothing is concluded."""
                await asyncio.sleep(1.5)  # both were asked whether they are well, and had a quarter of a second each
                assert pair.pids == before
            else:
                while pair.pids[:1] == before[:1]:
                    with contextlib.suppress(DecisionUnavailable):
                        await managed.ask(Question.VISIBILITY, {"echo": "in vain"})
                    await asyncio.sleep(0.1)
                assert before[1] in pair.pids, "the standby decides"
    finally:
        await managed.stop()


async def fault_of(managed: ManagedOpa) -> PdpFault:
    with pytest.raises(DecisionUnavailable) as caught:
        await managed.ask(Question.VISIBILITY, {"echo": "in vain"})
    return caught.value.fault
