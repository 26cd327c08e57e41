"""What is accepted as an answer: exactly the contract, and nothing that merely resembles it."""

import copy
import json
from contextlib import suppress
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # no stubs among the locked tools
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import DecisionUnavailable
from sidecar.model import AccessVerdict, AmplifierBound, Decision, JsonValue, Reason, StepUp
from sidecar.policy.verdict import KNOWN_ANSWERS, read_decision, read_selftest, read_visibility
from sidecar.usage import UsageLimit, UsagePart, UsageUnit
from tests.parts import ROOT

SCHEMA = jsonschema.Draft202012Validator(msgspec.json.decode((ROOT / "policies/schema/decision.json").read_bytes()))
SERVERS = ("demo-ro", "demo-rw")

ALLOW: dict[str, Any] = {
    "v": 1,
    "allow": True,
    "reasons": [],
    "server": "demo-ro",
    "accesses": [
        {
            "owner": "analytics",
            "grants": ["analysts-read-orders"],
            "filter": {"region": "EU"},
            "mask": ["ssn"],
            "max_documents": 50,
            "max_time_ms": 5000,
        },
        {
            "owner": "support",
            "grants": ["a", "b"],
            "filter": None,
            "mask": [],
            "max_documents": None,
            "max_time_ms": None,
        },
    ],
    "approval": {"accesses": [{"access": 1, "codes": ["lead"]}]},
    "revision": "r1",
}
DENY: dict[str, Any] = {
    "v": 1,
    "allow": False,
    "reasons": [
        {"code": "trait_refused", "source": "platform", "access": None},
        {"code": "not_granted", "source": "people", "access": 1},
    ],
    "server": "demo-ro",
    "accesses": [
        ALLOW["accesses"][1],
        {"owner": "", "grants": [], "filter": None, "mask": [], "max_documents": None, "max_time_ms": None},
    ],
    "approval": None,
    "revision": "",
}


def read(answer: JsonValue, accesses: int = 2) -> Decision:
    return read_decision(answer, accesses=accesses, servers=SERVERS, revision="bundle", decision_id="d1")


