"""A memory holds at most so many entries, and the one that goes is the one that waited longest."""

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from sidecar.bounded import BoundedMemory

STEPS = st.lists(st.tuples(st.sampled_from(("put", "get", "use", "drop")), st.integers(0, 6)), max_size=60)


def test_an_entry_too_many_drops_the_oldest():
    memory: BoundedMemory[str, int] = BoundedMemory(2)
    for key, value in (("a", 1), ("b", 2), ("c", 3)):
        memory.put(key, value)
    assert (memory.get("a"), memory.get("b"), memory.get("c")) == (None, 2, 3)


def test_a_used_entry_outlives_an_older_one_and_a_looked_at_entry_does_not():
    for look, left in ((BoundedMemory.use, {"a", "c"}), (BoundedMemory.get, {"b", "c"})):
        memory: BoundedMemory[str, int] = BoundedMemory(2)
        memory.put("a", 1)
        memory.put("b", 2)
        assert look(memory, "a") == 1
        memory.put("c", 3)
        assert {key for key in "abc" if memory.get(key) is not None} == left


@given(STEPS, st.integers(1, 5))
def test_whatever_is_done_the_bound_holds_and_the_order_is_that_of_use(steps: list[tuple[str, int]], most: int):
    memory: BoundedMemory[int, int] = BoundedMemory(most)
    model: OrderedDict[int, int] = OrderedDict()
    for number, (step, key) in enumerate(steps):
        match step:
            case "put":
                memory.put(key, number)
                model.pop(key, None)
                model[key] = number
                if len(model) > most:
                    model.popitem(last=False)
            case "drop":
                memory.drop(key)
                model.pop(key, None)
            case "get":
                assert memory.get(key) == model.get(key)
            case _:
                assert memory.use(key) == model.get(key)
                if key in model:
                    model.move_to_end(key)
        assert len(memory) == len(model) <= most
    assert {key: memory.get(key) for key in range(7)} == {key: model.get(key) for key in range(7)}
