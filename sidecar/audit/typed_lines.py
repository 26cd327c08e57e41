"""The check of many stored lines at a time in C, for records of the forms that ``record`` writes.

What ``quick`` finds of one line in 20 µs is found here in 6 (measured), by the same argument: a line that passes has
the stated hash over its bytes, and its record written again is the same bytes. Records are read into structs and not
into dicts, which is most of what is saved. Nothing is lost by that: a member that the struct does not know, a name
twice, another order or another spelling is not written again, so the bytes differ. Numbers are whole and below 2**53
(``WholeNumber``), so their text is that of RFC 8785; names beyond U+FFFF, which sort otherwise there, are not taken.

A line that does not pass may be as good as any other (a fraction in a caller's arguments, a member of a later version):
the slower checks decide, and say why.
"""

from hashlib import sha256
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from sidecar.audit.record import VERSION, Event
from sidecar.model import JsonObject

_SEAL: Final = len(b',"hash":"') + 64 + len(b'"}')
_BEYOND: Final = (b"\xf0", b"\xf1", b"\xf2", b"\xf3", b"\xf4")
"""How a character beyond U+FFFF begins in UTF-8 (RFC 3629 section 3)."""

WholeNumber: TypeAlias = Annotated[int, Meta(ge=1 - 2**53, le=2**53 - 1)]
_TextOrNull: TypeAlias = str | None

# JSON without fractions, as deep as members of policies and callers usually are: types of msgspec cannot be recursive.
_Leaf: TypeAlias = WholeNumber | str | bool | None
_Free1: TypeAlias = _Leaf | list[_Leaf] | dict[str, _Leaf]
_Free2: TypeAlias = _Leaf | list[_Free1] | dict[str, _Free1]
_Free3: TypeAlias = _Leaf | list[_Free2] | dict[str, _Free2]
_Free4: TypeAlias = _Leaf | list[_Free3] | dict[str, _Free3]
_Free5: TypeAlias = _Leaf | list[_Free4] | dict[str, _Free4]
_Free6: TypeAlias = _Leaf | list[_Free5] | dict[str, _Free5]
_Free: TypeAlias = _Leaf | list[_Free6] | dict[str, _Free6]


# The members of each stand in the order of RFC 8785.


class _AccessOnLine(msgspec.Struct, kw_only=True, gc=False):
    collection: str
    database: str
    kind: str
    target: dict[str, str] | UnsetType = UNSET
    via: str
    via_view: dict[str, str] | UnsetType = UNSET


class _ActorOnLine(msgspec.Struct, kw_only=True, gc=False):
    chain: list[str]
    id: str


class _ClientOnLine(msgspec.Struct, kw_only=True, gc=False):
    ip: _TextOrNull
    name: _TextOrNull


class _ReasonOnLine(msgspec.Struct, kw_only=True, gc=False):
    access: WholeNumber | None
    code: str
    source: str


class _DecisionOnLine(msgspec.Struct, kw_only=True, gc=False):
    allow: bool
    grants: list[str]
    limits: list[str] | UnsetType = UNSET
    missing_scopes: list[str] | UnsetType = UNSET
    opa_decision_id: _TextOrNull
    reasons: list[_ReasonOnLine]
    revision: str


class _ObligationOnLine(msgspec.Struct, kw_only=True, gc=False):
    access: WholeNumber
    approval: _Free | UnsetType = UNSET
    filter: _Free
    mask: list[_Free]
    max_affected: WholeNumber | UnsetType = UNSET
    max_bytes: WholeNumber | UnsetType = UNSET
    max_documents: WholeNumber | None
    max_time_ms: WholeNumber | None
    names: str | UnsetType = UNSET
    no_collection_scan: bool | UnsetType = UNSET
    owner: str


class _OutcomeOnLine(msgspec.Struct, kw_only=True, gc=False):
    bytes: WholeNumber | None
    confirmation: str | UnsetType = UNSET
    documents: WholeNumber | None
    duration_ms: WholeNumber | None
    error: _TextOrNull
    questions: _Free | UnsetType = UNSET
    status: str


class _SubjectOnLine(msgspec.Struct, kw_only=True, gc=False):
    groups: list[str]
    id: str
    issuer: str
    type: str


class TypedLine(msgspec.Struct, kw_only=True, gc=False):
    """A record whose line holds: the members that every record has, and those that some have; its hash is last."""

    accesses: list[_AccessOnLine] | None
    actor: _ActorOnLine | None
    approval: _Free | UnsetType = UNSET
    arguments: _Free | UnsetType = UNSET
    arguments_sha256: _TextOrNull
    client: _ClientOnLine | None
    control: _Free | UnsetType = UNSET
    decision: _DecisionOnLine | None
    event: Event
    id: str
    limit: _Free | UnsetType = UNSET
    method: _TextOrNull
    obligations: list[_ObligationOnLine] | None
    outcome: _OutcomeOnLine | None
    prev: str
    protocol: _TextOrNull
    question: str | UnsetType = UNSET
    request_id: Annotated[str, Meta(min_length=1)]
    seq: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    server: _TextOrNull
    session: _TextOrNull
    shadow: _Free | UnsetType = UNSET
    span_id: _TextOrNull
    subject: _SubjectOnLine | None
    suppressed: WholeNumber | UnsetType = UNSET
    time: str
    token: _TextOrNull | UnsetType = UNSET
    tool: _TextOrNull
    trace_id: _TextOrNull
    traits: list[str] | None
    v: Literal[1]
    hash: str


_DECODER: Final = msgspec.json.Decoder(TypedLine)
_BODIES: Final = msgspec.json.Decoder(dict[str, Any])
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
"""Members of structs in their own order, names of dicts sorted."""

if VERSION != 1:
    raise AssertionError("the lines of another version have another form")


def typed(block: bytes) -> list[TypedLine] | None:
    """Return the records of some lines, each of which holds on its own; None where another check has to look.

    Whether they follow each other is not looked at, nor whether ``prev`` is a hash: the one before has to be it.

    Args:
        block: whole lines, each with its line break.
    """
    if not block.isascii() and any(lead in block for lead in _BEYOND):
        return None
    try:
        records = _DECODER.decode_lines(block)
        if _ENCODER.encode_lines(records) != block:
            return None
    except (ValueError, RecursionError):
        return None
    for line, record in zip(block.split(b"\n"), records, strict=False):  # behind the last break is nothing
        if sha256(line[:-_SEAL] + b"}").hexdigest() != record.hash:
            return None
    return records


def body_of(line: bytes) -> JsonObject:
    """Return the record of a line that was found to hold, without its hash.

    Args:
        line: without its line break.
    """
    record: JsonObject = _BODIES.decode(line[:-_SEAL] + b"}")
    return record
