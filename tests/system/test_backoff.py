"""The pauses between attempts double, and a long life begins them again."""

from sidecar.system.backoff import BackOff


def pauses(back_off: BackOff, attempts: int) -> list[float]:
    return [back_off.pause() for _ in range(attempts)]


def test_the_pause_doubles_up_to_the_longest():
    assert pauses(BackOff(0.25, 1.5), 6) == [0.25, 0.5, 1.0, 1.5, 1.5, 1.5]


def test_the_first_attempt_may_come_at_once():
    assert pauses(BackOff(0.1, 0.3, at_once=True), 5) == [0.0, 0.1, 0.2, 0.3, 0.3]


def test_a_reset_begins_again():
    back_off = BackOff(0.25, 1.5)
    pauses(back_off, 4)
    back_off.reset()
    assert pauses(back_off, 2) == [0.25, 0.5]


def test_the_pause_stays_finite_however_often_something_fails():
    assert pauses(BackOff(0.25, 30.0), 5000)[-1] == 30.0
