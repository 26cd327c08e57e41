"""Token shapes of real issuers: who is a person, who is not, and what a preset makes of each.

Shapes are those that the vendors document; the page is named at each. Ids are made up.
"""

import tomllib
from typing import Any

import pytest

from sidecar.errors import TokenRejected
from sidecar.faults import TokenFault
from sidecar.identity.claims import IdentityRules, identify
from sidecar.identity.presets import PRESETS, Preset, as_settings
from sidecar.issuer_settings import Issuer
from sidecar.model import JsonObject, JsonValue, PrincipalKind
from sidecar.settings import load
from sidecar.token_reading import identity_rules

SERVER = {"name": "ro", "url": "http://127.0.0.1:9/mcp"}
TIMES: JsonObject = {"iat": 1_799_999_995, "nbf": 1_799_999_995, "exp": 1_800_000_300}

# https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles
AUTH0: JsonObject = {
    "iss": "https://tenant.auth0.com/",
    "sub": "auth0|6553da60a54af58e29493993",
    "aud": ["https://mcp.example/mcp", "https://tenant.auth0.com/userinfo"],
    "client_id": "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja",
    "jti": "73WakrfVbNJBaAmhQtEeDv",
    "scope": "openid profile mongodb:read",
    **TIMES,
}
AUTH0_OLD: JsonObject = {key: value for key, value in AUTH0.items() if key not in {"client_id", "jti"}} | {
    "azp": "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja"
}
AUTH0_MACHINE: JsonObject = {"sub": "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja@clients"}

# https://www.keycloak.org/docs/latest/server_admin/#_service_accounts; no session: keycloak/keycloak issue 11653
KEYCLOAK: JsonObject = {
    "iss": "https://keycloak.example/realms/corp",
    "sub": "f3b5a1c2-6b3f-4f0e-9a34-0b9e7d1f2a11",
    "aud": ["https://mcp.example/mcp", "account"],
    "typ": "Bearer",
    "azp": "claude-desktop",
    "sid": "a0c5a2a5-97f2-4c9b-8d2f-3d0f1f6c5f6e",
    "acr": "1",
    "realm_access": {"roles": ["offline_access", "analyst"]},
    "resource_access": {"account": {"roles": ["view-profile"]}},
    "scope": "profile mongodb:read",
    "preferred_username": "alice",
    "groups": ["/analysts"],
    **TIMES,
}
KEYCLOAK_MACHINE: JsonObject = {
    **{key: value for key, value in KEYCLOAK.items() if key not in {"sid", "groups"}},
    "azp": "job",
    "preferred_username": "service-account-job",
}
KEYCLOAK_MACHINE_OLD: JsonObject = {"clientHost": "10.0.0.7", "clientAddress": "10.0.0.7", "client_id": "job"}

# https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
ENTRA: JsonObject = {
    "iss": "https://login.microsoftonline.com/9122040d-6c67-4c5b-b112-36a304b66dad/v2.0",
    "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
    "aio": "AXQAi/8IAAAA",
    "azp": "6e74172b-be56-4843-9ff4-000000000001",
    "azpacr": "0",
    "name": "Alice",
    "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
    "preferred_username": "alice@corp.example",
    "rh": "I",
    "scp": "mongodb.read access_as_user",
    "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
    "tid": "9122040d-6c67-4c5b-b112-36a304b66dad",
    "uti": "fqiBqXLPj0eQa82S-IYFAA",
    "ver": "2.0",
    "groups": ["0e129f5b-6b0a-4944-982d-f776045632af"],
    **TIMES,
}
ENTRA_V1: JsonObject = {
    **{key: value for key, value in ENTRA.items() if key not in {"azp", "azpacr"}},
    "iss": "https://sts.windows.net/9122040d-6c67-4c5b-b112-36a304b66dad/",
    "aud": "api://mcp",
    "appid": "6e74172b-be56-4843-9ff4-000000000001",
    "appidacr": "0",
    "upn": "alice@corp.example",
    "unique_name": "alice@corp.example",
    "ver": "1.0",
}
ENTRA_GUEST: JsonObject = {"idp": "https://sts.windows.net/aaaaaaaa-0000-0000-0000-000000000000/", "acct": 1}
ENTRA_MACHINE: JsonObject = {
    **{key: value for key, value in ENTRA.items() if key not in {"scp", "name", "preferred_username", "groups"}},
    "azpacr": "1",
    "oid": "11111111-ff1a-4d56-abd1-7e4f7d38e474",
    "sub": "11111111-ff1a-4d56-abd1-7e4f7d38e474",
    "roles": ["Mongo.Read.All"],
}
ENTRA_MACHINE_V1: JsonObject = {
    **{key: value for key, value in ENTRA_MACHINE.items() if key not in {"azp", "azpacr"}},
    "appid": "6e74172b-be56-4843-9ff4-000000000002",
    "appidacr": "2",
    "ver": "1.0",
}

