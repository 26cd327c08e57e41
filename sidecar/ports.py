"""The outside world as enforcement sees it: one Protocol per dependency.

An implementation translates every foreign exception at its own border into the class of ``sidecar.errors`` that the
method names; anything else is a bug. Cancellation (``asyncio.CancelledError``) always passes through.
"""

from collections.abc import Collection, Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from sidecar.commands import ViewDefinitions
from sidecar.identity import Suspension
from sidecar.model import Credential, Decision, Identity, JsonObject, JsonValue, Permit, UpstreamResult, VisibleTools
from sidecar.usage import UsageUnit


class TokenVerifier(Protocol):
    """Proves who is calling."""

    async def verify(self, credential: Credential) -> Identity:
        """Return who the credential's token speaks for and who acts.

        Raises:
            TokenRejected: the token proves nothing here.
            KeysUnavailable: the issuer's keys cannot be had.
        """
        ...


class ProofMemory(Protocol):
    """Knows which proofs of possession were presented before, in every process that serves the same endpoint."""

    async def is_first(self, proof: bytes, key: str, until: float) -> bool:
        """Return whether this proof was never presented before, and remember it.

        Args:
            proof: digest of what makes it one of its kind.
            key: thumbprint of the key that signed it.
            until: seconds since the epoch after which it is refused anyway.

        Raises:
            ProofRejected: more at once than can be remembered.
            KeysUnavailable: whether another process has seen it cannot be told.
        """
        ...


class UsedStates(Protocol):
    """Knows which request states were used (MCP 2026-07-28, mrtr), in every process that serves the same endpoint."""

    async def is_first(self, state: bytes, identity: bytes, until: float) -> bool:
        """Return whether this state was never used before, and remember it.

        Args:
            state: its digest.
            identity: a digest of whose it is.
            until: seconds since the epoch after which it is refused anyway.

        Raises:
            NotConfirmed: more at once than can be remembered.
            StatesUnavailable: whether another process has seen it cannot be told.
        """
        ...


class Question(StrEnum):
    """The questions that OPA is asked; each is one fixed rule, never a path built from input (CVE-2025-46569)."""

    DECISION = "mcp/main/decision"
    VISIBILITY = "mcp/main/visibility"
    APPROVER = "mcp/main/approver"
    SELF_TEST = "mcp/main/selftest"
    RESIDUAL = "v1/compile"
    """Not a rule but one fixed query for partial evaluation (``sidecar.policy.residual``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PdpAnswer:
    """A raw answer of the PDP, not yet checked against the contract."""

    result: JsonValue
    """The value of the rule that was asked."""
    revision: str
    """The policy set that gave the answer; empty if the PDP does not say."""
    decision_id: str = ""
    engine: str = ""
    """The PDP's version; empty if it does not say, or was not asked."""
    decisions: dict[tuple[int, tuple[str, ...]], Decision] = field(default_factory=dict, compare=False, repr=False)
    """What it was found to be, by the number of accesses and the servers that it was held against. An answer that is
    remembered is checked once."""
    lists: dict[tuple[frozenset[str], frozenset[str]], VisibleTools] = field(
        default_factory=dict, compare=False, repr=False
    )
    """The same of a question about a list, by the tools and the servers."""


class DecisionPoint(Protocol):
    """The PDP."""

    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        """Evaluate one rule with ``document`` as input.

        Raises:
            DecisionUnavailable: no answer, a late answer, an error, or an undefined result.
        """
        ...


class ViewCatalog(Protocol):
    """What the databases say of their views."""

    def knows(self, databases: Collection[str]) -> bool:
        """Return whether ``views`` can answer for all of these databases without asking anything outside."""
        ...

    async def views(self, databases: Collection[str], asker: Hashable) -> ViewDefinitions:
        """Return every view of these databases, with all its definitions.

        Args:
            databases: by name.
            asker: on whose behalf; one asker cannot evict what others asked for.

        Raises:
            ViewsUnavailable: they are not known, or not freshly enough.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageCounter:
    """One count: of a limit, a unit, what is counted apart, and a window."""

    limit: str
    """The limit's id."""
    window_s: int
    """Seconds of a window."""
    unit: UsageUnit
    who: str
    """A digest of what is counted apart, in lower-case hexadecimal."""
    ends: int
    """When the window ends, seconds since the epoch; after that the count means nothing."""


