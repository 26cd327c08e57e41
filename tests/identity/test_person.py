"""The rule of a person, part by part: what it refuses, and the near miss that it lets through."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import TokenRejected
from sidecar.faults import TokenFault
from sidecar.identity.person import PersonRule, doubt
from sidecar.model import JsonObject, JsonValue

TOKEN: JsonObject = {"iss": "https://idp.example", "sub": "u-1", "client_id": "desktop", "exp": 1}


def fault(rule: PersonRule, members: JsonObject, agent: str = "desktop") -> TokenFault | None:
    token = TOKEN | members
    found = doubt(token, rule, str(token["sub"]), agent)
    return None if found is None else found.fault


NEAR_MISSES: dict[str, tuple[PersonRule, JsonObject, JsonObject]] = {
    "a claim": (PersonRule(claims=("uid",)), {"uid": None}, {"uid": "7"}),
    "every claim": (PersonRule(claims=("uid", "upn")), {"uid": "7"}, {"uid": "7", "upn": "a"}),
    "a nested claim": (PersonRule(claims=("user.id",)), {"user": {"name": "a"}}, {"user": {"id": "7"}}),
    "a value": (PersonRule(values={"idtyp": ("user",)}), {}, {"idtyp": "user"}),
    "a value exactly": (PersonRule(values={"kind": ("human",)}), {"kind": "Human"}, {"kind": "human"}),
    "one of two values": (PersonRule(values={"kind": ("a", "b")}), {"kind": "c"}, {"kind": "b"}),
    "a value that is a list": (PersonRule(values={"kind": ("human",)}), {"kind": ["human"]}, {"kind": "human"}),
    "a boolean": (PersonRule(values={"human": ("true",)}), {"human": False}, {"human": True}),
    "a number": (PersonRule(values={"acct": ("0",)}), {"acct": 1}, {"acct": 0}),
    "a number is no boolean": (PersonRule(values={"acct": ("0",)}), {"acct": False}, {"acct": "0"}),
    "a subject": (PersonRule(subjects=("*|*",)), {"sub": "auth0"}, {"sub": "auth0|1"}),
    "a subject with its end": (PersonRule(subjects=("u-*",)), {"sub": "x-u-1"}, {"sub": "u-"}),
    "a subject is no expression": (PersonRule(subjects=("a.c",)), {"sub": "abc"}, {"sub": "a.c"}),
    "a subject with a line break": (PersonRule(subjects=("u-1",)), {"sub": "u-1\n"}, {"sub": "u-1"}),
    "no claim": (PersonRule(not_claims=("bot",)), {"bot": False}, {"bot": None}),
    "no value": (PersonRule(not_values={"kind": ("bot",)}), {"kind": "bot"}, {"kind": "both"}),
    "no value in a list": (PersonRule(not_values={"amr": ("key",)}), {"amr": ["pwd", "key"]}, {"amr": ["pwd"]}),
    "no subject": (PersonRule(not_subjects=("svc-*",)), {"sub": "svc-1"}, {"sub": "u-svc-1"}),
}


@pytest.mark.parametrize("case", NEAR_MISSES)
def test_each_part_of_the_rule_refuses_and_its_near_miss_passes(case: str) -> None:
    rule, refused, taken = NEAR_MISSES[case]

    assert fault(rule, refused) in {TokenFault.PERSON_NOT_PROVEN, TokenFault.NO_PERSON}
    assert fault(rule, taken) is None


MARKS: dict[str, tuple[JsonObject, JsonObject]] = {
    "the subject is the client": ({"sub": "desktop"}, {"sub": "desktop2"}),
    "by azp": ({"azp": "u-1"}, {"azp": "u-12"}),
    "by cid": ({"cid": "u-1"}, {"cid": "U-1"}),
    "by appid": ({"appid": "u-1"}, {"appid": "u"}),
    "by clientId": ({"clientId": "u-1"}, {"clientid": "u-1"}),
    "by a list of clients": ({"azp": ["other", "u-1"]}, {"azp": ["other"]}),
    "Auth0's subject": ({"sub": "AbC@clients"}, {"sub": "AbC@clients.example"}),
    "Auth0's grant": ({"gty": "client-credentials"}, {"gty": "password"}),
    "a list of grants": ({"gty": ["client_credentials"]}, {"gty": ["authorization_code"]}),
    "a grant type": ({"grant_type": "client_credentials"}, {"grant_type": "authorization_code"}),
    "Keycloak's name": ({"preferred_username": "service-account-job"}, {"preferred_username": "a-service-account-b"}),
    "Keycloak's host": ({"clientHost": "10.0.0.1"}, {"clientHost": None}),
    "Keycloak's address": ({"clientAddress": "10.0.0.1"}, {"client_address": "10.0.0.1"}),
    "Entra's idtyp": ({"idtyp": "app"}, {"idtyp": "user"}),
    "an idtyp that is to come": ({"idtyp": "agent"}, {"idtyp": None}),
    "an idtyp of another form": ({"idtyp": ["user"]}, {"idtyp": "user"}),
    "Entra's object": ({"oid": "u-1"}, {"oid": "o-1"}),
    "Entra without scp": ({"oid": "o-1", "tid": "t"}, {"oid": "o-1", "tid": "t", "scp": "a"}),
    "WSO2": ({"aut": "APPLICATION"}, {"aut": "APPLICATION_USER"}),
}


@pytest.mark.parametrize("case", MARKS)
def test_a_mark_of_software_counts_whatever_is_configured_and_its_near_miss_does_not(case: str) -> None:
    software, person = MARKS[case]
    for rule in (PersonRule(), PersonRule(claims=("sub",), subjects=("*",))):
        assert fault(rule, software) is TokenFault.NO_PERSON
        assert fault(rule, person) is None


def test_the_agent_is_never_its_own_user() -> None:
    assert fault(PersonRule(), {}, agent="u-1") is TokenFault.NO_PERSON
    assert fault(PersonRule(), {}, agent="u-2") is None


@pytest.mark.parametrize(
    "rule",
    [
        {"claims": ("",)},
        {"values": {"": ("a",)}},
        {"values": {"a": ()}},
        {"values": {"a": ("",)}},
        {"not_values": {"a": ()}},
        {"subjects": ("",)},
        {"not_subjects": ("",)},
        {"not_claims": ("",)},
    ],
)
def test_a_rule_that_would_ask_for_nothing_is_none(rule: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        PersonRule(**rule)


values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = (
    "client_id",
    "azp",
    "cid",
    "idtyp",
    "gty",
    "oid",
    "tid",
    "scp",
    "preferred_username",
    "uid",
    "user",
    "token_use",
)


def fault_or_refusal(rule: PersonRule, members: JsonObject) -> TokenFault | None:
    try:
        return fault(rule, members)
    except TokenRejected as refusal:
        return refusal.fault


@given(st.dictionaries(st.sampled_from(NAMES), values))
def test_whatever_the_claims_are_there_is_an_answer(members: JsonObject) -> None:
    rule = PersonRule(claims=("uid",), values={"user.kind": ("human",)}, not_values={"gty": ("x",)})
    found = fault_or_refusal(rule, members)
    user = members.get("user")
    proven = members.get("uid") is not None and isinstance(user, dict) and user.get("kind") == "human"
    assert found is not None or proven or members.get("user.kind") is not None
