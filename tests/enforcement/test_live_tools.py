"""A live tool is compared again whenever its JSON is another one, whatever Python takes to be equal."""

import copy
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import msgspec
import pytest

from sidecar.commands.catalog import CATALOG
from sidecar.commands.pinning import PinState, compare
from sidecar.commands.tool_groups import ToolGroup, groups_off
from sidecar.enforcement.livetools import LiveTools
from sidecar.errors import CommandNotDerivable, ToolGroupOff, UpstreamProtocolViolation
from sidecar.model import JsonObject, JsonValue, Permit, UpstreamResult
from sidecar.upstream.process import StdioUpstream

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]


EVERYTHING = {"s": frozenset(ToolGroup)}


@dataclass
class Offering:
    """A server whose list is what it was last set to; as a real one, it returns the same object until it changes."""

    now: tuple[JsonObject, ...]
    healthy: bool = True

    def unwatch(self, uri: str) -> None:
        """Nothing was watched."""

    def discard(self, uri: str) -> None:
        """Nothing was exported."""

    async def prompts(self) -> tuple[JsonObject, ...]:
        return ()

    async def tools(self) -> tuple[JsonObject, ...]:
        return self.now

    async def forward(self, permit: Permit) -> UpstreamResult:
        raise AssertionError(permit)


def in_disguise(value: Any) -> Iterator[Any]:
    """Yield the value with one boolean or number at a time as the other type that Python takes to be equal to it."""
    match value:
        case bool():
            yield int(value)
        case 0 | 1:
            yield bool(value)
        case list():
            for index, inner in enumerate(value):
                yield from ([*value[:index], other, *value[index + 1 :]] for other in in_disguise(inner))
        case dict():
            for key, inner in value.items():
                yield from ({**value, key: other} for other in in_disguise(inner))
        case _:
            pass


async def test_what_only_python_takes_to_be_equal_is_another_tool(offered: tuple[JsonObject, ...]) -> None:
    server = Offering(offered)
    live = LiveTools({"s": server}, EVERYTHING)
    await live.require_pinned("s", "find")
    tried = 0
    for index, tool in enumerate(offered):
        name = str(tool["name"])
        shown = {key: value for key, value in tool.items() if key != "_meta"}
        for changed in in_disguise(shown):
            assert changed == shown, "Python takes them to be equal"
            server.now = (*offered[:index], changed, *offered[index + 1 :])
            assert (await live.comparison("s"))[name] is PinState.CHANGED
            with pytest.raises(CommandNotDerivable, match="not the one that was reviewed"):
                await live.require_pinned("s", name)
            assert name not in {one["name"] for one in await live.pinned({"s"})}
            server.now = (tool,)
            await live.require_pinned("s", name)
            tried += 1
            if tried % 4 == 0:
                break  # a few of each tool; each costs a comparison with every pin
    assert tried > len(offered)


@pytest.mark.parametrize(
    "again",
    [
        copy.deepcopy,
        lambda tools: tuple(dict(reversed(tool.items())) for tool in tools),
        lambda tools: tools[::-1],
        lambda tools: tuple({**tool, "_meta": {"another": True}} for tool in tools),
    ],
    ids=["a copy", "another order of members", "another order of tools", "another _meta"],
)
async def test_a_list_that_says_the_same_stays_pinned(offered: tuple[JsonObject, ...], again: Any) -> None:
    server = Offering(offered)
    live = LiveTools({"s": server}, EVERYTHING)
    before = dict((await live.comparison("s")).standings)
    server.now = again(offered)
    assert (await live.comparison("s")).standings == before
    assert (await live.comparison("s")) is (await live.comparison("s")), "compared once"
    assert len(await live.pinned({"s"})) == len(offered)


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count what a list of tools costs while the block runs: how often it was encoded, and compared with the pins."""
    seen: Counter[str] = Counter()

    def note(frame: FrameType, event: str, function: object) -> None:
        if (
            event == "c_call"
            and function is msgspec.json.encode
            and frame.f_globals["__name__"] == LiveTools.__module__
        ):
            seen["encoded"] += 1
        if event == "call" and frame.f_code is compare.__code__:
            seen["compared"] += 1

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield seen
    finally:
        sys.setprofile(before)


async def asked_often(live: LiveTools, server: str) -> Counter[str]:
    """Have three calls checked and one list made; return what that cost."""
    with counted() as seen:
        for _ in range(3):
            await live.require_pinned(server, "find")
        assert await live.pinned({server})
    return seen


async def test_the_real_servers_list_is_encoded_and_compared_once_for_many_calls(real_server: StdioUpstream) -> None:
    """77 kB, 142 µs each time it is encoded: every permitted call would pay it."""
    live = LiveTools({"s": real_server}, EVERYTHING)
    assert await asked_often(live, "s") == {"encoded": 1, "compared": 1}
    assert await asked_often(live, "s") == {}


async def test_a_list_is_looked_at_again_only_when_it_is_another_object(offered: tuple[JsonObject, ...]) -> None:
    server = Offering(offered)
    live = LiveTools({"s": server}, EVERYTHING)
    assert await asked_often(live, "s") == {"encoded": 1, "compared": 1}
    assert await asked_often(live, "s") == {}
    server.now = copy.deepcopy(offered)
    assert await asked_often(live, "s") == {"encoded": 1}, "it says the same"
    server.now = offered[::-1]
    assert await asked_often(live, "s") == {"encoded": 1, "compared": 1}


def nested(depth: int) -> JsonValue:
    value: JsonValue = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize("name", ["find", "run-anything"])
async def test_a_tool_too_deep_to_compare_is_a_fault_of_its_server_and_forgotten_with_it(
    offered: tuple[JsonObject, ...], name: str
) -> None:
    server = Offering(offered)
    live = LiveTools({"s": server}, EVERYTHING)
    await live.require_pinned("s", "count")
    server.now = (*offered[1:], {"name": name, "inputSchema": nested(2000)})
    with pytest.raises(UpstreamProtocolViolation):
        await live.require_pinned("s", "count")
    server.now = (*offered[1:], {"name": "run-anything", "inputSchema": nested(20)})
    await live.require_pinned("s", "count")


@pytest.mark.parametrize("on", [(), (ToolGroup.EXPORT,), (ToolGroup.CONNECT, ToolGroup.ASSISTANT), tuple(ToolGroup)])
async def test_a_tool_of_a_group_that_is_off_is_not_there_whatever_the_server_offers(
    offered: tuple[JsonObject, ...], on: tuple[ToolGroup, ...]
) -> None:
    live = LiveTools({"s": Offering(offered), "other": Offering(offered)}, {"s": on})
    off = {name for name in CATALOG if groups_off(name, on)}
    assert {tool["name"] for tool in await live.pinned({"s"})} == {tool["name"] for tool in offered} - off
    for name in off:
        with pytest.raises(ToolGroupOff):
            live.require_somewhere(name)
        with pytest.raises(CommandNotDerivable, match="does not offer the tool"):
            await live.require_pinned("s", name)
        assert not await live.offers(name, {"s"})
    for name in {str(tool["name"]) for tool in offered} - off:
        live.require_somewhere(name)
        await live.require_pinned("s", name)
    with pytest.raises(CommandNotDerivable, match="does not offer the tool"):
        await live.require_pinned("other", "export")
    await live.require_pinned("other", "find")
