"""The composition root: settings become an object graph, the graph runs, and comes down again in reverse order.

The only module that knows every room.
"""

import asyncio
import gc
import logging
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from sidecar import __version__, issuers, keeping, listening, servers_behind, set_up, settings
from sidecar.commands import CATALOG
from sidecar.control import listener
from sidecar.edge import Connections, http, server, tls
from sidecar.enforcement import Bounds, EnforcementPoint, EnforcementRules, KillSwitch, Ports, SharedSessions
from sidecar.errors import ConfigurationError
from sidecar.lifecycle import allow_descriptors, cancelled, interrupted
from sidecar.listener_settings import read_address
from sidecar.mcp import Sessions, methods
from sidecar.oauth import Nonces
from sidecar.opa import AT_ONCE, AT_ONCE_HERE, ExternalOpa, LineLimits, ManagedOpa, OpaClient
from sidecar.ports import Clock, TokenVerifier, ViewCatalog
from sidecar.readiness import Decider, ManagedUpstream, Readiness, Surroundings, WatchedEvidence
from sidecar.set_up import naming
from sidecar.settings import Settings
from sidecar.store import KeptPolicySets, policy_sets_of
from sidecar.system import RandomIdentifiers, SystemClock, follow_connection
from sidecar.telemetry import LoggedRefusals, OtelMetrics, OtelTracer, build_tracer_provider, logs
from sidecar.upstream import Databases
from sidecar.views import MongoViews

_LOG = logging.getLogger("sidecar.app")

FLUSH_S: Final = 2.0
"""How long telemetry may take to leave at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """A sidecar that serves."""

    url: str
    """Where it listens, as a client on this machine dials it."""
    admin_url: str


async def serve(config: Settings) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        ConfigurationError: something does not come up.
    """
    logs.configure(config.log_level, json=not sys.stderr.isatty())
    allow_descriptors()
    async with sidecar(config) as running:
        # What is there now stays until the end; the collector need not look at it again with every generation.
        gc.collect()
        gc.freeze()
        _LOG.info("serving MCP", extra={"url": running.url, "admin": running.admin_url})
        await interrupted()


class Core(NamedTuple):
    """A sidecar without a way to reach it."""

    pep: EnforcementPoint
    readiness: Readiness
    metrics: OtelMetrics
    connections: Connections
    limits: server.ServerLimits
    nonces: Nonces | None
    own_tls: tls.ListenerTls | None


@asynccontextmanager
async def sidecar(config: Settings) -> AsyncIterator[Endpoints]:
    """Bring everything up in the order in which it depends on each other, and down in reverse.

    Raises:
        ConfigurationError: a part does not come up.
    """
    clock = SystemClock()
    set_up.require(config, clock)
    async with AsyncExitStack() as stack:
        core = await _core(config, clock, stack)
        with naming("listen"):
            application = http.build_application(core.pep, listening.edge_config(config, core.nonces))
            address = read_address(config.listen)
            url = await listening.listen(application, address, stack, core.limits, core.connections, core.own_tls)
        admin_url = await listening.administer(config, core.readiness, core.metrics, stack)
        yield Endpoints(url=url + config.resource.path, admin_url=admin_url)


@asynccontextmanager
async def launched(config: Settings, verifier: TokenVerifier | None) -> AsyncIterator[EnforcementPoint]:
    """Bring up what decides for the one client that launched this process; nothing listens.

    Args:
        config: the settings.
        verifier: who calls, where no token says so.

    Raises:
        ConfigurationError: a part does not come up.
    """
    clock = SystemClock()
    set_up.require(config, clock, listening=False)
    async with AsyncExitStack() as stack:
        yield (await _core(config, clock, stack, launched=True, verifier=verifier)).pep


