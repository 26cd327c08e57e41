"""Questions that clients of sessions have been asked and not answered yet: whose each is, and how long it stays open.

An answer has no method, only the id of a question. It counts if that question was asked in the same session of the same
identity and is still open, and then once.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Final

from sidecar.enforcement.channel import CallChannel
from sidecar.errors import NotConfirmed
from sidecar.mcp import Conversation, IdentityKey, Response, jsonrpc
from sidecar.model import JsonObject
from sidecar.ports import Identifiers

MAX_OF_IDENTITY: Final = 32
"""Questions that one user through one agent may have open; a call has few, and a client as many calls at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenQuestion:
    key: IdentityKey
    answer: asyncio.Future[JsonObject | None]


class OpenQuestions:
    """The open ones of all clients.

    Args:
        identifiers: for the ids of questions.
        wait_s: how long a client may take to answer one.
    """

    def __init__(self, identifiers: Identifiers, wait_s: float) -> None:
        self._identifiers = identifiers
        self._wait_s = wait_s
        self._open: dict[tuple[str, str], _OpenQuestion] = {}
        self._of: Counter[IdentityKey] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    async def ask(
        self, channel: CallChannel, conversation: Conversation, method: str, params: JsonObject
    ) -> JsonObject | None:
        """Ask on the stream of a call; return the client's result, or None where it answers with an error.

        Raises:
            NotConfirmed: there is no answer in time, no room for the question, or the session ended.
        """
        if self._of[conversation.key] >= MAX_OF_IDENTITY:
            raise NotConfirmed("too many questions are open")
        number = f"ask-{self._identifiers.request_id()}"
        place = (conversation.session_id, number)
        answer: asyncio.Future[JsonObject | None] = asyncio.get_running_loop().create_future()
        self._open[place] = _OpenQuestion(key=conversation.key, answer=answer)
        self._of[conversation.key] += 1
        withdrawn = jsonrpc.encode_notification("notifications/cancelled", {"requestId": number})
        try:
            if not channel.put(jsonrpc.encode_request(number, method, params)):
                raise NotConfirmed("there is no room for the question on the stream of the call")
            async with asyncio.timeout(self._wait_s):
                return await answer
        except TimeoutError:
            channel.put(withdrawn)
            raise NotConfirmed(f"no answer within {self._wait_s} s") from None
        except asyncio.CancelledError:
            channel.put(withdrawn)
            raise
        finally:
            del self._open[place]
            self._of[conversation.key] -= 1
            if not self._of[conversation.key]:
                del self._of[conversation.key]

    def take(self, conversation: Conversation, response: Response) -> bool:
        """Take an answer to the question that it is of; return whether there is one."""
        if not isinstance(response.id, str):
            return False
        asked = self._open.get((conversation.session_id, response.id))
        if asked is None or asked.key != conversation.key or asked.answer.done():
            return False
        asked.answer.set_result(response.result)
        return True

    def end(self, session_id: str) -> None:
        """A session is over: its questions are not answered any more."""
        for (asked_in, _), asked in self._open.items():
            if asked_in == session_id and not asked.answer.done():
                asked.answer.set_result(None)
