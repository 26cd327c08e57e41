"""The shared nouns: frozen values that one room hands to the next.

A value here is well-formed by construction; a ``ValueError`` from ``__post_init__`` is a defect of the sidecar, never a
caller's mistake. Nothing here knows how values travel: ``sidecar.policy.document`` renders them for OPA,
``sidecar.audit`` for the evidence, ``sidecar.telemetry`` for traces.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType, TypeAlias

from sidecar.questions import CallQuestions
from sidecar.strict_json import JsonObject as JsonObject  # noqa: PLC0414 -- most rooms know JSON from here
from sidecar.strict_json import JsonValue as JsonValue  # noqa: PLC0414
from sidecar.usage import UsageLimit

Tell: TypeAlias = Callable[[str, JsonObject], None]
"""Takes what a server says of a call before it answers it: a method of MCP and its parameters."""

UnverifiedToken = NewType("UnverifiedToken", str)
"""An access token that has not been checked yet. Only ``sidecar.oauth`` accepts it; it is never logged."""


class AuthScheme(StrEnum):
    """How a credential is presented (RFC 9110 section 11.1). Closed: another scheme is refused at the edge."""

    BEARER = "Bearer"
    """RFC 6750."""
    DPOP = "DPoP"
    """RFC 9449: the token is bound to a key, and the request shows with a proof that its sender has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What one request presents to prove who is calling; nothing in it is verified.

    A token alone cannot say whether its bearer may use it: a proof of possession is about the token, the method and the
    URI of the request together (RFC 9449 section 4.3).
    """

    scheme: AuthScheme
    token: UnverifiedToken = field(repr=False)
    proof: str | None = field(default=None, repr=False)
    """The ``DPoP`` header, as it came."""
    certificate: str | None = None
    """Thumbprint of the certificate that the client proved to hold (RFC 8705 section 3.1), as TLS has it."""
    method: str
    """The request's method."""
    uri: str
    """This endpoint's URI as clients dial it, without query and fragment."""


class PrincipalKind(StrEnum):
    """Who can have rights of their own."""

    USER = "user"
    """A person, who lends rights to an agent."""
    SERVICE = "service"
    """Software that the operator registered by name; there is no person behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who the token speaks for: the user. ``(issuer, subject)`` is the key, never the subject alone."""

    issuer: str
    subject: str
    kind: PrincipalKind = PrincipalKind.USER
    several_issuers: bool = False
    """Whether other issuers are trusted too, so that a group, role or agent counts only together with its issuer."""
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    claims: Mapping[str, JsonValue] = field(default_factory=dict)
    """Only the claims that the issuer's configuration lists under ``extra``."""
    scope_prefix: str = ""
    """What a client puts before a scope to ask this issuer for it; ``scopes`` and policies have the name without."""

    def __post_init__(self) -> None:
        if not self.issuer or not self.subject:
            raise ValueError("a principal has an issuer and a subject")


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts for the principal: the agent (RFC 8693 section 4.1 ``act``, else ``client_id`` or ``azp``)."""

    id: str
    chain: tuple[str, ...] = ()
    """Earlier actors, outermost first; informational only (RFC 8693 section 4.1)."""

    def __post_init__(self) -> None:
        if not self.id:
            raise ValueError("an actor has an id")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A verified caller: a user through an agent, until the token expires."""

    principal: Principal
    actor: Actor
    expires_at: float
    """Seconds since the epoch (the token's ``exp``)."""
    token: str = ""
    """32 hexadecimal digits that name the token without being it (SHA-256, cut to 128 bits)."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What sessions and caches are bound to: (issuer, subject, agent)."""
        return (self.principal.issuer, self.principal.subject, self.actor.id)


class AccessKind(StrEnum):
    """One kind of use of a namespace. Closed; there is no order among kinds."""

    READ = "read"
    METADATA = "metadata"
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    CREATE = "create"
    DROP = "drop"
    INDEX = "index"
    ADMIN = "admin"
    CONNECT = "connect"
    EXPORT = "export"
    EXTERNAL = "external"
    EXECUTE = "execute"


