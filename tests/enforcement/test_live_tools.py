"""A live tool is compared again whenever its JSON is another one, whatever Python takes to be equal."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sidecar.commands.pinning import Standing
from sidecar.enforcement.livetools import LiveTools
from sidecar.errors import CommandNotDerivable, UpstreamProtocolViolation
from sidecar.model import JsonObject, JsonValue, Permit, UpstreamResult

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]


@dataclass
class Offering:
    """A server whose list is what it was last set to."""

    now: list[JsonObject]
    healthy: bool = True

    async def tools(self) -> list[JsonObject]:
        return [*self.now]

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


async def test_what_only_python_takes_to_be_equal_is_another_tool(offered: list[JsonObject]) -> None:
    server = Offering(offered)
    live = LiveTools({"s": server})
    await live.require_pinned("s", "find")
    tried = 0
    for index, tool in enumerate(offered):
        name = str(tool["name"])
        shown = {key: value for key, value in tool.items() if key != "_meta"}
        for changed in in_disguise(shown):
            assert changed == shown, "Python takes them to be equal"
            server.now = [*offered[:index], changed, *offered[index + 1 :]]
            assert (await live.comparison("s"))[name] is Standing.CHANGED
            with pytest.raises(CommandNotDerivable, match="not the one that was reviewed"):
                await live.require_pinned("s", name)
            assert name not in {one["name"] for one in await live.pinned({"s"})}
            server.now = [tool]
            await live.require_pinned("s", name)
            tried += 1
            if tried % 4 == 0:
                break  # a few of each tool; each costs a comparison with every pin
    assert tried > len(offered)


@pytest.mark.parametrize(
    "again",
    [
        copy.deepcopy,
        lambda tools: [dict(reversed(tool.items())) for tool in tools],
        lambda tools: tools[::-1],
        lambda tools: [{**tool, "_meta": {"another": True}} for tool in tools],
    ],
    ids=["a copy", "another order of members", "another order of tools", "another _meta"],
)
async def test_a_list_that_says_the_same_stays_pinned(offered: list[JsonObject], again: Any) -> None:
    server = Offering(offered)
    live = LiveTools({"s": server})
    before = dict((await live.comparison("s")).standings)
    server.now = again(offered)
    assert (await live.comparison("s")).standings == before
    assert (await live.comparison("s")) is (await live.comparison("s")), "compared once"
    assert len(await live.pinned({"s"})) == len(offered)


def nested(depth: int) -> JsonValue:
    value: JsonValue = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize("name", ["find", "run-anything"])
async def test_a_tool_too_deep_to_compare_is_a_fault_of_its_server_and_forgotten_with_it(
    offered: list[JsonObject], name: str
) -> None:
    server = Offering(offered)
    live = LiveTools({"s": server})
    await live.require_pinned("s", "count")
    server.now = [*offered[1:], {"name": name, "inputSchema": nested(2000)}]
    with pytest.raises(UpstreamProtocolViolation):
        await live.require_pinned("s", "count")
    server.now = [*offered[1:], {"name": "run-anything", "inputSchema": nested(20)}]
    await live.require_pinned("s", "count")
