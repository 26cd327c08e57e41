"""The authoring kit as the command line calls it: settings, one policy folder, one answer."""

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from sidecar import settings
from sidecar.audit import AuditReader, StoredChain
from sidecar.authoring import deciding, permissions, replaying
from sidecar.authoring.checking import (
    CheckReport,
    ChosenTests,
    TeamTestReport,
    check,
    check_archives,
    read_reads,
    reads_document,
    run_tests,
)
from sidecar.authoring.deciding import DecisionReport
from sidecar.authoring.engine import engine, shipped
from sidecar.authoring.explain import vocabulary
from sidecar.authoring.founding import found
from sidecar.authoring.platform_entry import FILE, LISTING, Ownership, planned, printed
from sidecar.authoring.question import QuestionRefused, read_identity, read_object
from sidecar.authoring.reaching import AskedPlace, who
from sidecar.authoring.replaying import ReplayReport
from sidecar.authoring.scaffold import scaffold
from sidecar.authoring.switched_off import Servers, nobody_asked
from sidecar.authoring.watching import Changed, afterwards, at_once, watch
from sidecar.commands import GenericTools
from sidecar.errors import ConfigurationError, DecisionUnavailable, ObligationNotSupported
from sidecar.evidence_source import asked
from sidecar.identity import IdentityRules
from sidecar.issuers import identity_rules
from sidecar.mcp import revision
from sidecar.model import JsonObject, JsonValue, RequestContext
from sidecar.opa import ManagedOpa, OpaClient
from sidecar.opa_settings import Opa
from sidecar.policyset import MANIFEST, PLATFORM, PolicySet, Rule, Violation, archives_in, read_archives, workshop
from sidecar.settings import Settings

REPLAY_TIMEOUT_S: Final = 5.0
"""For one question of a replay. It is about the decision, not about the speed of this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """The circumstances of a question, besides claims and call."""

    time_ns: int
    client_ip: str = "127.0.0.1"
    environment: str | None = None
    """None takes the configured one."""


async def check_paths(paths: Sequence[Path], opa: str | None, issuers: Sequence[str] = ()) -> CheckReport:
    """Check a policy folder, or archives of bundles.

    Args:
        paths: one policy folder; or archives, and folders of them as ``policy bundle`` writes.
        opa: the OPA executable; None takes the configured one.
        issuers: those that are trusted; none takes the configured ones.

    Raises:
        ConfigurationError: it is neither, or OPA cannot be run.
    """
    binary = settings.opa_binary(opa)
    issuers, scopes = _believed(issuers)
    if len(paths) == 1 and await asyncio.to_thread(_is_policy_folder, paths[0]):
        return await check(await asyncio.to_thread(PolicySet.read, paths[0]), binary, issuers, scopes)
    return await check_archives(await asyncio.to_thread(read_archives, paths, shipped()), binary, issuers, scopes)


def _believed(issuers: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Return the issuers and scopes to hold the platform's data to: the issuers that are named, else the settings'."""
    if issuers or not settings.given():
        return issuers, ()
    config = settings.load()
    return [entry.issuer for entry in config.issuers], config.scopes


def _is_policy_folder(path: Path) -> bool:
    """Whether a path is a policy folder, or is at least none of archives."""
    return path.is_dir() and ((path / PLATFORM / MANIFEST).is_file() or not archives_in(path))


async def run_folder(folder: Path, opa: str | None) -> TeamTestReport:
    """Run the tests of a policy folder.

    Raises:
        ConfigurationError: it is no policy folder, its tests do not compile, or OPA cannot be run.
    """
    async with engine(settings.opa_binary(opa), folder) as held:
        return await run_tests(held)


async def watch_checks(
    folder: Path, opa: str | None, issuers: Sequence[str], tell: Callable[[CheckReport], None]
) -> None:
    """Check a policy folder now and after every change, until cancelled. What did not change is not parsed again.

    Raises:
        ConfigurationError: OPA cannot be run.
    """
    async with workshop(settings.opa_binary(opa), *_believed(issuers)) as checker:

        async def act(_: frozenset[str] | None) -> None:
            try:
                policies = await asyncio.to_thread(PolicySet.read, folder)
                tell(CheckReport(findings=tuple(await checker.examine(policies))))
            except ConfigurationError as error:
                tell(CheckReport(findings=(_unusable(error),)))

        await watch(folder, act)