def patched(answer: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(answer)
    *parents, last = path.split("/")
    place: Any = changed
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place[key]
    place[int(last) if isinstance(place, list) else last] = value
    return changed


def without(answer: dict[str, Any], path: str) -> dict[str, Any]:
    changed = copy.deepcopy(answer)
    *parents, last = path.split("/")
    place: Any = changed
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place[key]
    del place[last]
    return changed


def test_an_allow_is_read_whole() -> None:
    assert read(ALLOW) == Decision(
        allow=True,
        reasons=(),
        server="demo-ro",
        accesses=(
            AccessVerdict(
                owner="analytics",
                grants=("analysts-read-orders",),
                filter={"region": "EU"},
                mask=("ssn",),
                max_documents=50,
                max_time_ms=5000,
            ),
            AccessVerdict(owner="support", grants=("a", "b")),
        ),
        revision="r1",
        approval={"accesses": [{"access": 1, "codes": ["lead"]}]},
        decision_id="d1",
    )


@pytest.mark.parametrize(
    ("part", "value"), [("max_affected", 7), ("max_bytes", 2**31 - 1), ("no_collection_scan", True)]
)
def test_what_may_be_left_out_is_an_obligation_where_it_is(part: str, value: Any) -> None:
    answer = patched(ALLOW, f"accesses/1/{part}", value)
    assert SCHEMA.is_valid(answer)
    verdict = read(answer).accesses[1]
    assert (getattr(verdict, part), verdict.obliges) == (value, True)
    assert not read(ALLOW).accesses[1].obliges


def test_a_masked_field_may_say_what_is_left_of_it() -> None:
    entries = ["ssn", {"field": "card", "as": "last4"}]
    assert read(patched(ALLOW, "accesses/0/mask", entries)).accesses[0].mask == tuple(entries)


def test_a_choice_of_names_is_an_obligation() -> None:
    answer = patched(ALLOW, "accesses/1/names", "reachable")
    assert SCHEMA.is_valid(answer)
    assert [(verdict.reachable_names, verdict.obliges) for verdict in read(answer).accesses] == [
        (False, True),
        (True, True),
    ]


def test_a_deny_is_read_whole_and_takes_the_revision_of_the_pdp() -> None:
    decision = read(DENY)
    assert not decision.allow
    assert decision.reasons == (
        Reason(code="trait_refused", source="platform"),
        Reason(code="not_granted", source="people", access=1),
    )
    assert decision.owners == ("support",)
    assert decision.revision == "bundle"


def test_a_deny_of_a_malformed_question_has_no_entries() -> None:
    answer: JsonValue = {
        "v": 1,
        "allow": False,
        "reasons": [{"code": "invalid_input", "source": "platform", "access": None}],
        "server": "",
        "accesses": [],
        "approval": None,
        "revision": "",
    }
    assert not read(answer).allow


@pytest.mark.parametrize("answer", [None, {}, [], True, "allow", 1, [ALLOW], {"result": ALLOW}, {"allow": True}])
def test_what_is_no_answer_is_refused(answer: JsonValue) -> None:
    with pytest.raises(DecisionUnavailable):
        read(answer)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("v", 2),
        ("v", True),
        ("v", 1.0),
        ("v", "1"),
        ("extra", None),
        ("allow", "true"),
        ("allow", 1),
        ("allow", None),
        ("allow", False),
        ("reasons", [{"code": "no_owner", "source": "platform", "access": 0}]),
        ("reasons", None),
        ("reasons", {}),
        ("server", ""),
        ("server", "other"),
        ("server", None),
        ("server", "DEMO-RO"),
        ("accesses", []),
        ("accesses", ALLOW["accesses"][:1]),
        ("accesses", [*ALLOW["accesses"], ALLOW["accesses"][0]]),
        ("accesses", {"0": ALLOW["accesses"][0], "1": ALLOW["accesses"][1]}),
        ("accesses/0", None),
        ("accesses/0/extra", 1),
        ("accesses/0/owner", ""),
        ("accesses/0/owner", None),
        ("accesses/0/grants", []),
        ("accesses/0/grants", [""]),
        ("accesses/0/grants", ["a", "a"]),
        ("accesses/0/grants", "all"),
        ("accesses/0/grants", [1]),
        ("accesses/0/filter", {}),
        ("accesses/0/filter", {"": 1}),
        ("accesses/0/filter", [{"region": "EU"}]),
        ("accesses/0/filter", "region"),
        ("accesses/0/filter", False),
        ("accesses/0/mask", None),
        ("accesses/0/mask", "ssn"),
        ("accesses/0/mask", [""]),
        ("accesses/0/mask", ["ssn", "ssn"]),
        ("accesses/0/mask", {"ssn": True}),
        ("accesses/0/mask", [{"field": "ssn"}]),
        ("accesses/0/mask", [{"field": "ssn", "as": ""}]),
        ("accesses/0/mask", [{"field": 1, "as": "last4"}]),
        ("accesses/0/mask", [{"field": "ssn", "as": "last4", "keep": 1}]),
        ("accesses/0/mask", [{"field": "ssn", "as": "last4"}, {"field": "ssn", "as": "last4"}]),
        ("accesses/0/mask", [["ssn"]]),
        ("accesses/0/mask", [7]),
        ("accesses/0/max_documents", 0),
        ("accesses/0/max_documents", -1),
        ("accesses/0/max_documents", True),
        ("accesses/0/max_documents", 50.0),
        ("accesses/0/max_documents", "50"),
        ("accesses/0/max_documents", 2**31),
        ("accesses/0/max_time_ms", 0),
        ("accesses/0/max_time_ms", []),
        ("accesses/0/max_affected", 0),
        ("accesses/0/max_affected", None),
        ("accesses/0/max_bytes", True),
        ("accesses/0/max_bytes", "5"),
        ("accesses/0/no_collection_scan", False),
        ("accesses/0/no_collection_scan", 1),
        ("accesses/0/names", None),
        ("accesses/0/names", "all"),
        ("accesses/0/names", True),
        ("accesses/0/names", ["reachable"]),
        ("approval", {}),
        ("approval", True),
        ("approval", {"accesses": []}),
        ("approval", {"accesses": [{"access": 2, "codes": ["x"]}]}),
        ("approval", {"accesses": [{"access": True, "codes": ["x"]}]}),
        ("approval", {"accesses": [{"access": 0, "codes": []}]}),
        ("approval", {"accesses": [{"access": 0, "codes": ["x"]}, {"access": 0, "codes": ["y"]}]}),
        ("approval", {"accesses": [{"access": 0}]}),
        ("revision", None),
        ("revision", 1),
    ],
)
def test_an_allow_that_differs_in_one_place_is_refused(path: str, value: Any) -> None:
    with pytest.raises(DecisionUnavailable):
        read(patched(ALLOW, path, value))


