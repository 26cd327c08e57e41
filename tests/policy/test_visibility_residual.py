"""What is read from a residual is never less than what it says; hand-written trees, and what OPA really sends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import DecisionUnavailable
from sidecar.model import Actor, Identity, JsonValue, Principal
from sidecar.policy.residual import Possible, possible_document, read_residual, residual_document

OWNER: JsonValue = {
    "terms": [
        {"type": "ref", "value": [{"type": "var", "value": "eq"}]},
        {"type": "var", "value": "owner"},
        {"type": "string", "value": "red"},
    ]
}


def ref(*path: str):
    return {
        "type": "ref",
        "value": [{"type": "var", "value": path[0]}, *({"type": "string", "value": p} for p in path[1:])],
    }


def text(value: str):
    return {"type": "string", "value": value}


def says(operator: tuple[str, ...], left, right, **more):
    return {"index": 0, "terms": [ref(*operator), left, right], **more}


def kind_is(value: str, **more):
    return says(("eq",), ref("input", "access", "kind"), text(value), **more)


def read(*expressions) -> tuple[Possible, ...]:
    return read_residual({"queries": [[*expressions, OWNER]]})


def only(*expressions) -> Possible:
    (one,) = read(*expressions)
    return one


@pytest.mark.parametrize(
    ("expression", "part", "values"),
    [
        (kind_is("read"), "kinds", {"read"}),
        (says(("eq",), text("read"), ref("input", "access", "kind")), "kinds", {"read"}),
        (says(("equal",), text("read"), ref("input", "access", "kind")), "kinds", {"read"}),
        (says(("eq",), ref("input", "access", "database"), text("shop")), "databases", {"shop"}),
        (
            says(
                ("internal", "member_2"),
                ref("input", "access", "collection"),
                {"type": "set", "value": [text("a"), text("b")]},
            ),
            "collections",
            {"a", "b"},
        ),
        (
            says(("internal", "member_2"), ref("input", "access", "kind"), {"type": "array", "value": [text("read")]}),
            "kinds",
            {"read"},
        ),
    ],
)
def test_an_equality_with_constants_narrows(expression, part: str, values: set[str]) -> None:
    one = only(expression)
    assert (getattr(one, part), one.conditions) == (values, ())


@pytest.mark.parametrize(
    "expression",
    [
        kind_is("read", negated=True),
        {**kind_is("read"), "with": [{"target": ref("input", "access", "kind"), "value": text("read")}]},
        says(("neq",), ref("input", "access", "kind"), text("read")),
        says(("eq",), ref("input", "access"), text("read")),
        says(("eq",), ref("input", "access", "kind", "x"), text("read")),
        says(("eq",), ref("input", "command", "kind"), text("read")),
        says(("eq",), ref("data", "access", "kind"), text("read")),
        says(
            ("eq",),
            {
                "type": "ref",
                "value": [{"type": "var", "value": "input"}, text("access"), {"type": "var", "value": "kind"}],
            },
            text("read"),
        ),
        says(("eq",), ref("input", "access", "kind"), {"type": "number", "value": 1}),
        says(("eq",), ref("input", "access", "kind"), ref("input", "access", "database")),
        says(("internal", "member_2"), text("read"), ref("input", "access", "kind")),
        says(
            ("internal", "member_2"),
            ref("input", "access", "kind"),
            {"type": "array", "value": [text("a"), ref("input", "x")]},
        ),
        says(("internal", "member_2"), ref("input", "access", "kind"), ref("input", "command", "traits")),
        says(("startswith",), ref("input", "access", "kind"), text("read")),
        {"index": 0, "terms": ref("data", "partial", "x")},
        {"index": 0, "terms": {"body": [], "domain": {}}},
    ],
)
def test_everything_else_narrows_nothing(expression) -> None:
    one = only(expression)
    assert (one.kinds, one.databases, one.collections) == (None, None, None)
    assert one.conditions == (expression,)


def test_two_that_contradict_each_other_are_no_way_to_a_grant() -> None:
    assert read(kind_is("read"), kind_is("insert")) == ()
    assert only(kind_is("read"), kind_is("read")).kinds == frozenset({"read"})


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "",
        {"queries": {}},
        {"queries": [{}]},
        {"queries": None},
        {"queries": [[]]},
        {"queries": [[kind_is("read")]]},
        {"other": []},
        {"queries": [], "result": []},
        {"queries": [[says(("eq",), {"type": "var", "value": "owner"}, {"type": "var", "value": "x"})]]},
    ],
)
def test_an_answer_that_is_not_of_the_api_is_none(answer: JsonValue) -> None:
    with pytest.raises(DecisionUnavailable):
        read_residual(answer)


def test_nothing_left_is_nothing_possible() -> None:
    assert read_residual({}) == read_residual({"queries": []}) == ()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["input", "access", "kind", "eq", "ref", "var", "string", "owner"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["type", "value", "terms", "queries", "index"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_anything_at_all_is_read_or_refused(value: JsonValue) -> None:
    answers: tuple[JsonValue, ...] = (value, {"queries": value}, {"queries": [[value, OWNER]]})
    for answer in answers:
        try:
            possible_document(read_residual(answer))
        except DecisionUnavailable:
            continue


def test_ways_that_are_the_same_to_the_list_are_one() -> None:
    ways = (
        Possible(owner="red", kinds=frozenset({"b", "a"}), grant=1),
        Possible(owner="red", kinds=frozenset({"a", "b"}), grant=2),
    )
    assert possible_document(ways) == [{"owner": "red", "kinds": ["a", "b"], "databases": None, "collections": None}]


def test_what_is_known_of_a_caller_is_the_caller_alone() -> None:
    identity = Identity(principal=Principal(issuer="i", subject="s"), actor=Actor(id="a"), expires_at=1.0)
    assert residual_document(identity).keys() == {"v", "subject", "actor"}
