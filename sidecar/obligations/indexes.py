"""What is shown of the indexes of a collection of which a caller sees some rows, or some fields, only.

An index is no document, and does not change with the documents in it: of its name and its key, only what names a
masked field tells of one. So an entry is dropped whose key leads to, into or around a masked field, and one that says
of itself no fields at all: of ``text`` the fields are not in the key, of ``$**`` they are all. A name is free text, and
may say what a partial index is for: it is shown where MongoDB made it of the key (``a_1_b_-1``, manual, "Index Names"),
else withheld. Of search indexes nothing is shown: what one looks at is any depth of mappings, and how far it is built
depends on all documents.

The answer is read completely and written again, text and structured content alike (``untrusted``). Its form is that of
MongoDB MCP server 3.0.4 (``collectionIndexes.js``), which says name and key and nothing else; any other is refused.
"""

from dataclasses import dataclass
from typing import Final

from sidecar.model import JsonObject, JsonValue
from sidecar.obligations.masks import Mask
from sidecar.obligations.untrusted import (
    SURROGATE,
    an_object_of,
    demand,
    equal,
    plain_answer,
    unknown,
    unwrapped,
    wrapped,
    written,
)

INDEXES: Final = "collection-indexes"
"""The tool."""

MAX_INDEXES: Final = 256
"""Entries of each kind; MongoDB has 64 indexes at most (manual, "MongoDB Limits and Thresholds")."""

WITHHELD_NAME: Final = "(withheld)"

_CLASSIC: Final = "Found {count} classic indexes in the requested collection:"
_SEARCH: Final = "Found {count} search and vector search indexes in the requested collection:"

_KINDS: Final = frozenset({"text", "hashed", "2d", "2dsphere"})
"""What may stand for a field of a key besides a direction (manual, "Index Types")."""

_STRUCTURED: Final = frozenset({"classicIndexes", "searchIndexes", "classicIndexesCount", "searchIndexesCount"})
_SEARCH_KEYS: Final = frozenset({"name", "type", "status", "queryable", "latestDefinition"})


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexView:
    """What one caller is shown of the indexes of one collection."""

    mask: Mask | None
    """None where only rows are hidden: then no field is."""

    def shown(self, result: bytes) -> bytes:
        """Return the JSON text of the tool result with what may be seen of it.

        Raises:
            UpstreamProtocolViolation: the answer is not exactly of the known form, or says one thing in its text and
                another in its structured content.
        """
        entries, tag = _read(result)
        kept: list[JsonValue] = [
            {"name": _name(entry), "key": entry["key"]} for entry in entries if not self._hides(entry["key"])
        ]
        structured: JsonObject = {
            "classicIndexes": kept,
            "searchIndexes": [],
            "classicIndexesCount": len(kept),
            "searchIndexesCount": 0,
        }
        return written([_CLASSIC.format(count=len(kept)), wrapped(tag, kept)], structured)

    def _hides(self, key: JsonValue) -> bool:
        """Whether a key tells of something masked, or does not tell what it is of."""
        if self.mask is None or not isinstance(key, dict):
            return False
        return any(path.startswith("_fts") or bool(self.mask.touched(path)) for path in key)


def _read(result: bytes) -> tuple[list[JsonObject], str]:
    """Return the entries of the indexes that are none of search, and the name of the tags around them."""
    structured, texts = plain_answer(result)
    found = an_object_of(structured, _STRUCTURED, required=_STRUCTURED)
    classic, search = _listed(found, "classicIndexes"), _listed(found, "searchIndexes")
    demand(len(texts) == (4 if search else 2), "the number of its texts")  # a sentence and the data, of each kind
    tag = _said(texts[:2], _CLASSIC, classic)
    if search:
        _said(texts[2:], _SEARCH, search)
        for one in search:
            an_object_of(one, _SEARCH_KEYS, required=_SEARCH_KEYS)
    return [_entry(one) for one in classic], tag


def _listed(found: JsonObject, member: str) -> list[JsonValue]:
    entries, count = found[member], found[f"{member}Count"]
    if not isinstance(entries, list):
        raise unknown("no list of indexes")
    demand(len(entries) <= MAX_INDEXES, f"more than {MAX_INDEXES} indexes")
    demand(type(count) is int and count == len(entries), "a count that is not the number of entries")
    return entries


def _said(texts: list[str], sentence: str, entries: list[JsonValue]) -> str:
    demand(texts[0] == sentence.format(count=len(entries)), "the sentence before the data")
    tag, data = unwrapped(texts[1])
    demand(equal(data, entries), "text and structured content differ")
    return tag


def _entry(value: JsonValue) -> JsonObject:
    entry = an_object_of(value, {"name", "key"}, required={"name", "key"})
    name, key = entry["name"], entry["key"]
    demand(isinstance(name, str) and bool(name) and not SURROGATE.search(name), "an index without a name")
    if not isinstance(key, dict) or not key:
        raise unknown("an index without a key")
    demand(all(path and _is_direction(value) for path, value in key.items()), "a key of another form")
    demand(not any(SURROGATE.search(path) for path in key), "a key of another form")
    return entry


def _is_direction(value: JsonValue) -> bool:
    """Whether a value of a key is the direction of a field, or the kind of index that the field has."""
    return value in _KINDS if isinstance(value, str) else type(value) is int


def _name(entry: JsonObject) -> str:
    """Return the name where it says no more than the key does."""
    key = entry["key"]
    parts = [] if not isinstance(key, dict) else [f"{path}_{value}" for path, value in key.items()]
    usual = {"_".join(parts), *(["_id_"] if key == {"_id": 1} else [])}
    return str(entry["name"]) if entry["name"] in usual else WITHHELD_NAME