# https://developer.okta.com/docs/api/openapi/okta-oauth/guides/overview/ (access token payload; uid: only with a user)
OKTA: JsonObject = {
    "ver": 1,
    "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
    "iss": "https://corp.okta.com/oauth2/default",
    "aud": "https://mcp.example/mcp",
    "sub": "alice@corp.example",
    "cid": "0oa1gjh63g214q0Hq0g4",
    "uid": "00uid4BxXw6I6TV4m0g3",
    "scp": ["openid", "mongodb:read"],
    "groups": ["Everyone", "analysts"],
    **TIMES,
}
OKTA_MACHINE: JsonObject = {
    **{key: value for key, value in OKTA.items() if key not in {"uid", "groups"}},
    "sub": "0oa1gjh63g214q0Hq0g4",
}

# https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-access-token.html
COGNITO: JsonObject = {
    "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    "cognito:groups": ["analysts"],
    "iss": "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_example",
    "version": 2,
    "client_id": "xxxxxxxxxxxxexample",
    "origin_jti": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    "token_use": "access",
    "scope": "phone openid mcp/mongodb.read",
    "auth_time": 1_799_999_995,
    "jti": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    "username": "alice",
    **TIMES,
}
COGNITO_MACHINE: JsonObject = {
    "sub": "xxxxxxxxxxxxexample",
    "token_use": "access",
    "scope": "mcp/mongodb.read",
    "auth_time": 1_799_999_995,
    "iss": COGNITO["iss"],
    "version": 2,
    "jti": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    "client_id": "xxxxxxxxxxxxexample",
    **TIMES,
}

# RFC 9068 section 2.2 with the sub of section 5; npm oidc-provider signs the same
GENERIC_MACHINE: JsonObject = {
    "iss": "https://idp.example",
    "sub": "nightly-loader",
    "client_id": "nightly-loader",
    "jti": "1",
    "aud": "https://mcp.example/mcp",
    "scope": "mongodb:read",
    **TIMES,
}

PERSONS: dict[str, tuple[Preset, JsonObject, JsonValue]] = {
    "Auth0, RFC 9068 profile": (Preset.AUTH0, AUTH0, "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja"),
    "Auth0, Auth0 profile": (Preset.AUTH0, AUTH0_OLD, "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja"),
    "Auth0, a person by password grant": (Preset.AUTH0, AUTH0_OLD | {"gty": "password"}, AUTH0["client_id"]),
    "Auth0, a federated person": (Preset.AUTH0, AUTH0 | {"sub": "google-oauth2|1057"}, AUTH0["client_id"]),
    "Keycloak": (Preset.KEYCLOAK, KEYCLOAK, "claude-desktop"),
    "Keycloak, offline": (Preset.KEYCLOAK, KEYCLOAK | {"scope": "profile offline_access"}, "claude-desktop"),
    "Keycloak, a person whose name is nearly a service account's": (
        Preset.KEYCLOAK,
        KEYCLOAK | {"preferred_username": "service-accounts"},
        "claude-desktop",
    ),
    "Entra v2": (Preset.ENTRA, ENTRA, ENTRA["azp"]),
    "Entra v2, idtyp asked for": (Preset.ENTRA, ENTRA | {"idtyp": "user"}, ENTRA["azp"]),
    "Entra v2, confidential client": (Preset.ENTRA, ENTRA | {"azpacr": "1", "roles": ["Reader"]}, ENTRA["azp"]),
    "Entra v2, guest": (Preset.ENTRA, ENTRA | ENTRA_GUEST, ENTRA["azp"]),
    "Entra v1": (Preset.ENTRA, ENTRA_V1, ENTRA["azp"]),
    "Okta": (Preset.OKTA, OKTA, "0oa1gjh63g214q0Hq0g4"),
    "Cognito": (Preset.COGNITO, COGNITO, "xxxxxxxxxxxxexample"),
}

