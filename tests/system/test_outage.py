"""What goes and comes is told once each way, however often it is missed, and not without end where it flaps."""

import logging

import pytest

from sidecar.system import Outage
from sidecar.system.outage import PACE_S


class Watch:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def outage(watch: Watch, caplog: pytest.LogCaptureFixture) -> Outage:
    caplog.set_level(logging.INFO)
    return Outage(logging.getLogger("test"), "the part", lost="does not answer", found="answers again", now=watch)


def test_it_is_told_once_each_way(outage: Outage, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    outage.ends()
    for why in ("refused", "refused", "reset"):
        outage.begins(why)
        watch.now += 10
    states = [outage.there]
    outage.ends()
    outage.ends()
    assert [*states, outage.there] == [False, True]
    assert caplog.messages == ["the part does not answer: refused", "the part answers again after 30.0 s"]


def test_the_next_one_is_told_as_well(outage: Outage, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        outage.begins("refused")
        outage.ends()
        watch.now += PACE_S
    assert len(caplog.messages) == 6


def test_what_flaps_is_told_no_more_often_than_the_pace(
    outage: Outage, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """A caller may be able to make it fail with one call and answer the next."""
    for _ in range(1000):
        outage.begins("refused")
        outage.ends()
        watch.now += PACE_S / 500
    assert len(caplog.messages) <= 6


def test_one_that_lasts_is_told_even_if_it_began_too_soon_after_another(
    outage: Outage, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    outage.begins("refused")
    outage.ends()
    outage.begins("refused")
    assert len(caplog.messages) == 2
    watch.now += PACE_S
    outage.begins("still refused")
    assert caplog.messages[2:] == ["the part does not answer: still refused"]
    outage.ends()
    assert caplog.messages[3:] == [f"the part answers again after {PACE_S:.1f} s"]
