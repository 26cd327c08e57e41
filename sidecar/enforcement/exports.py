"""Exports: who made which file, in which session, with which accesses.

The MongoDB MCP server keeps one store of exports for all its callers and shows each of them everything in it (3.0.4,
``exportsManager.js``). So nothing of that store is shown here: a caller sees the exports that this table has of the
same issuer, subject, agent and session, and every other URI is one of a resource that does not exist.

The server calls an export ``<24 hexadecimal digits>.json``, answers the call before the file is ready, and deletes it
five minutes later (``exportTimeoutMs``, looked at every two minutes).
"""

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import msgspec

from sidecar.bounded import BoundedMemory
from sidecar.mcp import Conversation, IdentityKey
from sidecar.model import Command, JsonObject

SCHEME: Final = "exported-data"

MAX_OF_CALLER: Final = 64
"""Exports of one caller that are remembered; the oldest goes first."""

MAX_CALLERS: Final = 1024
"""Callers whose exports are remembered; the one that has been quiet for longest goes first."""

MAX_NAME: Final = 128
"""Characters of an export's name that are shown."""

KEPT_S: Final = 300.0
"""How long an export is there (MongoDB MCP server 3.0.4, ``exportTimeoutMs``)."""

_URI: Final = re.compile(rf"{SCHEME}://[A-Za-z0-9%._~-]{{1,256}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One export."""

    uri: str
    """As the server wrote it; what is sent to it is this, never what a caller wrote."""
    name: str
    command: Command
    """What the call that made it touched, by its own words and through views."""
    server: str
    """The instance that has the file."""
    rows: tuple[str, ...] = ()
    """The filters that it was made under (``Plan.rows``)."""
    session_id: str
    until: float
    """Monotonic seconds."""

    def entry(self) -> JsonObject:
        """Return it as lists show it."""
        namespace = self.command.accesses[0].namespace
        return {
            "uri": self.uri,
            "name": self.name,
            "description": f"Export of {namespace.database}.{namespace.collection}.",
            "mimeType": "application/json",
        }


class _ResourceLink(msgspec.Struct, gc=False):
    type: str
    uri: str = ""
    name: str = ""


class _ExportResult(msgspec.Struct, gc=False):
    content: list[_ResourceLink]


_decode = msgspec.json.Decoder(_ExportResult).decode


class Exports:
    """The table of exports, bounded for each caller and in all. What has expired leaves it with the next use of it."""

    def __init__(self) -> None:
        self._made: BoundedMemory[IdentityKey, OrderedDict[str, Export]] = BoundedMemory(MAX_CALLERS)

    def __len__(self) -> int:
        return sum(map(len, self._made.values()))

    def note(
        self,
        conversation: Conversation,
        result: bytes,
        command: Command,
        server: str,
        now: float,
        rows: tuple[str, ...] = (),
    ) -> None:
        """Remember the exports that the result of a call of ``export`` links to; a result of another form has none."""
        try:
            links = _decode(result).content
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        made = self._of(conversation.key, now)
        for link in links:
            if link.type == "resource_link" and _URI.fullmatch(link.uri):
                made.pop(normalised(link.uri), None)
                made[normalised(link.uri)] = Export(
                    uri=link.uri,
                    name=link.name[:MAX_NAME],
                    command=command,
                    server=server,
                    rows=rows,
                    session_id=conversation.session_id,
                    until=now + KEPT_S,
                )
        while len(made) > MAX_OF_CALLER:
            made.popitem(last=False)
        if made:
            self._made.put(conversation.key, made)

    def of(self, conversation: Conversation, now: float) -> tuple[Export, ...]:
        """Return the caller's exports of this session that are still there, in the order in which they were made."""
        made = self._of(conversation.key, now)
        return tuple(one for one in made.values() if one.session_id == conversation.session_id)

    def find(self, conversation: Conversation, uri: str, now: float) -> Export | None:
        """Return the caller's export of this session that a URI names, if there is one."""
        found = self._of(conversation.key, now).get(normalised(uri))
        return found if found is not None and found.session_id == conversation.session_id else None

    def _of(self, key: IdentityKey, now: float) -> OrderedDict[str, Export]:
        """Return what a caller has, after dropping what the server has no longer.

        The caller that has been quiet for longest comes first: no other has only what expired long ago.
        """
        while (quiet := self._made.oldest()) is not None and _expire(quiet[1], now):
            self._made.drop(quiet[0])
        made = self._made.use(key)
        if made is None:
            return OrderedDict[str, Export]()
        if _expire(made, now):
            self._made.drop(key)
        return made

    def forget(self, conversation: Conversation, export: Export) -> None:
        """Drop an export that the server no longer has."""
        made = self._made.get(conversation.key)
        if made is not None:
            made.pop(normalised(export.uri), None)
            if not made:
                self._made.drop(conversation.key)


def _expire(made: OrderedDict[str, Export], now: float) -> bool:
    """Drop what has expired, the oldest first; return whether nothing is left."""
    while made and next(iter(made.values())).until <= now:
        made.popitem(last=False)
    return not made


def normalised(uri: str) -> str:
    """Return a URI as it is compared: RFC 3986 section 6.2.2, scheme in lower case and percent-encoding decoded.

    The server compares that way too: two spellings are one export.
    """
    scheme, separator, rest = uri.partition("://")
    return f"{scheme.lower()}{separator}{unquote(rest)}"
