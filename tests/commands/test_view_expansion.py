"""What lies behind a view is added to the command, all of it, and nothing is lost."""

import re
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.commands.derive import derive
from sidecar.commands.draft import MAX_ACCESSES
from sidecar.commands.views import PASSING, View, ViewDefinitions, databases, expand
from sidecar.errors import CommandNotDerivable
from sidecar.model import Access, AccessKind, Command, FieldUse, Namespace, TargetKind, ToolCall, Trait
from tests.parts import ROOT

READ, EXPORT, METADATA = AccessKind.READ, AccessKind.EXPORT, AccessKind.METADATA
ON = {"connectionId": "preconfigured", "database": "sales"}
V = {**ON, "collection": "v"}


def ns(collection: str, database: str = "sales") -> Namespace:
    return Namespace(database=database, collection=collection)


def view(name: str, source: str, *pipeline: Any, database: str = "sales", on: str = "") -> View:
    return View(namespace=ns(name, database), source=ns(source, on or database), pipeline=list(pipeline))


def catalog(*views: View) -> ViewDefinitions:
    found = defaultdict(list)
    for each in views:
        found[each.namespace].append(each)
    return found


def call(tool: str, **arguments: Any) -> Command:
    return derive(ToolCall(name=tool, arguments=arguments)).command


def added(command: Command, known: ViewDefinitions) -> set[tuple[AccessKind, Namespace]]:
    """What expansion adds; that it keeps everything else, in order, is asserted on the way."""
    expanded = expand(command, known)
    assert expanded.accesses[: len(command.accesses)] == command.accesses
    return {(access.kind, access.namespace) for access in expanded.accesses[len(command.accesses) :]}


# --- what is added ----------------------------------------------------------------------------------------------------


def test_a_source_is_added_under_the_view_that_the_caller_named():
    [_, source] = expand(call("find", **V), catalog(view("v", "orders"))).accesses
    assert source == Access(kind=READ, namespace=ns("orders"), via="/arguments/collection", via_view=ns("v"))


def test_a_collection_that_is_no_view_changes_nothing():
    command = call("find", **{**V, "collection": "orders"})
    for known in ({}, catalog(view("v", "orders")), catalog(view("orders", "x", database="other"))):
        assert expand(command, known) is command


@pytest.mark.parametrize("near", ["V", "v ", "v2", "sales.v"])
def test_names_are_compared_exactly(near):
    assert added(call("find", **V), {ns(near): [view(near, "orders")]}) == set()


JOINS = [
    ({"$lookup": {"from": "salaries", "as": "s"}}, ns("salaries")),
    ({"$lookup": {"from": {"db": "hr", "coll": "salaries"}, "as": "s"}}, ns("salaries", "hr")),
    ({"$unionWith": "salaries"}, ns("salaries")),
    ({"$facet": {"a": [{"$unionWith": {"coll": "salaries", "pipeline": []}}]}}, ns("salaries")),
    (
        {
            "$graphLookup": {
                "from": "salaries",
                "startWith": "$a",
                "connectFromField": "a",
                "connectToField": "b",
                "as": "c",
            }
        },
        ns("salaries"),
    ),
]


@pytest.mark.parametrize(("stage", "reached"), JOINS)
def test_what_the_views_own_pipeline_reads_is_added(stage, reached):
    assert added(call("find", **V), catalog(view("v", "orders", {"$match": {}}, stage))) == {
        (READ, ns("orders")),
        (READ, reached),
    }


def test_views_on_views_are_followed_and_stay_under_the_named_one():
    known = catalog(view("v", "w", {"$unionWith": "x"}), view("w", "orders"), view("x", "y"), view("y", "returns"))
    command = call("find", **V)
    assert added(command, known) == {(READ, ns(name)) for name in ("w", "x", "y", "orders", "returns")}
    assert {access.via_view for access in expand(command, known).accesses[1:]} == {ns("v")}


