"""The server that the official conformance suite asks for: tools, resources and prompts, by the names that it fixes.

On the official Python SDK. ``--port N`` serves Streamable HTTP on loopback, without it standard input and output.
Source of names and contents: ``@modelcontextprotocol/conformance``, "Conformance Server Specification"; the SDK's own
``mcp_everything_server`` is a second implementation of the same.
"""

import argparse
import asyncio
import base64
import json
from typing import Annotated, Any, Final

from mcp.server import ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer, RequestStateSecurity
from mcp.server.mcpserver.prompts.base import Prompt, UserMessage
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.shared.exceptions import MCPError
from mcp.types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    Completion,
    CompletionArgument,
    CompletionContext,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    InputRequest,
    InputRequiredResult,
    JSONRPCMessage,
    ListRootsRequest,
    ListRootsResult,
    PromptReference,
    ResourceTemplateReference,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel, Field
from typing_extensions import override

PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
"""One red pixel."""
WAV: Final = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="
"""No sound at all."""

server = MCPServer(
    name="conformance-fixture",
    version="1",
    request_state_security=RequestStateSecurity(keys=[b"a-key-of-the-conformance-fixture-only"]),
)

# --- contents ---------------------------------------------------------------------------------------------------------


@server.tool(name="test_simple_text")
def simple_text() -> str:
    """Answers a text."""
    return "This is a simple text response for testing."


@server.tool(name="test_image_content")
def image_content() -> list[ImageContent]:
    """Answers an image."""
    return [ImageContent(type="image", data=PNG, mime_type="image/png")]


@server.tool(name="test_audio_content")
def audio_content() -> list[AudioContent]:
    """Answers a sound."""
    return [AudioContent(type="audio", data=WAV, mime_type="audio/wav")]


def _embedded(uri: str, mime_type: str, text: str) -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=mime_type, text=text))


@server.tool(name="test_embedded_resource")
def embedded_resource() -> list[EmbeddedResource]:
    """Answers a resource."""
    return [_embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]


@server.tool(name="test_multiple_content_types")
def multiple_content_types() -> list[TextContent | ImageContent | EmbeddedResource]:
    """Answers several things at once."""
    return [
        TextContent(type="text", text="Multiple content types test:"),
        ImageContent(type="image", data=PNG, mime_type="image/png"),
        _embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ]


@server.tool(name="test_error_handling")
def error_handling() -> str:
    """Fails."""
    msg = "This tool intentionally returns an error for testing"
    raise RuntimeError(msg)


# --- notifications ----------------------------------------------------------------------------------------------------


@server.tool(name="test_tool_with_logging")
async def tool_with_logging(ctx: Context) -> str:
    """Logs three lines."""
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.info(line)  # type: ignore[deprecated]
        await asyncio.sleep(0.05)
    return "Tool with logging executed successfully"


@server.tool(name="test_tool_with_progress")
async def tool_with_progress(ctx: Context) -> str:
    """Tells how far it is."""
    for done in (0, 50, 100):
        await ctx.report_progress(progress=done, total=100, message=f"Completed step {done} of 100")
        await asyncio.sleep(0.05)
    return "done"


@server.tool(name="test_reconnection")
async def reconnection(ctx: Context) -> str:
    """Ends its own stream and goes on."""
    await ctx.info("Before disconnect")  # type: ignore[deprecated]
    await ctx.close_sse_stream()
    await asyncio.sleep(0.2)
    await ctx.info("After reconnect")  # type: ignore[deprecated]
    return "Reconnection test completed"


def _dynamic() -> str:
    return "dynamic"


@server.tool(name="test_trigger_tool_change")
async def trigger_tool_change(ctx: Context) -> str:
    """Changes the list of tools for a moment."""
    server.add_tool(_dynamic, name="test_dynamic_tool", description="Comes and goes.")
    server.remove_tool("test_dynamic_tool")
    await ctx.session.send_tool_list_changed()
    await ctx.notify_tools_changed()
    return "tool list changed"


@server.tool(name="test_trigger_prompt_change")
async def trigger_prompt_change(ctx: Context) -> str:
    """Changes the list of prompts for a moment."""
    server.add_prompt(Prompt.from_function(_dynamic, name="test_dynamic_prompt", description="Comes and goes."))
    server.remove_prompt("test_dynamic_prompt")
    await ctx.session.send_prompt_list_changed()
    await ctx.notify_prompts_changed()
    return "prompt list changed"


_watched: set[str] = set()


@server.tool(name="test_trigger_resource_update")
async def trigger_resource_update(uri: str, ctx: Context) -> str:
    """Says that a resource changed, whether it was asked to or not."""
    await ctx.session.send_resource_updated(uri)
    await ctx.notify_resource_updated(uri)
    return "resource updated"