class TargetKind(StrEnum):
    """What an access touches when that is not a namespace."""

    ORGANISATION = "organisation"
    PROJECT = "project"
    CLUSTER = "cluster"
    DEPLOYMENT = "deployment"
    SERVICE = "service"
    TOOL = "tool"
    PROMPT = "prompt"
    RESOURCE = "resource"
    QUESTION = "question"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something of Atlas, a local deployment, a service, or what settings name; an empty ``id`` is the server's own."""

    kind: TargetKind
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A database and a collection, exactly as MongoDB compares them.

    An empty collection means the whole database; an empty database means the whole deployment. Never joined with a
    dot: collection names may contain dots.
    """

    database: str = ""
    collection: str = ""

    def __post_init__(self) -> None:
        if self.collection and not self.database:
            raise ValueError("a collection belongs to a database")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One kind of use of one namespace (or of one target outside the database)."""

    kind: AccessKind
    namespace: Namespace
    via: str
    """JSON pointer into the ``tools/call`` params: the value that this access was derived from, or where that pointer
    would be long, a value that encloses it. ``/name`` where the tool alone says it."""
    target: Target | None = None
    via_view: Namespace | None = None
    """The view through which this namespace is reached, if the caller named the view and not the namespace."""

    def document(self) -> JsonObject:
        """Render it as policy and the audit record have it; ``target`` and ``via_view`` only where there is one."""
        document: JsonObject = {
            "kind": self.kind.value,
            "database": self.namespace.database,
            "collection": self.namespace.collection,
            "via": self.via,
        }
        if self.target is not None:
            document["target"] = {"kind": self.target.kind.value, "id": self.target.id}
        if self.via_view is not None:
            document["via_view"] = {"database": self.via_view.database, "collection": self.via_view.collection}
        return document


class Trait(StrEnum):
    """A fact about a command that policy may judge; not a judgement."""

    SERVER_SIDE_JS = "server_side_js"
    UNBOUNDED = "unbounded"
    WHOLE_COLLECTION = "whole_collection"
    UPSERT = "upsert"
    DROPS_TARGET = "drops_target"
    WRITES_VIA_PIPELINE = "writes_via_pipeline"
    CHANGE_STREAM = "change_stream"
    EXECUTES_PLAN = "executes_plan"
    CROSS_DATABASE = "cross_database"
    EXTERNAL_SERVICE = "external_service"
    CREDENTIALS_IN_ARGUMENTS = "credentials_in_arguments"
    SYSTEM_NAMESPACE = "system_namespace"
    USER_ROLES = "user_roles"
    ALL_INDEXES = "all_indexes"
    EXPORTS_FILE = "exports_file"
    COST = "cost"
    NETWORK_EXPOSURE = "network_exposure"
    RUNS_CONTAINER = "runs_container"
    AMPLIFYING = "amplifying"
    """It asks for more than an ordinary command does of something that its input does not bound (``Amplifier``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amplifier:
    """A construct whose output or time is set by a number and not by its input, with the largest such number."""

    construct: str
    """One of ``sidecar.commands.amplifiers.ORDINARY``."""
    number: float | None
    """What is asked for; None where it is computed and so not known beforehand."""
    at: str
    """JSON pointer into the ``tools/call`` params."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldUse:
    """Which document fields a command looks at and gives back; obligations on fields stand on this.

    Paths are dotted, from the root of the document. ``returned`` is None where it cannot be told ("all").
    Where it cannot be told what is looked at, ``filtered`` holds the empty path: the document itself, so every field.
    """

    filtered: tuple[str, ...] = ()
    returned: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """The decoded form of exactly what will be sent, should it be permitted."""

    name: str
    arguments: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What a tool call would do to MongoDB."""

    tool: str
    accesses: tuple[Access, ...]
    traits: frozenset[Trait] = frozenset()
    stages: tuple[str, ...] = ()
    """Names of all pipeline stages, nested ones included, in the order of reading."""
    fields: FieldUse = FieldUse()
    limit: int | None = None
    """The most documents the caller asked for; None where the call does not say."""
    amplifiers: tuple[Amplifier, ...] = ()
    """Each construct once, with its largest number."""
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    """Values without parts that policy may see, by JSON pointer; only of what is outside of the catalog."""

    def __post_init__(self) -> None:
        if not self.accesses:
            raise ValueError("a command without an access cannot be decided (law 3: empty is an error)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """What is true of one request apart from who calls and what for."""

    time_ns: int
    client_ip: str
    protocol: str
    """The MCP revision in force."""
    environment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequest:
    """The whole question to policy."""

    identity: Identity
    method: str
    command: Command
    context: RequestContext


@dataclass(frozen=True, slots=True, kw_only=True)
class AmplifierBound:
    """The most that the platform allows of an amplifying construct."""

    construct: str
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why not. ``code`` and ``source`` come from a fixed vocabulary, never from the input."""

    code: str
    source: str
    access: int | None = None
    """Index into the command's accesses, or None where the reason is about the whole call."""
    bound: AmplifierBound | None = None
    """The bound that the command is over, where that is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepUp:
    """The scopes with which a refused call would be allowed."""

    missing: tuple[str, ...]
    """What the token lacks, and no more than this call needs."""
    held: tuple[str, ...] = ()
    """The scopes of the token that the platform's data knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessVerdict:
    """What policy said of one access: whose it is, which grants matched, under which obligations."""

    owner: str
    grants: tuple[str, ...] = ()
    filter: JsonObject | None = None
    mask: tuple[JsonValue, ...] = ()  # paths of fields, or {"field", "as"}
    max_documents: int | None = None
    max_time_ms: int | None = None
    max_affected: int | None = None
    max_bytes: int | None = None
    no_collection_scan: bool = False
    reachable_names: bool = False
    """A list shows only the names that some grant of the caller reaches."""

    @property
    def obliges(self) -> bool:
        """Whether anything must be done for this access to stand."""
        return self != AccessVerdict(owner=self.owner, grants=self.grants)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """OPA's answer, checked against the contract. Only ``sidecar.policy.verdict`` makes one."""

    allow: bool
    reasons: tuple[Reason, ...]
    server: str
    """The configured MCP server instance that an allow goes to; of a deny, the one it would have gone to, if any."""
    accesses: tuple[AccessVerdict, ...]
    revision: str
    approval: JsonObject | None = None
    step_up: StepUp | None = None
    """Only of a deny: what policy says a token would have to have besides."""
    decision_id: str = ""
    limits: tuple[UsageLimit, ...] = ()
    """Only of an allow: what the call counts towards."""

    @property
    def owners(self) -> tuple[str, ...]:
        """The owning teams, each once, in the order of the accesses."""
        return tuple(dict.fromkeys(verdict.owner for verdict in self.accesses if verdict.owner))

    @property
    def grants(self) -> tuple[str, ...]:
        """The matching grants as ``owner/grant``, each once."""
        return tuple(dict.fromkeys(f"{verdict.owner}/{grant}" for verdict in self.accesses for grant in verdict.grants))


