"""The settings of one issuer, with what a preset says where the operator says nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from sidecar.identity import PRESETS, Preset
from sidecar.oauth import MAX_LEEWAY_S, AuthMethod, check_address
from sidecar.settings_group import SettingsGroup

MAX_ISSUERS: Final = 64
MAX_SCOPE_PREFIX: Final = 256
"""Characters; it is before every scope of a challenge, which is one header."""

_GROUPS: Final = frozenset({"claims", "person"})
"""Keys of an issuer whose members a preset and the operator can both say; `required` is one thing, said by one."""

Scope = Annotated[str, Field(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$")]
"""RFC 6749 section 3.3."""


class ClaimSettings(SettingsGroup):
    """Which claims of an issuer's tokens mean what; a dot reaches into a nested claim."""

    subject: str = "sub"
    """The user. A token without one is refused."""
    groups: str = "groups"
    """The user's groups: a list of texts."""
    roles: str = "roles"
    """The user's roles: a list of texts."""
    scope: str = "scope"
    """The granted scopes: a list, or one text separated by spaces."""
    agent: tuple[str, ...] = Field(default=("act.sub", "client_id", "azp"), min_length=1)
    """The agent that acts for the user: the first of these that is there. A token without one is refused."""
    extra: tuple[str, ...] = ()
    """Further claims that policies may read under `input.subject.claims`; no other claim reaches them."""

    @model_validator(mode="after")
    def _nothing_empty(self) -> Self:
        if not all((self.subject, self.groups, self.roles, self.scope, *self.agent, *self.extra)):
            msg = "the name of a claim is empty"
            raise ValueError(msg)
        return self


class PersonMarks(SettingsGroup):
    """What the tokens of people have at this issuer, and software's have not; known marks of software count besides."""

    claims: tuple[str, ...] = ()
    """Claims of which each must be there."""
    values: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Claims of which each must be there, as one of the listed texts."""
    subjects: tuple[str, ...] = ()
    """Patterns (`*` is any text) of which `sub` must match one; empty: any `sub`."""
    not_claims: tuple[str, ...] = ()
    """Claims of which none may be there."""
    not_values: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Claims of which none may be there with one of the listed texts."""
    not_subjects: tuple[str, ...] = ()
    """Patterns of which `sub` may match none."""

    @model_validator(mode="after")
    def _nothing_empty(self) -> Self:
        listed = (*self.values.items(), *self.not_values.items())
        texts = (*self.claims, *self.subjects, *self.not_claims, *self.not_subjects)
        if not all(texts) or not all(name and values and all(values) for name, values in listed):
            msg = "a claim, value, pattern or list is empty"
            raise ValueError(msg)
        return self


