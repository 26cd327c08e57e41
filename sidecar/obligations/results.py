"""What a caller may see of a result: the names of a list, in every form in which the server says them.

The answer is read completely and written again from what was kept, text and structured content alike, so nothing that
was not understood can carry a name (``untrusted``). The forms are those of MongoDB MCP server 3.0.4
(``listDatabases``, ``listCollections``); any other is refused.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType
from typing import Final

from sidecar.mcp import jsonrpc
from sidecar.model import JsonObject, JsonValue
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

MAX_NAMES: Final = 4096
"""Names of one list that policy is asked about; a longer list is refused."""

_FAILED: Final = "The server could not list the names."
"""Shown instead of the server's own words about a failure, which can quote names."""

_WITHHELD: Final = (
    "The server could not carry out the call. What it says is withheld, because it can quote documents that you may "
    "not see. Check names, types and operators; if documents are written, check that no unique key is taken."
)
"""Shown instead of the server's own words about a failure where the caller may see only some rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """How one tool says its list."""

    member: str
    """The key of the list in the structured content."""
    keys: frozenset[str]
    """The keys of an entry."""
    said: str
    """The sentence before the data, with the number of entries."""
    nothing: str
    """The one sentence of an empty list; empty where that looks like any other list."""
    data: Callable[[list[JsonValue], str], JsonValue]
    """The list and the database, as the text has them."""


FORMS: Final[Mapping[str, _Form]] = MappingProxyType(
    {
        "list-databases": _Form(
            member="databases",
            keys=frozenset({"name", "size"}),
            said="Found {count} databases:",
            nothing="",
            data=lambda entries, _: entries,
        ),
        "list-collections": _Form(
            member="collections",
            keys=frozenset({"name"}),
            said="Found {count} collections in the requested database.",
            nothing="Found 0 collections for the requested database. "
            'To create a collection, use the "create-collection" tool.',
            data=lambda entries, database: {"database": database, "collections": entries},
        ),
    }
)
"""The lists of names that can be cut down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameList:
    """A list of names that was understood completely."""

    tool: str
    database: str
    """What the call named; empty where it names none."""
    entries: tuple[JsonObject, ...]
    tag: str
    """The name of the server's tags around the data; empty where there are none."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the server's order."""
        return tuple(str(entry["name"]) for entry in self.entries)

    def only(self, shown: Collection[str]) -> bytes:
        """Return the JSON text of the tool result with these names and no others, with their own count and wording."""
        form = FORMS[self.tool]
        kept: list[JsonValue] = [entry for entry in self.entries if entry["name"] in shown]
        return written(self._texts(form, kept), {form.member: kept, "totalCount": len(kept)})

    def _texts(self, form: _Form, entries: list[JsonValue]) -> list[str]:
        if not entries and form.nothing:
            return [form.nothing]
        return [form.said.format(count=len(entries)), wrapped(self.tag, form.data(entries, self.database))]


def failed_list() -> bytes:
    """Return the JSON text of the answer where the server could not make the list."""
    return jsonrpc.encode({"content": [{"type": "text", "text": _FAILED}], "isError": True})


def withheld() -> bytes:
    """Return the JSON text of the answer where the server failed at a call that is held to some rows.

    The text is always the same: which failure it was can depend on what is hidden, and so can every word of it.
    """
    return jsonrpc.encode({"content": [{"type": "text", "text": _WITHHELD}], "isError": True})


def read_names(result: bytes, tool: str, database: str) -> NameList:
    """Understand the answer to a tool that lists names.

    Args:
        result: the JSON text of the tool result.
        tool: one of ``FORMS``.
        database: what the call named; empty where it names none.

    Raises:
        UpstreamProtocolViolation: the answer is not exactly of the known form, or says one thing in its text and
            another in its structured content.
    """
    form = FORMS[tool]
    structured, texts = plain_answer(result)
    entries = _entries(structured, form)
    if not entries and form.nothing:
        demand(texts == [form.nothing], "the sentence of an empty list")
        return NameList(tool=tool, database=database, entries=(), tag="")
    demand(len(texts) == 2 and texts[0] == form.said.format(count=len(entries)), "the sentence before the data")  # noqa: PLR2004 - the sentence and the data
    tag, data = unwrapped(texts[1])
    demand(equal(data, form.data([*entries], database)), "text and structured content differ")
    return NameList(tool=tool, database=database, entries=entries, tag=tag)


def _entries(structured: JsonValue, form: _Form) -> tuple[JsonObject, ...]:
    keys = {form.member, "totalCount"}
    listed = an_object_of(structured, keys, required=keys)
    entries, total = listed[form.member], listed["totalCount"]
    if not isinstance(entries, list):
        raise unknown("no list of names")
    demand(len(entries) <= MAX_NAMES, f"more than {MAX_NAMES} names")
    demand(type(total) is int and total == len(entries), "a total that is not the number of entries")
    return tuple(_entry(entry, form) for entry in entries)


def _entry(value: JsonValue, form: _Form) -> JsonObject:
    entry = an_object_of(value, form.keys, required=form.keys)
    name = entry["name"]
    demand(isinstance(name, str) and bool(name) and not SURROGATE.search(name), "an entry without a name")
    demand("size" not in entry or _is_number(entry["size"]), "a size that is not a number")
    return entry


def _is_number(value: JsonValue) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