@pytest.mark.parametrize(
    "path", [*ALLOW, *(f"accesses/{index}/{key}" for index in (0, 1) for key in ALLOW["accesses"][0])]
)
def test_an_allow_that_lost_a_key_is_refused(path: str) -> None:
    with pytest.raises(DecisionUnavailable):
        read(without(ALLOW, path))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("allow", True),
        ("reasons", []),
        ("reasons/0/code", ""),
        ("reasons/0/code", "Not an identifier"),
        ("reasons/0/code", "no_owner\n"),
        ("reasons/0/code", None),
        ("reasons/0/source", ""),
        ("reasons/0/source", "a b"),
        ("reasons/0/text", "why"),
        ("reasons/1/access", 2),
        ("reasons/1/access", -1),
        ("reasons/1/access", False),
        ("reasons/1/access", "1"),
        ("server", "other"),
        ("accesses", ALLOW["accesses"][:1]),
        ("approval", ALLOW["approval"]),
    ],
)
def test_a_deny_that_differs_in_one_place_is_no_answer(path: str, value: Any) -> None:
    with pytest.raises(DecisionUnavailable):
        read(patched(DENY, path, value))


def test_nothing_asked_is_nothing_allowed() -> None:
    with pytest.raises(DecisionUnavailable):
        read(patched(patched(ALLOW, "accesses", []), "approval", None), accesses=0)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-2, 60)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "x", "ssn", "demo-ro", "demo-rw", "true"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["", "a", "access"]), inner, max_size=2)
    ),
)


def places(value: Any, path: str = "") -> list[str]:
    """Every path into a JSON value."""
    match value:
        case dict():
            inner = [found for key, item in value.items() for found in places(item, f"{path}/{key}")]
        case list():
            inner = [found for index, item in enumerate(value) for found in places(item, f"{path}/{index}")]
        case _:
            inner = []
    return [path.removeprefix("/"), *inner] if path else inner


def same(left: Any, right: Any) -> bool:
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


@given(st.sampled_from(places(ALLOW)), values)
def test_any_one_change_is_read_as_what_it_says_or_refused(path: str, value: Any) -> None:
    changed = patched(ALLOW, path, value)
    try:
        decision = read(changed)
    except DecisionUnavailable:
        return
    assert decision.allow is True
    assert SCHEMA.is_valid(changed), "accepted, but not of the schema"
    rendered = [
        {
            "owner": verdict.owner,
            "grants": list(verdict.grants),
            "filter": verdict.filter,
            "mask": list(verdict.mask),
            "max_documents": verdict.max_documents,
            "max_time_ms": verdict.max_time_ms,
            **({"max_affected": verdict.max_affected} if verdict.max_affected is not None else {}),
            **({"max_bytes": verdict.max_bytes} if verdict.max_bytes is not None else {}),
            **({"no_collection_scan": True} if verdict.no_collection_scan else {}),
            **({"names": "reachable"} if verdict.reachable_names else {}),
        }
        for verdict in decision.accesses
    ]
    assert same(rendered, changed["accesses"])
    assert decision.server == changed["server"]
    assert same(decision.approval, changed["approval"])


@given(st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*ALLOW]), inner)))
def test_anything_at_all_is_refused_or_a_deny(value: Any) -> None:
    with suppress(DecisionUnavailable):
        assert not read(value).allow


