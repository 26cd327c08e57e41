"""Notices: what the sidecar tells clients of its own accord, and who listens."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from sidecar.enforcement.turn import Caller
from sidecar.identity import CallerName, names_of
from sidecar.mcp import Session, Sessions, jsonrpc
from sidecar.ports import Clock

LISTEN_POLL_S: Final = 5.0
"""How long a listening stream may outlive its session."""


class Notices:
    """The one registry of listeners: by session, of which each has one stream."""

    def __init__(self, sessions: Sessions, clock: Clock) -> None:
        self._sessions = sessions
        self._clock = clock
        self._listeners: dict[str, _Listener] = {}

    async def listen(self, session: Session, caller: Caller) -> AsyncIterator[bytes]:
        """Yield notifications for a session until the session or the token ends, or it opens another stream.

        The newest stream wins: a proxy may hold a dead one open for minutes, and only the client knows which it reads.
        """
        clock = self._clock
        listener = _Listener(names=names_of(caller.identity))
        self.end(session.id)
        self._listeners[session.id] = listener
        try:
            with self._sessions.streaming(session, clock.monotonic):
                while self._listeners.get(session.id) is listener and self._sessions.lasts(
                    session.id, clock.monotonic()
                ):
                    left = caller.identity.expires_at - clock.time_ns() / 1e9
                    if left <= 0:
                        return
                    with suppress(TimeoutError):
                        message = await asyncio.wait_for(listener.queue.get(), min(left, LISTEN_POLL_S))
                        if message is not None:
                            yield message
        finally:
            if self._listeners.get(session.id) is listener:
                del self._listeners[session.id]

    def end(self, session_id: str) -> None:
        """End the stream that a session has: it was ended, or has opened another one."""
        listener = self._listeners.pop(session_id, None)
        if listener is not None:
            with suppress(asyncio.QueueFull):
                listener.queue.put_nowait(None)

    def take_away(self, ends: Callable[[tuple[CallerName, ...], str], bool], sessions: Collection[Session]) -> int:
        """End the streams of whom ``ends`` is true and those of ended sessions; return how many."""
        listening = [session_id for session_id, one in self._listeners.items() if ends(one.names, session_id)]
        streams = {*listening, *(session.id for session in sessions if session.id in self._listeners)}
        for session_id in streams:
            self.end(session_id)
        return len(streams)

    def tools_changed(self) -> None:
        """Tell every listening session that its list of tools may have changed."""
        message = jsonrpc.encode_notification("notifications/tools/list_changed", {})
        for listener in self._listeners.values():
            with suppress(asyncio.QueueFull):
                listener.queue.put_nowait(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listener:
    """One open stream: what is to be sent on it, and who listens."""

    names: tuple[CallerName, ...]
    queue: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(maxsize=16))