MACHINES: dict[str, tuple[Preset | None, JsonObject]] = {
    "Auth0, RFC 9068 profile": (Preset.AUTH0, AUTH0 | AUTH0_MACHINE),
    "Auth0, Auth0 profile": (Preset.AUTH0, AUTH0_OLD | AUTH0_MACHINE | {"gty": "client-credentials"}),
    "Auth0, marked by the grant only": (Preset.AUTH0, AUTH0_OLD | {"gty": "client-credentials"}),
    "Keycloak": (Preset.KEYCLOAK, KEYCLOAK_MACHINE),
    "Keycloak, with the scope service_account": (Preset.KEYCLOAK, KEYCLOAK_MACHINE | KEYCLOAK_MACHINE_OLD),
    "Keycloak, with a session for refresh tokens": (Preset.KEYCLOAK, KEYCLOAK_MACHINE | {"sid": "a0c5a2a5"}),
    "Keycloak, before 20": (Preset.KEYCLOAK, KEYCLOAK_MACHINE | {"clientId": "job", "clientHost": "10.0.0.7"}),
    "Entra v2": (Preset.ENTRA, ENTRA_MACHINE),
    "Entra v2, idtyp asked for": (Preset.ENTRA, ENTRA_MACHINE | {"idtyp": "app"}),
    "Entra v2, by certificate": (Preset.ENTRA, ENTRA_MACHINE | {"azpacr": "2"}),
    "Entra v1": (Preset.ENTRA, ENTRA_MACHINE_V1),
    "Entra, an application without roles": (
        Preset.ENTRA,
        {key: value for key, value in ENTRA_MACHINE.items() if key != "roles"},
    ),
    "Entra, idtyp of a device": (Preset.ENTRA, ENTRA | {"idtyp": "device"}),
    "Okta": (Preset.OKTA, OKTA_MACHINE),
    "Cognito": (Preset.COGNITO, COGNITO_MACHINE),
    "RFC 9068": (None, GENERIC_MACHINE),
    "OpenID Connect style": (None, {**GENERIC_MACHINE, "client_id": None, "azp": "nightly-loader"}),
    "gty elsewhere": (None, GENERIC_MACHINE | {"sub": "job-17", "gty": ["client_credentials"]}),
    "WSO2": (None, GENERIC_MACHINE | {"sub": "job-17", "aut": "APPLICATION"}),
}


def rules(preset: Preset | None, **changes: Any) -> IdentityRules:
    issuer = Issuer(issuer="https://idp.example", preset=preset, **changes)
    return identity_rules(issuer, load(resource_url="https://mcp.example/mcp", servers=[SERVER], issuers=[issuer]))


@pytest.mark.parametrize("case", PERSONS)
def test_a_person_is_one_with_the_preset_and_without(case: str) -> None:
    preset, token, agent = PERSONS[case]

    identity = identify(token, rules(preset))

    assert (identity.principal.kind, identity.principal.subject) == (PrincipalKind.USER, token["sub"])
    assert identity.actor.id == agent


@pytest.mark.parametrize("case", MACHINES)
def test_software_is_no_person_with_the_preset(case: str) -> None:
    preset, token = MACHINES[case]
    with pytest.raises(TokenRejected) as refusal:
        identify(token, rules(preset))
    assert refusal.value.fault is TokenFault.NO_PERSON


@pytest.mark.parametrize("case", MACHINES)
def test_software_is_no_person_where_nobody_configured_anything_about_it(case: str) -> None:
    _, token = MACHINES[case]
    agents = ("act.sub", "client_id", "azp", "cid", "appid")
    with pytest.raises(TokenRejected) as refusal:
        identify(token, rules(None, claims={"agent": agents}))
    assert refusal.value.fault is TokenFault.NO_PERSON


@pytest.mark.parametrize("case", MACHINES)
def test_registered_software_is_a_service_and_its_neighbour_is_not(case: str) -> None:
    preset, token = MACHINES[case]
    agents = ("client_id", "azp", "cid", "appid")
    agent = next(str(token[claim]) for claim in agents if token.get(claim))
    claims = {"claims": {"agent": agents}}

    identity = identify(token, rules(preset, services=[agent], **claims))

    assert (identity.principal.kind, identity.actor.id) == (PrincipalKind.SERVICE, agent)
    with pytest.raises(TokenRejected):
        identify(token, rules(preset, services=[agent + "x", agent.upper() + "X", agent[:-1]], **claims))


def test_a_service_in_whose_name_somebody_acts_needs_a_person() -> None:
    token = GENERIC_MACHINE | {"act": {"sub": "agent"}}
    with pytest.raises(TokenRejected):
        identify(token, rules(None, services=["nightly-loader", "agent"]))


def test_a_person_through_a_registered_service_stays_a_person() -> None:
    token = GENERIC_MACHINE | {"sub": "alice"}

    assert identify(token, rules(None, services=["nightly-loader"])).principal.kind is PrincipalKind.USER


@pytest.mark.parametrize(
    ("preset", "token", "missing"),
    [
        (Preset.KEYCLOAK, KEYCLOAK, "preferred_username"),
        (Preset.OKTA, OKTA, "uid"),
        (Preset.ENTRA, {key: value for key, value in ENTRA.items() if key != "tid"}, "scp"),
        (Preset.ENTRA, ENTRA, "oid"),
    ],
)
def test_without_what_proves_a_person_nobody_is_one(preset: Preset, token: JsonObject, missing: str) -> None:
    with pytest.raises(TokenRejected) as refusal:
        identify({key: value for key, value in token.items() if key != missing}, rules(preset))
    assert refusal.value.fault is TokenFault.PERSON_NOT_PROVEN
    assert missing in refusal.value.detail


