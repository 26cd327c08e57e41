"""Strangers cannot fill the audit disk: their refusals are recorded up to a bound, and counted beyond it."""

from sidecar.enforcement.budget import IN_ALL, MAX_ADDRESSES, PER_ADDRESS, WINDOW_S, Budget


def test_an_address_is_recorded_up_to_its_bound_and_the_next_window_says_how_many_were_not():
    budget = Budget()
    assert [budget.admit("a", 0.0) for _ in range(PER_ADDRESS)] == [0] * PER_ADDRESS
    assert [budget.admit("a", 1.0) for _ in range(5)] == [None] * 5
    assert budget.admit("a", WINDOW_S) == 5
    assert budget.admit("a", WINDOW_S) == 0


def test_one_address_does_not_use_up_the_bound_of_another():
    budget = Budget()
    for _ in range(PER_ADDRESS + 1):
        budget.admit("a", 0.0)
    assert budget.admit("b", 0.0) == 0


def test_many_addresses_share_one_bound():
    budget = Budget()
    admitted = [budget.admit(f"a{number}", 0.0) for number in range(IN_ALL + 10)]
    assert admitted == [0] * IN_ALL + [None] * 10
    assert budget.admit("late", WINDOW_S) == 0


def test_memory_is_bounded_whatever_is_asked():
    budget = Budget()
    for number in range(MAX_ADDRESSES * 2):
        budget.admit(f"a{number}", 0.0)
    assert len(budget._shares) == MAX_ADDRESSES