def test_the_examples_are_of_the_schema() -> None:
    SCHEMA.validate(ALLOW)
    SCHEMA.validate(DENY)


def test_visible_tools_are_read() -> None:
    answer: JsonValue = {"v": 1, "tools": ["count", "find"], "servers": ["demo-ro"]}
    assert read_visibility(answer, tools=["find", "count", "drop"], servers=SERVERS).tools == {"find", "count"}
    nothing: JsonValue = {"v": 1, "tools": [], "servers": []}
    assert read_visibility(nothing, tools=["find"], servers=SERVERS).tools == frozenset()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        ["find"],
        {"v": 2, "tools": [], "servers": []},
        {"v": 1, "tools": ["find"], "servers": []},
        {"v": 1, "tools": ["other"], "servers": ["demo-ro"]},
        {"v": 1, "tools": ["find"], "servers": ["other"]},
        {"v": 1, "tools": ["find", "find"], "servers": ["demo-ro"]},
        {"v": 1, "tools": {"find": True}, "servers": ["demo-ro"]},
        {"v": 1, "tools": ["find"], "servers": ["demo-ro"], "all": True},
    ],
)
def test_a_listing_that_is_not_of_the_contract_is_refused(answer: JsonValue) -> None:
    with pytest.raises(DecisionUnavailable):
        read_visibility(answer, tools=["find"], servers=SERVERS)


SELFTEST: dict[str, Any] = {"v": 1, "ok": True, "echo": "n", "known": dict(KNOWN_ANSWERS)}


def test_a_selftest_with_all_known_answers_is_accepted() -> None:
    read_selftest(SELFTEST, nonce="n")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("v", 2),
        ("ok", False),
        ("ok", 1),
        ("echo", "m"),
        ("echo", None),
        ("extra", 1),
        ("known", {}),
        ("known/extra", 1),
    ],
)
def test_a_selftest_that_differs_is_refused(path: str, value: Any) -> None:
    with pytest.raises(DecisionUnavailable):
        read_selftest(patched(SELFTEST, path, value), nonce="n")


@pytest.mark.parametrize("name", KNOWN_ANSWERS)
@pytest.mark.parametrize("value", [None, "other", [1], {}, 55.0, 1, 0])
def test_a_selftest_with_one_wrong_answer_is_refused(name: str, value: Any) -> None:
    with pytest.raises(DecisionUnavailable, match=name):
        read_selftest(patched(SELFTEST, f"known/{name}", value), nonce="n")


def test_a_selftest_without_a_nonce_proves_nothing() -> None:
    with pytest.raises(DecisionUnavailable):
        read_selftest(patched(SELFTEST, "echo", ""), nonce="")


def test_a_reason_may_say_the_bound_that_a_command_is_over() -> None:
    answer = patched(DENY, "reasons/0/bound", {"construct": "$topN.n", "most": 10})
    assert read(answer).reasons[0].bound == AmplifierBound(construct="$topN.n", most=10)
    assert read(DENY).reasons[0].bound is None
    SCHEMA.validate(answer)


@pytest.mark.parametrize(
    "bound",
    [
        None,
        {},
        "10",
        {"construct": "$topN.n"},
        {"construct": "$topN.n", "most": None},
        {"construct": "$topN.n", "most": "10"},
        {"construct": "$topN.n", "most": True},
        {"construct": "$topN.n", "most": -1},
        {"construct": "", "most": 1},
        {"construct": "ask <the> boss", "most": 1},
        {"construct": "x" * 40, "most": 1},
        {"construct": "$topN.n", "most": 1, "more": 1},
    ],
)
def test_any_other_bound_is_no_answer(bound) -> None:
    answer = patched(DENY, "reasons/0/bound", bound)
    with pytest.raises(DecisionUnavailable):
        read(answer)
    with pytest.raises(jsonschema.ValidationError):
        SCHEMA.validate(answer)


LACKS: dict[str, Any] = {"missing": ["mongodb:write"], "held": ["mongodb:read"]}


