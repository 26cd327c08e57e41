"""What is read from a residual is never less than what it says; hand-written trees, and what OPA really sends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import DecisionUnavailable
from sidecar.model import Actor, Identity, JsonObject, JsonValue, Principal
from sidecar.policy.residual import (
    MAX_NAMES,
    MAX_WAYS,
    PossibleGrant,
    possible_document,
    read_residual,
    residual_document,
)

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


def read(*expressions) -> tuple[PossibleGrant, ...]:
    return read_residual({"queries": [[*expressions, OWNER]]})


def only(*expressions) -> PossibleGrant:
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
        PossibleGrant(owner="red", kinds=frozenset({"b", "a"}), grant=1),
        PossibleGrant(owner="red", kinds=frozenset({"a", "b"}), grant=2),
    )
    assert possible_document(ways) == [
        {"owner": "red", "kinds": ["a", "b"], "databases": None, "collections": None, "targets": None}
    ]


def test_many_grants_of_one_name_are_one_way_with_many_names() -> None:
    ways = [
        PossibleGrant(owner="red", kinds=frozenset({"read"}), collections=frozenset({f"c{n}"}))
        for n in range(MAX_NAMES)
    ]
    [way] = possible_document(ways)
    assert way == {
        "owner": "red",
        "kinds": ["read"],
        "databases": None,
        "collections": sorted(f"c{n}" for n in range(MAX_NAMES)),
        "targets": None,
    }
    more = [*ways, PossibleGrant(owner="red", kinds=frozenset({"read"}), collections=frozenset({"one more"}))]
    assert possible_document(more) == [
        {"owner": "red", "kinds": ["read"], "databases": None, "collections": None, "targets": None}
    ]
    every = [*ways[:2], PossibleGrant(owner="red", kinds=frozenset({"read"}))]
    assert possible_document(every) == possible_document(every[::-1])
    assert possible_document(every) == [
        {"owner": "red", "kinds": ["read"], "databases": None, "collections": None, "targets": None}
    ]


def test_an_owner_with_many_ways_counts_as_one_that_can_grant_everything() -> None:
    def ways(count: int) -> list[PossibleGrant]:
        return [PossibleGrant(owner="red", databases=frozenset({f"d{number}"})) for number in range(count)]

    blue = PossibleGrant(owner="blue", kinds=frozenset({"read"}))
    assert len(possible_document([*ways(MAX_WAYS), blue])) == MAX_WAYS + 1
    everything = {"owner": "red", "kinds": None, "databases": None, "collections": None, "targets": None}
    told = possible_document([*ways(MAX_WAYS + 1), blue])
    assert told == [
        {"owner": "blue", "kinds": ["read"], "databases": None, "collections": None, "targets": None},
        everything,
    ]


names = st.none() | st.frozensets(st.sampled_from("abcd"), min_size=1)
some_ways = st.lists(
    st.builds(PossibleGrant, owner=st.sampled_from(["red", "blue"]), kinds=names, databases=names, collections=names),
    max_size=12,
)


@given(some_ways, st.sampled_from(["red", "blue"]), *[st.sampled_from("abcd")] * 3)
def test_nothing_that_could_be_granted_is_lost_and_nothing_is_added(
    ways: list[PossibleGrant], owner: str, kind: str, database: str, collection: str
) -> None:
    def covers(listed: JsonValue, name: str) -> bool:
        return listed is None or (isinstance(listed, list) and name in listed)

    granted = any(
        way.owner == owner
        and (way.kinds is None or kind in way.kinds)
        and (way.databases is None or database in way.databases)
        and (way.collections is None or collection in way.collections)
        for way in ways
    )
    told = any(
        isinstance(way, dict)
        and way["owner"] == owner
        and covers(way["kinds"], kind)
        and covers(way["databases"], database)
        and covers(way["collections"], collection)
        for way in possible_document(ways)
    )
    assert told == granted


def test_what_is_known_of_a_caller_is_the_caller_alone() -> None:
    identity = Identity(principal=Principal(issuer="i", subject="s"), actor=Actor(id="a"), expires_at=1.0)
    assert residual_document(identity).keys() == {"v", "subject", "actor"}


def access_part(*path: str) -> JsonObject:
    names: list[JsonValue] = [{"type": "string", "value": one} for one in path]
    return {"type": "ref", "value": [{"type": "var", "value": "input"}, *names]}


def said(operator: str, left: JsonValue, right: JsonValue) -> JsonObject:
    head: JsonObject = {"type": "ref", "value": [{"type": "var", "value": operator}]}
    return {"index": 0, "terms": [head, left, right]}


OWNED = said("eq", {"type": "var", "value": "owner"}, {"type": "string", "value": "red"})
REPORT: JsonObject = {"type": "string", "value": "report"}
TARGET: JsonObject = {
    "type": "object",
    "value": [
        [{"type": "string", "value": "kind"}, {"type": "string", "value": "tool"}],
        [{"type": "string", "value": "id"}, REPORT],
    ],
}


@pytest.mark.parametrize(
    ("expression", "targets"),
    [
        (said("eq", access_part("access", "target", "id"), REPORT), {"report"}),
        (said("eq", access_part("access", "target"), TARGET), {"report"}),
        (said("neq", access_part("access", "target", "id"), REPORT), None),
        (said("eq", access_part("access", "target", "kind"), REPORT), None),
        (said("eq", access_part("access", "id"), REPORT), None),
        (said("eq", access_part("access", "target/id"), REPORT), None),
    ],
)
def test_what_narrows_the_name_of_a_target_is_read_and_stays_a_condition(expression, targets) -> None:
    (way,) = read_residual({"queries": [[OWNED, expression]]})
    assert way.targets == targets
    if targets is not None:
        everything = {"owner": "red", "kinds": None, "databases": None, "collections": None}
        assert possible_document([way]) == [{**everything, "targets": ["report"]}]
    assert expression in way.conditions
