"""Strangers cannot fill the audit disk: their refusals are recorded up to a bound, and counted beyond it."""

from sidecar.enforcement.budget import (
    IN_ALL,
    MAX_ADDRESSES,
    PER_ADDRESS,
    PER_CALLER,
    WINDOW_S,
    Budget,
    CallerBudget,
    RefusalBudgets,
)
from sidecar.errors import CallerSuspended, DecisionUnavailable, PolicyDenied, TokenMissing
from sidecar.saturation import ByteBudgetSpent, Overloaded


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


def test_one_caller_with_many_causes_leaves_the_log_to_the_others() -> None:
    budget = CallerBudget()
    told = [budget.admit("ann", f"cause{number % 40}", 0.0) for number in range(40 * PER_ADDRESS)]
    assert told.count(0) == PER_CALLER
    assert told[PER_CALLER:] == [None] * (40 * PER_ADDRESS - PER_CALLER)
    assert budget.admit("bob", "cause1", 0.0) == 0
    assert budget.admit("ann", "cause1", WINDOW_S) == PER_ADDRESS - 2, (
        "the next line of a cause says how many it stands for"
    )


def test_of_one_cause_a_caller_has_fewer_lines_and_the_other_causes_the_rest() -> None:
    budget = CallerBudget()
    assert [budget.admit("ann", "one", 0.0) for _ in range(1000)].count(0) == PER_ADDRESS
    assert [budget.admit("ann", "two", 0.0) for _ in range(1000)].count(0) == PER_CALLER - PER_ADDRESS
    assert budget.admit("ann", "one", WINDOW_S) == 1000 - PER_ADDRESS


def test_all_callers_together_have_a_bound() -> None:
    budget = CallerBudget()
    told = [budget.admit(f"caller{number}", "one", 0.0) for number in range(IN_ALL + 10)]
    assert told == [0] * IN_ALL + [None] * 10


def test_what_is_refused_for_a_flood_alone_is_recorded_up_to_a_bound_of_its_own() -> None:
    budgets, late = RefusalBudgets(), Overloaded("late", retry_after_s=1)
    assert [budgets.admit(late, "ann", "a", 0.0) for _ in range(100)].count(0) == PER_ADDRESS
    for other in (ByteBudgetSpent("more"), CallerSuspended()):
        assert budgets.admit(other, "ann", "a", 0.0) == 0, "another reason has records of its own"
    assert budgets.admit(late, "bob", "a", 0.0) == 0, "and so has another caller"
    assert budgets.admit(late, "ann", "a", WINDOW_S) == 100 - PER_ADDRESS


def test_what_policy_or_opa_refuses_is_always_recorded() -> None:
    budgets = RefusalBudgets()
    for error in (PolicyDenied(), DecisionUnavailable("down")):
        assert [budgets.admit(error, "ann", "a", 0.0) for _ in range(10 * IN_ALL)] == [0] * 10 * IN_ALL
    told = [budgets.admit(TokenMissing(), None, "a", 0.0) for _ in range(100)]
    assert told.count(0) == PER_ADDRESS
