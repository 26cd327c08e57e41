"""How a record is kept in MongoDB: its members as they are, so that people and indexes find them.

What is proven is the record's line, which is made again from the document: canonical JSON has one spelling for each
value, so nothing is stored twice that could disagree. Members whose form callers or policies choose are kept as JSON
text in ``{"json": …}``: BSON has names and depths that it does not take, and PyMongo makes a DBRef of some objects.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from pymongo import ASCENDING, IndexModel

from sidecar.audit import canonical, chain
from sidecar.model import JsonObject, JsonValue
from sidecar.store.mongodb.connection import StoredDocument

_BESIDE: Final = frozenset({"_id", "instance", "expires"})
"""What a document has besides the record."""

_AS_IT_IS: Final = frozenset({"subject", "actor", "client", "accesses", "traits", "decision", "outcome"})
"""Members of a closed form (``sidecar.audit.record``)."""

_TEXT: Final = "json"

CHECKPOINTS: Final = ".checkpoints"
"""Appended to the name of the collection: published heads."""

INDEXES: Final = (
    IndexModel([("instance", ASCENDING), ("seq", ASCENDING)], unique=True),
    IndexModel([("time", ASCENDING)]),
    IndexModel([("subject.id", ASCENDING), ("time", ASCENDING)]),
    IndexModel([("actor.id", ASCENDING), ("time", ASCENDING)]),
    IndexModel([("accesses.database", ASCENDING), ("accesses.collection", ASCENDING), ("time", ASCENDING)]),
    IndexModel([("decision.reasons.code", ASCENDING), ("time", ASCENDING)]),
    IndexModel([("request_id", ASCENDING)]),
    IndexModel([("trace_id", ASCENDING)]),
    IndexModel([("expires", ASCENDING)], expireAfterSeconds=0),
)
"""Against forks, for the questions, and for documents that say when they end; those without ``expires`` never do."""

CHECKPOINT_INDEXES: Final = (
    IndexModel([("instance", ASCENDING), ("seq", ASCENDING)]),
    IndexModel([("expires", ASCENDING)], expireAfterSeconds=0),
)

_HASH: Final = {"bsonType": "string", "pattern": "^[0-9a-f]{64}$"}

VALIDATOR: Final[StoredDocument] = {
    "$jsonSchema": {
        "bsonType": "object",
        "required": ["_id", "instance", *sorted(chain.FIELDS)],
        "properties": {
            "_id": {"bsonType": "string"},
            "instance": {"bsonType": "string", "minLength": 1},
            "expires": {"bsonType": "date"},
            "seq": {"bsonType": ["int", "long"], "minimum": 1},
            "id": {"bsonType": "string"},
            "time": {"bsonType": "string"},
            "event": {"bsonType": "string"},
            "request_id": {"bsonType": "string", "minLength": 1},
            "prev": _HASH,
            "hash": _HASH,
        },
    }
}
"""What the database itself refuses: documents that are no records at all."""


def document_id(instance: str, seq: int) -> str:
    """Return the id of a record's document, so that a number exists once also where the index does not."""
    return f"{instance}:{seq}"


def document_of(record: JsonObject, instance: str, expires: datetime | None) -> StoredDocument:
    """Return the document of a linked record."""
    members = {name: _kept(name, value) for name, value in record.items()}
    ends = {} if expires is None else {"expires": expires}
    return {"_id": document_id(instance, int(str(record["seq"]))), "instance": instance, **ends, **members}


def line_of(document: Mapping[str, Any]) -> bytes:
    """Return the line of a document, without a line break; of one that holds no record, one that is none either."""
    try:
        record: JsonObject = {name: _read(name, value) for name, value in document.items() if name not in _BESIDE}
        return chain.line_of(record)
    except (ValueError, TypeError, RecursionError, OverflowError):
        return b"null"


def _kept(name: str, value: JsonValue) -> object:
    if name in _AS_IT_IS or not isinstance(value, dict | list):
        return value
    return {_TEXT: canonical({"": value})[4:-1].decode()}


def _read(name: str, value: Any) -> JsonValue:
    """Return a member of a record; whether it is JSON, the canonical form tells."""
    plain: JsonValue = value
    match value:
        case _ if name in _AS_IT_IS:
            return plain
        case {"json": str(text), **others} if not others:
            return chain.read_value(text)
        case dict() | list():
            raise ValueError("a member is not kept as a sidecar keeps it")
        case _:
            return plain
