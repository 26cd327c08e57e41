"""A call that comes back with a question, and is called again with the answer (MCP 2026-07-28, basic/patterns/mrtr).

There are no sessions in that revision, so all that is known of a question goes to the client and back, sealed: whose it
is, about which call, and until when its answer counts. The second call is a request like any other.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final, Self

from sidecar.errors import DependencyError, InvalidParams, NotConfirmed, SidecarError
from sidecar.mcp import tools
from sidecar.mcp.handles import LONGEST_CARRIED
from sidecar.mcp.jsonrpc import encode
from sidecar.mcp.questions import METHOD_OF, RESPONSES, STATE, declared
from sidecar.mcp.revision import Era
from sidecar.mcp.stateless_results import SERVER_KEY
from sidecar.model import JsonObject, ToolCall
from sidecar.questions import QuestionKind, ServerQuestion

QUESTION_KEY: Final = "confirmation"
"""The one question of a call that is to be confirmed, and so the one answer."""

MAX_RESPONSES: Final = 16
"""Answers that a call may come with; those to what was not asked are left out."""

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
    code: ClassVar[int] = -32602
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
    """The call ends with questions: its client is to have them answered and to call again.

    Args:
        asked: what the server asks, by name.
        state: what the client has to call again with.
    """

    label: ClassVar[str] = "input_required"

    def __init__(self, asked: Mapping[str, ServerQuestion], state: str) -> None:
        super().__init__("the client is to call again with an answer")
        self.asked = asked
        self.state = state

    @classmethod
    def confirmation(cls, question: JsonObject, state: str) -> Self:
        """Return what asks the user to confirm the call; ``question`` is the form."""
        return cls({QUESTION_KEY: ServerQuestion(kind=QuestionKind.ELICITATION, params=question)}, state)

    def result(self, server_version: str) -> bytes:
        """Return the JSON text of the result that the client reads."""
        requests: JsonObject = {
            name: {"method": METHOD_OF[one.kind], "params": one.params} for name, one in self.asked.items()
        }
        return encode(
            {
                "resultType": "input_required",
                **({"inputRequests": requests} if requests else {}),
                STATE: self.state,
                "_meta": {SERVER_KEY: tools.server_info(server_version)},
            }
        )


class CapabilityMissing(NotConfirmed):
    """The call needs a client that can be asked, and this request says nothing of it (MCP 2026-07-28: -32021).

    Args:
        detail: for the log.
        kinds: what its client would have to answer.
    """

    label: ClassVar[str] = "capability_missing"
    public: ClassVar[str] = "The server needs a client that can be asked (see requiredCapabilities); nothing was done."
    code: ClassVar[int] = -32021

    def __init__(
        self, detail: str = "", kinds: frozenset[QuestionKind] = frozenset({QuestionKind.ELICITATION})
    ) -> None:
        super().__init__(detail)
        self.kinds = kinds

    @property
    def data(self) -> JsonObject:
        """The ``data`` member of the JSON-RPC error."""
        return {"requiredCapabilities": declared(self.kinds)}


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenInput:
    """What a client calls again with; nothing of it is proven."""

    state: str
    responses: JsonObject
    """Answers by the names of the questions; each is an object."""

    @property
    def answer(self) -> JsonObject:
        """The answer to the one question of a call that is to be confirmed.

        Raises:
            InvalidParams: it is another answer than that.
        """
        answer = self.responses.get(QUESTION_KEY)
        if len(self.responses) != 1 or not isinstance(answer, dict):
            raise InvalidParams("inputResponses has the one answer that was asked for")
        action = answer.get("action")
        if not isinstance(action, str) or action not in _ACTIONS or not isinstance(answer.get("content"), dict | None):
            raise InvalidParams("an answer has an action, and an object if it has a content")
        return answer


def split(params: JsonObject, era: Era) -> tuple[JsonObject, GivenInput | None]:
    """Return the parameters of a call without what it is called again with, and that.

    Answers without a state are to questions that nobody asked: they are left out, and the call is one like any other
    (MCP 2026-07-28, mrtr: a server asks again for what it misses).

    Raises:
        InvalidParams: not of the form, or a state without an answer.
    """
    if era is Era.HANDSHAKE or not {RESPONSES, STATE} & params.keys():
        return params, None
    state, responses = params.get(STATE), params.get(RESPONSES)
    if not isinstance(responses, dict) or not all(isinstance(one, dict) for one in responses.values()):
        raise InvalidParams("inputResponses is an object of answers, and comes with a requestState")
    if len(responses) > MAX_RESPONSES:
        raise InvalidParams(f"inputResponses has more than {MAX_RESPONSES} answers")
    rest = {key: value for key, value in params.items() if key not in {RESPONSES, STATE}}
    if state is None and STATE not in params:
        return rest, None
    if not isinstance(state, str) or not 0 < len(state) <= LONGEST_CARRIED:
        raise InvalidParams("requestState is a state that was given")
    return rest, GivenInput(state=state, responses=responses)


def read_call(params: JsonObject, era: Era, carried: Container[str]) -> tuple[ToolCall, GivenInput | None]:
    """Return the call of ``tools/call``, and what it is called again with.

    Args:
        params: the request's.
        era: the request's.
        carried: the tools whose server may ask anything; other calls are confirmed, with one answer of one form.

    Raises:
        InvalidParams: not of the form, a state without an answer, or other answers than such a call has.
    """
    rest, given = split(params, era)
    call = tools.parse_call(rest)
    if call.name not in carried and rest is not params and (given is None or not given.answer):
        raise InvalidParams("inputResponses comes with a requestState")
    return call, given
