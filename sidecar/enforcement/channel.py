"""What goes to the client of one call before its answer: progress and log messages, where it asked for them."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from sidecar.enforcement.event_stream import EventStream, StreamOwner, new_stream
from sidecar.identity import CallerName
from sidecar.mcp import Conversation, RequestId, jsonrpc, tools
from sidecar.model import JsonObject, Tell

MAX_TOLD: Final = 1_000
"""Messages about one call that are relayed; further ones are dropped."""

MAX_TOLD_BYTES: Final = 512 * 1024
"""Their size."""

MAX_PAUSE_MS: Final = 30_000
"""A client that is sent away comes back before its answer is forgotten (``notices.KEEP_S``)."""

_PROGRESS: Final = "notifications/progress"
_LOG: Final = "notifications/message"


Departure: TypeAlias = asyncio.Future[None] | None
"""Done when a client has left; None where that cannot be told."""

Told: TypeAlias = Callable[[], None] | None
"""Called when something has happened, where anybody wants to know."""


class CallChannel:
    """What goes to the client of one call before its answer.

    Args:
        name: of its stream, should it have one.
        progress_token: what its client asked for progress with; None where it did not.
        sent: called when the call leaves for its server.
    """

    def __init__(self, name: str, progress_token: RequestId | None, sent: Told = None) -> None:
        self.sent = sent
        self.takes_turns = sent is not None
        """Its message is large, and the transport waits for it to leave."""
        self.stream: EventStream | None = None
        self._name = name
        self._token = progress_token
        self._level: str | None = None
        self._told = 0
        self._bytes = 0
        self._open = True
        self._wanted: Callable[[], None] | None = None
        self._withdraw: Callable[[], None] | None = None
        self._gone = False

    def within(self, conversation: Conversation, names: tuple[CallerName, ...], level: str | None) -> None:
        """Note which conversation the call belongs to, what its caller is called, and which log messages it wants."""
        owner = StreamOwner(session_id=conversation.session_id, key=conversation.key, names=names)
        self.stream = new_stream(self._name, owner, conversation.revision)
        self._level = level

    def when_wanted(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called when there is something to tell."""
        self._wanted = callback

    def when_withdrawn(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called when the client has left and that cancels the call."""
        self._withdraw = callback
        if self._gone:
            self.gone()

    def gone(self) -> None:
        """The client has left: without a session nobody can come back for the answer, so the call is cancelled.

        Within a session that is no cancellation (MCP 2025-11-25, transports); the answer can be had by resumption.
        """
        self._gone = True
        if self.stream is not None and not self.stream.owner.session_id and self._withdraw is not None:
            self._withdraw()

    def end(self) -> None:
        """Relay nothing more: the call was answered, or ends."""
        self._open = False

    def teller(self, *, numbers_only: bool) -> Tell | None:
        """Return who hears what the server says of the call; None where the client asked for nothing of it.

        Args:
            numbers_only: the result of the call will be cut down, so no text may reach the client beside it.
        """
        if self._token is None and (self._level is None or numbers_only):
            return None
        return partial(self._tell, numbers_only)

    def put(self, message: bytes) -> bool:
        """Send one message on the call's stream; return whether there was room for it."""
        if not self._open or self.stream is None or not self.stream.put(message):
            return False
        if self._wanted is not None:
            self._wanted()
        return True

    def pause(self, retry_ms: int) -> None:
        """End the connection that waits for the answer, as the server ended its own; the client comes back for it."""
        told_ms = min(retry_ms, MAX_PAUSE_MS)
        if self._open and self.stream is not None and self.stream.pause(told_ms) and self._wanted is not None:
            self._wanted()

    def _tell(self, numbers_only: bool, method: str, params: JsonObject) -> None:  # noqa: FBT001 -- bound by name above
        said: JsonObject
        if method == _PROGRESS and self._token is not None:
            said = {"progressToken": self._token, **params}
            if numbers_only:
                said.pop("message", None)
        elif method == _LOG and self._level is not None and not numbers_only and _reaches(params, self._level):
            said = params
        else:
            return
        message = jsonrpc.encode_notification(method, said)
        if self._told >= MAX_TOLD or self._bytes + len(message) > MAX_TOLD_BYTES:
            return
        if self.put(message):
            self._told += 1
            self._bytes += len(message)


def _reaches(params: JsonObject, level: str) -> bool:
    said = params.get("level")
    return (
        isinstance(said, str)
        and said in tools.LOG_LEVELS
        and tools.LOG_LEVELS.index(said) >= tools.LOG_LEVELS.index(level)
    )
