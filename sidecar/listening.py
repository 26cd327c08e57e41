"""The listeners: from the settings to sockets that serve, and what bounds the connections to them."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from aiohttp import web

from sidecar import issuers
from sidecar.edge import ConnectionLimits, Connections, admin, http, origins, server, tls
from sidecar.lifecycle import cancelled, connections_allowed
from sidecar.listener_settings import UNIX, Address, read_address, split_address
from sidecar.oauth import PROOF_ALGORITHMS, Nonces
from sidecar.readiness import Readiness
from sidecar.set_up import naming
from sidecar.settings import Settings
from sidecar.system import follow_files
from sidecar.telemetry import OtelMetrics

ADMIN_LIMITS: Final = server.ServerLimits(connections=ConnectionLimits(total=64, per_address=64))
"""The admin listener has places of its own, so that clients cannot keep probes from being answered."""


async def administer(config: Settings, readiness: Readiness, metrics: OtelMetrics, stack: AsyncExitStack) -> str:
    """Serve health and metrics; return the root URL."""
    address = split_address(config.admin_listen)
    with naming("admin_listen"):
        names = admin.AdminNames.of(address[0], config.admin_allowed_hosts)
        application = admin.build_admin_application(readiness.check, metrics.render, readiness.degraded, names)
        return await listen(application, address, stack, ADMIN_LIMITS)


def edge_config(config: Settings, nonces: Nonces | None) -> http.EdgeConfig:
    """Return what the endpoint needs to know.

    Raises:
        ConfigurationError: proxies of it cannot be read.
    """
    address = read_address(config.listen)
    host = "" if isinstance(address, Path) else address[0]
    return http.EdgeConfig(
        resource_uri=config.resource,
        authorization_servers=tuple(entry.issuer for entry in config.issuers),
        scopes=issuers.scopes_to_ask_for(config),
        proof_algorithms=PROOF_ALGORITHMS if any(one.dpop != "off" for one in config.issuers) else (),
        allowed_hosts=origins.default_hosts(config.resource, host) | frozenset(config.allowed_hosts),
        allowed_origins=origins.default_origins(config.resource, host) | frozenset(config.allowed_origins),
        nonce=None if nonces is None else nonces.current,
        proxies=config.proxies.read(),
        certificates=config.proxies.certificates() if any(one.mtls != "off" for one in config.issuers) else None,
        max_request_bytes=config.max_request_bytes,
        large_bytes_of_one=config.sessions.large_bytes_per_identity,
        large_bytes_in_all=config.sessions.large_bytes,
        body_timeout_s=config.connections.body_s,
        write_timeout_s=config.connections.write_s,
    )


def limits_of(config: Settings) -> server.ServerLimits:
    """Return the bounds of the listener.

    Raises:
        ConfigurationError: the process may have too few descriptors.
    """
    limits = config.connections
    with naming("connections.total"):
        total = connections_allowed(limits.total)
    return server.ServerLimits(
        max_header_bytes=config.max_header_bytes,
        idle_s=limits.idle_s,
        connections=ConnectionLimits(
            total=total, per_address=limits.per_address, first_byte_s=limits.first_byte_s, head_s=limits.head_s
        ),
    )


async def listen(
    application: web.Application,
    address: Address,
    stack: AsyncExitStack,
    limits: server.ServerLimits,
    connections: Connections | None = None,
    own_tls: tls.ListenerTls | None = None,
) -> str:
    """Serve an application; return its root URL with the port that was really bound."""
    context = None if own_tls is None else own_tls.context
    runner = await server.serve(application, address, limits=limits, connections=connections, ssl_context=context)
    stack.push_async_callback(runner.cleanup)
    if isinstance(address, Path):
        return f"{UNIX}{address}:"
    host, bound = address[0], runner.addresses[0][1]
    return f"{'http' if context is None else 'https'}://{f'[{host}]' if ':' in host else host}:{bound}"


def own_tls(config: Settings, stack: AsyncExitStack) -> tls.ListenerTls | None:
    """Load the listener's certificate, and look for a newer one from time to time."""
    files = config.tls.files
    if files is None:
        return None
    own = tls.ListenerTls(files)
    stack.push_async_callback(cancelled, asyncio.create_task(follow_files(own), name="tls"))
    return own