def test_a_join_that_leads_to_a_view_is_expanded_at_its_own_place():
    pipeline = [{"$lookup": {"from": "v", "as": "s"}}]
    command = call("aggregate", **ON, collection="orders", pipeline=pipeline)
    *_, source = expand(command, catalog(view("v", "salaries"))).accesses
    assert (source.namespace, source.via_view) == (ns("salaries"), ns("v"))
    assert source.via == "/arguments/pipeline/0/$lookup/from"


def test_every_definition_of_a_name_counts():
    known = catalog(view("v", "orders"), view("v", "salaries", on="hr"))
    assert added(call("find", **V), known) == {(READ, ns("orders")), (READ, ns("salaries", "hr"))}


def test_two_views_of_one_source_and_its_own_name_stand_beside_one_another():
    """Policy may hold one view to be enough, and neither the other nor the source by its own name."""
    pipeline = [{"$unionWith": "w"}, {"$unionWith": "orders"}]
    command = call("aggregate", **V, pipeline=pipeline)
    expanded = expand(command, catalog(view("v", "orders"), view("w", "orders")))
    assert [access.via_view for access in expanded.accesses if access.namespace == ns("orders")] == [
        None,
        ns("v"),
        ns("w"),
    ]


def test_what_looks_like_a_cycle_ends():
    known = catalog(view("v", "w"), view("w", "v"), view("w", "orders"))
    assert added(call("find", **V), known) == {(READ, ns("w")), (READ, ns("v")), (READ, ns("orders"))}


def test_too_many_sources_are_refused_at_the_view():
    unions = [{"$unionWith": f"c{number}"} for number in range(MAX_ACCESSES - 2)]
    assert len(added(call("find", **V), catalog(view("v", "orders", *unions)))) == MAX_ACCESSES - 1
    chain = catalog(*(view(f"w{n}", f"w{n + 1}") for n in range(MAX_ACCESSES)), view("v", "w0"))
    with pytest.raises(CommandNotDerivable) as caught:
        expand(call("find", **V), chain)
    assert (caught.value.reason, caught.value.path) == ("too_many_accesses", "/arguments/collection")


# --- which kinds pass -------------------------------------------------------------------------------------------------

KINDS = [
    (call("count", **V), {(READ, ns("orders"))}),
    (call("collection-schema", **V), {(READ, ns("orders"))}),
    (call("collection-indexes", **V), {(METADATA, ns("orders"))}),
    (call("explain", **V, method=[{"name": "find", "arguments": {}}]), {(READ, ns("orders"))}),
    (
        call("export", **V, exportTitle="t", exportTarget=[{"name": "find", "arguments": {}}]),
        {(READ, ns("orders")), (EXPORT, ns("orders"))},
    ),
    (call("rename-collection", **V, newName="w"), {(READ, ns("orders"))}),
    (call("insert-many", **V, documents=[{}]), {(AccessKind.INSERT, ns("orders"))}),
    (call("update-many", **V, update={"$set": {"a": 1}}), {(AccessKind.UPDATE, ns("orders"))}),
    (call("delete-many", **V, filter={"a": 1}), {(AccessKind.DELETE, ns("orders"))}),
    (call("drop-collection", **V), set()),
    (call("create-collection", **V), set()),
    (call("list-collections", **ON), set()),
    (call("drop-database", **ON), set()),
    (call("list-databases", connectionId="preconfigured"), set()),
]


@pytest.mark.parametrize(("command", "expected"), KINDS, ids=lambda value: getattr(value, "tool", ""))
def test_content_facts_and_writes_pass_through_and_the_name_alone_does_not(command, expected):
    assert added(command, catalog(view("v", "orders"))) == expected


# --- traits and fields ------------------------------------------------------------------------------------------------

