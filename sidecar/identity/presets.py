"""What is known of the access tokens of five issuers: settings that an operator would otherwise have to find out.

A preset is data and nothing else: what it says could be written into the settings word by word, and what is written
there wins. ``mcp-sidecar issuers show`` prints them. Each is held to token shapes with their source in
``tests/identity/test_presets.py``. No preset names an issuer, keys or an audience: those are the deployment's own.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sidecar.mcp import jsonrpc
from sidecar.model import JsonObject, JsonValue


class Preset(StrEnum):
    """Issuers with a preset."""

    KEYCLOAK = "keycloak"
    ENTRA = "entra"
    OKTA = "okta"
    AUTH0 = "auth0"
    COGNITO = "cognito"


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetSettings:
    """The settings of one preset, and what an operator should know."""

    settings: JsonObject
    """Keys and values of ``[[issuers]]``."""
    remarks: tuple[str, ...]


PRESETS: Final[dict[Preset, PresetSettings]] = {
    Preset.KEYCLOAK: PresetSettings(
        settings={
            "token_types": ["jwt", "at+jwt", "application/at+jwt"],
            "required": {"typ": ["Bearer", "DPoP"]},
            "claims": {"agent": ["act.sub", "azp", "client_id"], "roles": "realm_access.roles"},
            "person": {"claims": ["preferred_username"]},
        },
        remarks=(
            "The audience must be mapped into the token (client scope with an audience mapper).",
            "Groups need a group membership mapper named `groups`; with full paths they begin with a slash.",
            "`preferred_username` is of the client scope `profile`: lightweight tokens need it mapped too.",
            "A user `service-account-<client>` is a service account, no matter which other claims its token has.",
        ),
    ),
    Preset.ENTRA: PresetSettings(
        settings={
            "token_types": ["jwt"],
            "claims": {"agent": ["azp", "appid"], "scope": "scp"},
            "person": {"claims": ["scp", "oid"]},
        },
        remarks=(
            "The issuer is `https://login.microsoftonline.com/<tenant>/v2.0`; in tokens of version 1 it is",
            "`https://sts.windows.net/<tenant>/`.",
            "The audience is the application id (version 2), or the application id URI (version 1).",
            "`scp` is in users' tokens only; so `roles` without it is an application.",
            "Clients ask for a scope by the application id URI, a slash and its name: set `scope_prefix`.",
            "Groups are object ids. More than 200 are only referred to: such a token is refused.",
            "Assign groups to the application, or use application roles.",
            '`sub` differs by application; where policies name people, map `claims.subject = "oid"`.',
        ),
    ),
    Preset.OKTA: PresetSettings(
        settings={
            "token_types": ["", "jwt"],
            "required": {"cid": []},
            "claims": {"agent": ["act.sub", "cid"], "scope": "scp"},
            "person": {"claims": ["uid"]},
        },
        remarks=(
            "Use a custom authorization server: tokens of the org server are for Okta alone.",
            "Groups need a claim `groups` in the access token.",
            "`uid` is there only where a user is bound to the token.",
        ),
    ),
    Preset.AUTH0: PresetSettings(
        settings={
            "token_types": ["at+jwt", "application/at+jwt", "jwt"],
            "claims": {"agent": ["act.sub", "client_id", "azp"]},
            "person": {"subjects": ["*|*"]},
        },
        remarks=(
            "The issuer ends in a slash: `https://<tenant>.auth0.com/`.",
            "Ask for the RFC 9068 profile where that can be chosen; both profiles are accepted.",
            "Groups and roles are claims of your own, named by a URL: map `claims.groups` and `claims.roles`.",
            "A person's `sub` is `<connection>|<id>`; an application's ends in `@clients`.",
        ),
    ),
    Preset.COGNITO: PresetSettings(
        settings={
            "token_types": ["", "jwt"],
            "required": {"token_use": ["access"]},
            "claims": {"agent": ["client_id"], "groups": "cognito:groups"},
            "person": {"claims": ["username"]},
        },
        remarks=(
            "The issuer is `https://cognito-idp.<region>.amazonaws.com/<user pool>`.",
            "Access tokens have an `aud` only where the client asked for a resource.",
            "Without it, list the accepted app clients in `clients`, and give this server's scopes to no others.",
        ),
    ),
}


def as_settings(preset: Preset) -> str:
    """Return the settings that a preset stands for, as TOML, under what an operator should know."""
    known = PRESETS[preset]
    groups = {key: value for key, value in known.settings.items() if key in {"claims", "person"}}
    own = {key: value for key, value in known.settings.items() if key not in groups}
    lines = [f"# {preset}", *(f"#   {remark}" for remark in known.remarks), "[[issuers]]"]
    lines += [f"{key} = {_toml(value)}" for key, value in own.items()]
    for name, members in groups.items():
        if isinstance(members, dict):
            lines += [f"[issuers.{name}]", *(f"{key} = {_toml(value)}" for key, value in members.items())]
    return "\n".join(lines) + "\n"


def _toml(value: JsonValue) -> str:
    """Write a value of a preset; its texts and lists are the same in JSON and TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(member)}" for key, member in value.items()) + "}"
    return jsonrpc.encode(value).decode()
