r"""The audit record: one flat, closed shape for the intent, the outcome and the refusal of a request.

Every record has every field, with null for what is not known, so that a query over the evidence never has to tell
"absent" from "empty". ``seq``, ``prev`` and ``hash`` are added by ``sidecar.audit.chain`` when the record is
stored.

What a record never holds: tokens, session ids, documents, and (unless ``arguments`` is asked for) argument values; the
hash of the arguments ties it to the exact call. Claims only where ``question`` is asked for: the question that was put
to OPA is decided again by ``mcp-sidecar replay``.

Names that callers and tokens choose are written with printable characters: a character that a terminal would act on, or
would not show, is written as a JSON escape (``\u202e``; CWE-117, CWE-150).
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from json import dumps

import msgspec

from sidecar import compact_json
from sidecar.audit.canonical import canonical
from sidecar.model import Access, Command, Decision, Identity, JsonObject, JsonValue
from sidecar.printing import escaped

VERSION = 1

TEXT_LIMIT = 256
"""Characters of a name that the caller chose (method, tool, client); a longer one is cut and ends in ``…``, so that a
refused request cannot write a megabyte of evidence."""

QUESTION_LIMIT = 1_000_000
"""Bytes of a question, UTF-8; what is larger is not put to OPA (``sidecar.opa.wire``). As a text inside a record it
can double: far from the 16 MiB beyond which ``sidecar.store.file`` takes a line for another program's."""

_SESSION_DIGITS = 16
_FURTHER = ("max_affected", "max_bytes", "no_collection_scan")

_CANONICAL_LIMIT = 8192
"""Bytes of arguments, as JSON, up to which their digest is over the canonical form."""


class Event(StrEnum):
    """What a record says happened."""

    INTENT = "intent"
    """The call is permitted and about to be forwarded."""
    OUTCOME = "outcome"
    """What became of an intent; same ``request_id``."""
    REFUSAL = "refusal"
    """The request was refused; nothing was forwarded."""
    CONTROL = "control"
    """An operator suspended or resumed a user, agent, pair, token or session, which ``control`` names."""
    APPROVAL = "approval"
    """A second person approved or denied the call that ``approval`` names."""


class Status(StrEnum):
    """How a request ended."""

    OK = "ok"
    TOOL_ERROR = "tool_error"
    """The server answered; its tool result says ``isError: true``."""
    ERROR = "error"
    """No usable answer; whether the call took effect is not known."""
    CANCELLED = "cancelled"
    """The client gave up or the sidecar was stopped; whether the call took effect is not known."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of one request by the time a record of it is written; grows by ``dataclasses.replace``.

    ``request_id`` joins the intent to its outcome and must be unique per message, also within a batch.
    """

    request_id: str
    trace_id: str | None = None
    span_id: str | None = None
    identity: Identity | None = None
    client_ip: str | None = None
    client_name: str | None = None
    protocol: str | None = None
    session: str | None = None
    """``session_digest`` of the session id; a reader of the evidence could use the id itself."""
    method: str | None = None
    tool: str | None = None
    server: str | None = None
    """The instance, where it is known without a decision; a decision's own server comes first."""
    command: Command | None = None
    arguments_sha256: str | None = None
    """``arguments_digest`` of the arguments; computed once per request."""
    shadow: JsonObject | None = None
    """What a candidate policy set would have decided, where one is compared."""
    arguments: JsonObject | None = None
    """The arguments themselves, only with ``audit.arguments = "full"``."""
    question: str | None = None
    """``question_text`` of what OPA was asked, only with ``audit.question``."""
    approval: JsonObject | None = None
    """The approval of a second person that the call waits for, or that it has used up."""


def session_digest(session_id: str) -> str:
    """Return 16 hexadecimal digits that name a session without being it (SHA-256, cut to 64 bits)."""
    return sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()[:_SESSION_DIGITS]


def arguments_digest(arguments: JsonObject) -> str:
    """Return the SHA-256 over the canonical JSON of a call's arguments, hexadecimal.

    Some arguments get a digest over sorted JSON instead, as stable, marked by the prefix ``raw-``: those without a
    canonical form (RFC 8785 has none for integers beyond 2**53), since a refusal of any arguments must be recordable,
    and large ones. The canonical form takes up to 1.5 µs a byte, in Python, and a refused megabyte must not cost more
    than its decoding; sorting it in C takes 10 ns a byte.
    """
    try:
        text = msgspec.json.encode(arguments, order="sorted")
    except (ValueError, OverflowError):  # a lone surrogate, an integer beyond 64 bits
        text = dumps(arguments, sort_keys=True, separators=(",", ":")).encode("ascii")
    if len(text) <= _CANONICAL_LIMIT:
        with suppress(ValueError):
            return sha256(canonical(arguments)).hexdigest()
    return "raw-" + sha256(text).hexdigest()


