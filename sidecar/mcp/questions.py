"""The questions that MCP lets a server ask its client, and what counts as an answer: read strictly, in both directions.

What a question or an answer has besides what is read here goes nowhere: a client would act on it in the name of the
sidecar, a server in the name of the client.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from sidecar.errors import UpstreamProtocolViolation
from sidecar.mcp.jsonrpc import encode
from sidecar.model import JsonObject, JsonValue
from sidecar.questions import QuestionKind, ServerQuestion

MAX_QUESTION_BYTES: Final = 64 * 1024
"""Parameters of one question; a longer one is refused."""

MAX_FORM_BYTES: Final = 16 * 1024
"""What a user can fill into a form."""

MAX_ANSWER_BYTES: Final = 256 * 1024
"""What a client's model says, a small image included; also all roots of a client."""

MAX_AT_ONCE: Final = 8
"""Questions that one result asks (MCP 2026-07-28, mrtr)."""

MAX_NAME_CHARACTERS: Final = 128
"""Of what a server calls one of them."""

MAX_SERVER_STATE: Final = 8 * 1024
"""Bytes of a server's own request state."""

MAX_ROOTS: Final = 256

METHODS: Final[Mapping[str, QuestionKind]] = MappingProxyType(
    {
        "elicitation/create": QuestionKind.ELICITATION,
        "sampling/createMessage": QuestionKind.SAMPLING,
        "roots/list": QuestionKind.ROOTS,
    }
)
METHOD_OF: Final[Mapping[QuestionKind, str]] = MappingProxyType({kind: method for method, kind in METHODS.items()})

RESPONSES: Final = "inputResponses"
STATE: Final = "requestState"

_DECLARED: Final[Mapping[QuestionKind, JsonObject]] = MappingProxyType(
    {QuestionKind.ELICITATION: {"form": {}}, QuestionKind.SAMPLING: {}, QuestionKind.ROOTS: {}}
)
_ACTIONS: Final = frozenset({"accept", "decline", "cancel"})
_CONTENT: Final = MappingProxyType({"text": ("text",), "image": ("data", "mimeType"), "audio": ("data", "mimeType")})
"""Kinds of content, and their members that are texts (MCP 2025-11-25, sampling)."""
_ROLES: Final = frozenset({"user", "assistant"})


def answerable(capabilities: JsonValue) -> frozenset[QuestionKind]:
    """Return what a client with these capabilities can be asked.

    Elicitation without modes is that of 2025-06-18, which only had forms; addresses are taken to nobody.
    """
    if not isinstance(capabilities, dict):
        return frozenset()
    found = {kind for kind in QuestionKind if isinstance(capabilities.get(kind), dict)}
    modes = capabilities.get("elicitation")
    if isinstance(modes, dict) and "url" in modes and "form" not in modes:
        found.discard(QuestionKind.ELICITATION)
    return frozenset(found)


def declared(kinds: frozenset[QuestionKind]) -> JsonObject:
    """Return the capabilities of a client that can be asked this and nothing else."""
    return {kind.value: dict(_DECLARED[kind]) for kind in QuestionKind if kind in kinds}


def read_question(method: str, params: JsonValue) -> ServerQuestion | None:
    """Return a server's question; None where it is none, or not one that is taken to anybody."""
    kind = METHODS.get(method)
    if kind is None or not isinstance(params, dict | None):
        return None
    given = params or {}
    found = _READ[kind](given)
    return None if found is None else ServerQuestion(kind=kind, params=found)