@server.tool(name="test_watched_resources")
def watched_resources() -> str:
    """Says what it was asked to tell of."""
    return json.dumps(sorted(_watched))


# --- questions to the client, in the handshake revisions --------------------------------------------------------------


@server.tool(name="test_sampling")
async def sampling(prompt: str, ctx: Context) -> str:
    """Asks the client's model."""
    try:
        result = await ctx.session.create_message(
            messages=[SamplingMessage(role="user", content=TextContent(type="text", text=prompt))],
            max_tokens=100,
            related_request_id=ctx.request_id,
        )
    except Exception as error:  # noqa: BLE001 - whatever it is, the answer says so
        return f"Sampling not supported or error: {error}"
    return f"LLM response: {result.content.text if result.content.type == 'text' else 'No response'}"


class _Answer(BaseModel):
    response: str = Field(description="User's response")


class _Defaults(BaseModel):
    name: str = Field(default="John Doe", description="User name")
    age: int = Field(default=30, description="User age")
    score: float = Field(default=95.5, description="User score")
    status: str = Field(
        default="active", description="User status", json_schema_extra={"enum": ["active", "inactive", "pending"]}
    )
    verified: bool = Field(default=True, description="Verification status")


def _titled(*pairs: tuple[str, str]) -> list[Any]:
    return [{"const": value, "title": title} for value, title in pairs]


class _Choices(BaseModel):
    untitledSingle: str = Field(  # noqa: N815 - the suite's names
        description="Choose one option", json_schema_extra={"enum": ["active", "inactive", "pending"]}
    )
    titledSingle: str = Field(  # noqa: N815
        description="Choose one option with titles",
        json_schema_extra={"oneOf": _titled(("low", "Low Priority"), ("medium", "Medium"), ("high", "High Priority"))},
    )
    untitledMulti: list[str] = Field(  # noqa: N815
        description="Choose several options",
        json_schema_extra={"items": {"type": "string", "enum": ["read", "write", "execute"]}},
    )
    titledMulti: list[str] = Field(  # noqa: N815
        description="Choose several options with titles",
        json_schema_extra={
            "items": {"anyOf": _titled(("feature", "New Feature"), ("bug", "Bug Fix"), ("docs", "Docs"))}
        },
    )
    legacyEnum: str = Field(  # noqa: N815
        description="Choose one option, named as before 2025-11-25",
        json_schema_extra={
            "enum": ["small", "medium", "large"],
            "enumNames": ["Small Size", "Medium Size", "Large Size"],
        },
    )


async def _elicited(ctx: Context, message: str, schema: type[BaseModel]) -> str:
    try:
        result = await ctx.elicit(message=message, schema=schema)
    except Exception as error:  # noqa: BLE001 - whatever it is, the answer says so
        return f"Elicitation not supported or error: {error}"
    content = result.data.model_dump_json() if result.action == "accept" else "{}"
    return f"action={result.action}, content={content}"


@server.tool(name="test_elicitation")
async def elicitation(message: str, ctx: Context) -> str:
    """Asks the user."""
    return f"User response: {await _elicited(ctx, message, _Answer)}"


@server.tool(name="test_elicitation_sep1034_defaults")
async def elicitation_sep1034_defaults(ctx: Context) -> str:
    """Asks the user, with a default for everything."""
    return f"Elicitation completed: {await _elicited(ctx, 'Please review and update the form', _Defaults)}"


@server.tool(name="test_elicitation_sep1330_enums")
async def elicitation_sep1330_enums(ctx: Context) -> str:
    """Asks the user to choose."""
    return f"Elicitation completed: {await _elicited(ctx, 'Please select options', _Choices)}"


# --- questions to the client, in 2026-07-28 (SEP-2322) ----------------------------------------------------------------


def _form(message: str, name: str, kind: str = "string") -> ElicitRequest:
    schema: dict[str, Any] = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def _ask_model(text: str) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=text))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=100))


def _filled_in(answer: object, name: str) -> str:
    return str(answer.content.get(name, "?")) if isinstance(answer, ElicitResult) and answer.content else "?"


@server.tool(name="test_input_required_result_elicitation")
async def input_required_result_elicitation(ctx: Context) -> str | InputRequiredResult:
    """Asks the user's name."""
    answers = ctx.input_responses or {}
    if "user_name" in answers:
        return f"Hello, {_filled_in(answers['user_name'], 'name')}!"
    return InputRequiredResult(input_requests={"user_name": _form("What is your name?", "name")})


