"""The values that one message gathers on its way through the enforcement point."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sidecar.audit import record
from sidecar.commands import CATALOG, NO_GENERIC_TOOLS, GenericTools, ToolGroup
from sidecar.enforcement.bounds import Bounds
from sidecar.enforcement.channel import CallChannel
from sidecar.enforcement.shadow import Opinion
from sidecar.enforcement.shared_sessions import SharedSessions
from sidecar.enforcement.suspensions import Suspensions
from sidecar.enforcement.tool_lists import ShownList
from sidecar.errors import AuditUnavailable, CallerSuspended, SidecarError, TokenRejected
from sidecar.identity import ApprovalStore, CallerName, names_of
from sidecar.mcp import Conversation, Era, GivenInput, MirroredHeaders, RequestId, SealedQuestion, revision
from sidecar.model import (
    AccessKind,
    Command,
    Decision,
    Identity,
    JsonObject,
    RequestContext,
    TargetKind,
    Tell,
    ToolCall,
    UpstreamResult,
)
from sidecar.ports import (
    AuditSink,
    Clock,
    DecisionPoint,
    Identifiers,
    Metrics,
    RefusalLog,
    Span,
    TokenVerifier,
    Tracer,
    Upstream,
    UsageCounters,
    UsedStates,
    ViewCatalog,
)
from sidecar.questions import QuestionKind
from sidecar.sites import Derivation


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The envelope of one message, as the edge admitted it. Nothing in it is proven."""

    transport: str
    client_ip: str
    session_id: str | None = None
    protocol: str | None = None
    """The MCP-Protocol-Version header."""
    last_event_id: str | None = None
    """The Last-Event-ID header: after which event a stream is to be resumed."""
    mirrored: MirroredHeaders | None = None
    """The headers that repeat parts of the body; read where ``protocol`` is a revision that has them."""
    traceparent: str | None = None
    """The HTTP header; ``params._meta.traceparent`` wins over it."""

    @property
    def over_http(self) -> bool:
        """Whether there are headers."""
        return self.transport == "http"

    @property
    def era(self) -> Era:
        """What the headers alone tell: whose rules say how a body is refused that could not be read."""
        return revision.era_of_header(self.protocol)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated caller, and the time that proving it took (nanoseconds since the epoch)."""

    identity: Identity
    began_ns: int
    ended_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The outside world."""

    verifier: TokenVerifier
    decisions: DecisionPoint
    audit: AuditSink
    upstreams: Mapping[str, Upstream]
    clock: Clock
    identifiers: Identifiers
    tracer: Tracer
    metrics: Metrics
    candidate: DecisionPoint | None = None
    """A policy set that is only compared with the serving one."""
    suspensions: Suspensions | None = None
    """None: only policy can suspend a caller."""
    shared_sessions: SharedSessions | None = None
    """None: a session is good at the sidecar that opened it only."""
    log: RefusalLog | None = None
    """None: refused calls are in evidence, metrics and spans only."""
    used_states: UsedStates | None = None
    """Where it is known which request states were used, at any sidecar; None: they are good in this process only."""
    usage: UsageCounters | None = None
    """Where it is counted how much callers use; None: in this process."""
    approvals: ApprovalStore | None = None
    """Where calls are kept that wait for a second person; None: such a call is refused."""
    views: ViewCatalog | None = None
    """None where no connection for it is configured; then what the platform's data declares is all that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnforcementRules:
    """What an operator sets about enforcement itself."""

    environment: str
    server_version: str
    tool_groups: Mapping[str, frozenset[ToolGroup]] = field(default_factory=dict)
    """The groups of tools that are on, by server; on a server that is not named, none."""
    generic_tools: Mapping[str, GenericTools] = field(default_factory=dict)
    """The tools outside of the catalog that there are, by server."""
    own_database: str = ""
    """The database that several sidecars share, which no call may touch, even where policy allows it. Empty: none."""
    audit_at_once: bool = False
    """Storing a record waits for nothing (``audit.sync = "os"``): it cannot be cancelled half way."""
    audit_arguments: bool = False
    """Audit records carry the arguments, not only their digest (``audit.arguments = "full"``)."""
    audit_question: bool = False
    """Audit records carry the question that OPA was asked, claims included (``audit.question``)."""
    comments: bool = False
    """Filters and pipelines carry a ``$comment`` with the trace (``audit.comments``)."""
    calls_per_identity: int = 32
    """Tool calls that one user through one agent may have under way, so that one caller cannot block a server for the
    others."""
    bounds: Bounds = field(default_factory=Bounds)
    """How much a message, and a caller, may make grow."""
    streams_per_identity: int = 64
    """Streams for news that one user through one agent may read at a time."""
    server_questions: Mapping[str, frozenset[QuestionKind]] = field(default_factory=dict)
    """What servers may ask clients during calls of generic tools, by server; policy decides each kind too."""
    challenges: bool = True
    """A call that only lacks scopes is refused with a challenge (MCP 2026-07-28, scope challenge handling); else with
    a tool result, for clients to which an HTTP error is the end of their session."""
    stall_s: float = 10.0
    """How long a call may keep its client waiting in silence before its answer becomes a stream."""
    confirm_s: float = 120.0
    """How long a client may take to answer a question of the server's about a call."""
    approval_s: int = 3600
    """How long a call may wait for a second person, and how long an approval may be unused."""
    time_step_ns: int = 1_000_000_000
    """``time_ns`` in questions to policy is truncated to this, so that equal questions are equal."""

    @property
    def capabilities(self) -> JsonObject:
        """What is offered besides tools: ``initialize`` and ``server/discover`` say so."""
        groups = {group for on in self.tool_groups.values() for group in on}
        kinds = {one.kind for named in self.generic_tools.values() for one in named.values()}
        found: JsonObject = {}
        if ToolGroup.EXPORT in groups or TargetKind.RESOURCE in kinds:
            found["resources"] = {"subscribe": True}
        if TargetKind.PROMPT in kinds:
            found["prompts"] = {"listChanged": True}
        if kinds & {TargetKind.PROMPT, TargetKind.RESOURCE}:
            found["completions"] = {}
        return found


