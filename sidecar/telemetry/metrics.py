"""Metrics through OpenTelemetry, read by Prometheus at ``/metrics`` and, where an endpoint is set, sent over OTLP.

Every label set is bounded. Labels whose values are known at start (methods, tools, servers) count anything else as
``_OTHER``, for a caller chooses those names. Labels whose values come from policy (reasons, owners) or from
``sidecar.errors`` (stages, errors) are not known here; the first ``_DISTINCT`` values are kept.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, Literal

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Meter, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from sidecar.telemetry.exporting import SCHEMA_URL, SCOPE, require_http_protobuf, resource, within
from sidecar.telemetry.tallies import Counts, Durations, Tallies, TallyReader

OTHER: Final = "_OTHER"

POLICY_LOADS: Final = ("loaded", "refused")

TOOL_STATES: Final = ("changed", "unknown")

OPERATION_BOUNDARIES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
"""Seconds; prescribed by the MCP conventions for ``mcp.server.operation.duration``."""

STEP_BOUNDARIES: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 30)
"""Seconds, for the sidecar's own steps: a record is stored in 50 µs and OPA answers in a millisecond, which would all
fall into the first bucket of the convention's boundaries."""

_DISTINCT = 64


class _Bounded:
    """Keeps one label's values few: those known at start, or else the first ``_DISTINCT`` that occur."""

    __slots__ = ("_closed", "_values")

    def __init__(self, known: Iterable[str] | None = None) -> None:
        self._closed = known is not None
        self._values = {"", *(known or ())}

    def __call__(self, value: str) -> str:
        if value in self._values:
            return value
        if self._closed or len(self._values) > _DISTINCT:
            return OTHER
        self._values.add(value)
        return value