async def _core(
    config: Settings,
    clock: Clock,
    stack: AsyncExitStack,
    *,
    launched: bool = False,
    verifier: TokenVerifier | None = None,
) -> Core:
    databases = set_up.databases(config)
    stack.push_async_callback(databases.close)
    metrics, tracer = _telemetry(config, stack)
    with naming("mongodb"):
        shared = keeping.shared_store(config, stack)
    with naming("audit.store"):
        audit = await keeping.audit_store(config, clock, shared, stack)
    own_tls = listening.own_tls(config, stack)
    views = _views(config, clock, stack)
    with naming("issuers"):
        proofs = keeping.proof_memory(config, clock, shared)
        trusted = await issuers.known(config, clock, stack, proofs=proofs, agent=config.stdio.agent if launched else "")
        await trusted.look_first()
        keeping.followed(trusted.nonce_key, stack)
    decisions = await _decisions(config, stack)
    set_up.require_routes(config, decisions.policy_state.routed)
    candidate = await _candidate(config, stack)
    upstreams = await connect_servers(config, stack)
    with naming("suspensions"):
        kept = await keeping.kept_suspensions(config, clock, shared, stack)
    with naming("session_keys_file"):
        sessions = keeping.shared_sessions(config, clock, shared, stack)
    with naming("approvals.store"):
        approvals = await keeping.kept_approvals(config, clock, shared, stack, launched=launched)
    ports = Ports(
        verifier=verifier or trusted.verifier,
        decisions=decisions,
        audit=audit,
        upstreams=upstreams,
        clock=clock,
        identifiers=RandomIdentifiers(),
        tracer=tracer,
        metrics=metrics,
        candidate=candidate,
        approvals=approvals,
        views=views,
        suspensions=None if kept is None else kept.table,
        shared_sessions=sessions,
        used_states=keeping.used_states(config, clock, shared),
        usage=keeping.usage_counters(config, shared),
        log=LoggedRefusals(),
    )
    pep = EnforcementPoint(ports, _rules(config, launched=launched), _sessions(config, sessions))
    await _control(config, kept, ports, pep, decisions, stack)
    servers_behind.tell_of_changes(pep, decisions, upstreams)
    limits = listening.limits_of(config)
    connections = Connections(limits.connections, clock.monotonic, metrics.connection_ended)
    around = _around(config, clock, audit, trusted, databases, own_tls)
    around = replace(around, concerns=[*around.concerns, *keeping.concerns(approvals)])
    readiness = Readiness(decisions, upstreams, metrics, pep, candidate, connections, ports.suspensions, around)
    stack.push_async_callback(cancelled, asyncio.create_task(readiness.watch(), name="readiness"))
    return Core(pep, readiness, metrics, connections, limits, trusted.nonces, own_tls)


async def _control(
    config: Settings,
    kept: keeping.KeptSuspensions | None,
    ports: Ports,
    pep: EnforcementPoint,
    decisions: Decider,
    stack: AsyncExitStack,
) -> None:
    """Keep in force what is kept, and take commands of operators where these are asked for."""
    if kept is None:
        return
    keeping.follow(kept, pep, stack, forget=decisions.forget)
    if not config.control_listen:
        return
    switch = KillSwitch(
        pep,
        kept.table,
        kept.store,
        ports.audit,
        ports.clock,
        ports.identifiers,
        issuers=_issuers(config),
        forget=decisions.forget,
        shared=kept.shared,
    )
    given = config.control_tls
    with naming("control_listen"):
        address = read_address(config.control_listen)
        if isinstance(address, Path):
            runner = await listener.serve_unix(switch, address)
        elif given.certificate is not None and given.key is not None and given.client_ca is not None:
            own = listener.ControlContext(given.certificate, given.key, given.client_ca)
            keeping.followed(own, stack)
            runner = await listener.serve_tls(switch, *address, own.context, given.operators)
        else:
            raise ConfigurationError("on TCP it needs certificate, key and client_ca of control_tls")
        stack.push_async_callback(runner.cleanup)


def _telemetry(config: Settings, stack: AsyncExitStack) -> tuple[OtelMetrics, OtelTracer]:
    exporter = settings.exporter("METRICS")
    metrics = OtelMetrics(
        methods=methods.KNOWN,
        tools={*CATALOG, *(key for server in config.servers for key in server.generic_by_name())},
        servers=[server.name for server in config.servers],
        endpoint_configured=bool(exporter.endpoint),
        protocol=exporter.protocol,
        version=__version__,
    )
    stack.callback(metrics.shutdown, FLUSH_S)
    exporter = settings.exporter("TRACES")
    provider = build_tracer_provider(
        endpoint_configured=bool(exporter.endpoint), protocol=exporter.protocol, version=__version__
    )
    tracer = OtelTracer(provider, version=__version__)
    stack.callback(tracer.shutdown, FLUSH_S)
    return metrics, tracer


def _around(
    config: Settings,
    clock: Clock,
    audit: WatchedEvidence,
    trusted: issuers.Issuers,
    databases: Databases,
    own_tls: tls.ListenerTls | None,
) -> Surroundings:
    return Surroundings(
        audit=audit,
        clock=clock,
        keys=trusted.keys,
        look_at_keys=trusted.look,
        databases=databases,
        routes=lambda routed: set_up.differing_routes(config, routed),
        tls_error=lambda: "" if own_tls is None else own_tls.error,
        concerns=set_up.concerns(config),
    )


def _rules(config: Settings, *, launched: bool) -> EnforcementRules:
    return EnforcementRules(
        environment=config.environment,
        tool_groups={entry.name: frozenset(entry.tool_groups) for entry in config.servers},
        generic_tools={entry.name: entry.generic_by_name() for entry in config.servers},
        server_questions={entry.name: frozenset(entry.server_questions) for entry in config.servers},
        server_version=__version__,
        own_database=config.mongodb.database if config.mongodb.given else "",
        audit_at_once=config.audit.sync == "os" and config.audit.path is not None,  # the file waits for no disk then
        audit_arguments=config.audit.arguments == "full",
        audit_question=config.audit.question,
        comments=config.audit.comments,
        calls_per_identity=config.sessions.calls_per_identity,
        streams_per_identity=config.sessions.streams_per_identity,
        bounds=Bounds(
            nesting=config.max_nesting,
            batch_members=config.sessions.batch_members,
            watches_per_subscriber=config.sessions.watches_per_subscriber,
            watches=config.sessions.watches,
            listeners_per_identity=config.sessions.listeners_per_identity,
        ),
        challenges=config.step_up == "http" and not launched,  # a challenge needs a transport that has one
        approval_s=config.approvals.lifetime_s,
        stall_s=config.sessions.stall_ms / 1000,
    )