@pytest.mark.parametrize(
    "step_up",
    [
        LACKS,
        {"missing": ["mongodb:write"], "held": []},
        {"missing": [f"s{number}" for number in range(16)], "held": []},
        {"missing": ["w" * 128], "held": ["r" * 128]},
        {"missing": ["!#[]~", "https://api.example/mongodb.write"], "held": ["Mongodb:Write"]},
        {"missing": ["mongodb:write"], "held": [f"s{number}" for number in range(500)]},
    ],
    ids=["one", "none held", "16", "128 characters", "every kind of character", "500 held"],
)
def test_a_deny_may_say_the_scopes_that_it_lacks(step_up: dict[str, Any]) -> None:
    answer = patched(DENY, "step_up", step_up)
    assert read(answer).step_up == StepUp(missing=tuple(step_up["missing"]), held=tuple(step_up["held"]))
    SCHEMA.validate(answer)


def test_a_deny_that_does_not_say_so_lacks_no_scope() -> None:
    assert read(DENY).step_up is None


WRONG_SCOPES: dict[str, JsonValue] = {
    "no list": "mongodb:write",
    "null": None,
    "an object": {"mongodb:write": True},
    "a number": [1],
    "a boolean": [True],
    "null in a list": [None],
    "a list in a list": [["mongodb:write"]],
    "empty": [""],
    "repeated": ["a", "a"],
    "a space": ["mongodb:read mongodb:write"],
    "a quote": ['a", error="invalid_token'],
    "a backslash": ["a\\b"],
    "a line": ["a\r\nSet-Cookie: x"],
    "a delete": ["a\x7f"],
    "no ASCII": ["mongodb:schreib\u00e9"],
    "129 characters": ["w" * 129],
}


@pytest.mark.parametrize("key", LACKS)
@pytest.mark.parametrize("scopes", WRONG_SCOPES.values(), ids=WRONG_SCOPES.keys())
def test_scopes_of_any_other_form_are_no_answer(key: str, scopes: JsonValue) -> None:
    """A client reads them in a header, between quotes."""
    answer = patched(patched(DENY, "step_up", LACKS), f"step_up/{key}", scopes)
    with pytest.raises(DecisionUnavailable):
        read(answer)
    assert not SCHEMA.is_valid(answer)


@pytest.mark.parametrize("key", LACKS)
def test_a_line_at_the_end_of_a_scope_is_none_of_its_characters(key: str) -> None:
    """The schema says so too; only Python's ``$`` matches before it."""
    with pytest.raises(DecisionUnavailable, match="form"):
        read(patched(patched(DENY, "step_up", LACKS), f"step_up/{key}", ["a\n"]))


@pytest.mark.parametrize(
    "step_up",
    [
        None,
        {},
        [],
        False,
        "mongodb:write",
        ["mongodb:write"],
        {"missing": ["mongodb:write"]},
        {"held": ["mongodb:read"]},
        {**LACKS, "missing": []},
        {**LACKS, "missing": [f"s{number}" for number in range(17)]},
        {**LACKS, "scope": "mongodb:write"},
        {**LACKS, "": None},
    ],
)
def test_any_other_step_up_is_no_answer(step_up: JsonValue) -> None:
    answer = patched(DENY, "step_up", step_up)
    with pytest.raises(DecisionUnavailable):
        read(answer)
    assert not SCHEMA.is_valid(answer)


def test_no_scope_is_missing_and_held() -> None:
    """No schema says that of two lists."""
    with pytest.raises(DecisionUnavailable, match="missing and held"):
        read(patched(DENY, "step_up", {"missing": ["a", "b"], "held": ["b"]}))


@pytest.mark.parametrize("step_up", [LACKS, None, {}], ids=["said", "null", "empty"])
def test_an_allow_lacks_no_scope(step_up: JsonValue) -> None:
    answer = patched(ALLOW, "step_up", step_up)
    with pytest.raises(DecisionUnavailable):
        read(answer)
    assert not SCHEMA.is_valid(answer)


def scopes_of(answer: JsonValue) -> Any:
    """The scopes as they were read; None where nothing was."""
    try:
        step_up = read(answer).step_up
    except DecisionUnavailable:
        return None
    return step_up and {"missing": [*step_up.missing], "held": [*step_up.held]}


