"""Questions about a policy folder as the command line puts them: one call, one identity's rights, who reaches a place.

Settings count where there are some, and only then their models and the clients of services are loaded.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.authoring import deciding, permissions
from sidecar.authoring.deciding import DecisionReport
from sidecar.authoring.engine import engine
from sidecar.authoring.question import QuestionRefused, read_identity, read_object
from sidecar.authoring.reaching import AskedPlace, who
from sidecar.authoring.switched_off import Servers, nobody_asked
from sidecar.commands import GenericTools
from sidecar.configured import configured, opa_binary, required
from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.identity import IdentityRules
from sidecar.mcp import revision
from sidecar.model import JsonObject, JsonValue, RequestContext
from sidecar.token_reading import identity_rules

if TYPE_CHECKING:
    from sidecar.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """The circumstances of a question, besides claims and call."""

    time_ns: int
    client_ip: str = "127.0.0.1"
    environment: str | None = None
    """None takes the configured one."""


async def decide(
    text: bytes, folder: Path | None, about: Circumstances, opa: str | None, *, explained: bool
) -> DecisionReport:
    """Put one question to a policy folder; without one, to the folder or the OPA that is configured.

    Raises:
        ConfigurationError: nothing is configured, OPA does not answer, or --explain without a folder.
    """
    config = required() if folder is None else configured()
    rules = _identity_rules(config, _claims(text))
    context = _context(about, config)
    if folder is None and config is not None and config.opa.url:
        if explained:
            raise ConfigurationError(
                "--explain needs the policies' source, but opa.url is configured: add --policies FOLDER"
            )
        return _confirmed(await _ask_service(config, text, rules, context), config)
    where = folder if folder is not None or config is None else config.policies
    if where is None:
        raise ConfigurationError("no policy folder is configured: name one with --policies")
    async with engine(opa_binary(opa), where) as held:
        servers = None if config is None else _servers(config)
        decided = await deciding.decide_with_folder(
            held, text, rules, context, servers, explained=explained, named=_generic(config)
        )
        return decided if config is None else _confirmed(decided, config)


async def show_permissions(
    folder: Path, claims: bytes, about: Circumstances, opa: str | None, *, every_row: bool = False
) -> JsonObject:
    """Return the effective permissions of the identity that the claims describe.

    Raises:
        ConfigurationError: the claims are refused, it is no policy folder, or OPA cannot evaluate it.
    """
    config = configured()
    try:
        document = read_object(claims)
        # A whole question is taken too, so that one file serves `decide` and `policy show`.
        claimed = document["claims"] if isinstance(document.get("claims"), dict) else document
        identity, _ = read_identity(claimed, _identity_rules(config, claimed))
    except QuestionRefused as refused:
        raise ConfigurationError(f"{refused.code}: {refused.message}") from None
    async with engine(opa_binary(opa), folder) as held:
        try:
            servers = _servers(config) if config else {}
            shown = await permissions.show(held, identity, _context(about, config), servers, every_row=every_row)
            return _with_approvals(shown, "permissions", config)
        except DecisionUnavailable as error:
            raise ConfigurationError(f"policy show cannot evaluate this policy: {error.detail}") from error


async def show_who(folder: Path, place: str, opa: str | None) -> JsonObject:
    """Return who could reach a database, or a collection (``DATABASE.COLLECTION``), under a policy folder.

    Raises:
        ConfigurationError: it names no place, it is no policy folder, or OPA cannot evaluate it.
    """
    asked = AskedPlace.read(place)
    config = configured()
    servers, issuers = (_servers(config), [one.issuer for one in config.issuers]) if config else ({}, [])
    async with engine(opa_binary(opa), folder) as held:
        try:
            return _with_approvals(await who(held, asked, servers, issuers), "reach", config)
        except DecisionUnavailable as error:
            raise ConfigurationError(f"policy who cannot evaluate this policy: {error.detail}") from error


async def _ask_service(
    config: "Settings", text: bytes, rules: IdentityRules | None, context: RequestContext
) -> DecisionReport:
    from sidecar.opa import OpaClient  # noqa: PLC0415 - an HTTP client that a policy folder does not need

    client = OpaClient(
        config.opa.url,
        timeout_s=config.opa.timeout_ms / 1000,
        ca_file=config.opa.ca_file,
        token_file=config.opa.token_file,
    )
    servers = _servers(config)
    async with client:
        try:
            return await deciding.decide_with_service(client, text, rules, context, servers, _generic(config))
        except DecisionUnavailable as error:
            raise ConfigurationError(
                f"opa.url: the OPA at {config.opa.url} gives no valid decision: {error.detail}"
            ) from error


def _servers(config: "Settings") -> Servers:
    return {server.name: server.tool_groups for server in config.servers}


def _with_approvals(document: JsonObject, rows: str, config: "Settings | None") -> JsonObject:
    """Say in each row whether the settings keep the calls that it lets wait; without settings that is not known."""
    found: Any = document[rows]
    if config is None:
        return document
    kept = bool(config.approvals.store)
    told: list[JsonValue] = [{**row, "off": [*row["off"], *nobody_asked(row, kept=kept)]} for row in found]
    return {**document, rows: told}


def _generic(config: "Settings | None") -> Mapping[str, GenericTools]:
    """Return the tools outside of the catalog, by server; none where there are no settings."""
    return {} if config is None else {server.name: server.generic_by_name() for server in config.servers}


def _confirmed(decided: DecisionReport, config: "Settings") -> DecisionReport:
    """Say of a call that its server asks a confirmation for."""
    document: dict[str, Any] = decided.document
    if not decided.allow:
        return decided
    tool, chosen = document["question"]["action"]["tool"], document["decision"]["server"]
    stages = document["question"]["command"]["stages"]
    asking = [one for one in config.servers if one.name == chosen and one.asks_for(tool, stages)]
    if not asking:
        return decided
    unasked = "refused" if asking[0].require_confirmation else "carried out unasked"
    note = f"server {chosen} asks for a confirmation of {tool}; where the client cannot be asked, the call is {unasked}"
    return replace(decided, document={**document, "notes": [*document.get("notes", ()), note]})


def _claims(text: bytes) -> JsonObject:
    try:
        claims = read_object(text).get("claims")
    except QuestionRefused:
        return {}  # the error is raised, with its reason, when the question is read
    return claims if isinstance(claims, dict) else {}


def _identity_rules(config: "Settings | None", claims: object) -> IdentityRules | None:
    """Return how the tokens are read of the issuer that the claims name; of the only one where they name none."""
    if config is None:
        return None
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    known = {entry.issuer: entry for entry in config.issuers}
    chosen = next(iter(known)) if issuer is None and len(known) == 1 else issuer
    if not isinstance(chosen, str) or chosen not in known:
        raise ConfigurationError(f"claims: iss must be one of the configured issuers: {', '.join(known)}")
    return identity_rules(known[chosen], config)


def _context(about: Circumstances, config: "Settings | None") -> RequestContext:
    usual = config.environment if config is not None else "production"
    return RequestContext(
        time_ns=about.time_ns,
        client_ip=about.client_ip,
        protocol=revision.LATEST.value,
        environment=usual if about.environment is None else about.environment,
    )