TRAITS = [
    ({"$match": {"$where": "true"}}, Trait.SERVER_SIDE_JS),
    ({"$match": {"$expr": {"$in": ["a", "$$USER_ROLES.role"]}}}, Trait.USER_ROLES),
    ({"$unionWith": {"db": "hr", "coll": "salaries"}}, Trait.CROSS_DATABASE),
    ({"$unionWith": "system.profile"}, Trait.SYSTEM_NAMESPACE),
    ({"$merge": "copy"}, Trait.WRITES_VIA_PIPELINE),
]


@pytest.mark.parametrize(("stage", "trait"), TRAITS)
def test_what_a_view_does_is_a_trait_of_the_call(stage, trait):
    command = call("find", **V)
    assert trait not in command.traits
    assert trait in expand(command, catalog(view("v", "orders", stage))).traits
    assert trait not in expand(command, catalog(view("v", "orders", {"$match": {"a": 1}}))).traits


def test_the_stages_of_a_view_are_stages_of_the_call_after_the_callers_own():
    command = call("aggregate", **V, pipeline=[{"$limit": 1}, {"$match": {}}, {"$limit": 2}])
    definition = view("v", "orders", {"$match": {}}, {"$unionWith": {"coll": "x", "pipeline": [{"$sort": {"a": 1}}]}})
    assert expand(command, catalog(definition)).stages == ("$limit", "$match", "$limit", "$unionWith", "$sort")


def test_a_system_namespace_behind_a_view_needs_administration():
    assert (AccessKind.ADMIN, ns("system.profile")) in added(call("find", **V), catalog(view("v", "system.profile")))


def test_what_no_namespace_describes_is_asked_about_by_itself():
    """The question's form has a view beside a namespace only; without one it must be granted as such."""
    search = {"$vectorSearch": {"index": "i", "path": "p", "query": {"text": "x"}, "limit": 1, "numCandidates": 1}}
    accesses = expand(call("find", **V), catalog(view("v", "orders", search, {"$currentOp": {}}))).accesses
    bare = [access for access in accesses[1:] if not access.namespace.database]
    assert {access.via_view for access in bare} == {None}
    assert {access.target.kind for access in bare if access.target} <= {TargetKind.SERVICE}
    assert AccessKind.ADMIN in {access.kind for access in bare}


def test_the_fields_of_a_view_may_be_made_of_any_field():
    command = call("find", **V, filter={"a": 1}, projection={"b": 1, "_id": 0})
    assert command.fields == FieldUse(filtered=("a",), returned=("b",))
    known = catalog(view("v", "orders", {"$project": {"a": "$ssn", "b": "$ssn"}}))
    assert expand(command, known).fields == FieldUse(filtered=("",), returned=None)


def test_a_count_through_a_view_still_returns_no_field():
    known = catalog(view("v", "orders"))
    assert expand(call("count", **V, query={"a": 1}), known).fields == FieldUse(filtered=("",), returned=())


# --- what cannot be said ----------------------------------------------------------------------------------------------

UNCLEAR = [
    view("v", "orders", {"$secretStage": {"from": "canary"}}),
    view("v", "orders", {"$match": {}, "$unionWith": "canary"}),
    view("v", "orders", {"$lookup": {"from": {"$literal": "canary"}, "as": "x"}}),
    view("v", "orders", {"$match": {"__proto__": 1}}),
    view("v", "orders", "canary"),
    view("v", ""),
    view("v", "a\0b"),
    View(namespace=ns("v"), source=ns("orders"), pipeline=None),
    View(namespace=ns("v"), source=ns("orders"), pipeline={"$match": {}}),
    View(namespace=ns("v"), source=ns("orders"), pipeline=[{"$match": {"a": [[[[[[]]]]]] * 60000}}]),
]


@pytest.mark.parametrize("unclear", UNCLEAR)
def test_a_definition_that_cannot_be_read_refuses_and_says_nothing_of_itself(unclear):
    with pytest.raises(CommandNotDerivable) as caught:
        expand(call("find", **V), catalog(unclear))
    assert (caught.value.reason, caught.value.path) == ("view_not_derivable", "/arguments/collection")
    assert "canary" not in caught.value.message
    assert "orders" not in caught.value.message