def question_text(document: JsonObject) -> str | None:
    """Return a question to OPA as a record holds it: its JSON, byte for byte what OPA reads as ``input``.

    A text and not an object, because canonical JSON has no integers beyond 2**53 (RFC 8785 section 3.2.2.3): the time
    in nanoseconds is one, and a claim may be. It must be the same question when it is read again.

    Returns:
        None where there is no such JSON, or too much of it, which means that OPA was not asked either.
    """
    try:
        text = escaped(compact_json.encode(document).decode())
        size = len(text.encode())
    except (ValueError, TypeError, RecursionError):
        return None
    return text if size <= QUESTION_LIMIT else None


def rfc3339(time_ns: int) -> str:
    """Return nanoseconds since the epoch as RFC 3339 UTC with microseconds, which a float of seconds would lose."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{_to_the_second(seconds)}.{nanoseconds // 1000:06d}Z"


@lru_cache(maxsize=16)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]  # strftime takes 27 µs, and this one


def intent(facts: Facts, decision: Decision, *, record_id: str, time_ns: int) -> JsonObject:
    """Build the record that must be stored before a permitted call is forwarded (law 4).

    Raises:
        ValueError: the decision is a deny or no access is known, so that there is nothing that may be forwarded.
    """
    if not decision.allow or facts.command is None:
        msg = "an intent has an allow and a command"
        raise ValueError(msg)
    return _record(facts, decision, event=Event.INTENT, record_id=record_id, time_ns=time_ns)


def outcome(
    intended: Mapping[str, JsonValue],
    *,
    record_id: str,
    time_ns: int,
    status: Status,
    error: str | None = None,
    documents: int | None = None,
    size: int | None = None,
    duration_ms: float | None = None,
    confirmation: str | None = None,
    questions: JsonObject | None = None,
) -> JsonObject:
    """Build the record of what became of an intent; everything else is the intent's own.

    Args:
        intended: the intent's record, as ``intent`` returned it.
        record_id: this record's id.
        time_ns: now, nanoseconds since the epoch.
        status: how it ended.
        error: the label of the error, where there is one.
        documents: how many documents came back or were written, where the result says so.
        size: bytes of the result that went to the client.
        duration_ms: from receipt to reply, milliseconds.
        confirmation: through whom the user confirmed the call, where the server asked for that; ``client`` guards
            against accidents and proves no person.
        questions: how many questions of the server's were taken to the client and how many answers to the server, by
            kind; nothing of what they say.

    Raises:
        ValueError: ``intended`` is not an intent.
    """
    if intended.get("event") != Event.INTENT:
        msg = "an outcome belongs to an intent"
        raise ValueError(msg)
    record = dict(intended)
    record.pop("arguments", None)  # the intent holds them; the hash is in both
    record.pop("question", None)  # asked once, recorded once
    record["id"] = record_id
    record["time"] = rfc3339(time_ns)
    record["event"] = Event.OUTCOME.value
    ended = _outcome(status, error, documents, size, duration_ms)
    further: JsonObject = {} if confirmation is None else {"confirmation": confirmation}
    if questions:
        further["questions"] = questions
    record["outcome"] = {**ended, **further}
    return record


def refusal(
    facts: Facts,
    error: str,
    decision: Decision | None = None,
    *,
    record_id: str,
    time_ns: int,
    duration_ms: float | None = None,
    suppressed: int = 0,
    limit: JsonObject | None = None,
) -> JsonObject:
    """Build the record of a request that was refused, by whichever step.

    Args:
        facts: what was known by then.
        error: the label of the error (``SidecarError.label``, or the reason of a ``CallRefused``).
        decision: OPA's answer, if it was asked.
        record_id: this record's id.
        time_ns: now, nanoseconds since the epoch.
        duration_ms: from receipt to reply, milliseconds.
        suppressed: how many like refusals of the same caller or address have no record of their own.
        limit: the limit on use that refused, where one did.

    Raises:
        ValueError: no error is named; empty is an error (law 3).
    """
    if not error:
        msg = "a refusal names its error"
        raise ValueError(msg)
    record = _record(facts, decision, event=Event.REFUSAL, record_id=record_id, time_ns=time_ns)
    record["outcome"] = _outcome(Status.REFUSED, error, None, None, duration_ms)
    if suppressed:
        record["suppressed"] = suppressed
    if limit is not None:
        record["limit"] = limit
    return record


def approval(facts: Facts, about: JsonObject, error: str | None = None, *, record_id: str, time_ns: int) -> JsonObject:
    """Build the record of what a second person decided of the call in ``about``; ``error`` where it does not count."""
    record = _record(facts, None, event=Event.APPROVAL, record_id=record_id, time_ns=time_ns)
    record["approval"] = _escaped(about)
    record["outcome"] = _outcome(Status.OK if error is None else Status.ERROR, error, None, None, None)
    return record


def control(
    action: str,
    about: JsonObject,
    error: str | None = None,
    *,
    operator: str,
    record_id: str,
    request_id: str,
    time_ns: int,
) -> JsonObject:
    """Build the record of what an operator did.

    Args:
        action: what was asked for.
        about: what it was about.
        error: the label of the error, where it was not carried out.
        operator: who did it, as the control listener knows them.
        record_id: this record's id.
        request_id: of the operator's command.
        time_ns: now, nanoseconds since the epoch.
    """
    facts = Facts(request_id=request_id)
    record = _record(facts, None, event=Event.CONTROL, record_id=record_id, time_ns=time_ns)
    record["control"] = {"action": action, "operator": escaped(operator), "about": _escaped(about)}
    record["outcome"] = _outcome(Status.OK if error is None else Status.ERROR, error, None, None, None)
    return record


def _record(facts: Facts, decision: Decision | None, *, event: Event, record_id: str, time_ns: int) -> JsonObject:
    command = facts.command
    record: JsonObject = {
        "v": VERSION,
        "id": record_id,
        "time": rfc3339(time_ns),
        "event": event.value,
        "request_id": facts.request_id,
        "trace_id": facts.trace_id,
        "span_id": facts.span_id,
        **_who(facts.identity),
        "client": {"ip": facts.client_ip, "name": _name(facts.client_name)},
        "protocol": _name(facts.protocol),
        "session": facts.session,
        "method": _name(facts.method),
        "tool": _name(facts.tool),
        "server": (decision.server if decision is not None else "") or facts.server,
        "accesses": None if command is None else [_access(access) for access in command.accesses],
        "traits": None if command is None else [*sorted(trait.value for trait in command.traits)],
        "arguments_sha256": facts.arguments_sha256,
        "decision": None if decision is None else _decision(decision),
        "obligations": None if decision is None else obligations(decision),
        "outcome": None,
    }
    if facts.shadow is not None:
        record["shadow"] = facts.shadow
    if facts.arguments is not None:
        record["arguments"] = facts.arguments
    if facts.question is not None:
        record["question"] = facts.question
    if facts.approval is not None:
        record["approval"] = _escaped(facts.approval)
    return record


def _who(identity: Identity | None) -> JsonObject:
    if identity is None:
        return {"subject": None, "actor": None, "token": None}
    principal, actor = identity.principal, identity.actor
    return {
        "subject": {
            "issuer": escaped(principal.issuer),
            "id": escaped(principal.subject),
            "type": principal.kind.value,
            "groups": _names(principal.groups),
        },
        "actor": {"id": escaped(actor.id), "chain": _names(actor.chain)},
        "token": identity.token or None,
    }


def _access(access: Access) -> JsonObject:
    return {name: _escaped(value) for name, value in access.document().items()}


def _escaped(value: JsonValue) -> JsonValue:
    if isinstance(value, dict):
        return {name: _escaped(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_escaped(member) for member in value]
    return escaped(value) if isinstance(value, str) else value


def _decision(decision: Decision) -> JsonObject:
    return {
        "allow": decision.allow,
        "reasons": [
            {"code": reason.code, "source": reason.source, "access": reason.access} for reason in decision.reasons
        ],
        "grants": _names(decision.grants),
        "revision": decision.revision,
        "opa_decision_id": decision.decision_id,
        **({"missing_scopes": _names(decision.step_up.missing)} if decision.step_up is not None else {}),
        **({"limits": _names(dict.fromkeys(limit.id for limit in decision.limits))} if decision.limits else {}),
    }


def obligations(decision: Decision) -> list[JsonValue]:
    """Return the obligations of a decision, an entry for each access that has any."""
    waiting = _approvals(decision)
    return [
        {
            "access": index,
            "owner": verdict.owner,
            "filter": verdict.filter,
            "mask": [_escaped(entry) for entry in verdict.mask],
            "max_documents": verdict.max_documents,
            "max_time_ms": verdict.max_time_ms,
            **{part: value for part in _FURTHER if (value := getattr(verdict, part))},
            **({"names": "reachable"} if verdict.reachable_names else {}),
            **({"approval": waiting[index]} if index in waiting else {}),
        }
        for index, verdict in enumerate(decision.accesses)
        if verdict.obliges or index in waiting
    ]


def _approvals(decision: Decision) -> dict[int, JsonValue]:
    """Return the codes of the approvals that each access asks for; of accesses that ask for none, nothing."""
    entries = decision.approval["accesses"] if decision.approval is not None else []
    found = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return {index: entry.get("codes") for entry in found if isinstance(index := entry.get("access"), int)}


def _outcome(
    status: Status, error: str | None, documents: int | None, size: int | None, duration_ms: float | None
) -> JsonObject:
    return {
        "status": status.value,
        "error": error,
        "documents": documents,
        "bytes": size,
        "duration_ms": None if duration_ms is None else round(duration_ms),
    }


def _name(text: str | None) -> str | None:
    """Bound a text that the caller chose, and escape what does not print."""
    if text is None:
        return None
    return escaped(text if len(text) <= TEXT_LIMIT else text[:TEXT_LIMIT] + "…")


def _names(texts: Iterable[str]) -> list[JsonValue]:
    return [escaped(text) for text in texts]