@pytest.mark.parametrize("subject", ["6553da60a54af58e29493993", "auth0", ""])
def test_a_subject_of_auth0_has_a_connection(subject: str) -> None:
    with pytest.raises(TokenRejected):
        identify(AUTH0 | {"sub": subject}, rules(Preset.AUTH0))


def test_groups_roles_and_scopes_are_where_each_issuer_puts_them() -> None:
    keycloak = identify(KEYCLOAK, rules(Preset.KEYCLOAK)).principal
    entra = identify(ENTRA, rules(Preset.ENTRA)).principal
    okta = identify(OKTA, rules(Preset.OKTA)).principal
    cognito = identify(COGNITO, rules(Preset.COGNITO)).principal

    assert (keycloak.groups, keycloak.roles) == (("/analysts",), ("offline_access", "analyst"))
    assert (entra.groups, entra.scopes) == (
        ("0e129f5b-6b0a-4944-982d-f776045632af",),
        ("mongodb.read", "access_as_user"),
    )
    assert (okta.groups, okta.scopes) == (("Everyone", "analysts"), ("openid", "mongodb:read"))
    assert (cognito.groups, cognito.scopes) == (("analysts",), ("phone", "openid", "mcp/mongodb.read"))


# https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference#groups-overage-claim
OVERAGE: dict[str, JsonObject] = {
    "referred to": {
        "_claim_names": {"groups": "src1"},
        "_claim_sources": {"src1": {"endpoint": "https://graph.windows.net/9122040d/users/690222be/getMemberObjects"}},
    },
    "only flagged": {"hasgroups": True},
    "flagged by a text": {"hasgroups": "true"},
}


@pytest.mark.parametrize("overage", OVERAGE.values(), ids=OVERAGE)
@pytest.mark.parametrize("preset", [Preset.ENTRA, None])
def test_groups_that_are_only_referred_to_are_no_groups(overage: JsonObject, preset: Preset | None) -> None:
    token = {key: value for key, value in ENTRA.items() if key != "groups"} | overage
    with pytest.raises(TokenRejected) as refusal:
        identify(token, rules(preset))
    assert refusal.value.fault is TokenFault.GROUPS_ELSEWHERE


def test_its_near_misses_are_taken() -> None:
    without = {key: value for key, value in ENTRA.items() if key != "groups"}

    assert identify(without, rules(Preset.ENTRA)).principal.groups == ()
    assert identify(without | {"hasgroups": False}, rules(Preset.ENTRA)).principal.groups == ()
    assert identify(ENTRA | {"_claim_names": {"other": "src1"}}, rules(Preset.ENTRA)).principal.groups
    assert identify(ENTRA | {"hasgroups": True}, rules(Preset.ENTRA)).principal.groups


def test_two_hundred_groups_are_taken() -> None:
    groups: list[JsonValue] = [f"{number:08x}-6b0a-4944-982d-f776045632af" for number in range(200)]

    assert identify(ENTRA | {"groups": groups}, rules(Preset.ENTRA)).principal.groups == tuple(groups)


@pytest.mark.parametrize("preset", Preset)
def test_a_preset_is_settings_that_load(preset: Preset) -> None:
    assert PRESETS[preset].remarks
    loaded = Issuer(issuer="https://idp.example", preset=preset)
    spelled_out = Issuer.model_validate({"issuer": "https://idp.example", **PRESETS[preset].settings})

    assert loaded.model_copy(update={"preset": None}) == spelled_out


def test_what_is_set_wins_over_the_preset_key_by_key() -> None:
    issuer = Issuer.model_validate(
        {
            "issuer": "https://idp.example",
            "preset": "cognito",
            "claims": {"groups": "teams"},
            "person": {"values": {"tier": ["staff"]}},
            "token_types": ["jwt"],
        }
    )

    assert (issuer.claims.groups, issuer.claims.agent) == ("teams", ("client_id",))
    assert (issuer.person.claims, issuer.person.values) == (("username",), {"tier": ("staff",)})
    assert issuer.token_types == ("jwt",)


@pytest.mark.parametrize("preset", Preset)
def test_a_preset_is_printed_as_the_settings_that_it_stands_for(preset: Preset) -> None:
    printed = as_settings(preset)

    assert tomllib.loads(printed) == {"issuers": [PRESETS[preset].settings]}
    assert all(remark in printed for remark in PRESETS[preset].remarks)