class UsageCounters(Protocol):
    """Where it is counted how much callers use; shared by the replicas, or each replica's own."""

    async def add(self, amounts: Mapping[UsageCounter, int]) -> Mapping[UsageCounter, int]:
        """Add to each counter, and return what each holds then.

        A counter that is not there holds 0 at first. An amount can be 0, which only reads, and below it, which takes
        back. Two calls at a time never lose an amount. A counter is kept until its window ends, or else what is
        returned of it is never less than what was added.

        Raises:
            LimitsUnavailable: it cannot be told.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReceipt:
    """Proof that a record was stored."""

    id: str
    seq: int
    hash: str


class AuditSink(Protocol):
    """Where the evidence goes."""

    async def append(self, record: JsonObject) -> AuditReceipt:
        """Number, link and store one record; return only when it is stored.

        ``record`` has every field of the contract except ``seq``, ``prev`` and ``hash``.

        Raises:
            AuditUnavailable: the record is not stored.
        """
        ...


class SuspensionStore(Protocol):
    """Where suspensions outlive the process."""

    async def load(self) -> tuple[Suspension, ...]:
        """Return what was saved last; nothing where nothing ever was.

        Raises:
            SuspensionsUnavailable: it cannot be read, or is not what was saved.
        """
        ...

    async def save(self, suspensions: tuple[Suspension, ...]) -> None:
        """Keep exactly these instead; return only when they are stored.

        Raises:
            SuspensionsUnavailable: they are not; what was saved before stands.
        """
        ...

    async def intact(self) -> bool:
        """Whether what is kept is still what was loaded or saved last; false where that was never known."""
        ...


class Upstream(Protocol):
    """One statically configured MongoDB MCP server instance."""

    async def forward(self, permit: Permit) -> UpstreamResult:
        """Send the permitted call, exactly ``permit.call``, and return its result.

        Raises:
            UpstreamUnreachable: the server is not there, or went away before it answered.
            UpstreamTimedOut: no answer within the configured time.
            UpstreamProtocolViolation: an answer that is not MCP.
            UpstreamRefused: a JSON-RPC error.
            SidecarError: the permit has lapsed (``permit.leaving``, which is called right before each writing).
        """
        ...

    async def tools(self) -> tuple[JsonObject, ...]:
        """Return the server's live tools (``tools/list``, all pages), cached until it says that they changed.

        The same object is returned for as long as the cached list stands: ``is`` tells that nothing changed.

        Raises:
            UpstreamError: as for ``forward``.
        """
        ...

    async def prompts(self) -> tuple[JsonObject, ...]:
        """Return the server's live prompts (``prompts/list``, all pages); asked for each time.

        Raises:
            UpstreamError: as for ``forward``.
        """
        ...

    def unwatch(self, uri: str) -> None:
        """Nobody wants to be told of a resource any more that a permitted ``resources/subscribe`` asked for.

        The server is told soon, and as far as it can be.
        """
        ...

    def discard(self, uri: str) -> None:
        """Nobody can read an export any more.

        Its file is deleted soon, where it is on a disk that the sidecar gave the server; else the server does it.
        """
        ...

    @property
    def healthy(self) -> bool:
        """Whether the server answered the last thing it was asked."""
        ...


class Clock(Protocol):
    """Time as a parameter (law 5)."""

    def time_ns(self) -> int:
        """Nanoseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""


class Identifiers(Protocol):
    """Fresh identifiers as a parameter (law 5)."""

    def request_id(self) -> str:
        """Return a new request id, sortable by time."""

    def session_id(self) -> str:
        """Return a new unguessable session id of visible ASCII (MCP 2025-11-25, session management)."""