def _sessions(config: Settings, shared: SharedSessions | None) -> Sessions:
    limits = config.sessions
    ended = None if shared is None else shared.end
    return Sessions(limits.total, limits.per_identity, limits.idle_s, ended=ended)


async def _decisions(config: Settings, stack: AsyncExitStack) -> Decider:
    """Start the managed OPA, or connect to the configured one; what either runs must be fit to be believed."""
    with naming("opa"):
        if not config.opa.url:
            managed = _managed_opa(config, config.policies, stack)
            kept = KeptPolicySets(policy_sets_of(config.audit.path or config.audit.spool))
            managed.before_serving(kept.keep)
            stack.push_async_callback(managed.stop)
            line = _line(config)
            await managed.start(standby=config.opa.standby, line=line, issuers=_issuers(config), scopes=config.scopes)
            return managed
        opa, timeout_s = config.opa, config.opa.timeout_ms / 1000
        client = OpaClient(
            opa.url,
            timeout_s=timeout_s,
            ca_file=opa.ca_file,
            token_file=opa.token_file,
            at_once=opa.at_once or AT_ONCE,
            queue=opa.queue,
            queue_s=opa.queue_ms / 1000,
        )
        return await stack.enter_async_context(ExternalOpa(client, binary=opa.binary, timeout_s=timeout_s))


async def _candidate(config: Settings, stack: AsyncExitStack) -> ManagedOpa | None:
    """Start an OPA of its own for the candidate policies, if there are any; what is refused is not compared."""
    if config.policies_candidate is None:
        return None
    with naming("policies_candidate"):
        opa = _managed_opa(config, config.policies_candidate, stack)
        stack.push_async_callback(opa.stop)
        await opa.start(candidate=True, line=_line(config), issuers=_issuers(config), scopes=config.scopes)
        return opa


def _line(config: Settings) -> LineLimits:
    opa = config.opa
    return LineLimits(at_once=opa.at_once or AT_ONCE_HERE, queue=opa.queue, queue_s=opa.queue_ms / 1000)


def _issuers(config: Settings) -> tuple[str, ...]:
    return tuple(entry.issuer for entry in config.issuers)


def _views(config: Settings, clock: Clock, stack: AsyncExitStack) -> ViewCatalog | None:
    """Know the views of every server that has a connection for it; nothing is dialled before a call needs it."""
    connections = servers_behind.views_connections(config)
    if not connections:
        return None
    with naming("servers"):
        catalog = MongoViews(
            connections, clock, refresh_s=config.views.refresh_s, timeout_s=config.views.timeout_ms / 1000
        )
    stack.push_async_callback(catalog.close)
    if any(entry.views_connection_string_file is not None for entry in config.servers):
        going_over = follow_connection(
            "views_connection_string_file", connections, lambda: servers_behind.views_connections(config), catalog.renew
        )
        stack.push_async_callback(cancelled, asyncio.create_task(going_over, name="views_connection_string_file"))
    return catalog


def _managed_opa(config: Settings, policies: Path, stack: AsyncExitStack) -> ManagedOpa:
    return ManagedOpa(
        config.opa.binary,
        policies,
        directory=Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mcp-sidecar-opa-"))),
        timeout_s=config.opa.timeout_ms / 1000,
        memory_limit_bytes=config.opa.memory_mb * 2**20,
        otlp_endpoint=_plain_endpoint(settings.exporter("TRACES").endpoint),
        memo_s=config.opa.memo_ms / 1000,
        reload_s=config.opa.reload_ms / 1000,
    )


def _plain_endpoint(endpoint: str) -> str | None:
    """Return ``host:port`` for OPA's own spans; none where they would leave without the TLS that ours leave with."""
    parts = urlsplit(endpoint)
    if parts.scheme == "https":
        _LOG.warning("OPA's own spans are not exported: the managed OPA sends them without TLS")
        return None
    return parts.netloc or None


async def connect_servers(config: Settings, stack: AsyncExitStack) -> Mapping[str, ManagedUpstream]:
    """Start every configured MCP server, or connect to it, all at once.

    Raises:
        ConfigurationError: a server does not come up.
    """
    servers: dict[str, ManagedUpstream] = {}
    for entry in config.servers:
        with naming(f"servers ({entry.name})"):
            servers[entry.name] = servers_behind.connect(entry, config.insecure_connections)
        stack.push_async_callback(servers[entry.name].stop)
    try:
        async with asyncio.TaskGroup() as group:
            for name, upstream in servers.items():
                group.create_task(_start(name, upstream))
    except* ConfigurationError as errors:
        raise ConfigurationError("; ".join(str(error) for error in errors.exceptions)) from errors
    return servers


async def _start(name: str, upstream: ManagedUpstream) -> None:
    with naming(f"servers ({name})"):
        await upstream.start()
