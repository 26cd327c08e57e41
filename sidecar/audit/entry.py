"""A stored record, as questions to the evidence read it.

Only the members that questions are about, and only their form: whether the record is the one that was written is for
``audit verify``. What is not of this form is told as unreadable, never skipped in silence.
"""

import msgspec


class Unreadable(ValueError):
    """A line is not a record. The message never repeats what it holds."""


class Who(msgspec.Struct, frozen=True, gc=False):
    """The user that a call was for."""

    id: str
    issuer: str = ""
    groups: tuple[str, ...] = ()


class Through(msgspec.Struct, frozen=True, gc=False):
    """The agent that called."""

    id: str


class From(msgspec.Struct, frozen=True, gc=False):
    """The client program."""

    ip: str | None = None
    name: str | None = None


class Outside(msgspec.Struct, frozen=True, gc=False):
    """What is touched where that is no namespace."""

    kind: str
    id: str


class Touched(msgspec.Struct, frozen=True, gc=False):
    """One access."""

    kind: str
    database: str = ""
    collection: str = ""
    target: Outside | None = None

    @property
    def place(self) -> str:
        """The namespace or the target, for people."""
        if self.target is not None:
            return f"{self.target.kind}/{self.target.id}"
        return f"{self.database}.{self.collection}" if self.collection else self.database or "*"


class Why(msgspec.Struct, frozen=True, gc=False):
    """One reason of a denial."""

    code: str
    source: str = ""
    access: int | None = None


class Decided(msgspec.Struct, frozen=True, gc=False):
    """The answer of policy."""

    allow: bool
    reasons: tuple[Why, ...] = ()
    grants: tuple[str, ...] = ()
    revision: str = ""
    opa_decision_id: str = ""


class Ended(msgspec.Struct, frozen=True, gc=False):
    """How a call ended."""

    status: str
    error: str | None = None
    documents: int | None = None
    bytes: int | None = None
    duration_ms: int | float | None = None


class Owned(msgspec.Struct, frozen=True, gc=False):
    """Whose an access is, where there are obligations."""

    owner: str = ""


class AuditEntry(msgspec.Struct, frozen=True, gc=False):
    """One record."""

    seq: int
    id: str
    time: str
    event: str
    request_id: str
    hash: str
    trace_id: str | None = None
    subject: Who | None = None
    actor: Through | None = None
    client: From | None = None
    session: str | None = None
    method: str | None = None
    tool: str | None = None
    server: str | None = None
    accesses: tuple[Touched, ...] | None = None
    decision: Decided | None = None
    obligations: tuple[Owned, ...] | None = None
    outcome: Ended | None = None

    @property
    def user(self) -> str:
        """The user; empty where nobody was proven."""
        return self.subject.id if self.subject is not None else ""

    @property
    def agent(self) -> str:
        """The agent; empty where nobody was proven."""
        return self.actor.id if self.actor is not None else ""

    @property
    def codes(self) -> tuple[str, ...]:
        """Why it was refused: reason codes of policy, else the label of the error."""
        if self.decision is not None and not self.decision.allow and self.decision.reasons:
            return tuple(dict.fromkeys(reason.code for reason in self.decision.reasons))
        return (self.outcome.error,) if self.outcome is not None and self.outcome.error else ()

    @property
    def teams(self) -> tuple[str, ...]:
        """Whose policy allowed or refused it: owners of grants and of accesses, else the sources of the reasons."""
        found = [grant.partition("/")[0] for grant in self.decision.grants] if self.decision is not None else []
        found += [each.owner for each in self.obligations or () if each.owner]
        if not found and self.decision is not None:
            found = [reason.source for reason in self.decision.reasons if reason.source]
        return tuple(dict.fromkeys(found))


_DECODER = msgspec.json.Decoder(AuditEntry)


def read_entry(line: bytes) -> AuditEntry:
    """Read a stored line.

    Raises:
        Unreadable: it is not of the form of a record.
    """
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise Unreadable("a line does not have the form of an audit record") from None
