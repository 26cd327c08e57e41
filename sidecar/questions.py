"""What a server asks its client while it works on a call: the user, the client's model, the client's roots.

Only what settings and policy both allow is taken to a client, and only to the one whose call it is about. What a
question may hold is read in ``sidecar.mcp``, and who is asked is decided in ``sidecar.enforcement``.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn

from sidecar.errors import SidecarError, UpstreamRefused
from sidecar.strict_json import JsonObject


class QuestionKind(StrEnum):
    """What can be asked of a client; also what the target of its access is called."""

    ELICITATION = "elicitation"
    """The user fills in a form (``elicitation/create``)."""
    SAMPLING = "sampling"
    """The client's model continues a conversation (``sampling/createMessage``)."""
    ROOTS = "roots"
    """The client names the folders that it works in (``roots/list``)."""


class QuestionUnanswered(SidecarError):
    """The server asked its client for something, and there was no answer that could be given to it."""

    label = "question_unanswered"
    public = "The server asked for something during this call and got no answer. What it did before that may stand."


class ClientLacks(UpstreamRefused):
    """The server needs a client that can answer more than it was told of (MCP 2026-07-28: -32021).

    Args:
        detail: for the log.
        kinds: what it would have to answer.
    """

    label = "client_lacks"

    def __init__(self, detail: str, kinds: frozenset[QuestionKind]) -> None:
        super().__init__(detail)
        self.kinds = kinds


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerQuestion:
    """One question, of which only what MCP defines is left."""

    kind: QuestionKind
    params: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class CallQuestions:
    """What a server may ask during one call, and where its questions go."""

    kinds: frozenset[QuestionKind]
    """What settings, policy and the client's capabilities all allow; never empty."""
    stateless: bool
    """The client is of 2026-07-28: it is not asked while the call waits, but the call ends and comes again."""
    ask: Callable[[ServerQuestion], Awaitable[JsonObject]] = field(repr=False)
    """Takes a question to the client and returns its answer, while the call waits."""
    end: Callable[[Mapping[str, ServerQuestion], str | None], NoReturn] = field(repr=False)
    """Ends the call with questions, by name, and what the server wants to be told with the answers."""
    inputs: JsonObject = field(default_factory=dict)
    """What the call comes again with, as parameters: the answers to what was asked, and the server's own state."""
