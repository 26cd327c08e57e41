"""The authoring kit as the command line calls it: settings, one policy folder, one answer."""

from dataclasses import dataclass
from pathlib import Path

from sidecar import settings
from sidecar.authoring import deciding, permissions
from sidecar.authoring.asked import Refused, read_identity, read_object
from sidecar.authoring.checking import Checked, Tested, check, run_tests
from sidecar.authoring.deciding import Decided
from sidecar.authoring.engine import engine
from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.identity.claims import ClaimMap
from sidecar.model import JsonObject, RequestContext
from sidecar.opa.client import OpaClient
from sidecar.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What is true of a question besides claims and call."""

    time_ns: int
    client_ip: str = "127.0.0.1"
    environment: str | None = None
    """None takes the configured one."""


async def check_folder(folder: Path, opa: str | None) -> Checked:
    """Check a policy folder.

    Raises:
        ConfigurationError: it is no policy folder, or OPA cannot be run.
    """
    binary = settings.opa_binary(opa)
    async with engine(binary, folder) as held:
        return await check(held, binary)


async def test_folder(folder: Path, opa: str | None) -> Tested:
    """Run the tests of a policy folder.

    Raises:
        ConfigurationError: it is no policy folder, its tests do not compile, or OPA cannot be run.
    """
    async with engine(settings.opa_binary(opa), folder) as held:
        return await run_tests(held)


async def show_permissions(folder: Path, claims: bytes, about: Circumstances, opa: str | None) -> JsonObject:
    """Return the effective permissions of the identity that claims speak of.

    Raises:
        ConfigurationError: the claims are refused, it is no policy folder, or OPA cannot evaluate it.
    """
    config = settings.load() if settings.given() else None
    try:
        document = read_object(claims)
        # A whole question is taken too, so that one file serves `decide` and `policy show`.
        said = document["claims"] if isinstance(document.get("claims"), dict) else document
        identity, _ = read_identity(said, _claim_map(config, said))
    except Refused as refused:
        raise ConfigurationError(f"{refused.code}: {refused.message}") from None
    async with engine(settings.opa_binary(opa), folder) as held:
        try:
            return await permissions.show(held, identity, _context(about, config))
        except DecisionUnavailable as error:
            raise ConfigurationError(f"this policy cannot be shown: {error.detail}") from error


async def decide(
    text: bytes, folder: Path | None, about: Circumstances, opa: str | None, *, explained: bool
) -> Decided:
    """Put one question to a policy folder; without one, to the folder or the OPA that is configured.

    Raises:
        ConfigurationError: nothing is configured, OPA does not answer, or --explain without a folder.
    """
    config = settings.load() if settings.given() or folder is None else None
    claim_map = _claim_map(config, _claims(text))
    context = _context(about, config)
    if folder is None and config is not None and config.opa.url:
        if explained:
            raise ConfigurationError("--explain reads the policies' source: name their folder with --policies")
        return await _ask_service(config, text, claim_map, context)
    where = folder if folder is not None or config is None else config.policies
    if where is None:
        raise ConfigurationError("name a policy folder with --policies")
    async with engine(settings.opa_binary(opa), where) as held:
        return await deciding.decide_with_folder(held, text, claim_map, context, explained=explained)


async def _ask_service(config: Settings, text: bytes, claim_map: ClaimMap | None, context: RequestContext) -> Decided:
    client = OpaClient(
        config.opa.url,
        timeout_s=config.opa.timeout_ms / 1000,
        ca_file=config.opa.ca_file,
        token_file=config.opa.token_file,
    )
    servers = [server.name for server in config.servers]
    async with client:
        try:
            return await deciding.decide_with_service(client, text, claim_map, context, servers)
        except DecisionUnavailable as error:
            raise ConfigurationError(f"the OPA at {config.opa.url} gives no decision: {error.detail}") from error


def _claims(text: bytes) -> JsonObject:
    try:
        claims = read_object(text).get("claims")
    except Refused:
        return {}  # said again, with its reason, when the question is read
    return claims if isinstance(claims, dict) else {}


def _claim_map(config: Settings | None, claims: object) -> ClaimMap | None:
    """Return the claim map of the issuer that the claims name; of the only one where they name none."""
    if config is None:
        return None
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    known = {entry.issuer: entry.claims for entry in config.issuers}
    chosen = next(iter(known)) if issuer is None and len(known) == 1 else issuer
    if not isinstance(chosen, str) or chosen not in known:
        raise ConfigurationError(f"iss must be one of the configured issuers: {', '.join(known)}")
    return ClaimMap(**known[chosen].model_dump())


def _context(about: Circumstances, config: Settings | None) -> RequestContext:
    configured = config.environment if config is not None else "production"
    return RequestContext(
        time_ns=about.time_ns,
        client_ip=about.client_ip,
        protocol="2025-11-25",
        environment=configured if about.environment is None else about.environment,
    )