async def watch_tests(folder: Path, opa: str | None, tell: Callable[[TeamTestReport], None]) -> None:
    """Run the tests of a policy folder now, and after every change those of what changed, until cancelled.

    Then those that could go otherwise because of it; the next change interrupts them.
    """

    async def run(choose: Callable[[PolicySet], ChosenTests | None], of: str) -> None:
        try:
            async with engine(settings.opa_binary(opa), folder) as held:
                if chosen := choose(held.policies):
                    tell(replace(await run_tests(held, chosen), of=of))
        except ConfigurationError as error:
            tell(TeamTestReport(passed=0, cases=0, failures=(_unusable(error),), coverage={}, of=of))

    async def act(changed: Changed) -> None:
        await run(lambda policies: at_once(policies, changed), "" if changed is None else "what changed")

    async def later(owed: Changed, done: Changed) -> None:
        await run(lambda policies: afterwards(policies, owed, done), "what depends on it")

    await watch(folder, act, later)


def _unusable(error: ConfigurationError) -> Violation:
    return Violation(file=".", line=1, rule=Rule.COMPILE, message=str(error))


async def init_folder(folder: Path, wanted: Ownership, opa: str | None) -> tuple[list[Path], str]:
    """Make a policy folder from nothing; return its files, and how the team comes to list databases.

    Raises:
        ConfigurationError: the folder holds something, it cannot be written, or OPA cannot be run.
    """
    return await found(folder, wanted, settings.opa_binary(opa))


async def new_team(folder: Path, wanted: Ownership, *, write: bool) -> tuple[list[Path], str]:
    """Write a team's folder; return its files, and what is left for the platform team to do, in words.

    Args:
        folder: the policy folder.
        wanted: the team and what it is to own.
        write: put the platform's entries into its data.

    Raises:
        ConfigurationError: the team or its databases are there already, or it is no policy folder.
    """
    plan = await asyncio.to_thread(planned, folder, wanted) if write else None
    files = await asyncio.to_thread(scaffold, wanted, folder)
    if plan is None:
        return files, f"The platform team adds this to {FILE} (or: --write):\n{printed(wanted)}"
    await asyncio.to_thread(plan.write)
    return [*files, plan.path], f"{LISTING}\n{plan.listing}"


async def show_reads(folder: Path, opa: str | None) -> JsonObject:
    """Return which parts of a question the rules of a policy folder read, by package.

    Raises:
        ConfigurationError: it is no policy folder, it would be refused, or OPA cannot be run.
    """
    policies = await asyncio.to_thread(PolicySet.read, folder)
    return reads_document(await read_reads(policies, settings.opa_binary(opa)))


async def show_who(folder: Path, place: str, opa: str | None) -> JsonObject:
    """Return who could reach a database, or a collection (``DATABASE.COLLECTION``), under a policy folder.

    Raises:
        ConfigurationError: it names no place, it is no policy folder, or OPA cannot evaluate it.
    """
    asked = AskedPlace.read(place)
    config = settings.load() if settings.given() else None
    servers, issuers = (_servers(config), [one.issuer for one in config.issuers]) if config else ({}, [])
    async with engine(settings.opa_binary(opa), folder) as held:
        try:
            return _with_approvals(await who(held, asked, servers, issuers), "reach", config)
        except DecisionUnavailable as error:
            raise ConfigurationError(f"policy who cannot evaluate this policy: {error.detail}") from error


async def show_permissions(
    folder: Path, claims: bytes, about: Circumstances, opa: str | None, *, every_row: bool = False
) -> JsonObject:
    """Return the effective permissions of the identity that the claims describe.

    Raises:
        ConfigurationError: the claims are refused, it is no policy folder, or OPA cannot evaluate it.
    """
    config = settings.load() if settings.given() else None
    try:
        document = read_object(claims)
        # A whole question is taken too, so that one file serves `decide` and `policy show`.
        claimed = document["claims"] if isinstance(document.get("claims"), dict) else document
        identity, _ = read_identity(claimed, _identity_rules(config, claimed))
    except QuestionRefused as refused:
        raise ConfigurationError(f"{refused.code}: {refused.message}") from None
    async with engine(settings.opa_binary(opa), folder) as held:
        try:
            servers = _servers(config) if config else {}
            shown = await permissions.show(held, identity, _context(about, config), servers, every_row=every_row)
            return _with_approvals(shown, "permissions", config)
        except DecisionUnavailable as error:
            raise ConfigurationError(f"policy show cannot evaluate this policy: {error.detail}") from error


