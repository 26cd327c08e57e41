"""While our own loop is busy with something else, OPA answers in time and is believed to; and so where all are slow."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.errors import DecisionUnavailable
from sidecar.opa.hot_standby import HotStandby
from sidecar.opa.managed import ManagedOpa
from sidecar.ports import Question
from tests.patience import HANG_S

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
    stopped: list[int] = []
    try:
        pair = managed._current
        assert isinstance(pair, HotStandby)
        before = pair.pids
        stopped = [*before] if also_the_standby else [before[0]]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        with pytest.raises(DecisionUnavailable):
            await managed.ask(Question.VISIBILITY, {"echo": "in vain"})
        await asyncio.sleep(1.5)  # both were asked whether they are well, and had a quarter of a second each
        assert (pair.pids[:1] == before[:1]) is also_the_standby
        if also_the_standby:
            assert pair.pids == before
    finally:
        for pid in stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        await managed.stop()
