"""What an audit record says of a decision: what was asked, of whom, and what it came to.

Read for ``mcp-sidecar replay``. A record whose hash holds can still say anything (a writer of the file can compute
hashes), so every member that is used is checked; the others are left where they are.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from json import JSONDecoder, dumps
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from sidecar.audit import canonical, record
from sidecar.enforcement import OWN_SOURCE
from sidecar.errors import ObligationNotSupported, ToolGroupOff
from sidecar.model import Decision, JsonObject, JsonValue, Reason
from sidecar.obligations import possible
from sidecar.printing import escaped

MAX_ACCESSES: Final = 256
"""Of one question (``policies/schema/input.json``)."""

MAX_NAMED: Final = 1 << 15
"""Reasons, and grants, of one decision: more reasons than an answer of OPA can hold (1 MB, ``sidecar.opa.client``).
Without a bound, eight of the longest lines, made of nothing but these or obligations, took 2.7 GB (measured)."""

MAX_PARTS: Final = 16
"""Members of one access's obligations; ``sidecar.audit.record`` writes six."""


class UnreadableRecord(ValueError):
    """A record is not of the form that ``sidecar.audit.record`` writes. The message never repeats what it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionOutcome:
    """What a decision comes to: policy's answer, after the plan for its obligations."""

    allow: bool
    reasons: frozenset[Reason]
    server: str
    grants: frozenset[str]
    obligations: frozenset[tuple[int, str, str]]
    """Access, part, and the part's value as JSON; values may come from claims, so they are compared and never shown."""

    @classmethod
    def of(cls, decision: Decision, tool: str) -> "DecisionOutcome":
        """Return what enforcement makes of an answer: its own plan is asked, so that both agree."""
        # Records say which reasons there were, and not which bounds: those are data of the policies.
        allow, reasons = decision.allow, frozenset(replace(reason, bound=None) for reason in decision.reasons)
        if allow:
            try:
                possible(decision, tool)
            except ObligationNotSupported as error:
                allow, reasons = False, frozenset({_unsupported(error.label)})
        return cls(
            allow=allow,
            reasons=reasons,
            server=decision.server,
            grants=frozenset(decision.grants),
            obligations=_parts(record.obligations(decision)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedQuestion:
    """The question that was put to OPA."""

    text: str
    document: JsonObject
    accesses: int
    shown: JsonObject
    """Who asked for what, as reports name it: nothing of claims, groups, roles and scopes."""

    @property
    def tool(self) -> str:
        """The tool that the question is about; empty where it names none."""
        match self.document:
            case {"action": {"tool": str(tool)}}:
                return tool
            case _:
                return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedDecision:
    """An intent or a refusal."""

    time: str
    request_id: str
    asked: RecordedQuestion | None
    """None where the question was not recorded, or policy was not asked."""
    standing: DecisionOutcome | None
    """None where there was no decision."""


def read_record(entry: JsonObject) -> RecordedDecision | None:
    """Read one record; None for an outcome, whose decision is that of its intent, and for what an operator did.

    Raises:
        UnreadableRecord: it is not of the form that is written, or nested too deep to be compared.
    """
    try:
        return _recorded(msgspec.convert(entry, _Record))
    except (msgspec.ValidationError, RecursionError):
        raise UnreadableRecord("the record does not have the form of an audit record") from None


def _recorded(found: "_Record") -> RecordedDecision | None:
    if found.event in {record.Event.OUTCOME, record.Event.CONTROL, record.Event.APPROVAL}:
        return None
    return RecordedDecision(
        time=found.time,
        request_id=found.request_id,
        asked=None if found.question is None else read_question(found.question),
        standing=None if found.decision is None else _standing(found, found.decision),
    )


def read_question(text: str) -> RecordedQuestion:
    """Read the question of a record.

    Raises:
        UnreadableRecord: it is not the JSON that was written, or not of the form of a question.
    """
    try:
        document: JsonValue = _DECODER.decode(text)
        question = msgspec.convert(document, _Question)
    except (ValueError, RecursionError):
        raise UnreadableRecord("the question does not have the form of a question to OPA") from None
    # Written again it must be the same text: what is asked now is what was asked then, no key twice, no NaN.
    # Older records hold characters that do not print as they are; they are escaped before they are compared.
    if not isinstance(document, dict) or record.question_text(document) != escaped(text):
        raise UnreadableRecord("the question is not in the form in which it was recorded")
    return RecordedQuestion(text=text, document=document, accesses=len(question.accesses), shown=_shown(question))


class _Reason(msgspec.Struct):
    code: str
    source: str
    access: Annotated[int, msgspec.Meta(ge=0)] | None


class _Decision(msgspec.Struct):
    allow: bool
    reasons: Annotated[list[_Reason], msgspec.Meta(max_length=MAX_NAMED)]
    grants: Annotated[list[str], msgspec.Meta(max_length=MAX_NAMED)]


class _Outcome(msgspec.Struct):
    error: str | None


_Obligations: TypeAlias = Annotated[dict[str, Any], msgspec.Meta(max_length=MAX_PARTS)]


class _Record(msgspec.Struct):
    event: str
    time: str
    request_id: str
    server: str | None
    decision: _Decision | None
    obligations: Annotated[list[_Obligations], msgspec.Meta(max_length=MAX_ACCESSES)] | None
    outcome: _Outcome | None
    question: str | None = None


class _Caller(msgspec.Struct):
    id: str
    issuer: str


class _Agent(msgspec.Struct):
    id: str


class _Action(msgspec.Struct):
    tool: str


class _Target(msgspec.Struct):
    kind: str
    id: str


class _Access(msgspec.Struct, omit_defaults=True):
    kind: str
    database: str
    collection: str
    target: _Target | None = None


class _Question(msgspec.Struct):
    subject: _Caller
    actor: _Agent
    action: _Action
    accesses: Annotated[list[_Access], msgspec.Meta(min_length=1, max_length=MAX_ACCESSES)]


_DECODER: Final = JSONDecoder()


def _shown(question: _Question) -> JsonObject:
    parts = {
        "subject": question.subject,
        "actor": question.actor,
        "tool": question.action.tool,
        "accesses": question.accesses,
    }
    shown: JsonObject = msgspec.to_builtins(parts)
    return shown


def _standing(found: _Record, decision: _Decision) -> DecisionOutcome:
    """Return what a recorded decision came to.

    The decision of a record is OPA's own answer, also where the call was refused afterwards; only a tool whose group is
    off on the chosen server makes a deny of it. Of the other refusals that for an obligation follows from policy; a
    server that was away or a client that gave up says nothing about it.
    """
    error = found.outcome.error if found.outcome is not None else None
    stood = error != ObligationNotSupported.label
    reasons = [Reason(code=reason.code, source=reason.source, access=reason.access) for reason in decision.reasons]
    if reasons == [_TOOL_OFF]:
        # Settings denied what policy allowed; they may be others by now, and say nothing about policy.
        reasons, allow = [], True
    else:
        allow = decision.allow
    return DecisionOutcome(
        allow=allow and stood,
        reasons=frozenset(reasons) if stood or not allow else frozenset({_unsupported(str(error))}),
        server=found.server or "",
        grants=frozenset(decision.grants),
        obligations=_parts(found.obligations or []),
    )


_TOOL_OFF: Final = Reason(code=ToolGroupOff.label, source=OWN_SOURCE)
"""What stands in a record where the chosen server's settings leave the tool's group off."""


def _unsupported(label: str) -> Reason:
    return Reason(code=label, source=OWN_SOURCE)


def _parts(entries: Iterable[Any]) -> frozenset[tuple[int, str, str]]:
    """Return the obligations of a record, part by part.

    Raises:
        UnreadableRecord: an entry is not about an access.
    """
    found = set()
    for entry in entries:
        access = entry.get("access")
        if type(access) is not int:
            raise UnreadableRecord("an obligation belongs to no access")
        found |= {
            (access, part, _value(value))
            for part, value in entry.items()
            if part != "access" and value not in (None, [])
        }
    return frozenset(found)


def _value(value: JsonValue) -> str:
    """Write a value in the one form in which records hold it; what has no such form, in another that is its own."""
    try:
        return canonical({"": value}).decode()
    except ValueError:
        return dumps(value, sort_keys=True)