AttributeValue = str | int | float | bool | tuple[str, ...]


class Span(Protocol):
    """One span of a trace."""

    @property
    def trace_id(self) -> str:
        """32 lower-case hexadecimal digits."""

    @property
    def span_id(self) -> str:
        """16 lower-case hexadecimal digits."""

    @property
    def traceparent(self) -> str:
        """W3C traceparent of this span, to be sent on."""

    @property
    def recording(self) -> bool:
        """Whether its name and attributes go anywhere; where not, they need not be made."""

    def set(self, attributes: Mapping[str, AttributeValue]) -> None:
        """Add attributes; keys are those of the contract."""

    def rename(self, name: str) -> None:
        """Give the span its final name, once the method and target are known."""

    def fail(self, error_type: str, description: str = "") -> None:
        """Mark the span as failed (``error.type`` and status ERROR)."""


class Tracer(Protocol):
    """Makes spans; the span of the innermost open context is the parent of the next."""

    def server(
        self, name: str, *, traceparent: str | None, link: str | None, start_ns: int | None = None, request_id: str = ""
    ) -> AbstractContextManager[Span]:
        """Open the span of one incoming message.

        Args:
            name: the span's name until ``rename``.
            traceparent: the remote parent (W3C), or None for a new trace; a malformed value counts as None.
            link: a second W3C traceparent to link to, or None.
            start_ns: when the message arrived, in nanoseconds since the epoch; None for now.
            request_id: goes with the span's context.
        """

    def step(self, name: str, *, client: bool = False) -> AbstractContextManager[Span]:
        """Open the span of one step; ``client`` where the step calls another system."""

    def past(self, name: str, *, start_ns: int, end_ns: int) -> None:
        """Add a step that is over to the open span: what ran before the message, and so its parent, was known."""


class RefusalLog(Protocol):
    """One log line for a call that was refused."""

    def refused(self, error: str, facts: JsonObject, *, failure: bool) -> None:
        """Write the label of why and the facts, nothing of the content; ``failure``: an operator can mend something."""

    def exceeded(self, facts: JsonObject) -> None:
        """Write that a call changed more than its obligation allows, and by how much."""


class Metrics(Protocol):
    """Counts and durations with bounded label sets; durations in seconds."""

    def operation(self, method: str, tool: str, error: str, seconds: float) -> None:
        """One MCP message from receipt to reply; ``tool`` and ``error`` are empty where there is none."""

    def decided(self, *, allow: bool, reason: str, owner: str, tool: str) -> None:
        """One decision of policy; ``reason`` is the first reason's code, or empty."""

    def shadowed(self, difference: str, *, tool: str) -> None:
        """One comparison with a candidate policy set: same, would_deny, would_allow or unavailable."""

    def refused(self, stage: str, error: str) -> None:
        """One refusal, by the step that refused and the label of the error."""

    def limited(self, limit: str, unit: str) -> None:
        """Count a call that a limit on use refused, by the limit's id and what of it was used up."""

    def evicted(self, what: str) -> None:
        """Count what a caller had and lost to a newer one at a bound: session, watch or listener."""

    def exceeded(self, obligation: str) -> None:
        """Count a call that went further than an obligation allows, by the obligation's key."""

    def approval(self, action: str) -> None:
        """Count what became of an approval: requested, approved, denied, spent or voided."""

    def asked(self, seconds: float) -> None:
        """One question to the PDP."""

    def faulted(self, fault: str) -> None:
        """One refusal because OPA gave no decision, by the way in which it failed (``sidecar.errors.PdpFault``)."""

    def audited(self, seconds: float) -> None:
        """One audit record stored."""

    def forwarded(self, server: str, seconds: float) -> None:
        """One call answered by an upstream server."""

    def sessions(self, count: int) -> None:
        """How many sessions are open."""

    def in_flight(self, change: int) -> None:
        """A call began (+1) or ended (-1)."""

    def health(self, component: str, *, up: bool) -> None:
        """Whether a dependency is up: ``opa`` or ``server/<configured name>``."""