class OutcomeNotRecorded(AuditUnavailable):
    """The call was carried out; its outcome could not be stored, so its result is withheld."""

    label = "outcome_not_recorded"
    public = "The call was carried out, but its outcome could not be recorded, so the result is withheld."


class CancelledByClient(SidecarError):
    """The client sent notifications/cancelled for this request."""

    label = "cancelled"
    public = "The request was cancelled; had it been forwarded by then, a write may have taken effect."
    code = 1499


@dataclass(slots=True)
class Flight:
    """A tool call while it runs: what notifications/cancelled and a suspension find."""

    names: tuple[CallerName, ...] = ()
    """What an operator can name the caller by."""
    task: asyncio.Task[UpstreamResult] | None = None
    asking: asyncio.Task[Any] | None = None
    """What waits for a decision on it, at this moment."""
    withdrawn: bool = False
    """The end of the call has cancelled what waits for the decision."""
    cancelled: bool = False
    suspended: bool = False
    reads_only: bool = False
    sent: bool = False
    """It was written to its server, or is being written."""

    def cancel(self) -> None:
        """End the forwarding, or keep it from beginning."""
        self.cancelled = True
        self._end()

    def suspend(self) -> bool:
        """Keep the call from being sent and its answer from coming back; return whether that ends it.

        A write that was sent goes on: no abort signal reaches the server's drivers, and what became of it is evidence.
        """
        self.suspended = True
        if self.sent and not self.reads_only:
            return False
        self._end()
        return True

    def _end(self) -> None:
        if self.asking is not None and not self.withdrawn:
            self.withdrawn = True
            self.asking.cancel()
        if self.task is not None:
            self.task.cancel()

    def was_withdrawn(self) -> bool:
        """Whether nothing but the end of the call cancelled what waited for a decision on it; that is over then."""
        return self.withdrawn and self.asking is not None and not self.asking.uncancel()


@dataclass(frozen=True, slots=True)
class Use:
    """What differs between the uses of things that are no tools."""

    derived: Callable[[], Command]
    """Returns what the use would touch."""
    require: Callable[[str], Awaitable[None]]
    """Returns where the named server has the thing that was reviewed, and raises where not."""
    rows: tuple[str, ...] = ()
    """The filters that the thing was made under, as ``Plan.rows`` has them."""