class IntrospectionSettings(SettingsGroup):
    """The issuer's introspection endpoint (RFC 7662), for tokens that are opaque; at most one issuer may have one."""

    uri: str = ""
    """Its address, by https; empty: opaque tokens are refused."""
    client_id: str = ""
    """The client as which the sidecar asks."""
    method: AuthMethod = AuthMethod.BASIC
    """How it proves itself."""
    secret_file: Path | None = None
    """The client's secret, or its private key (PEM) for `private_key_jwt`, `tls_client_auth`; read again if changed."""
    certificate_file: Path | None = None
    """The client's certificate chain (PEM), for `tls_client_auth`."""
    algorithm: Literal["RS256", "PS256", "ES256", "ES384", "EdDSA"] = "ES256"
    """What `private_key_jwt` signs with."""
    cache_s: int = Field(default=30, ge=0, le=60)
    """Seconds for which an answer is remembered, never beyond the token's `exp`: how late a revocation can be."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.uri:
            return self
        check_address(self.uri)
        if not self.client_id or self.secret_file is None:
            msg = "an introspection endpoint needs client_id and secret_file"
            raise ValueError(msg)
        if (self.certificate_file is None) is (self.method is AuthMethod.CERTIFICATE):
            msg = "certificate_file goes with tls_client_auth"
            raise ValueError(msg)
        return self


class Issuer(SettingsGroup):
    """An authorization server whose tokens are accepted."""

    issuer: str = Field(pattern=r"^https?://[\x21\x23-\x5b\x5d-\x7e]+$")
    """The `iss` of its tokens, exactly."""
    preset: Preset | None = None
    """What is known of this kind of issuer (`mcp-sidecar issuers show` prints it); what is set here besides wins."""
    jwks_file: Path | None = None
    """Its key set as a file, read again when it changes."""
    jwks_uri: str | None = None
    """Its key set by https. With neither, the keys are found through the issuer's own metadata (RFC 8414)."""
    algorithms: tuple[Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"], ...] = (
        Field(default=("RS256", "ES256"), min_length=1)
    )
    """Accepted signature algorithms."""
    audiences: tuple[str, ...] = ()
    """Accepted `aud` values; empty: `resource_url`."""
    clients: tuple[str, ...] = ()
    """Clients whose tokens are accepted without `aud`, for issuers that set none; empty: every token needs `aud`. One
    with another `aud` is refused all the same. Such a client's tokens for other APIs count too: separate by scope."""
    token_types: tuple[str, ...] = Field(default=("at+jwt", "application/at+jwt"), min_length=1)
    """Accepted `typ` headers (RFC 9068 section 2.1). An empty one admits tokens without, and needs `required`."""
    required: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Claims that mark an access token where `typ` does not: each must be there, as one of the listed texts; an empty
    list lets every value count."""
    leeway_s: int = Field(default=30, ge=0, le=MAX_LEEWAY_S)
    """Seconds by which clocks may differ."""
    dpop: Literal["off", "allowed", "required"] = "off"
    """Tokens that are bound to a key of the client (DPoP, RFC 9449): `off` refuses them, `allowed` takes them with a
    proof and others as bearer tokens, `required` takes no others."""
    dpop_nonce: bool = False
    """Whether proofs have to carry a nonce of the sidecar's, so that none can be made ahead (RFC 9449 section 9)."""
    mtls: Literal["off", "allowed", "required"] = "off"
    """Tokens that are bound to a certificate of the client (mutual TLS, RFC 8705): `off` refuses them, `allowed` takes
    them over connections with that certificate and others as bearer tokens, `required` takes no others."""
    services: tuple[str, ...] = ()
    """Agents that may speak for themselves (client credentials). All others need a person; policies see
    `input.subject.type` as `service`."""
    scope_prefix: str = Field(default="", pattern=r"^[\x21\x23-\x5b\x5d-\x7e]*$", max_length=MAX_SCOPE_PREFIX)
    """What clients put before a scope to ask for it (Entra ID: the application ID URI and a slash). Challenges and
    metadata name scopes with it; the settings and policies without. A token may have either."""
    introspection: IntrospectionSettings = IntrospectionSettings()
    """Who says what an opaque token is worth."""
    claims: ClaimSettings = ClaimSettings()
    """Which claims mean what."""
    person: PersonMarks = PersonMarks()
    """What proves a person."""

    @model_validator(mode="before")
    @classmethod
    def _under_its_preset(cls, given: Any) -> Any:
        """Put the preset under what is given, group by group."""
        name = given.get("preset") if isinstance(given, Mapping) else None
        if name not in set(Preset):
            return given  # none, or one that the field itself refuses
        merged: dict[str, Any] = dict(PRESETS[Preset(name)].settings)
        for key, value in given.items():
            below = merged.get(key)
            if key in _GROUPS and isinstance(below, Mapping) and isinstance(value, Mapping):
                merged[key] = {**below, **value}
            else:
                merged[key] = value
        return merged

    @model_validator(mode="after")
    def _one_key_source(self) -> Self:
        if self.jwks_file is not None and self.jwks_uri is not None:
            msg = "give at most one of jwks_file and jwks_uri"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _one_binding_at_most_is_required(self) -> Self:
        if "required" in (self.dpop, self.mtls) and "off" not in (self.dpop, self.mtls):
            msg = "where one of dpop and mtls is required, the other one must be off"
            raise ValueError(msg)
        if self.dpop_nonce and self.dpop == "off":
            msg = 'dpop_nonce is of proofs: it needs dpop "allowed" or "required"'
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _types_are_told_apart(self) -> Self:
        if "" in self.token_types and not self.required:
            msg = "an empty token type admits every token without typ: say in `required` what marks an access token"
            raise ValueError(msg)
        return self

    def files(self) -> dict[str, Path | None]:
        """Return the files that it names, by setting."""
        asked = self.introspection
        return {
            "jwks_file": self.jwks_file,
            "introspection.secret_file": asked.secret_file,
            "introspection.certificate_file": asked.certificate_file,
        }


def check_together(issuers: Sequence[Issuer], scopes: Sequence[str] = ()) -> None:
    """Check what only all issuers together, and the scopes that clients begin with, can be wrong in.

    Raises:
        ValueError: one of them is configured twice, opaque tokens would be shown to more than one, or a scope has the
            prefix already that clients are told to put before it.
    """
    names = [issuer.issuer for issuer in issuers]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        msg = f"issuers must be unique: {', '.join(twice)} occurs twice"
        raise ValueError(msg)
    if sum(bool(issuer.introspection.uri) for issuer in issuers) > 1:
        msg = "at most one issuer may have an introspection endpoint: an opaque token does not say whose it is"
        raise ValueError(msg)
    prefixes = tuple({issuer.scope_prefix for issuer in issuers} - {""})
    if doubled := [scope for scope in scopes if scope.startswith(prefixes)]:
        msg = f"scopes are written as in tokens, without the scope_prefix of an issuer: {', '.join(doubled)}"
        raise ValueError(msg)
