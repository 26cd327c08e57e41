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
from sidecar.mcp import Conversation
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

    def is_there(self, conversation: Conversation, now: float) -> bool:
        """Whether it was made in this session, and the server has it still."""
        return self.session_id == conversation.session_id and self.until > now

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
    """The table of exports, bounded for each caller and in all."""

    def __init__(self) -> None:
        self._made: BoundedMemory[tuple[str, str, str], OrderedDict[str, Export]] = BoundedMemory(MAX_CALLERS)

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
        except (msgspec.DecodeError, RecursionError):
            return
        made = self._made.use(conversation.key)
        if made is None:
            made = OrderedDict[str, Export]()
            self._made.put(conversation.key, made)
        for link in links:
            if link.type == "resource_link" and _URI.fullmatch(link.uri):
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

    def of(self, conversation: Conversation, now: float) -> tuple[Export, ...]:
        """Return the caller's exports of this session that are still there, in the order in which they were made."""
        made = self._made.use(conversation.key)
        return () if made is None else tuple(one for one in made.values() if one.is_there(conversation, now))

    def find(self, conversation: Conversation, uri: str, now: float) -> Export | None:
        """Return the caller's export of this session that a URI names, if there is one."""
        made = self._made.use(conversation.key)
        found = made.get(normalised(uri)) if made is not None else None
        return found if found is not None and found.is_there(conversation, now) else None

    def forget(self, conversation: Conversation, export: Export) -> None:
        """Drop an export that the server no longer has."""
        made = self._made.use(conversation.key)
        if made is not None:
            made.pop(normalised(export.uri), None)


def normalised(uri: str) -> str:
    """Return a URI as it is compared: RFC 3986 section 6.2.2, scheme in lower case and percent-encoding decoded.

    The server compares that way too: two spellings are one export.
    """
    scheme, separator, rest = uri.partition("://")
    return f"{scheme.lower()}{separator}{unquote(rest)}"
