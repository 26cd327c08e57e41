"""Verified claims to an identity: a user and an agent, or nobody."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import TokenRejected
from sidecar.identity import claims as claims_module
from sidecar.identity.claims import ClaimMap, IdentityRules, identify
from sidecar.mcp.jsonrpc import encode
from sidecar.model import JsonObject, JsonValue

ISSUER = "https://idp.example"
TOKEN: JsonObject = {"iss": ISSUER, "sub": "alice", "client_id": "desktop", "exp": 1_800_000_000}
DEFAULT = IdentityRules()


def mapped(**names: Any) -> IdentityRules:
    return IdentityRules(claims=ClaimMap(**names))


def without(*names: str) -> JsonObject:
    return {name: value for name, value in TOKEN.items() if name not in names}


def test_a_plain_token_names_a_user_and_an_agent():
    identity = identify(TOKEN, DEFAULT)
    assert identity.key == (ISSUER, "alice", "desktop")
    assert identity.expires_at == 1_800_000_000.0
    assert identity.principal.groups == identity.principal.roles == identity.principal.scopes == ()
    assert identity.actor.chain == ()


AGENTS: list[tuple[JsonObject, str, tuple[str, ...]]] = [
    ({"client_id": "desktop", "azp": "other"}, "desktop", ()),
    ({"azp": "desktop"}, "desktop", ()),
    ({"client_id": None, "azp": "desktop"}, "desktop", ()),
    ({"client_id": "", "azp": "desktop"}, "desktop", ()),
    ({"client_id": "desktop", "act": {"sub": "agent"}}, "agent", ()),
    ({"client_id": "desktop", "act": {"sub": "agent", "iss": ISSUER}}, "agent", ()),
    ({"client_id": "desktop", "act": {"sub": "agent", "act": {"sub": "first"}}}, "agent", ("first",)),
    ({"act": {"sub": "c", "act": {"sub": "b", "act": {"sub": "a"}}}}, "c", ("b", "a")),
    ({"client_id": "https://client.example/id.json"}, "https://client.example/id.json", ()),
]


@pytest.mark.parametrize(("members", "agent", "chain"), AGENTS)
def test_the_agent_is_the_outermost_actor_else_the_client(members, agent, chain):
    actor = identify(without("client_id") | members, DEFAULT).actor
    assert (actor.id, actor.chain) == (agent, chain)


def test_where_the_agent_is_the_client_all_actors_are_the_chain():
    token = TOKEN | {"act": {"sub": "b", "act": {"sub": "a"}}}
    actor = identify(token, mapped(agent=("client_id",))).actor
    assert (actor.id, actor.chain) == ("desktop", ("b", "a"))


def test_an_actor_may_be_named_by_another_member_if_that_is_configured():
    token = TOKEN | {"act": {"client_id": "agent"}}
    assert identify(token, mapped(agent=("act.client_id",))).actor.id == "agent"
    with pytest.raises(TokenRejected):
        identify(token, DEFAULT)


def nested_actors(count: int) -> JsonObject:
    act: JsonObject = {"sub": "a"}
    for _ in range(count - 1):
        act = {"sub": "a", "act": act}
    return act


MALFORMED_ACTS: dict[str, JsonValue] = {
    "null": None,
    "a string": "agent",
    "a list": [{"sub": "agent"}],
    "empty": {},
    "an empty subject": {"sub": ""},
    "a number as subject": {"sub": 1},
    "a control character": {"sub": "a\nb"},
    "another issuer": {"sub": "agent", "iss": "https://evil.example"},
    "an issuer that is nearly ours": {"sub": "agent", "iss": ISSUER + "/"},
    "a null issuer": {"sub": "agent", "iss": None},
    "an inner act that is malformed": {"sub": "agent", "act": "x"},
    "an inner act of another issuer": {"sub": "agent", "act": {"sub": "b", "iss": "https://evil.example"}},
    "too many": nested_actors(claims_module.MAX_ACTORS + 1),
}


@pytest.mark.parametrize("act", MALFORMED_ACTS.values(), ids=MALFORMED_ACTS)
@pytest.mark.parametrize("claim_map", [DEFAULT, mapped(agent=("client_id",))], ids=["act first", "act ignored"])
def test_a_malformed_act_is_never_passed_over_in_favour_of_the_client(act, claim_map):
    with pytest.raises(TokenRejected):
        identify(TOKEN | {"act": act}, claim_map)


def test_as_many_actors_as_allowed_are_taken():
    identity = identify(TOKEN | {"act": nested_actors(claims_module.MAX_ACTORS)}, DEFAULT)
    assert len(identity.actor.chain) == claims_module.MAX_ACTORS - 1


NO_USER: dict[str, JsonObject] = {
    "client credentials": {"sub": "desktop"},
    "client credentials by azp": {"sub": "robot", "azp": "robot", "client_id": "other"},
    "client credentials behind an actor": {"sub": "desktop", "act": {"sub": "agent"}},
    "the actor is the user": {"act": {"sub": "alice"}},
    "Auth0 machine": {"sub": "desktop@clients", "gty": "client-credentials"},
    "Entra application": {"idtyp": "app"},
}


@pytest.mark.parametrize("members", NO_USER.values(), ids=NO_USER)
def test_a_token_in_which_only_software_speaks_has_no_user(members):
    with pytest.raises(TokenRejected, match=r"^token has no user"):
        identify(TOKEN | members, DEFAULT)


def test_a_client_that_speaks_for_itself_is_found_under_a_mapped_subject_too():
    token = TOKEN | {"sub": "desktop", "email": "alice@corp.example"}
    with pytest.raises(TokenRejected, match=r"^token has no user"):
        identify(token, mapped(subject="email"))
    assert identify(token | {"sub": "u1"}, mapped(subject="email")).principal.subject == "alice@corp.example"


@pytest.mark.parametrize("name", ["iss", "sub", "exp"])
def test_a_token_without_a_required_claim_is_refused(name):
    with pytest.raises(TokenRejected):
        identify(without(name), DEFAULT)


def test_a_token_without_an_agent_is_refused():
    with pytest.raises(TokenRejected, match=r"^token has no agent$"):
        identify(without("client_id"), DEFAULT)


BAD_NAMES: list[JsonValue] = [
    "",
    1,
    True,
    [],
    ["alice"],
    {},
    "a\x00",
    "a\nb",
    "a\x7f",
    "a\x9f",
    "a\u2028b",
    "a\u202eb",
    "\ud800",
]
LONG = "x" * (claims_module.MAX_ID_CHARACTERS + 1)


@pytest.mark.parametrize("name", ["iss", "sub"])
@pytest.mark.parametrize("value", [*BAD_NAMES, LONG, None])
def test_a_name_of_another_form_is_refused(name, value):
    with pytest.raises(TokenRejected):
        identify(TOKEN | {name: value}, DEFAULT)


@pytest.mark.parametrize("value", [value for value in [*BAD_NAMES, LONG] if value != ""])
def test_an_agent_of_another_form_is_refused_and_not_passed_over(value):
    with pytest.raises(TokenRejected):
        identify(TOKEN | {"client_id": value, "azp": "desktop"}, DEFAULT)


def test_a_name_of_the_longest_form_is_taken():
    assert identify(TOKEN | {"sub": LONG[1:]}, DEFAULT).principal.subject == LONG[1:]
    assert identify(TOKEN | {"sub": "Zoë Ω"}, DEFAULT).principal.subject == "Zoë Ω"


@pytest.mark.parametrize("claim", ["groups", "roles"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [(["a", "b", "a"], ("a", "b")), ("a b", ("a b",)), ([], ()), (None, ()), (["CN=x,OU=y"], ("CN=x,OU=y",))],
)
def test_groups_and_roles_are_lists_of_names(claim, value, expected):
    assert getattr(identify(TOKEN | {claim: value}, DEFAULT).principal, claim) == expected


@pytest.mark.parametrize("claim", ["groups", "roles", "scope", "scp"])
@pytest.mark.parametrize(
    "value", [1, True, {}, {"a": 1}, ["a", 1], ["a", None], [["a"]], [""], ["a\n"], ["x" * 513], ["g"] * 513]
)
def test_a_list_of_another_form_rejects_the_token(claim, value):
    with pytest.raises(TokenRejected):
        identify(TOKEN | {claim: value}, DEFAULT)


def test_groups_that_are_only_referred_to_reject_the_token():
    reference: JsonObject = {"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": "https://x"}}}
    with pytest.raises(TokenRejected):
        identify(TOKEN | reference, DEFAULT)
    assert identify(TOKEN | {"_claim_names": {"photo": "src1"}}, DEFAULT).principal.groups == ()


SCOPES: list[tuple[JsonObject, tuple[str, ...]]] = [
    ({"scope": "mongodb:read mongodb:write mongodb:read"}, ("mongodb:read", "mongodb:write")),
    ({"scope": " a  b "}, ("a", "b")),
    ({"scope": ""}, ()),
    ({"scope": ["a", "b"]}, ("a", "b")),
    ({"scp": ["a", "b"]}, ("a", "b")),
    ({"scp": "a b"}, ("a", "b")),
    ({"scope": "a", "scp": ["b"]}, ("a",)),
    ({"scope": "", "scp": ["b"]}, ()),
]


@pytest.mark.parametrize(("members", "expected"), SCOPES)
def test_scopes_are_split_at_spaces_or_listed(members, expected):
    assert identify(TOKEN | members, DEFAULT).principal.scopes == expected


API = "api://7d1/"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("mongodb:read", ("mongodb:read",)),
        (f"{API}mongodb:read", ("mongodb:read",)),
        (f"{API}mongodb:read mongodb:read mongodb:write", ("mongodb:read", "mongodb:write")),
        ("api://7d2/mongodb:read", ("api://7d2/mongodb:read",)),
        (f"x{API}mongodb:read", (f"x{API}mongodb:read",)),
        (f"{API.upper()}mongodb:read", (f"{API.upper()}mongodb:read",)),
        ("api://7d1mongodb:read", ("api://7d1mongodb:read",)),
        (f"{API}{API}mongodb:read", (f"{API}mongodb:read",)),
        (API, (API,)),
    ],
)
def test_a_scope_with_the_issuers_own_prefix_is_the_one_without(said, expected):
    assert identify(TOKEN | {"scope": said}, IdentityRules(scope_prefix=API)).principal.scopes == expected
    assert identify(TOKEN | {"scope": said}, DEFAULT).principal.scopes == tuple(dict.fromkeys(said.split()))


@pytest.mark.parametrize("scope", ['a"b', "a\\b", "a\tb", "ü", ["a b"]])
def test_a_scope_of_another_form_is_refused(scope):
    with pytest.raises(TokenRejected):
        identify(TOKEN | {"scope": scope}, DEFAULT)


def test_a_path_with_dots_is_a_nested_claim_unless_a_claim_has_that_very_name():
    token = TOKEN | {"realm_access": {"roles": ["nested"]}}
    claim_map = mapped(roles="realm_access.roles")
    assert identify(token, claim_map).principal.roles == ("nested",)
    assert identify(token | {"realm_access.roles": ["literal"]}, claim_map).principal.roles == ("literal",)
    assert identify(TOKEN, claim_map).principal.roles == ()


def test_a_path_through_something_that_is_no_object_rejects_the_token():
    with pytest.raises(TokenRejected):
        identify(TOKEN | {"realm_access": ["roles"]}, mapped(roles="realm_access.roles"))


def test_a_url_is_a_name_and_never_a_path():
    name = "https://corp.example/groups"
    token = TOKEN | {name: ["a"], "https://corp": {"example/groups": ["b"]}}
    assert identify(token, mapped(groups=name)).principal.groups == ("a",)
    del token[name]
    assert identify(token, mapped(groups=name)).principal.groups == ()


def test_only_configured_claims_are_passed_on():
    token = TOKEN | {"region": "EU", "email": "alice@corp.example", "org": {"unit": {"id": 7}}, "gone": None}
    principal = identify(token, mapped(extra=("region", "org.unit", "missing", "gone"))).principal
    assert principal.claims == {"region": "EU", "org.unit": {"id": 7}}


def deep(levels: int) -> JsonValue:
    value: JsonValue = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [float("nan"), [float("inf")], {"a": "\ud800"}, {"a\n": 1}, deep(claims_module.MAX_EXTRA_DEPTH), [1] * 1_001, LONG],
)
def test_a_claim_that_is_unbounded_or_cannot_be_encoded_is_not_passed_on(value):
    with pytest.raises(TokenRejected):
        identify(TOKEN | {"region": value}, mapped(extra=("region",)))
    identify(TOKEN | {"region": value}, DEFAULT)


def test_a_claim_at_the_bounds_is_passed_on():
    value = deep(claims_module.MAX_EXTRA_DEPTH - 1)
    assert identify(TOKEN | {"region": value}, mapped(extra=("region",))).principal.claims == {"region": value}


@pytest.mark.parametrize("value", [1, 1.5, 253_402_300_799])
def test_an_expiry_is_a_number_of_seconds(value):
    assert identify(TOKEN | {"exp": value}, DEFAULT).expires_at == float(value)


@pytest.mark.parametrize(
    "value", [True, "1800000000", None, 0, -1, float("nan"), float("inf"), 10**400, 1_800_000_000_000, [1]]
)
def test_an_expiry_of_another_form_is_refused(value):
    with pytest.raises(TokenRejected):
        identify(TOKEN | {"exp": value}, DEFAULT)


@pytest.mark.parametrize("change", [{"agent": ()}, {"agent": ("",)}, {"subject": ""}, {"extra": ("",)}, {"groups": ""}])
def test_a_map_without_a_claim_for_each_part_cannot_be_made(change):
    with pytest.raises(ValueError):
        mapped(**change)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["alice", "desktop", ISSUER]),
    lambda nested: (
        st.lists(nested, max_size=3)
        | st.dictionaries(st.sampled_from(["act", "sub", "iss", "roles", "client_id"]), nested, max_size=3)
    ),
    max_leaves=12,
)
NAMES = [
    "iss",
    "sub",
    "client_id",
    "azp",
    "act",
    "exp",
    "groups",
    "roles",
    "scope",
    "scp",
    "gty",
    "_claim_names",
    "extra",
]


@given(st.dictionaries(st.sampled_from(NAMES), json_values), st.sampled_from([{}, TOKEN]))
def test_any_claims_are_an_identity_or_a_rejection(members, base):
    claim_map = mapped(roles="act.roles", extra=("extra",))
    try:
        identity = identify(base | members, claim_map)
    except TokenRejected:
        return
    assert all(identity.key)
    assert identity.principal.subject != identity.actor.id
    encode([*identity.key, *identity.principal.groups, *identity.principal.scopes, *identity.actor.chain])
    encode(dict(identity.principal.claims))


@given(json_values)
def test_the_detail_of_a_rejection_has_no_claims_value(value):
    with pytest.raises(TokenRejected) as caught:
        identify(TOKEN | {"sub": ["canary-7f3a", value]}, DEFAULT)
    assert "canary" not in caught.value.detail + caught.value.public