@dataclass(slots=True, kw_only=True)
class Turn:
    """What is known so far of one message: the one mutable thing of a request, never shared between two."""

    request_id: str
    exchange: Exchange
    caller: Caller | None
    span: Span
    time_ns: int
    started: float
    """Monotonic seconds."""
    method: str = ""
    rpc_id: RequestId | None = None
    era: Era = Era.HANDSHAKE
    """Whose rules say how it is answered."""
    conversation: Conversation | None = None
    """By which revision it is read, and in which session; None until that is known."""
    channel: CallChannel | None = None
    """What can go to the client before the answer; None where nothing can."""
    call: ToolCall | None = None
    digested: tuple[ToolCall, str] | None = None
    """A call with the digest of its arguments, which two records hold."""
    derived: Derivation | None = None
    """What a tool call touches by its own words, and where; ``named`` is its command."""
    named: Command | None = None
    """What the call touches by its own words."""
    command: Command | None = None
    """The same with what it reads through views; the accesses of ``named`` come first."""
    question: JsonObject | None = None
    """The document that OPA is asked about, once it is."""
    decision: Decision | None = None
    opinion: Opinion | None = None
    """What a candidate policy set would have said."""
    server: str = ""
    flight: Flight | None = None
    error: str = ""
    """What the metric of the operation says went wrong: ``tool_error`` where the server's own result is one (OTel
    MCP), else the label of what refused or failed here."""
    intended: JsonObject | None = None
    """The record of the intent, once it is built."""
    committed: bool = False
    """The intent is stored (or need not be): what follows is an outcome, no longer a refusal."""
    generic: GenericTools = field(default_factory=lambda: NO_GENERIC_TOOLS)
    """The tools outside of the catalog that there are."""
    shown: ShownList | None = None
    """The list of tools that its caller is sent."""
    given: GivenInput | None = None
    """What its client calls again with, where it was asked before (2026-07-28)."""
    asked: SealedQuestion | None = None
    """What it was asked then; known once the state of ``given`` is used."""
    askable: frozenset[QuestionKind] = frozenset()
    """What else its server may ask its client; settings, policy and the client allow it."""
    inputs: JsonObject = field(default_factory=dict)
    """What its server is sent of what it comes again with."""
    rounds: int = 0
    """How many results of it have asked for something before."""
    carried: Counter[QuestionKind] = field(default_factory=Counter)
    """Questions that were taken to its client."""
    answered: Counter[QuestionKind] = field(default_factory=Counter)
    """Answers that its server was given."""
    exported: bytes = b""
    """What its server answered to an export."""
    confirmed: bool = False
    """Its client answered a question of the server's about it with a confirmation."""
    besides: JsonObject = field(default_factory=dict)
    """What its records say more."""
    approval: JsonObject | None = None
    """What its record says of the approval of a second person that it waits for, or has used up."""
    relies_on: tuple[CallerName, ...] = ()
    """What its approver can be suspended by, where it has used an approval up."""
    batched: bool = False
    """It came with others in one HTTP request, so it cannot have a status of its own."""
    reviewed: tuple[JsonObject, ...] | None = None
    """The live tools of the server that were held against the pins."""
    supposed: bool = False
    """Its token is supposed to have more scopes than it has: nothing is counted, and nothing can be permitted."""

    def supposing(self, scopes: tuple[str, ...]) -> "Turn":
        """Return the same turn as if the caller's token had these scopes too; for a question, never for an effect."""
        principal = self.identity.principal
        larger = replace(principal, scopes=(*principal.scopes, *scopes))
        caller = (
            None if self.caller is None else replace(self.caller, identity=replace(self.identity, principal=larger))
        )
        return replace(self, caller=caller, command=self.named, decision=None, question=None, server="", supposed=True)

    def take_off(self) -> Flight:
        """Begin the call: from now on it can be cancelled."""
        flight = self.flight = Flight(names=names_of(self.identity))
        if self.channel is not None:
            self.channel.when_withdrawn(flight.cancel)
        return flight

    def pause(self, retry_ms: int) -> None:
        """See ``CallChannel.pause``; where there is one connection for everything, it does not end."""
        if self.channel is not None and self.exchange.over_http:
            self.channel.pause(retry_ms)

    def teller(self, *, numbers_only: bool) -> Tell | None:
        """Return who hears what the server says of the call before its answer; see ``CallChannel.teller``."""
        return None if self.channel is None else self.channel.teller(numbers_only=numbers_only)

    @property
    def known_caller(self) -> Caller:
        """The caller; asking for it before there is one is a bug."""
        if self.caller is None:
            msg = "this turn has no caller"
            raise ValueError(msg)
        return self.caller

    def context(self, environment: str) -> RequestContext:
        """Return what is true of the request apart from who calls and what for."""
        return RequestContext(
            time_ns=self.time_ns,
            client_ip=self.exchange.client_ip,
            protocol=self.conversation.revision if self.conversation is not None else "",
            environment=environment,
        )

    @property
    def known_conversation(self) -> Conversation:
        """The conversation; asking for it before there is one is a bug."""
        if self.conversation is None:
            msg = "this turn has no conversation"
            raise ValueError(msg)
        return self.conversation

    @property
    def identity(self) -> Identity:
        """The caller's."""
        return (self.caller or self.known_caller).identity

    @property
    def arguments_sha256(self) -> str | None:
        """The digest of the call's arguments; of many kilobytes it takes milliseconds, so it is taken once."""
        if self.call is None:
            return None
        if self.digested is None or self.digested[0] is not self.call:
            self.digested = (self.call, record.arguments_digest(self.call.arguments))
        return self.digested[1]

    @property
    def exports(self) -> bool:
        """Whether the call leaves a file of its own at the server."""
        return self.named is not None and AccessKind.EXPORT in {access.kind for access in self.named.accesses}

    @property
    def session_id(self) -> str:
        """Empty where there is no session."""
        return self.conversation.session_id if self.conversation is not None else ""

    @property
    def tool(self) -> str:
        """The tool's name if there is such a tool, else empty: names that callers make up are no labels."""
        if self.call is None or not (self.call.name in CATALOG or self.call.name in self.generic):
            return ""
        return self.call.name


def still(suspensions: Suspensions, turn: Turn) -> None:
    """Return if neither the caller was suspended since the message came nor who approved the call.

    Raises:
        CallerSuspended: one of them was, or the token was.
        SuspensionsUnavailable: the suspensions cannot be read.
    """
    if turn.flight is not None and turn.flight.suspended:
        raise CallerSuspended
    if any(map(suspensions.in_force, turn.relies_on)):
        raise CallerSuspended("who approved it is suspended")
    try:
        suspensions.require(turn.identity, turn.session_id)
    except TokenRejected as error:
        raise CallerSuspended from error
