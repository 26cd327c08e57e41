"""A live tool is used only if it is the one that the catalog was written for."""

import copy

import pytest

from sidecar.commands.catalog import CATALOG
from sidecar.commands.pinning import Standing, compare, fingerprint
from sidecar.commands.pins import PINS
from sidecar.model import JsonObject

SCHEMA: JsonObject = {"type": "object", "properties": {"a": {"type": "string"}}}
FIND: JsonObject = {"name": "find", "description": "d", "inputSchema": SCHEMA}


def test_every_tool_of_the_catalog_is_pinned_and_nothing_else():
    assert PINS.keys() == CATALOG.keys()


def test_a_tool_that_is_not_offered_is_absent_and_not_suspicious():
    comparison = compare([])
    assert comparison["find"] is Standing.ABSENT
    assert comparison.suspicious() == {}


def test_a_tool_that_the_catalog_does_not_know_is_unknown():
    comparison = compare([{"name": "run-anything", "inputSchema": {}}])
    assert comparison["run-anything"] is Standing.UNKNOWN
    assert comparison.suspicious() == {"run-anything": "unknown"}
    assert comparison["never-heard-of"] is Standing.UNKNOWN


@pytest.mark.parametrize(
    "change",
    [
        lambda tool: tool["inputSchema"]["properties"].update(b={"type": "string"}),
        lambda tool: tool["inputSchema"]["properties"]["a"].update(type="number"),
        lambda tool: tool["inputSchema"].update(additionalProperties=True),
        lambda tool: tool.pop("inputSchema"),
    ],
)
def test_any_change_of_the_input_schema_changes_the_fingerprint(change):
    changed = copy.deepcopy(FIND)
    change(changed)
    assert fingerprint(changed) != fingerprint(FIND)


def test_the_order_of_keys_and_the_description_do_not():
    other: JsonObject = {"inputSchema": dict(reversed(SCHEMA.items())), "name": "find", "description": "other"}
    assert fingerprint(other) == fingerprint(FIND)


def test_a_changed_tool_is_suspicious_and_the_others_are_not():
    assert compare([FIND]).suspicious() == {"find": "changed"}


def test_a_name_that_comes_twice_is_changed():
    assert compare([FIND, FIND])["find"] is Standing.CHANGED


def test_a_tool_without_a_name_is_no_tool():
    assert compare([{"inputSchema": {}}, {"name": 7}]).suspicious() == {}
