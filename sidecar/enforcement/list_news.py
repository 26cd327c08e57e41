"""Who is told that their list of tools is another one: those whose own list differs from the one they were sent.

A new policy set can change what one caller sees and not what another one does. So after a change each listening session
is looked at again, with the identity that asked for its list, and only differences are told. A session that was sent no
list here, and one whose list cannot be had now, is told too: a list that was asked for in vain costs less than one that
is out of date.

Who listens without a session asks for its list in requests of which nothing is kept. It counts as having the list that
it would be sent as it begins to listen, and from then on the one that it was told of last.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from sidecar.enforcement.notices import Notices
from sidecar.enforcement.tool_lists import ShownList
from sidecar.enforcement.turn import Turn
from sidecar.errors import DecisionUnavailable, UpstreamError
from sidecar.mcp import Era, Sessions
from sidecar.model import Identity, RequestContext
from sidecar.ports import Clock

Show = Callable[[Identity, RequestContext, Era], Awaitable[ShownList]]

FIRST_LOOK_S: Final = 2.0
"""How long a request to listen waits for its caller's list, so that a server that hangs does not hold it up."""


class ListNews:
    """Compares what sessions were sent with what they would be sent now.

    Args:
        notices: which sessions listen.
        show: makes the list of a caller.
        sessions: which sessions there are.
        clock: the time of the question that a list is made with.
        environment: the deployment's, for the same question.
    """

    def __init__(self, notices: Notices, show: Show, sessions: Sessions, clock: Clock, environment: str) -> None:
        self._notices = notices
        self._show = show
        self._sessions = sessions
        self._clock = clock
        self._environment = environment
        self._without_session: dict[str, Callable[[], object]] = {}
        self._sent: dict[str, ShownList] = {}
        self._due = False
        self._looking: asyncio.Task[None] | None = None

    def sent(self, session_id: str, shown: ShownList | None) -> None:
        """Note which list a session was sent; of one that ended since it asked, nothing would ever be forgotten."""
        if shown is not None and self._sessions.lasts(session_id, self._clock.monotonic()):
            self._sent[session_id] = shown

    async def listens(self, name: str, turn: Turn, tell: Callable[[], object]) -> None:
        """Look after one who listens without a session, under this name until ``end``.

        Args:
            name: of its stream.
            turn: whose it is.
            tell: tells it that its list is another one.
        """
        self._without_session[name] = tell
        with suppress(DecisionUnavailable, UpstreamError, TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_S):
                shown = await self._show(turn.identity, turn.context(self._environment), Era.STATELESS)
            if name in self._without_session:
                self._sent[name] = shown

    def end(self, listener: str) -> None:
        """A session is over, or a request to listen."""
        self._sent.pop(listener, None)
        self._without_session.pop(listener, None)

    def policies_changed(self) -> None:
        """Look at all who listen; a change meanwhile has them looked at once more."""
        self._due = True
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._look(), name="lists of tools")

    async def stop(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})

    async def _look(self) -> None:
        while self._due:
            self._due = False
            for session_id in self._notices.listeners():
                if await self._differs(session_id):
                    self._notices.tools_changed_for(session_id)
            for name, tell in [*self._without_session.items()]:
                if await self._differs(name) and name in self._without_session:
                    tell()

    async def _differs(self, listener: str) -> bool:
        before = self._sent.get(listener)
        if before is None:
            return True
        context = replace(before.context, time_ns=self._clock.time_ns())
        try:
            now = await self._show(before.identity, context, before.era)
        except (DecisionUnavailable, UpstreamError):
            return True
        if listener in self._without_session:
            self._sent[listener] = now
        return now.result != before.result