@given(st.sampled_from(places({"step_up": LACKS})), values)
def test_any_one_change_of_the_scopes_is_read_as_what_it_says_or_refused(path: str, value: Any) -> None:
    changed = patched(patched(DENY, "step_up", LACKS), path, value)
    found = scopes_of(changed)
    assert found is None or (same(found, changed["step_up"]) and SCHEMA.is_valid(changed))


LIMIT: dict[str, Any] = {
    "id": "minute",
    "per": ["subject", "tool"],
    "team": "",
    "window_s": 60,
    "calls": 10,
    "documents": None,
    "bytes": 2**53 - 1,
}


def test_an_allow_may_say_the_limits_that_it_counts_towards() -> None:
    by_team = {**LIMIT, "per": ["team"], "team": "analytics", "calls": None}
    answer = patched(ALLOW, "limits", [LIMIT, by_team])
    assert read(answer).limits == (
        UsageLimit(
            id="minute",
            per=(UsagePart.SUBJECT, UsagePart.TOOL),
            team="",
            window_s=60,
            most=((UsageUnit.CALLS, 10), (UsageUnit.BYTES, 2**53 - 1)),
        ),
        UsageLimit(
            id="minute",
            per=(UsagePart.TEAM,),
            team="analytics",
            window_s=60,
            most=((UsageUnit.BYTES, 2**53 - 1),),
        ),
    )
    assert SCHEMA.is_valid(answer)
    assert read(ALLOW).limits == ()


WRONG_LIMITS: dict[str, JsonValue] = {
    "no list": {"minute": LIMIT},
    "null": None,
    "none of them": [],
    "a text": ["minute"],
    "a key that is not known": [{**LIMIT, "note": 1}],
    "a key that is missing": [{key: value for key, value in LIMIT.items() if key != "bytes"}],
    "an id that is no name": [{**LIMIT, "id": "Minute\n"}],
    "something else that is counted apart": [{**LIMIT, "per": ["group"]}],
    "the same thing twice": [{**LIMIT, "per": ["tool", "tool"]}],
    "no seconds": [{**LIMIT, "window_s": 0}],
    "more seconds than a day": [{**LIMIT, "window_s": 86_401}],
    "half a second": [{**LIMIT, "window_s": 0.5}],
    "no calls": [{**LIMIT, "calls": 0}],
    "a text of calls": [{**LIMIT, "calls": "10"}],
    "true calls": [{**LIMIT, "calls": True}],
    "more than is exact": [{**LIMIT, "bytes": 2**53}],
}


@pytest.mark.parametrize("limits", WRONG_LIMITS.values(), ids=WRONG_LIMITS.keys())
def test_limits_of_any_other_form_are_no_answer(limits: JsonValue) -> None:
    answer = patched(ALLOW, "limits", limits)
    with pytest.raises(DecisionUnavailable):
        read(answer)
    assert not SCHEMA.is_valid(answer)


NOT_IN_A_SCHEMA: dict[str, JsonValue] = {
    "no amount": [{**LIMIT, "calls": None, "bytes": None}],
    "a limit twice": [LIMIT, {**LIMIT, "calls": 20}],
    "a team where none is counted": [{**LIMIT, "team": "analytics"}],
    "no team where one is counted": [{**LIMIT, "per": ["team"]}],
    "a team of no team's form": [{**LIMIT, "per": ["team"], "team": "../x"}],
}


@pytest.mark.parametrize("limits", NOT_IN_A_SCHEMA.values(), ids=NOT_IN_A_SCHEMA.keys())
def test_limits_that_contradict_themselves_are_no_answer(limits: JsonValue) -> None:
    with pytest.raises(DecisionUnavailable):
        read(patched(ALLOW, "limits", limits))


def test_a_deny_counts_towards_no_limit() -> None:
    answer = patched(DENY, "limits", [LIMIT])
    with pytest.raises(DecisionUnavailable, match="counts towards"):
        read(answer)
    assert not SCHEMA.is_valid(answer)
