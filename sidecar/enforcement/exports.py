"""Exports: who made which file, in which session, with which accesses.

The MongoDB MCP server keeps one store of exports for all its callers and shows each of them everything in it (3.0.4,
``exportsManager.js``). So nothing of that store is shown here: a caller sees the exports that this table has of the
same issuer, subject, agent and session, and every other URI is one of a resource that does not exist.

The server calls an export ``<24 hexadecimal digits>.json``, answers the call before the file is ready, and deletes it
five minutes later (``exportTimeoutMs``, looked at every two minutes). What leaves the table before its time (its
session ended, its answer was withheld, newer ones took its place) can be read by nobody, and its file goes too.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sidecar.bounded import BoundedMemory
from sidecar.enforcement.turn import Ports
from sidecar.mcp import Conversation, IdentityKey, Sessions, resources
from sidecar.model import Command, JsonObject

MAX_OF_CALLER: Final = 64
"""Exports of one caller that are remembered; the oldest goes first."""

MAX_CALLERS: Final = 1024
"""Callers whose exports are remembered; the one that has been quiet for longest goes first."""

MAX_NAME: Final = 128
"""Characters of an export's name that are shown."""

KEPT_S: Final = 300.0
"""How long an export is there (MongoDB MCP server 3.0.4, ``exportTimeoutMs``)."""


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


class Exports:
    """The table of exports, bounded for each caller and in all. What has expired leaves it with the next use of it.

    Args:
        gone: told of each export that leaves before its time: the server's name, and the URI.
        lasts: whether a session is open; in one that ended while its export was made, nothing is left.
    """

    def __init__(
        self,
        gone: Callable[[str, str], None] = lambda _server, _uri: None,
        lasts: Callable[[str], bool] = lambda _session_id: True,
    ) -> None:
        self._made: BoundedMemory[IdentityKey, OrderedDict[str, Export]] = BoundedMemory(MAX_CALLERS)
        self._whose: dict[str, IdentityKey] = {}
        """Whose each session is that is open and made an export."""
        self._gone = gone
        self._lasts = lasts

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
        links = resources.export_links(result)
        session_id = conversation.session_id
        if session_id and not self._lasts(session_id):
            self.withheld(result, server)
            return
        made = self._of(conversation.key, now)
        for link in links:
            made.pop(resources.normalised(link.uri), None)
            made[resources.normalised(link.uri)] = Export(
                uri=link.uri,
                name=link.name[:MAX_NAME],
                command=command,
                server=server,
                rows=rows,
                session_id=session_id,
                until=now + KEPT_S,
            )
        while len(made) > MAX_OF_CALLER:
            self._leaves(made.popitem(last=False)[1])
        if made:
            self._keep(conversation.key, made)
        if links and session_id:
            self._whose[session_id] = conversation.key

    def withheld(self, result: bytes, server: str) -> None:
        """The answer that links to an export goes to nobody, so nobody can read it."""
        for link in resources.export_links(result):
            self._gone(server, link.uri)

    def end(self, session_id: str) -> None:
        """A session is over, and what was made in it."""
        key = self._whose.pop(session_id, None)
        made = None if key is None else self._made.get(key)
        if key is None or made is None:
            return
        for uri, export in [*made.items()]:
            if export.session_id == session_id:
                del made[uri]
                self._leaves(export)
        if not made:
            self._made.drop(key)

    def of(self, conversation: Conversation, now: float) -> tuple[Export, ...]:
        """Return the caller's exports of this session that are still there, in the order in which they were made."""
        made = self._of(conversation.key, now)
        return tuple(one for one in made.values() if one.session_id == conversation.session_id)

    def find(self, conversation: Conversation, uri: str, now: float) -> Export | None:
        """Return the caller's export of this session that a URI names, if there is one."""
        found = self._of(conversation.key, now).get(resources.normalised(uri))
        return found if found is not None and found.session_id == conversation.session_id else None

    def forget(self, conversation: Conversation, export: Export) -> None:
        """Drop an export that the server no longer has."""
        made = self._made.get(conversation.key)
        if made is not None and made.pop(resources.normalised(export.uri), None) is not None:
            self._leaves(export)
            if not made:
                self._made.drop(conversation.key)

    def _keep(self, key: IdentityKey, made: OrderedDict[str, Export]) -> None:
        if key not in self._made and len(self._made) >= MAX_CALLERS and (quiet := self._made.oldest()) is not None:
            self._made.drop(quiet[0])
            for export in quiet[1].values():
                self._leaves(export)
        self._made.put(key, made)

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

    def _leaves(self, export: Export) -> None:
        self._gone(export.server, export.uri)


def exports_of(ports: Ports, sessions: Sessions) -> Exports:
    """Return the table of exports; the servers delete the files of those that leave it."""

    def gone(server: str, uri: str) -> None:
        if (upstream := ports.upstreams.get(server)) is not None:
            upstream.discard(uri)

    return Exports(gone, lambda session_id: sessions.lasts(session_id, ports.clock.monotonic()))


def _expire(made: OrderedDict[str, Export], now: float) -> bool:
    """Drop what has expired, the oldest first; return whether nothing is left."""
    while made and next(iter(made.values())).until <= now:
        made.popitem(last=False)
    return not made