def test_also_behind_another_view_and_beside_one_that_can_be_read():
    for known in (catalog(view("v", "w"), view("w", "")), catalog(view("v", "orders"), view("v", ""))):
        with pytest.raises(CommandNotDerivable, match="view_not_derivable"):
            expand(call("find", **V), known)


def test_a_definition_that_the_call_does_not_reach_is_never_read():
    assert added(call("find", **V), catalog(view("v", "orders"), view("w", ""))) == {(READ, ns("orders"))}


# --- which databases must be known ------------------------------------------------------------------------------------


def test_the_databases_are_those_of_collections_that_views_could_stand_for():
    pipeline = [{"$unionWith": {"db": "hr", "coll": "salaries"}}]
    assert databases(call("aggregate", **V, pipeline=pipeline)) == {"sales", "hr"}
    assert (
        databases(call("list-collections", **ON))
        == databases(call("list-databases", connectionId="preconfigured"))
        == set()
    )
    assert databases(call("drop-collection", **V)) == set()


# --- properties -------------------------------------------------------------------------------------------------------

NAMES = st.sampled_from("abcdef")
STEPS = st.one_of(
    st.just({"$match": {"a": 1}}),
    NAMES.map(lambda name: {"$unionWith": name}),
    NAMES.map(lambda name: {"$lookup": {"from": name, "as": "x", "pipeline": [{"$unionWith": name}]}}),
    NAMES.map(lambda name: {"$facet": {"x": [{"$unionWith": name}]}}),
)
VIEWS = st.builds(lambda name, source, steps: view(name, source, *steps), NAMES, NAMES, st.lists(STEPS, max_size=3))
CATALOGS = st.lists(VIEWS, max_size=6).map(lambda views: catalog(*views))
COMMANDS = st.builds(
    lambda name, steps: call("aggregate", **ON, collection=name, pipeline=steps), NAMES, st.lists(STEPS, max_size=3)
)


def reachable(start: set[Namespace], known: ViewDefinitions) -> set[Namespace]:
    """Every namespace behind the given ones: the same question, answered by text instead of by the walker."""
    found: set[Namespace] = set()
    pending = list(start)
    while pending:
        for each in known.get(pending.pop(), ()):
            text = repr(each.pipeline)
            for name in {each.source.collection, *(letter for letter in "abcdef" if f": '{letter}'" in text)}:
                if ns(name) not in found:
                    found.add(ns(name))
                    pending.append(ns(name))
    return found


@given(command=COMMANDS, known=CATALOGS)
def test_no_access_is_lost_and_everything_behind_is_there(command, known):
    expanded = expand(command, known)
    assert expanded.accesses[: len(command.accesses)] == command.accesses
    assert expanded.traits >= command.traits
    for access in command.accesses:
        behind = {other.namespace for other in expanded.accesses if other.via_view == access.namespace}
        assert behind == reachable({access.namespace}, known)


@given(command=COMMANDS, known=CATALOGS)
def test_expanding_again_changes_nothing(command, known):
    once = expand(command, known)
    assert expand(once, known) == once


@given(command=COMMANDS, known=CATALOGS, more=CATALOGS)
def test_to_know_more_views_never_takes_an_access_away(command, known, more):
    both = {name: [*known.get(name, ()), *more.get(name, ())] for name in {*known, *more}}
    assert set(expand(command, known).accesses) <= set(expand(command, both).accesses)


def test_the_kinds_that_pass_are_those_of_the_policies():
    rego = (ROOT / "policies/platform/views.rego").read_text()
    [line] = [line for line in rego.splitlines() if line.startswith("passing := ")]
    assert set(re.findall(r'"([a-z]+)"', line)) == {kind.value for kind in PASSING}
