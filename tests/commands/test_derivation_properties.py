"""What holds for every call: an answer or a typed refusal, and no access lost by wrapping or mutation."""

import copy
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sidecar.commands.catalog import CATALOG
from sidecar.commands.derive import derive
from sidecar.commands.stages import STAGES
from sidecar.errors import SidecarError
from sidecar.model import AccessKind, Command, Namespace, ToolCall
from tests.examples import examples

BASE: dict[str, Any] = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}

SPICE = [
    *("$$ROOT", "$$USER_ROLES", "$a", "a", "db", "coll", "into", "from", "pipeline", "as", "name", "$where", "$expr"),
    *("$oid", "$regex", "__proto__", "a.0.b", "admin", "system.users", "find"),
]
WORDS = st.sampled_from([*sorted(STAGES), *SPICE, "", "x\0", "\ud800"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 200) | st.floats() | WORDS | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def attempt(tool: str, arguments: Any) -> Command | None:
    try:
        return derive(ToolCall(name=tool, arguments=arguments)).command
    except SidecarError:
        return None


def touched(command: Command) -> set[tuple[AccessKind, Namespace]]:
    return {(access.kind, access.namespace) for access in command.accesses}


@settings(max_examples=examples(250))
@given(data=st.data(), tool=st.sampled_from(sorted(CATALOG)))
def test_every_call_is_derived_or_refused_and_nothing_else(data, tool) -> None:
    fields = CATALOG[tool].arguments.fields
    arguments = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(fields, JSON)))
    arguments |= {key: value for key, value in BASE.items() if key in fields and data.draw(st.booleans())}
    command = attempt(tool, arguments)
    assert command is None or command.accesses


@settings(max_examples=examples(250))
@given(stage=st.sampled_from(sorted(STAGES)), spec=JSON, more=JSON)
def test_every_stage_with_any_value_is_derived_or_refused(stage, spec, more) -> None:
    for pipeline in ([{stage: spec}], [{"$match": {}}, {stage: more}], spec):
        attempt("aggregate", {**BASE, "pipeline": pipeline})
    attempt(
        "aggregate-db",
        {"connectionId": "preconfigured", "database": "sales", "pipeline": [{"$documents": []}, {stage: spec}]},
    )


NAME = st.sampled_from(["a", "b.c", "customers"])
FORBIDDEN = Namespace(database="hr", collection="pay")
TARGET = {"db": FORBIDDEN.database, "coll": FORBIDDEN.collection}
REACHING = st.sampled_from(
    [
        {"$lookup": {"from": TARGET, "as": "x"}},
        {"$lookup": {"from": TARGET, "as": "x", "pipeline": [{"$match": {"a": 1}}]}},
        {"$unionWith": dict(TARGET)},
        {"$out": dict(TARGET)},
        {"$out": {**TARGET, "timeseries": {"timeField": "t"}}},
        {"$merge": {"into": TARGET}},
        {"$merge": {"into": TARGET, "whenMatched": "fail"}},
        {
            "$graphLookup": {
                "from": TARGET,
                "startWith": "$a",
                "connectFromField": "a",
                "connectToField": "b",
                "as": "c",
            }
        },
    ]
)
HARMLESS = st.lists(
    st.sampled_from(
        [{"$match": {"a": 1}}, {"$limit": 3}, {"$set": {"a": "$b"}}, {"$unwind": "$a"}, {"$sort": {"a": 1}}]
    ),
    max_size=3,
)
WRAPPERS = [
    lambda inner, name: {"$facet": {name: inner, "z": []}},
    lambda inner, name: {"$lookup": {"from": name, "as": "x", "pipeline": inner}},
    lambda inner, name: {"$lookup": {"as": "x", "pipeline": [{"$documents": []}, *inner]}},
    lambda inner, name: {"$unionWith": {"coll": name, "pipeline": inner}},
    lambda inner, name: {"$unionWith": {"db": "other", "coll": name, "pipeline": inner}},
    lambda inner, name: {"$unionWith": {"pipeline": [{"$documents": []}, *inner]}},
]