class OtelMetrics:
    """Counts and durations (``sidecar.ports.Metrics``).

    Args:
        methods: the MCP methods of the closed method table.
        tools: the tools of the catalog.
        servers: the names of the configured MCP servers.
        endpoint_configured: an OTLP endpoint for metrics is set in the environment, the SDK is not disabled and
            ``OTEL_METRICS_EXPORTER`` is not ``none``; the SDK reads the rest from its standard variables.
        protocol: ``OTEL_EXPORTER_OTLP_METRICS_PROTOCOL``, else ``OTEL_EXPORTER_OTLP_PROTOCOL``, else empty.
        version: the sidecar's version.

    Raises:
        ConfigurationError: an endpoint is configured and the protocol is not http/protobuf.
    """

    def __init__(
        self,
        *,
        methods: Iterable[str],
        tools: Iterable[str],
        servers: Iterable[str],
        endpoint_configured: bool = False,
        protocol: str = "",
        version: str = "",
    ) -> None:
        self._method, self._tool, self._server = _Bounded(methods), _Bounded(tools), _Bounded(servers)
        self._reason, self._owner, self._stage, self._error = _Bounded(), _Bounded(), _Bounded(), _Bounded()
        self._component, self._action, self._difference = _Bounded(), _Bounded(), _Bounded()
        self._fault, self._ending, self._limit = _Bounded(), _Bounded(), _Bounded()
        self._registry = CollectorRegistry()
        tallies = None if endpoint_configured else Tallies()
        self._provider = MeterProvider(
            metric_readers=_readers(self._registry, tallies, protocol=protocol),
            resource=resource(version),
            # An exemplar would tie a bucket to one trace at the price of a context look-up per measurement.
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        meter = self._provider.get_meter(SCOPE, version, SCHEMA_URL)
        self._of_every_call(meter if tallies is None else tallies)
        self._observed(meter)
        self._shadow = meter.create_counter(
            "mcp_sidecar.shadow", description="Comparisons with a candidate policy set."
        )
        self._faults = meter.create_counter("mcp_sidecar.opa.faults", description="Refusals without a decision of OPA.")
        self._limited = meter.create_counter("mcp_sidecar.limits.reached", description="Calls over a limit on use.")
        self._approvals = meter.create_counter("mcp_sidecar.approvals", description="What became of approvals.")
        self._exceeded = meter.create_counter(
            "mcp_sidecar.obligations.exceeded", description="Calls that went further than an obligation allows."
        )
        self._evictions = meter.create_counter(
            "mcp_sidecar.evictions", description="What callers had and lost to newer ones at a bound."
        )
        self._sessions = meter.create_gauge("mcp_sidecar.sessions", description="Open sessions.")
        self._suspensions = meter.create_gauge("mcp_sidecar.suspensions", description="Suspensions in force.")
        self._connections = meter.create_gauge("mcp_sidecar.connections", description="Open connections of clients.")
        self._ended = meter.create_counter("mcp_sidecar.connections.ended", description="Connections ended from here.")
        self._policy_load = meter.create_gauge(
            "mcp_sidecar.policy.load", description="1 for how the last attempt to load the policies ended."
        )
        self._candidate_load = meter.create_gauge(
            "mcp_sidecar.policy.candidate.load", description="The same of the candidate policies."
        )
        self._unreviewed = meter.create_gauge(
            "mcp_sidecar.tools.unreviewed", description="Live tools that are refused because they were not reviewed."
        )
        self._circuit = meter.create_gauge(
            "mcp_sidecar.upstream.circuit_open", description="1 while calls are refused because a server is silent."
        )
        self._waiting = meter.create_gauge("mcp_sidecar.audit.spool.records", description="Records that wait here.")
        self._waiting_size = meter.create_gauge("mcp_sidecar.audit.spool.bytes", description="Their bytes.")
        self._waiting_age = meter.create_gauge(
            "mcp_sidecar.audit.spool.age", "s", description="How long the oldest of them waits."
        )
        self._health = meter.create_gauge("mcp_sidecar.health", description="1 where a component answers, else 0.")

    def _of_every_call(self, made_by: Meter | Tallies) -> None:
        self._operation = _durations(
            made_by,
            "mcp.server.operation.duration",
            "Duration of an MCP request or notification, from receipt to the reply being sent.",
            OPERATION_BOUNDARIES,
        )
        self._opa = _durations(made_by, "mcp_sidecar.opa.duration", "Duration of one question to OPA.")
        self._audit = _durations(made_by, "mcp_sidecar.audit.duration", "Duration of storing one audit record.")
        self._upstream = _durations(made_by, "mcp_sidecar.upstream.duration", "Duration of one forwarded call.")
        self._decisions = _counts(made_by, "mcp_sidecar.decisions", "Decisions of policy.")
        self._refusals = _counts(made_by, "mcp_sidecar.refusals", "Refused requests.")

    def _observed(self, meter: Meter) -> None:
        """Make what is looked at when it is read: it changes with every call."""
        self._running = 0
        meter.create_observable_up_down_counter(
            "mcp_sidecar.in_flight", [lambda _: [Observation(self._running)]], description="Calls being handled."
        )
        self._last_record: int | None = None
        meter.create_observable_gauge(
            "mcp_sidecar.audit.records",
            [lambda _: [] if self._last_record is None else [Observation(self._last_record)]],
            description="The last record's number.",
        )
        self._serving = ""
        meter.create_observable_gauge(
            "mcp_sidecar.policy.revision",
            [lambda _: [Observation(1, {"revision": self._serving})] if self._serving else []],
            description="1, with the revision of the policies that decide now; of an earlier one nothing is kept.",
        )

    def operation(self, method: str, tool: str, error: str, seconds: float) -> None:
        """One MCP message from receipt to reply; ``tool`` and ``error`` are empty where there is none."""
        attributes = {"mcp.method.name": self._method(method)}
        if tool:
            attributes["gen_ai.tool.name"] = self._tool(tool)
        if error:
            attributes["error.type"] = self._error(error)
        self._operation.record(seconds, attributes)

    def decided(self, *, allow: bool, reason: str, owner: str, tool: str) -> None:
        """One decision of policy; ``reason`` is the first reason's code, or empty."""
        decision: Literal["allow", "deny"] = "allow" if allow else "deny"
        self._decisions.add(
            1,
            {
                "decision": decision,
                "reason": self._reason(reason),
                "owner": self._owner(owner),
                "tool": self._tool(tool),
            },
        )

    def shadowed(self, difference: str, *, tool: str) -> None:
        """Count how a candidate policy set compares with the serving one."""
        self._shadow.add(1, {"difference": self._difference(difference), "tool": self._tool(tool)})

    def refused(self, stage: str, error: str) -> None:
        """One refusal, by the step that refused and the label of the error."""
        self._refusals.add(1, {"stage": self._stage(stage), "error": self._error(error)})

    def limited(self, limit: str, unit: str) -> None:
        """Count a call that a limit on use refused, by the limit's id and what of it was used up."""
        self._limited.add(1, {"limit": self._limit(limit), "unit": unit})

    def approval(self, action: str) -> None:
        """Count what became of an approval: requested, approved, denied, spent or voided."""
        self._approvals.add(1, {"action": self._action(action)})

    def exceeded(self, obligation: str) -> None:
        """Count a call that went further than an obligation allows; the keys of the contract are few."""
        self._exceeded.add(1, {"obligation": obligation})

    def evicted(self, what: str) -> None:
        """Count what a caller lost to a newer one at a bound; there are few kinds."""
        self._evictions.add(1, {"what": what})

    def asked(self, seconds: float) -> None:
        """One question to the PDP."""
        self._opa.record(seconds)

    def faulted(self, fault: str) -> None:
        """Count a refusal because OPA gave no decision."""
        self._faults.add(1, {"fault": self._fault(fault)})

    def audited(self, seconds: float) -> None:
        """One audit record stored."""
        self._audit.record(seconds)

    def audit_records(self, number: int) -> None:
        """Publish the number of the last record: a file with fewer was cut."""
        self._last_record = number

    def audit_waits(self, records: int, *, size: int, age_s: float) -> None:
        """Say how many records wait on this machine for their store, their bytes, and since when the oldest does."""
        self._waiting.set(records)
        self._waiting_size.set(size)
        self._waiting_age.set(age_s)

    def forwarded(self, server: str, seconds: float) -> None:
        """One call answered by an upstream server."""
        self._upstream.record(seconds, {"server": self._server(server)})

    def sessions(self, count: int) -> None:
        """How many sessions are open."""
        self._sessions.set(count)

    def suspensions(self, count: int) -> None:
        """How many suspensions of operators are in force."""
        self._suspensions.set(count)

    def connections(self, count: int) -> None:
        """How many connections of clients are open."""
        self._connections.set(count)

    def connection_ended(self, reason: str) -> None:
        """Count a connection that the listener ended by itself (``sidecar.edge.connections.Ending``)."""
        self._ended.add(1, {"reason": self._ending(reason)})

    def in_flight(self, change: int) -> None:
        """Count a call that began (+1) or ended (-1)."""
        self._running += change

    def circuit(self, server: str, *, is_open: bool) -> None:
        """Whether calls to a server are refused at once because it does not answer."""
        self._circuit.set(int(is_open), {"server": self._server(server)})

    def health(self, component: str, *, up: bool) -> None:
        """Whether a dependency is up: ``opa`` or ``server/<configured name>``."""
        self._health.set(int(up), {"component": self._component(component)})

    def policy_load(self, result: str) -> None:
        """How the last attempt to load the policies ended: ``loaded`` or ``refused`` (the last good set serves)."""
        for each in POLICY_LOADS:
            self._policy_load.set(int(each == result), {"result": each})

    def policy_serves(self, revision: str) -> None:
        """Say which revision decides now, so that sidecars that differ can be told apart."""
        self._serving = revision

    def candidate_load(self, result: str) -> None:
        """How the last attempt to load the candidate policies ended: ``loaded`` or ``refused``.

        A separate gauge, so that an alert on the serving set does not ring for a draft.
        """
        for each in POLICY_LOADS:
            self._candidate_load.set(int(each == result), {"result": each})

    def unreviewed_tools(self, server: str, states: Iterable[str]) -> None:
        """How many of a server's live tools are ``changed``, and how many ``unknown``; the log has their names."""
        found = Counter(states)
        for each in TOOL_STATES:
            self._unreviewed.set(found[each], {"server": self._server(server), "state": each})

    def render(self) -> tuple[bytes, str]:
        """Return the body and the content type of ``/metrics``, Prometheus text format."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST

    def shutdown(self, seconds: float) -> bool:
        """Send what is waiting and end, blocking for at most ``seconds``; return whether all was done by then."""
        return within(seconds, self._provider.shutdown)


def _durations(
    made_by: Meter | Tallies, name: str, description: str, boundaries: Sequence[float] = STEP_BOUNDARIES
) -> Durations:
    if isinstance(made_by, Tallies):
        return made_by.durations(name, description, boundaries)
    return made_by.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=boundaries)


def _counts(made_by: Meter | Tallies, name: str, description: str) -> Counts:
    if isinstance(made_by, Tallies):
        return made_by.counts(name, description)
    return made_by.create_counter(name, description=description)


def _readers(registry: CollectorRegistry, tallies: Tallies | None, *, protocol: str) -> list[MetricReader]:
    """Return who reads the metrics; without tallies they are also sent."""
    if tallies is not None:
        return [TallyReader(tallies, registry)]
    require_http_protobuf(protocol)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import (  # noqa: PLC0415 - slow to load, seldom needed
        OTLPMetricExporter,
    )

    return [
        PrometheusMetricReader(registry=registry, scope_info_enabled=False),
        PeriodicExportingMetricReader(OTLPMetricExporter()),
    ]
