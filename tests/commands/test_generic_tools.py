"""Tools outside of the catalog: which names and pointers settings may give, and what a call of one comes to."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.commands.catalog import CATALOG
from sidecar.commands.derive import derive
from sidecar.commands.generic import GenericTool, everywhere, name_fault, pointer_fault
from sidecar.commands.pinning import PinState, compare, fingerprint
from sidecar.errors import CommandNotDerivable, UnknownTool
from sidecar.model import AccessKind, JsonObject, JsonValue, Target, TargetKind, ToolCall

REPORT = GenericTool(name="report", pin="0" * 64, pointers=("/region", "/page/size", "/a~1b"))
TOOLS = {"report": REPORT}


def command(arguments: JsonObject, name: str = "report"):
    return derive(ToolCall(name=name, arguments=arguments), TOOLS).command


def refusal(arguments: JsonObject) -> CommandNotDerivable:
    with pytest.raises(CommandNotDerivable) as caught:
        command(arguments)
    return caught.value


def test_a_call_is_one_access_to_the_tool_by_its_exact_name():
    (access,) = command({"region": "EU", "secret": "x"}).accesses
    assert access.kind is AccessKind.EXECUTE
    assert access.target == Target(kind=TargetKind.TOOL, id="report")
    assert access.namespace.database == ""


def test_policy_sees_the_named_arguments_and_no_others():
    arguments: JsonObject = {"region": "EU", "page": {"size": 5, "from": 1}, "a/b": None, "a": {"b": 1}, "secret": "x"}
    assert command(arguments).arguments == {"/region": "EU", "/page/size": 5, "/a~1b": None}
    assert command({"page": {}, "secret": {"region": "EU"}}).arguments == {}


@pytest.mark.parametrize(
    "arguments",
    [
        {"region": ["EU"]},
        {"region": {"$eq": "EU"}},
        {"region": []},
        {"region": "E" * 1025},
        {"page": "size"},
        {"page": [{"size": 1}]},
        {"page": {"size": [1]}},
    ],
)
def test_an_argument_that_policy_decides_by_has_no_parts(arguments):
    assert refusal(arguments).reason == "malformed"


LOOKALIKES = ["Region", "REGION", "re_gion", "region\0", "region\0x", "region ", "\tregion", "\uff52egion", "region."]
FOLDED: list[JsonObject] = [
    *[dict[str, JsonValue]({"region": "EU", key: "US"}) for key in LOOKALIKES],
    *[dict[str, JsonValue]({key: "US"}) for key in LOOKALIKES],
    {"page": {"size": 5, "\u017fize": 500}},
    {"page": {"size": 5}, "Page": {"size": 500}},
    {"a/b": "x", "A/B": "y"},
    {"a/b": "x", "a.b": "y"},
]


@pytest.mark.parametrize("arguments", FOLDED, ids=ascii)
def test_a_key_that_a_server_could_take_for_one_that_policy_sees_is_refused(arguments):
    assert refusal(arguments).reason == "key_refused"


@pytest.mark.parametrize(
    "arguments",
    [
        {"region": "EU", "regions": "US"},
        {"region": "EU", "region2": "US"},
        {"region": "EU", "note": "Region", "Note": "x"},
        {"region": "EU", "secret": {"Region": "US"}},
        {"page": {"size": 5, "sizes": 500}, "region": "EU"},
        {"region": "EU", "gion": 1, "": 1, "\0": 1},
        {"region": "EU", **{f"k{number}": 0 for number in range(999)}},
    ],
    ids=lambda arguments: ascii(arguments)[:40],
)
def test_other_keys_are_nothing_to_policy(arguments):
    assert command(arguments).arguments["/region"] == "EU"


def test_beside_a_key_that_policy_sees_there_may_be_so_many_and_no_more():
    many: JsonObject = {f"k{number}": 0 for number in range(1000)}
    assert refusal({"region": "EU", **many}).reason == "malformed"
    assert command({"region": "EU", "rows": many}).arguments == {"/region": "EU"}


def test_a_long_text_that_policy_does_not_see_is_nothing_to_policy():
    assert command({"text": "x" * 900_000, "region": "E" * 1024}).arguments == {"/region": "E" * 1024}


@pytest.mark.parametrize(
    "arguments",
    [{"__proto__": {"region": "EU"}}, {"a": [{"b": {"__proto__": 1}}]}, {"page": {"__proto__": {"size": 1}}}],
)
def test_a_key_through_which_javascript_finds_other_arguments_is_refused(arguments):
    assert refusal(arguments).reason == "key_refused"


def test_the_words_of_that_key_in_a_value_or_a_longer_key_are_data():
    assert command({"text": "about __proto__", "a__proto__b": 1}).tool == "report"
    assert command({"constructor": 1, "prototype": 2}).arguments == {}


@pytest.mark.parametrize("name", ["Report", "report ", "reports", "rep\u043ert", "", "tool/report", "__proto__"])
def test_a_name_that_is_nearly_the_tools_is_no_tool(name):
    with pytest.raises(UnknownTool):
        command({}, name)


def test_the_catalog_comes_first():
    generic = GenericTool(name="count", pin="0" * 64)
    call = ToolCall(name="count", arguments={"connectionId": "preconfigured", "database": "d", "collection": "c"})
    assert derive(call, {"count": generic}).command.accesses[0].kind is AccessKind.READ


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_no_name_of_the_catalog_nor_one_that_looks_like_it_can_be_given(name):
    for like in (name, name.upper(), name.replace("-", "_"), name.replace("-", "."), name + "-", "_" + name):
        assert "catalog" in name_fault(like), like


@pytest.mark.parametrize(
    "name", ["", "f\u0456nd", "\uff46ind", "a b", "a/b", "a\n", "\u00e9", "a" * 129, "find\u200b", "report\0"]
)
def test_names_of_other_characters_cannot_be_given(name):
    assert name_fault(name)


@pytest.mark.parametrize("name", ["report", "finder", "find2", "test_simple_text", "a" * 128, "db.export-now"])
def test_other_names_can_be_given(name):
    assert not name_fault(name)


@pytest.mark.parametrize(
    "pointer",
    [
        *("", "/", "region", "#/region", "//a", "/a/", "/a~2", "/a~", "$.region"),
        *("/__proto__", "/a/__proto__/b", "/constructor", "/constructor/prototype/x", "/a/prototype"),
        "/a/b/c/d/e/f/g/h/i",
    ],
)
def test_a_pointer_that_points_at_no_argument_is_refused(pointer):
    assert pointer_fault(pointer)


@pytest.mark.parametrize(
    "pointer", ["/region", "/a/b", "/a~1b", "/a~0b", "/0", "/a/b/c/d/e/f/g/h", "/Constructor", "/\u00e4"]
)
def test_a_pointer_to_an_argument_is_taken(pointer):
    assert not pointer_fault(pointer)


_SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=40)
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner)
)


@given(arguments=st.dictionaries(st.sampled_from(["region", "page", "a/b", "other"]) | st.text(max_size=6), _VALUES))
def test_whatever_the_arguments_are_policy_sees_scalars_of_the_call_or_the_call_is_refused(arguments):
    seen = {}
    with suppress(CommandNotDerivable):
        seen = dict(command(arguments).arguments)
    assert seen.keys() <= set(REPORT.pointers)
    assert not any(isinstance(value, dict | list) for value in seen.values())
    assert seen.get("/region") == (arguments.get("region") if "/region" in seen else None)


LIVE: JsonObject = {"name": "report", "description": "Writes a report.", "inputSchema": {"type": "object"}}


def test_a_live_tool_is_held_to_the_pin_of_the_settings():
    pins = {"report": fingerprint(LIVE)}
    assert compare([LIVE], pins)["report"] is PinState.PINNED
    assert compare([LIVE])["report"] is PinState.UNKNOWN
    assert compare([], pins)["report"] is PinState.ABSENT
    assert compare([LIVE, LIVE], pins)["report"] is PinState.CHANGED
    changes: list[JsonObject] = [{"description": "Writes."}, {"inputSchema": {"type": "array"}}, {"title": "x"}]
    for change in changes:
        assert compare([{**LIVE, **change}], pins)["report"] is PinState.CHANGED
    assert compare([LIVE], pins).suspicious() == {}


def test_a_pin_of_the_settings_is_none_for_a_tool_of_the_catalog():
    find: JsonObject = {"name": "find", "inputSchema": {"type": "object"}}
    assert compare([find], {"find": fingerprint(find)})["find"] is PinState.CHANGED


def test_tools_of_several_servers_are_taken_together():
    other = GenericTool(name="other", pin="1" * 64)
    assert everywhere([TOOLS, {"other": other}]) == {"report": REPORT, "other": other}