async def decide(
    text: bytes, folder: Path | None, about: Circumstances, opa: str | None, *, explained: bool
) -> DecisionReport:
    """Put one question to a policy folder; without one, to the folder or the OPA that is configured.

    Raises:
        ConfigurationError: nothing is configured, OPA does not answer, or --explain without a folder.
    """
    config = settings.load() if settings.given() or folder is None else None
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
    async with engine(settings.opa_binary(opa), where) as held:
        servers = None if config is None else _servers(config)
        decided = await deciding.decide_with_folder(
            held, text, rules, context, servers, explained=explained, named=_generic(config)
        )
        return decided if config is None else _confirmed(decided, config)


async def replay_evidence(
    records: BinaryIO | None, folder: Path, opa: str | None, *, limit: int, instance: str = ""
) -> ReplayReport:
    """Decide the recorded questions of an audit file, else of the configured store, again with a policy folder.

    An allow may go to the configured servers; without settings, to those of the platform's data.

    Args:
        records: the audit file; None takes the evidence of the settings.
        folder: the policy folder.
        opa: the OPA executable; None takes the configured one.
        limit: how many distinct differences are listed.
        instance: the chain that is meant, where the store has several.

    Raises:
        ConfigurationError: the folder would not be served, the file cannot be read, or OPA cannot be run.
    """
    if records is not None:
        return await _replay(records, folder, opa, limit)

    async def one_chain(reader: AuditReader) -> ReplayReport:
        chains = await reader.chains()
        if len(chains) > 1:
            names = ", ".join(each.name for each in chains)
            raise ConfigurationError(f"there are several chains; say which one with --instance: {names}")
        return await _replay(chains[0], folder, opa, limit)

    return await asked(None, one_chain, instance=instance)


async def _replay(records: BinaryIO | StoredChain, folder: Path, opa: str | None, limit: int) -> ReplayReport:
    config = settings.load() if settings.given() else None
    binary = settings.opa_binary(opa)
    memory = (config.opa if config is not None else Opa()).memory_mb * 2**20
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-replay-") as directory:
        managed = ManagedOpa(
            binary, folder, directory=Path(directory), timeout_s=REPLAY_TIMEOUT_S, memory_limit_bytes=memory
        )
        # The set is vetted before anything of it is evaluated.
        async with managed, engine(binary, folder) as held:
            known = await held.value("object.keys(data.mcp.platform.servers)", {})
            servers = [str(name) for name in known] if isinstance(known, list) else []
            return await replaying.replay(
                records,
                managed,
                servers=servers if config is None else [server.name for server in config.servers],
                titles=_titles(vocabulary(held)),
                limit=limit,
            )


def _titles(reasons: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return what reason codes mean, in words: the set's own, and that of the enforcement point."""
    own = {ObligationNotSupported.label: ObligationNotSupported.public}
    return own | {code: str(entry.get("title", "")) for code, entry in reasons.items()}


async def _ask_service(
    config: Settings, text: bytes, rules: IdentityRules | None, context: RequestContext
) -> DecisionReport:
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


def _servers(config: Settings) -> Servers:
    return {server.name: server.tool_groups for server in config.servers}


def _with_approvals(document: JsonObject, rows: str, config: Settings | None) -> JsonObject:
    """Say in each row whether the settings keep the calls that it lets wait; without settings that is not known."""
    found: Any = document[rows]
    if config is None:
        return document
    kept = bool(config.approvals.store)
    told: list[JsonValue] = [{**row, "off": [*row["off"], *nobody_asked(row, kept=kept)]} for row in found]
    return {**document, rows: told}


def _generic(config: Settings | None) -> Mapping[str, GenericTools]:
    """Return the tools outside of the catalog, by server; none where there are no settings."""
    return {} if config is None else {server.name: server.generic_by_name() for server in config.servers}


def _confirmed(decided: DecisionReport, config: Settings) -> DecisionReport:
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


def _identity_rules(config: Settings | None, claims: object) -> IdentityRules | None:
    """Return how the tokens are read of the issuer that the claims name; of the only one where they name none."""
    if config is None:
        return None
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    known = {entry.issuer: entry for entry in config.issuers}
    chosen = next(iter(known)) if issuer is None and len(known) == 1 else issuer
    if not isinstance(chosen, str) or chosen not in known:
        raise ConfigurationError(f"claims: iss must be one of the configured issuers: {', '.join(known)}")
    return identity_rules(known[chosen], config)


def _context(about: Circumstances, config: Settings | None) -> RequestContext:
    configured = config.environment if config is not None else "production"
    return RequestContext(
        time_ns=about.time_ns,
        client_ip=about.client_ip,
        protocol=revision.LATEST.value,
        environment=configured if about.environment is None else about.environment,
    )