@server.tool(name="test_input_required_result_sampling")
async def input_required_result_sampling(ctx: Context) -> str | InputRequiredResult:
    """Asks the client's model."""
    match (ctx.input_responses or {}).get("capital_question"):
        case CreateMessageResult(content=TextContent(text=text)):
            return f"Model said: {text}"
        case _:
            return InputRequiredResult(
                input_requests={"capital_question": _ask_model("What is the capital of France?")}
            )


@server.tool(name="test_input_required_result_list_roots")
async def input_required_result_list_roots(ctx: Context) -> str | InputRequiredResult:
    """Asks for the client's roots."""
    match (ctx.input_responses or {}).get("client_roots"):
        case ListRootsResult(roots=roots):
            return f"Client exposed {len(roots)} root(s)."
        case _:
            return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})


@server.tool(name="test_input_required_result_request_state")
async def input_required_result_request_state(ctx: Context) -> str | InputRequiredResult:
    """Asks for a confirmation, and wants its state back."""
    if "confirm" in (ctx.input_responses or {}) and ctx.request_state == "a-state":
        return "state-ok: confirmation received"
    return InputRequiredResult(
        input_requests={"confirm": _form("Please confirm", "ok", "boolean")}, request_state="a-state"
    )


@server.tool(name="test_input_required_result_multiple_inputs")
async def input_required_result_multiple_inputs(ctx: Context) -> str | InputRequiredResult:
    """Asks three things at once."""
    if {"user_name", "greeting", "client_roots"} <= (ctx.input_responses or {}).keys():
        return "All inputs received."
    return InputRequiredResult(
        input_requests={
            "user_name": _form("What is your name?", "name"),
            "greeting": _ask_model("Generate a greeting"),
            "client_roots": ListRootsRequest(),
        },
        request_state="multiple-inputs",
    )


@server.tool(name="test_input_required_result_multi_round")
async def input_required_result_multi_round(ctx: Context) -> str | InputRequiredResult:
    """Asks two things, one after the other."""
    answers = ctx.input_responses or {}
    state: dict[str, Any] = json.loads(ctx.request_state) if ctx.request_state else {}  # noqa: TID251 - its own state
    if state.get("round") == 2 and "step2" in answers:
        return f"{state['name']} likes {_filled_in(answers['step2'], 'color')}."
    if state.get("round") == 1 and "step1" in answers:
        name = _filled_in(answers["step1"], "name")
        return InputRequiredResult(
            input_requests={"step2": _form("Step 2: What is your favorite color?", "color")},
            request_state=json.dumps({"round": 2, "name": name}),
        )
    return InputRequiredResult(
        input_requests={"step1": _form("Step 1: What is your name?", "name")}, request_state=json.dumps({"round": 1})
    )


@server.tool(name="test_input_required_result_tampered_state")
async def input_required_result_tampered_state(ctx: Context) -> str | InputRequiredResult:
    """Wants its state back as it was; the SDK holds that."""
    if ctx.request_state is not None:
        return f"state-ok: {ctx.request_state}"
    return InputRequiredResult(
        input_requests={"confirm": _form("Please confirm", "ok", "boolean")}, request_state="round-1"
    )


@server.tool(name="test_input_required_result_capabilities")
async def input_required_result_capabilities(ctx: Context) -> InputRequiredResult:
    """Asks what the client can answer and nothing else."""
    known = ctx.client_capabilities
    requests: dict[str, InputRequest] = {}
    if known is None or known.sampling is not None:
        requests["sample"] = _ask_model("Say hello")
    if known is None or known.elicitation is not None:
        requests["ask"] = _form("What is your name?", "name")
    return InputRequiredResult(input_requests=requests, request_state="capability-gated")


@server.tool(name="test_missing_capability")
async def missing_capability(ctx: Context) -> str:
    """Needs a client that can sample."""
    known = ctx.session.client_capabilities
    if known is None or known.sampling is None:
        raise MCPError(
            code=MISSING_REQUIRED_CLIENT_CAPABILITY,
            message="This tool requires the client 'sampling' capability",
            data={"requiredCapabilities": {"sampling": {}}},
        )
    return "The client can sample."


@server.tool(name="test_streaming_elicitation")
async def streaming_elicitation(ctx: Context) -> str | InputRequiredResult:
    """Tells how far it is, and asks the user."""
    await ctx.report_progress(progress=1, total=2)
    if "user_name" in (ctx.input_responses or {}):
        return "asked"
    return InputRequiredResult(input_requests={"user_name": _form("What is your name?", "name")})


@server.tool(name="test_logging_tool")
async def logging_tool(ctx: Context) -> str:
    """Logs a line."""
    await ctx.info("a line of the logging tool")  # type: ignore[deprecated]
    return "logged"


# --- schemas ----------------------------------------------------------------------------------------------------------


