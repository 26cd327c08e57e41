"""A call that comes back with a question, and is called again with the answer (MCP 2026-07-28, basic/patterns/mrtr).

There are no sessions in that revision, so all that is known of a question goes to the client and back, sealed: whose it
is, about which call, and until when its answer counts. The second call is a request like any other.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final

from sidecar.errors import DependencyError, InvalidParams, NotConfirmed, SidecarError
from sidecar.mcp import tools
from sidecar.mcp.handles import LONGEST_STATE
from sidecar.mcp.jsonrpc import encode
from sidecar.mcp.revision import Era
from sidecar.mcp.stateless_results import SERVER_KEY
from sidecar.model import JsonObject, ToolCall

QUESTION_KEY: Final = "confirmation"
"""The one question of a call, and so the one answer."""

RESPONSES: Final = "inputResponses"
STATE: Final = "requestState"

_ACTIONS: Final = frozenset({"accept", "decline", "cancel"})


class StateFault(StrEnum):
    """Why a request state is not good for a call; evidence says it, the caller reads the same of each."""

    UNREADABLE = "state_unreadable"
    """It was not sealed here: altered, made up, or of keys that are gone."""
    FOREIGN = "state_foreign"
    """It was given to another identity, or for another call."""
    EXPIRED = "state_expired"
    USED = "state_used"


class StateRejected(SidecarError):
    """What a call came back with was not given for it, or counts no more.

    Args:
        fault: what is wrong with it.
    """

    label: ClassVar[str] = "request_state_rejected"
    public: ClassVar[str] = (
        "The requestState was not given for this call, has expired or was used; nothing was done. Call without it."
    )

    def __init__(self, fault: StateFault) -> None:
        super().__init__(fault)
        self.fault = fault


class StatesUnavailable(DependencyError):
    """Whether a request state was used at another sidecar cannot be told."""

    label: ClassVar[str] = "states_unavailable"
    public: ClassVar[str] = "Whether this confirmation was used cannot be told; nothing was done. Try again shortly."


class InputRequired(NotConfirmed):
    """The call was not carried out: its client is to ask its user and to call again.

    Args:
        question: the parameters of the server's ``elicitation/create``.
        state: what the client has to call again with.
    """

    label: ClassVar[str] = "input_required"

    def __init__(self, question: JsonObject, state: str) -> None:
        super().__init__("the client is to call again with an answer")
        self.question = question
        self.state = state

    def result(self, server_version: str) -> bytes:
        """Return the JSON text of the result that the client reads."""
        question: JsonObject = {"method": "elicitation/create", "params": self.question}
        return encode(
            {
                "resultType": "input_required",
                "inputRequests": {QUESTION_KEY: question},
                STATE: self.state,
                "_meta": {SERVER_KEY: tools.server_info(server_version)},
            }
        )


class CapabilityMissing(NotConfirmed):
    """The call has to be confirmed, and this request does not say that its client can ask (MCP 2026-07-28: -32021)."""

    label: ClassVar[str] = "capability_missing"
    public: ClassVar[str] = "This call has to be confirmed by the user (elicitation); nothing was done."
    code: ClassVar[int] = -32021

    @property
    def data(self) -> JsonObject:
        """The ``data`` member of the JSON-RPC error."""
        return {"requiredCapabilities": {"elicitation": {"form": {}}}}


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenInput:
    """What a client calls again with; nothing of it is proven."""

    state: str
    answer: JsonObject


def read_call(params: JsonObject, era: Era) -> tuple[ToolCall, GivenInput | None]:
    """Return the call of ``tools/call``, and what it is called again with.

    Raises:
        InvalidParams: not of the form, an answer without its state or a state without an answer, or another answer
            than to the one question that there is.
    """
    if era is Era.HANDSHAKE or not {RESPONSES, STATE} & params.keys():
        return tools.parse_call(params), None
    state, responses = params.get(STATE), params.get(RESPONSES)
    if not isinstance(state, str) or not 0 < len(state) <= LONGEST_STATE or not isinstance(responses, dict):
        raise InvalidParams("requestState is a state that was given, and comes with inputResponses")
    answer = responses.get(QUESTION_KEY)
    if len(responses) != 1 or not isinstance(answer, dict):
        raise InvalidParams("inputResponses has the one answer that was asked for")
    action = answer.get("action")
    if not isinstance(action, str) or action not in _ACTIONS or not isinstance(answer.get("content"), dict | None):
        raise InvalidParams("an answer has an action, and an object if it has a content")
    call = tools.parse_call({key: value for key, value in params.items() if key not in {RESPONSES, STATE}})
    return call, GivenInput(state=state, answer=answer)