@st.composite
def wrapped(draw: Any) -> list[Any]:
    pipeline = [*draw(HARMLESS), copy.deepcopy(draw(REACHING)), *draw(HARMLESS)]
    for wrap in draw(st.lists(st.sampled_from(WRAPPERS), max_size=6)):
        pipeline = [*draw(HARMLESS), wrap(pipeline, draw(NAME)), *draw(HARMLESS)]
    return pipeline


CARRIERS = [
    ("aggregate", lambda pipeline: {**BASE, "pipeline": pipeline}),
    ("explain", lambda pipeline: {**BASE, "method": [{"name": "aggregate", "arguments": {"pipeline": pipeline}}]}),
    (
        "export",
        lambda pipeline: {
            **BASE,
            "exportTitle": "t",
            "exportTarget": [{"name": "aggregate", "arguments": {"pipeline": pipeline}}],
        },
    ),
    (
        "aggregate-db",
        lambda pipeline: {
            "connectionId": "preconfigured",
            "database": "sales",
            "pipeline": [{"$documents": []}, *pipeline],
        },
    ),
]


@settings(max_examples=examples(200))
@given(pipeline=wrapped(), carrier=st.sampled_from(CARRIERS))
def test_a_namespace_is_found_at_any_depth_and_through_every_carrier(pipeline, carrier) -> None:
    tool, carry = carrier
    command = attempt(tool, carry(pipeline))
    assert command is not None, pipeline
    assert FORBIDDEN in {access.namespace for access in command.accesses}
    assert all(access.via.startswith("/arguments/") for access in command.accesses)


@settings(max_examples=examples(200))
@given(inner=wrapped(), wrap=st.sampled_from(WRAPPERS), name=NAME)
def test_wrapping_a_pipeline_loses_no_access_outside_the_inherited_database(inner, wrap, name) -> None:
    bare = attempt("aggregate", {**BASE, "pipeline": inner})
    around = attempt("aggregate", {**BASE, "pipeline": [wrap(inner, name)]})
    assert bare is not None
    assert around is not None
    explicit = {pair for pair in touched(bare) if pair[1].database != "sales"}
    assert explicit <= touched(around)


def positions(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every (path to a key) in a value."""
    found: list[tuple[Any, ...]] = []
    if isinstance(value, dict):
        for key, child in value.items():
            found += [(*path, key), *positions(child, (*path, key))]
    elif isinstance(value, list):
        for index, child in enumerate(value):
            found += positions(child, (*path, index))
    return found


@settings(max_examples=examples(250))
@given(pipeline=wrapped(), data=st.data())
def test_renaming_any_key_is_refused_or_keeps_the_access(pipeline, data) -> None:
    *path, key = data.draw(st.sampled_from(positions(pipeline)))
    node = pipeline = copy.deepcopy(pipeline)
    for step in path:
        node = node[step]
    renamed = data.draw(
        st.sampled_from([key.upper(), key + "\0", key + " ", key.lstrip("$"), "__proto__", "\u017f" + key])
    )
    assume(renamed not in node)
    changed = {renamed if name == key else name: child for name, child in node.items()}
    node.clear()
    node.update(changed)
    command = attempt("aggregate", {**BASE, "pipeline": pipeline})
    assert command is None or FORBIDDEN in {access.namespace for access in command.accesses}


@settings(max_examples=examples(200))
@given(pipeline=wrapped(), data=st.data())
def test_a_second_key_beside_a_stage_or_a_name_is_refused_or_keeps_the_access(pipeline, data) -> None:
    *path, _ = data.draw(st.sampled_from(positions(pipeline)))
    node = pipeline = copy.deepcopy(pipeline)
    for step in path:
        node = node[step]
    extra = data.draw(st.sampled_from(["$match", "$oid", "$code", "__proto__", "coll", "from", "x", "$literal"]))
    assume(extra not in node)
    node[extra] = data.draw(st.sampled_from(["x", {}, 1]))
    command = attempt("aggregate", {**BASE, "pipeline": pipeline})
    assert command is None or FORBIDDEN in {access.namespace for access in command.accesses}