@dataclass(frozen=True, slots=True, kw_only=True)
class VisibleTools:
    """What a caller may see at all: these tools, of these servers."""

    tools: frozenset[str]
    servers: frozenset[str]  # those that the caller's calls can be routed to


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """The only thing that lets a call be forwarded. Built in one place: ``sidecar.enforcement``."""

    server: str
    call: ToolCall
    method: str = "tools/call"  # of another one, the arguments of ``call`` are the whole parameters
    request_id: str
    audit_id: str  # of the intent, already stored
    traceparent: str | None = None
    caller: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """Whose call it is, with the session: one of several processes keeps what such calls leave in it."""
    reviewed: tuple[JsonObject, ...] | None = field(default=None, compare=False, repr=False)
    """The live tools (or prompts) that were held against the pins: only a process that has these gets the call."""
    confirm: Callable[[JsonObject], Awaitable[JsonObject]] | None = field(default=None, compare=False, repr=False)
    """Takes a question of the server's to the user; None where the client cannot be asked."""
    questions: CallQuestions | None = field(default=None, compare=False, repr=False)  # None: it may ask nothing else
    tell: Tell | None = field(default=None, compare=False, repr=False)
    paused: Callable[[int], None] = field(default=lambda _ms: None, compare=False, repr=False)  # see ``Outgoing``
    leaving: Callable[[], None] = field(default=lambda: None, compare=False, repr=False)
    """To be called right before the call is written to its server, each time that it is; raises where the permit has
    lapsed while the call waited for its turn, and then nothing may be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamResult:
    """What the MongoDB MCP server answered to a permitted call."""

    result: bytes
    """The JSON text of the JSON-RPC ``result`` member, one object, UTF-8."""
    failed: bool
    """The tool result says ``isError: true``."""
    documents: int | None = None
    """How many documents came back or were written, where the result says so."""
