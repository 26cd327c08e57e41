"""Whether the parts that a call needs are there, for those who ask and for the gauges."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from sidecar.edge import Connections
from sidecar.enforcement import EnforcementPoint, Suspensions
from sidecar.oauth import WatchedKeySet
from sidecar.opa import Load, ManagedOpa, PolicyState
from sidecar.ports import Clock, DecisionPoint, Upstream
from sidecar.store import WaitingRecords
from sidecar.telemetry import OtelMetrics
from sidecar.upstream import Databases

_LOG = logging.getLogger("sidecar.app")

HEALTH_PERIOD_S: Final = 5.0


class Decider(DecisionPoint, Protocol):
    """A decision point whose health and policies can be asked for."""

    @property
    def policy_state(self) -> PolicyState:
        """Which policy set is in force, and why a newer one is not."""
        ...

    async def healthy(self) -> bool:
        """Whether it answers."""
        ...

    def forget(self) -> None:
        """Forget every remembered answer."""
        ...

    def on_served(self, callback: Callable[[], None]) -> None:
        """Call back when another policy set serves."""
        ...


class ManagedUpstream(Upstream, Protocol):
    """An upstream with a life of its own."""

    async def start(self) -> None:
        """Come up."""
        ...

    async def stop(self) -> None:
        """Come down."""
        ...

    @property
    def refusing(self) -> bool:
        """Whether calls are refused at once, because it does not answer (a circuit breaker that is open)."""
        ...

    def on_tools_changed(self, callback: Callable[[], None]) -> None:
        """Call back when the list of tools may have changed."""
        ...

    def on_prompts_changed(self, callback: Callable[[], None]) -> None:
        """Call back when the list of prompts may have changed."""
        ...

    def on_updated(self, callback: Callable[[str], None]) -> None:
        """Call back with the URI of a watched resource that may have changed."""
        ...


class WaitingPlace(Protocol):
    """Where records wait on this machine for a store that is away."""

    @property
    def waiting(self) -> WaitingRecords:
        """How much waits, and since when."""
        ...


class WatchedEvidence(Protocol):
    """The store of the evidence."""

    @property
    def head(self) -> tuple[int, str]:
        """Number and hash of the last record that was stored."""
        ...

    @property
    def ready(self) -> bool:
        """Whether the next record would be stored, as far as is known."""
        ...

    @property
    def spool(self) -> WaitingPlace | None:
        """Where records wait for the store; None where none do."""
        ...

    async def look(self) -> None:
        """See whether the next record would be stored."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What stands around the decision: evidence, keys, databases, and what the start was concerned about."""

    audit: WatchedEvidence
    clock: Clock
    keys: Mapping[str, WatchedKeySet]
    """By issuer."""
    look_at_keys: Callable[[], Awaitable[None]]
    databases: Databases
    routes: Callable[[frozenset[str] | None], str]
    """What the routed servers and the configured ones do not have in common."""
    tls_error: Callable[[], str]
    """Why the listener's newest certificate is not served; empty where it is, or where it has no TLS."""
    concerns: Collection[str]


class Readiness:
    """Whether the parts that a call needs are there."""

    def __init__(
        self,
        decisions: Decider,
        upstreams: Mapping[str, ManagedUpstream],
        metrics: OtelMetrics,
        pep: EnforcementPoint,
        candidate: ManagedOpa | None,
        connections: Connections,
        suspensions: Suspensions | None,
        around: "Surroundings",
    ) -> None:
        self._decisions = decisions
        self._candidate = candidate
        self._upstreams = upstreams
        self._metrics = metrics
        self._pep = pep
        self._connections = connections
        self._suspensions = suspensions
        self._around = around
        self._routes = ""
        self._unreviewed: dict[str, dict[str, str]] = {}

    async def check(self) -> Mapping[str, bool]:
        """Look at every part now."""
        found = {"opa": await self._decisions.healthy()}
        found |= {f"server:{name}": upstream.healthy for name, upstream in self._upstreams.items()}
        for name, upstream in self._upstreams.items():
            self._metrics.circuit(name, is_open=upstream.refusing)
        keys = self._around.keys.values()
        found["keys"] = not keys or any(key_set.usable for key_set in keys)
        await self._around.audit.look()
        self._metrics.audit_records(self._around.audit.head[0])
        self._tell_what_waits()
        found["audit"] = self._around.audit.ready
        for component, up in found.items():
            self._metrics.health(component, up=up)
        if self._suspensions is not None:
            found["suspensions"] = self._suspensions.known
            self._metrics.suspensions(len(self._suspensions.all()))
        self._metrics.policy_load(self._decisions.policy_state.result)
        self._metrics.policy_serves(self._decisions.policy_state.revision)
        self._metrics.connections(len(self._connections))
        if self._candidate is not None:
            self._metrics.candidate_load(self._candidate.policy_state.result)
        return found

    def degraded(self) -> Sequence[str]:
        """Name what is not as it should be and takes nothing out of rotation.

        ``policies`` is a refused policy set, ``candidate`` a refused candidate, ``connections`` a listener that is full
        or had to end a connection for another a moment ago, ``database:…`` a database that does not answer, ``keys:…``
        an issuer whose newest keys cannot be had, ``audit_spool`` records that wait on this machine, ``routes`` servers
        that the policies and the settings do not have in common, ``tls`` a newer certificate of the listener that
        cannot be served. The rest are concerns of the start.
        """
        sets = {"policies": self._decisions, "candidate": self._candidate}
        names = [name for name, opa in sets.items() if opa is not None and opa.policy_state.result is Load.REFUSED]
        names += ["connections"] if self._connections.crowded else []
        around = self._around
        names += [f"database:{name}" for name in around.databases.silent]
        names += [f"keys:{issuer}" for issuer, keys in around.keys.items() if keys.fault or not keys.usable]
        names += ["audit_spool"] if around.audit.spool is not None and around.audit.spool.waiting.records else []
        names += ["routes"] if self._differing_routes() else []
        names += ["tls"] if around.tls_error() else []
        return [*names, *around.concerns]

    async def watch(self) -> None:
        """Keep the health gauges fresh for those who only read metrics."""
        while True:
            self._report_routes()
            await asyncio.gather(self._around.databases.look(), self._around.look_at_keys())
            await self.check()
            await self._report_tools()
            await asyncio.sleep(HEALTH_PERIOD_S)

    def _tell_what_waits(self) -> None:
        if (spool := self._around.audit.spool) is None:
            return
        waiting, age_s = spool.waiting, 0.0
        with suppress(ValueError):  # none waits, or it cannot be read
            age_s = self._around.clock.time_ns() / 1e9 - datetime.fromisoformat(waiting.since).timestamp()
        self._metrics.audit_waits(waiting.records, size=waiting.size, age_s=max(age_s, 0.0))

    def _differing_routes(self) -> str:
        return self._around.routes(self._decisions.policy_state.routed)

    def _report_routes(self) -> None:
        """Log once of each change which servers the policies and the settings do not have in common."""
        differing = self._differing_routes()
        if differing != self._routes:
            _LOG.warning("%s", differing or "every route leads to a configured server, and one to each")
        self._routes = differing

    async def _report_tools(self) -> None:
        """Say once of each change which live tools are refused because the catalog was not written for them."""
        found = await self._pep.unreviewed_tools()
        for server_name, tools in found.items():
            self._metrics.unreviewed_tools(server_name, tools.values())
            if tools and tools != self._unreviewed.get(server_name):
                _LOG.warning("refusing tools that were not reviewed", extra={"server": server_name, "tools": tools})
        self._unreviewed |= found
