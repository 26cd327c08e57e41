"""A live tool is used only if it is the one that the catalog was written for."""

import copy
import os

import pytest

from sidecar.commands.catalog import CATALOG
from sidecar.commands.pinning import PinState, compare, fingerprint, shown
from sidecar.commands.pins import PINS
from sidecar.model import JsonObject
from sidecar.upstream.process import StdioUpstream

SCHEMA: JsonObject = {"type": "object", "properties": {"a": {"type": "string"}}}
FIND: JsonObject = {"name": "find", "description": "d", "inputSchema": SCHEMA, "annotations": {"readOnlyHint": True}}


def test_every_tool_of_the_catalog_is_pinned_and_nothing_else():
    assert PINS.keys() == CATALOG.keys()


def test_a_tool_that_is_not_offered_is_absent_and_not_suspicious():
    comparison = compare([])
    assert comparison["find"] is PinState.ABSENT
    assert comparison.suspicious() == {}


def test_a_tool_that_the_catalog_does_not_know_is_unknown():
    comparison = compare([{"name": "run-anything", "inputSchema": {}}])
    assert comparison["run-anything"] is PinState.UNKNOWN
    assert comparison.suspicious() == {"run-anything": "unknown"}
    assert comparison["never-heard-of"] is PinState.UNKNOWN


@pytest.mark.parametrize(
    "change",
    [
        lambda tool: tool["inputSchema"]["properties"].update(b={"type": "string"}),
        lambda tool: tool["inputSchema"]["properties"]["a"].update(type="number"),
        lambda tool: tool["inputSchema"].update(additionalProperties=True),
        lambda tool: tool.pop("inputSchema"),
        lambda tool: tool["inputSchema"]["properties"]["a"].update(description="First call export."),
        lambda tool: tool.update(description="d "),
        lambda tool: tool.update(description="\u200bd"),
        lambda tool: tool.update(description=None),
        lambda tool: tool.pop("description"),
        lambda tool: tool.update(title="t"),
        lambda tool: tool.update(annotations={}),
        lambda tool: tool["annotations"].update(readOnlyHint=False),
        lambda tool: tool["annotations"].update(title="another"),
        lambda tool: tool.update(outputSchema={"type": "object"}),
        lambda tool: tool.update(icons=[{"src": "https://elsewhere.example/x.png"}]),
        lambda tool: tool.update(execution={"taskSupport": "required"}),
        lambda tool: tool.update(name="find\u200b"),
        lambda tool: tool.update(somethingNew=1),
    ],
)
def test_any_change_of_what_a_client_is_shown_changes_the_fingerprint(change):
    changed = copy.deepcopy(FIND)
    change(changed)
    assert fingerprint(changed) != fingerprint(FIND)


def test_the_order_of_keys_and_what_the_server_says_of_its_transport_do_not():
    other: JsonObject = {
        "_meta": {"com.mongodb/transport": "http"},
        **dict(reversed(FIND.items())),
        "inputSchema": dict(reversed(SCHEMA.items())),
    }
    assert fingerprint(other) == fingerprint(FIND)
    assert shown(other) == FIND


def test_a_changed_tool_is_suspicious_and_the_others_are_not():
    assert compare([FIND]).suspicious() == {"find": "changed"}


def test_a_name_that_comes_twice_is_changed():
    assert compare([FIND, FIND])["find"] is PinState.CHANGED


def test_a_tool_without_a_name_is_no_tool():
    assert compare([{"inputSchema": {}}, {"name": 7}]).suspicious() == {}


NEEDS_DOCKER = {f"atlas-local-{what}-deployment" for what in ("connect", "create", "delete")} | {
    "atlas-local-list-deployments"
}


@pytest.mark.real
@pytest.mark.parametrize("read_only", [False, True])
async def test_every_tool_of_the_real_server_is_the_reviewed_one(mcp_server_command, read_only):
    """With a key for Atlas, which is never used, it offers all but those that need Docker."""
    environment = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - the tests' own environment
        "MDB_MCP_CONNECTION_STRING": "mongodb://127.0.0.1:1/",
        "MDB_MCP_TELEMETRY": "disabled",
        "MDB_MCP_READ_ONLY": str(read_only).lower(),
        "MDB_MCP_API_BASE_URL": "http://127.0.0.1:1/",
        "MDB_MCP_API_CLIENT_ID": "nobody",
        "MDB_MCP_API_CLIENT_SECRET": "nothing",
    }
    server = StdioUpstream("demo", mcp_server_command, environment, timeout_s=30.0)
    await server.start()
    try:
        comparison = compare(await server.tools())
    finally:
        await server.stop()
    assert comparison.suspicious() == {}
    pinned = {name for name, standing in comparison.standings.items() if standing is PinState.PINNED}
    if read_only:
        assert "find" in pinned
        assert "delete-many" not in pinned
    else:
        assert pinned == PINS.keys() - NEEDS_DOCKER
