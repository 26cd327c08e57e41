"""Resources, prompts and completions: what a caller is offered of them, and how a use is enforced.

There are two kinds of resources: exports, which belong to the caller that made them, and those that settings name
(``generic_resources``). Prompts are those that settings name (``generic_prompts``). Each use is a call like that of a
tool: decided, recorded, forwarded under a permit.
"""

import re
from dataclasses import dataclass
from typing import Final

from sidecar.commands import GenericTool, GenericTools, generic, pinning
from sidecar.enforcement.calls import ToolCalls
from sidecar.enforcement.exports import Export
from sidecar.enforcement.reply import Refused, Reply
from sidecar.enforcement.turn import EnforcementRules, Ports, Turn, Use
from sidecar.errors import (
    CommandNotDerivable,
    MethodRefused,
    SidecarError,
    UpstreamUnreachable,
)
from sidecar.mcp import (
    Era,
    Request,
    ResourceNotFound,
    UnknownPrompt,
    jsonrpc,
    resources,
    split,
    stateless_results,
    tools,
)
from sidecar.model import Command, JsonObject, TargetKind, ToolCall

_GENERATING: Final = b"still being generated"
"""What the server says of an export that is not ready (3.0.4, ``exportsManager.js``)."""


class Offers:
    """Lists and uses resources and prompts; it has no state but what ``calls`` has."""

    def __init__(self, ports: Ports, rules: EnforcementRules, calls: ToolCalls) -> None:
        self._ports = ports
        self._calls = calls
        self._rules = rules
        self._named = generic.everywhere(rules.generic_tools.values())

    async def listed(self, message: Request, turn: Turn) -> bytes:
        """Answer one of the lists.

        Raises:
            MethodRefused: nothing of the kind is configured.
            InvalidParams: a cursor; none is ever issued.
            DecisionUnavailable: it cannot be told what the caller may see.
            UpstreamError: no server could be asked.
        """
        self.require(message.method)
        tools.check_list_params(message.params)
        match message.method:
            case "resources/list":
                shown = await self._shown(turn, TargetKind.RESOURCE, "uri")
                now = self._ports.clock.monotonic()
                made = [export.entry() for export in self._calls.exports.of(turn.known_conversation, now)]
                found = resources.listed("resources", [*made, *shown])
            case "resources/templates/list":
                shown = await self._shown(turn, TargetKind.RESOURCE, "uriTemplate")
                found = resources.listed("resourceTemplates", shown)
            case _:
                found = resources.listed("prompts", await self._prompts(turn))
        if turn.era is Era.STATELESS:
            found = stateless_results.listed(found, self._rules.server_version)
        return jsonrpc.encode_result(message.id, found)

    async def used(self, message: Request, turn: Turn) -> Reply:
        """Answer ``resources/read``, ``prompts/get`` or ``completion/complete``.

        Raises:
            MethodRefused: nothing of the kind is configured.
            InvalidParams: not the parameters of the method.
            ResourceNotFound: there is none, or not for this caller.
            UnknownPrompt: there is none, or not for this caller.
        """
        self.require(message.method)
        match message.method:
            case "resources/read":
                params, turn.given = split(message.params, turn.era)
                return await self._read(message, turn, resources.parse_read(params))
            case "prompts/get":
                params, turn.given = split(message.params, turn.era)
                name, arguments = resources.parse_prompt(params)
                return await self._prompt(message, turn, name, arguments)
            case _:
                return await self._complete(message, turn)

    def require(self, method: str) -> None:
        """Return where something of the kind that a method is about is configured; raises MethodRefused."""
        capability = {"resources": "resources", "prompts": "prompts", "completion": "completions"}
        if capability.get(method.partition("/")[0], "") not in self._rules.capabilities:
            raise MethodRefused("nothing of the kind is configured")

    async def _shown(self, turn: Turn, kind: TargetKind, member: str) -> list[JsonObject]:
        """Return the entries of what settings name and this caller could be granted."""
        named = [one for one in self._named.values() if one.kind is kind and member in one.shown]
        if not named:
            return []
        visible = await self._calls.visible(turn)
        there = {key for server in visible.servers for key in self._rules.generic_tools.get(server, {})}
        return [dict(one.shown) for one in named if one.key in visible.tools and one.key in there]

    async def _prompts(self, turn: Turn) -> list[JsonObject]:
        visible = await self._calls.visible(turn)
        found: dict[str, JsonObject] = {}
        for server in self._ports.upstreams:
            pins = self._rules.generic_tools.get(server, {})
            if server in visible.servers and any(one.kind is TargetKind.PROMPT for one in pins.values()):
                for prompt in await self._live(server):
                    one = pins.get(f"{TargetKind.PROMPT}/{prompt['name']}")
                    if one is not None and one.key in visible.tools and _pinned(prompt, one):
                        found.setdefault(one.name, pinning.shown(prompt))
        return [*found.values()]

    async def _live(self, server: str) -> tuple[JsonObject, ...]:
        upstream = self._ports.upstreams.get(server)
        if upstream is None:
            raise UpstreamUnreachable
        return await upstream.prompts()

    async def _read(self, message: Request, turn: Turn, uri: str) -> Reply:
        found = self.readable(turn, uri)
        reply, result = await self._calls.carry_out(message, turn, found.call, found.use, found.absent)
        if found.export is not None and result is not None and result.failed and _GENERATING not in result.result:
            self._calls.exports.forget(turn.known_conversation, found.export)
            return Refused.of(ResourceNotFound(found.uri), message.id, era=turn.known_conversation.era)
        return reply

    def readable(self, turn: Turn, uri: str) -> "Readable":
        """Return what a URI is to the caller of a turn: an export of the same session, or what settings name.

        Raises:
            ResourceNotFound: neither.
        """
        now = self._ports.clock.monotonic()
        export = self._calls.exports.find(turn.known_conversation, uri, now)
        if export is not None:
            return self._exported(turn, export)
        resource, variables = _resource(self._named, uri)
        if resource is None:
            raise ResourceNotFound(uri)

        def derived() -> Command:
            return generic.derive_generic(ToolCall(name=resource.key, arguments=variables), resource)

        async def anywhere(_server: str) -> None:
            """No pin could hold what a resource says."""

        call = ToolCall(name=resource.key, arguments={"uri": uri})
        return Readable(uri=uri, call=call, use=Use(derived, anywhere), absent=ResourceNotFound(uri))

    def _exported(self, turn: Turn, export: Export) -> "Readable":
        """Return an export, with the accesses of the call that made it."""

        async def still_there(server: str) -> None:
            if server != export.server:
                raise ResourceNotFound(export.uri)
            turn.reviewed = await self._calls.require_pinned(server, export.command.tool)

        call = ToolCall(name=export.command.tool, arguments={"uri": export.uri})
        use = Use(lambda: export.command, still_there, export.rows)
        return Readable(uri=export.uri, call=call, use=use, export=export)

    async def _prompt(self, message: Request, turn: Turn, name: str, arguments: JsonObject) -> Reply:
        prompt = self._named.get(f"{TargetKind.PROMPT}/{name}")
        if prompt is None:
            raise UnknownPrompt
        call = ToolCall(name=prompt.key, arguments={"name": name, "arguments": arguments})
        return await self._generic(message, turn, call, prompt, arguments, UnknownPrompt())

    async def _complete(self, message: Request, turn: Turn) -> Reply:
        kind, name, sent = resources.parse_completion(message.params)
        absent: SidecarError = UnknownPrompt() if kind == "ref/prompt" else ResourceNotFound(name)
        key = TargetKind.PROMPT if kind == "ref/prompt" else TargetKind.RESOURCE
        one = self._named.get(f"{key}/{name}")
        if one is None:
            raise absent
        return await self._generic(message, turn, ToolCall(name=one.key, arguments=sent), one, {}, absent)

    async def _generic(
        self, message: Request, turn: Turn, call: ToolCall, one: GenericTool, seen: JsonObject, absent: SidecarError
    ) -> Reply:
        """Use what settings name; who may not see it gets the answer of what is not there."""

        def derived() -> Command:
            return generic.derive_generic(ToolCall(name=one.key, arguments=seen), one)

        async def reviewed(server: str) -> None:
            if one.kind is not TargetKind.PROMPT:
                return
            turn.reviewed = await self._live(server)
            live = [prompt for prompt in turn.reviewed if prompt["name"] == one.name]
            pin = self._rules.generic_tools.get(server, {}).get(one.key)
            if not live or pin is None:
                raise CommandNotDerivable("tool_absent", "The server that serves this call does not offer the prompt.")
            if not _pinned(live[0], pin):
                raise CommandNotDerivable("tool_changed", "The prompt is not the one that was reviewed.")

        reply, _ = await self._calls.carry_out(message, turn, call, Use(derived, reviewed), absent)
        return reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """One resource, and what reading it takes."""

    uri: str
    """As its server has it."""
    call: ToolCall
    use: Use
    absent: ResourceNotFound | None = None
    """What a caller reads who may not see it."""
    export: Export | None = None


def _pinned(prompt: JsonObject, pin: GenericTool) -> bool:
    try:
        return pinning.fingerprint(prompt) == pin.pin
    except ValueError:
        return False


def _resource(named: GenericTools, uri: str) -> tuple[GenericTool | None, JsonObject]:
    """Return the resource that settings name and a URI means, with what its template's variables are.

    One that two of them could mean is none: which of them the server takes it for, policy could not know. Servers also
    read some parts of a URI in any case (RFC 3986 section 6.2.2.1: the host), so that counts as well.
    """
    exact = named.get(f"{TargetKind.RESOURCE}/{uri}")
    if exact is not None and exact.template is None:
        return exact, {}
    possible = [one for one in named.values() if one.kind is TargetKind.RESOURCE and _could_be(one, uri)]
    found = possible[0].template.fullmatch(uri) if len(possible) == 1 and possible[0].template is not None else None
    return (possible[0], dict(found.groupdict())) if found is not None else (None, {})


def _could_be(resource: GenericTool, uri: str) -> bool:
    """Whether a server could take a URI for this resource, if it read letters in any case."""
    if resource.template is None:
        return resource.name.lower() == uri.lower()
    return re.fullmatch(resource.template.pattern, uri, re.IGNORECASE) is not None