def read_raw_question(method: str, params: bytes) -> ServerQuestion | None:
    """Return a server's question as ``read_question`` does, of parameters that are no longer than one may be."""
    if len(params) > MAX_QUESTION_BYTES:
        return None
    try:
        return read_question(method, msgspec.json.decode(params) if params else None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_required(result: JsonObject) -> tuple[dict[str, ServerQuestion], str | None]:
    """Return what a result asks for, by name, and the server's own state (MCP 2026-07-28, mrtr).

    Raises:
        UpstreamProtocolViolation: it asks for nothing, for too much, or for something else.
    """
    requests, state = result.get("inputRequests", {}), result.get("requestState")
    if not isinstance(requests, dict) or len(requests) > MAX_AT_ONCE or not isinstance(state, str | None):
        raise UpstreamProtocolViolation("the result wants more than a client can be asked at once")
    if state is not None and len(state.encode("utf-8", "surrogatepass")) > MAX_SERVER_STATE:
        raise UpstreamProtocolViolation(f"the server's state has more than {MAX_SERVER_STATE} bytes")
    if not requests and state is None:
        raise UpstreamProtocolViolation("the result is not complete, and asks for nothing")
    asked: dict[str, ServerQuestion] = {}
    for name, request in requests.items():
        method = request.get("method") if isinstance(request, dict) else None
        if not isinstance(request, dict) or not isinstance(method, str) or not 0 < len(name) <= MAX_NAME_CHARACTERS:
            raise UpstreamProtocolViolation("the result asks for something that is no request")
        question = read_question(method, request.get("params"))
        if question is None or len(encode(question.params)) > MAX_QUESTION_BYTES:
            raise UpstreamProtocolViolation("the result asks for something that no client is asked")
        asked[name] = question
    return asked, state


def read_answer(question: ServerQuestion, answer: JsonValue) -> JsonObject | None:
    """Return a client's answer, reduced to what was asked for; None where it is not of the form."""
    if not isinstance(answer, dict):
        return None
    found = _ANSWERED[question.kind](question.params, answer)
    longest = MAX_FORM_BYTES if question.kind is QuestionKind.ELICITATION else MAX_ANSWER_BYTES
    return None if found is None or len(encode(found)) > longest else found


def _form(params: JsonObject) -> JsonObject | None:
    message, schema = params.get("message"), params.get("requestedSchema")
    if params.get("mode", "form") != "form" or not isinstance(message, str) or not isinstance(schema, dict):
        return None
    return {"message": message, "requestedSchema": schema} if isinstance(schema.get("properties"), dict) else None


def _conversation(params: JsonObject) -> JsonObject | None:
    """Return a request to a model. One that brings tools, or is a task, is of capabilities that are not declared."""
    messages, most = params.get("messages"), params.get("maxTokens")
    if not isinstance(messages, list) or not isinstance(most, int) or isinstance(most, bool) or most < 1:
        return None
    if params.get("tools") is not None or params.get("toolChoice") is not None or params.get("task") is not None:
        return None
    said = [_said(message) for message in messages]
    if not said or None in said:
        return None
    found: JsonObject = {"messages": [one for one in said if one is not None], "maxTokens": most}
    forms: Mapping[str, type | tuple[type, ...]] = {
        "systemPrompt": str,
        "temperature": (int, float),
        "stopSequences": list,
        "modelPreferences": dict,
        "metadata": dict,
    }
    for name, form in forms.items():
        if name in params and params[name] is not None:
            if not isinstance(params[name], form):
                return None
            found[name] = params[name]
    return found


def _said(message: JsonValue) -> JsonObject | None:
    if not isinstance(message, dict):
        return None
    role, content = message.get("role"), message.get("content")
    parts = content if isinstance(content, list) else [content]
    if not isinstance(role, str) or role not in _ROLES or not parts or not all(map(_is_content, parts)):
        return None
    return {"role": role, "content": content}


def _is_content(part: JsonValue) -> bool:
    if not isinstance(part, dict):
        return False
    kind = part.get("type")
    needed = _CONTENT.get(kind) if isinstance(kind, str) else None
    return needed is not None and all(isinstance(part.get(name), str) for name in needed)


def _filled_in(question: JsonObject, answer: JsonObject) -> JsonObject | None:
    action, content = answer.get("action"), answer.get("content")
    if not isinstance(action, str) or action not in _ACTIONS:
        return None
    if action != "accept":
        return {"action": action}
    schema = question.get("requestedSchema")
    asked = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(content, dict) or not isinstance(asked, dict) or not content.keys() <= asked.keys():
        return None
    return {"action": action, "content": content} if all(map(is_plain, content.values())) else None


def _continued(_: JsonObject, answer: JsonObject) -> JsonObject | None:
    said, model, stopped = _said(answer), answer.get("model"), answer.get("stopReason")
    if said is None or not isinstance(model, str) or not isinstance(stopped, str | None):
        return None
    return {**said, "model": model, **({} if stopped is None else {"stopReason": stopped})}


def _roots(_: JsonObject, answer: JsonObject) -> JsonObject | None:
    roots = answer.get("roots")
    if not isinstance(roots, list) or len(roots) > MAX_ROOTS:
        return None
    found: list[JsonValue] = []
    for root in roots:
        uri, name = (root.get("uri"), root.get("name")) if isinstance(root, dict) else (None, None)
        if not isinstance(uri, str) or not uri.startswith("file://") or not isinstance(name, str | None):
            return None
        found.append({"uri": uri} if name is None else {"uri": uri, "name": name})
    return {"roots": found}


def is_plain(value: JsonValue) -> bool:
    """Whether a form can have this value (MCP 2025-11-25, elicitation: primitives, and lists of choices)."""
    if isinstance(value, list):
        return all(isinstance(one, str) for one in value)
    return isinstance(value, str | int | float | bool)


_READ: Final[Mapping[QuestionKind, Callable[[JsonObject], JsonObject | None]]] = MappingProxyType(
    {QuestionKind.ELICITATION: _form, QuestionKind.SAMPLING: _conversation, QuestionKind.ROOTS: lambda _: {}}
)
_ANSWERED: Final[Mapping[QuestionKind, Callable[[JsonObject, JsonObject], JsonObject | None]]] = MappingProxyType(
    {QuestionKind.ELICITATION: _filled_in, QuestionKind.SAMPLING: _continued, QuestionKind.ROOTS: _roots}
)