@server.tool(name="test_x_mcp_header")
def x_mcp_header(
    region: Annotated[str, Field(description="The region", json_schema_extra={"x-mcp-header": "Region"})] = "none",
) -> str:
    """Has an argument that is mirrored into a header (SEP-2243)."""
    return f"region={region}"


@server.tool(name="json_schema_2020_12_tool")
def json_schema_tool() -> str:
    """Has a schema with the keywords of JSON Schema 2020-12."""
    return "json_schema_2020_12_tool"


_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
# The SDK has no parameter for a schema that is not made from the function.
server._tool_manager._tools["json_schema_2020_12_tool"].parameters = _SCHEMA

# --- resources and prompts --------------------------------------------------------------------------------------------


@server.resource("test://static-text")
def static_text() -> str:
    """A text."""
    return "This is the content of the static text resource."


@server.resource("test://static-binary", mime_type="image/png")
def static_binary() -> bytes:
    """An image."""
    return base64.b64decode(PNG)


@server.resource("test://template/{id}/data")
def template(id: str) -> str:  # noqa: A002 - the template's own name
    """What a template names."""
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


@server.resource("test://watched-resource")
def watched_resource() -> str:
    """What can be subscribed to."""
    return "Watched resource content"


def _said(text: str) -> UserMessage:
    return UserMessage(role="user", content=TextContent(type="text", text=text))


@server.prompt(name="test_simple_prompt")
def simple_prompt() -> list[UserMessage]:
    """A prompt without arguments."""
    return [_said("This is a simple prompt for testing.")]


@server.prompt(name="test_prompt_with_arguments")
def prompt_with_arguments(arg1: str, arg2: str) -> list[UserMessage]:
    """A prompt with arguments."""
    return [_said(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'")]


@server.prompt(name="test_prompt_with_embedded_resource")
def prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:  # noqa: N803 - the suite's name
    """A prompt with a resource in it."""
    embedded = _embedded(resourceUri, "text/plain", "Embedded resource content for testing.")
    return [UserMessage(role="user", content=embedded), _said("Please process the embedded resource above.")]


@server.prompt(name="test_prompt_with_image")
def prompt_with_image() -> list[UserMessage]:
    """A prompt with an image in it."""
    image = ImageContent(type="image", data=PNG, mime_type="image/png")
    return [UserMessage(role="user", content=image), _said("Please analyze the image above.")]


@server.prompt(name="test_input_required_result_prompt")
async def input_required_result_prompt(ctx: Context) -> list[UserMessage] | InputRequiredResult:
    """A prompt that asks the user first."""
    answers = ctx.input_responses or {}
    if "user_context" in answers:
        return [_said(f"Use the following context: {_filled_in(answers['user_context'], 'context')}")]
    return InputRequiredResult(input_requests={"user_context": _form("What context should the prompt use?", "context")})


# --- methods for which the SDK has no decorator -----------------------------------------------------------------------


async def _set_level(_ctx: ServerRequestContext, _params: SetLevelRequestParams) -> EmptyResult:
    return EmptyResult()


async def _subscribe(_ctx: ServerRequestContext, params: SubscribeRequestParams) -> EmptyResult:
    _watched.add(str(params.uri))
    return EmptyResult()


async def _unsubscribe(_ctx: ServerRequestContext, params: UnsubscribeRequestParams) -> EmptyResult:
    _watched.discard(str(params.uri))
    return EmptyResult()


_add: Any = server._lowlevel_server.add_request_handler
_add("logging/setLevel", SetLevelRequestParams, _set_level)
_add("resources/subscribe", SubscribeRequestParams, _subscribe)
_add("resources/unsubscribe", UnsubscribeRequestParams, _unsubscribe)


@server.completion()
async def _complete(
    ref: PromptReference | ResourceTemplateReference, argument: CompletionArgument, context: CompletionContext | None
) -> Completion:
    del ref, argument, context
    return Completion(values=[], total=0, has_more=False)


class _Events(EventStore):
    """Every event of every stream, for as long as the run lasts."""

    def __init__(self) -> None:
        self._events: list[tuple[str, JSONRPCMessage | None]] = []

    @override
    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events))

    @override
    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        if not last_event_id.isdecimal() or not 0 < int(last_event_id) <= len(self._events):
            return None
        stream, _ = self._events[int(last_event_id) - 1]
        for number, (of, message) in enumerate(self._events, 1):
            if number > int(last_event_id) and of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def main() -> None:
    """Serve until the process ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int)
    port = parser.parse_args().port
    if port is None:
        server.run(transport="stdio")
    else:
        server.run(transport="streamable-http", port=port, event_store=_Events(), retry_interval=100)


if __name__ == "__main__":
    main()
