"""Every place where a call reads or writes a namespace is known, however often the call says it."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from sidecar.commands import View, derive, expand
from sidecar.model import AccessKind, Namespace, ToolCall
from sidecar.sites import Derivation, SiteForm, SitePath
from tests.examples import examples
from tests.ledger.generator import SECRETS, Case, cases

EXAMPLES = examples(300)
SALES = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
FIND = {"name": "find", "arguments": {"filter": {"a": 1}}}
AGGREGATE = {"name": "aggregate", "arguments": {"pipeline": []}}


def derived(tool: str, **arguments: Any) -> Derivation:
    return derive(ToolCall(name=tool, arguments={**SALES, **arguments}))


def of(derivation: Derivation, collection: str, kind: AccessKind = AccessKind.READ) -> list[tuple[SitePath, SiteForm]]:
    namespace = Namespace(database="sales", collection=collection)
    accesses = derivation.command.accesses
    return [
        (site.path, site.form)
        for site in derivation.sites
        if (accesses[site.access].kind, accesses[site.access].namespace) == (kind, namespace)
    ]


@settings(max_examples=EXAMPLES)
@given(case=cases())
def test_every_access_has_a_place_and_every_place_an_access(case: Case) -> None:
    derivation = derive(ToolCall(name=case.tool, arguments=case.arguments))
    assert {site.access for site in derivation.sites} == set(range(len(derivation.command.accesses)))


@settings(max_examples=EXAMPLES)
@given(case=cases())
def test_each_place_that_names_a_collection_in_a_pipeline_is_a_place_of_its_own(case: Case) -> None:
    derivation = derive(ToolCall(name=case.tool, arguments=case.arguments))
    accesses = derivation.command.accesses
    wanted: Counter[tuple[Any, str, str]] = Counter()
    for spot in case.spots:
        stages = [index for index, step in enumerate(spot.path) if step is not None and step.startswith("$")]
        if stages and spot.database:
            wanted.update((spot.path[: stages[-1] + 1], spot.database, kind) for kind in spot.kinds)
    found = {
        (stage, database, kind): {
            site.path
            for site in derivation.sites
            if accesses[site.access].namespace == Namespace(database=database, collection=SECRETS)
            and accesses[site.access].kind == kind
            and len(site.path) == len(stage)
            and all(step is None or step == mine for step, mine in zip(stage, site.path, strict=True))
        }
        for stage, database, kind in wanted
    }
    assert {place: number for place, number in wanted.items() if len(found[place]) < number} == {}


@settings(max_examples=EXAMPLES)
@given(case=cases())
def test_a_path_leads_to_a_value_of_the_call_or_to_a_member_that_is_left_out(case: Case) -> None:
    sites = derive(ToolCall(name=case.tool, arguments=case.arguments)).sites
    assert [site for site in sites if not leads(site.path, case.arguments)] == []


def leads(path: SitePath, value: Any) -> bool:
    """Whether the path can be followed; its last key may be one that is left out."""
    for step in path[:-1]:
        value = value[step]
    return not path or isinstance(value, dict) or 0 <= int(path[-1]) < len(value)


@pytest.mark.parametrize(
    ("tool", "arguments", "path", "form"),
    [
        ("find", {}, ("filter",), SiteForm.FILTER),
        ("count", {}, ("query",), SiteForm.FILTER),
        ("aggregate", {"pipeline": []}, ("pipeline",), SiteForm.PIPELINE_HEAD),
        ("explain", {"method": [FIND]}, ("method", 0, "arguments", "filter"), SiteForm.FILTER),
        ("explain", {"method": [AGGREGATE]}, ("method", 0, "arguments", "pipeline"), SiteForm.PIPELINE_HEAD),
        (
            "export",
            {"exportTitle": "t", "exportTarget": [FIND]},
            ("exportTarget", 0, "arguments", "filter"),
            SiteForm.FILTER,
        ),
        ("collection-schema", {}, (), SiteForm.NONE),
    ],
    ids=["find", "count", "aggregate", "explain find", "explain aggregate", "export find", "schema"],
)
def test_the_collection_of_a_tool_is_read_at_its_query(
    tool: str, arguments: dict[str, Any], path: SitePath, form: SiteForm
) -> None:
    assert of(derived(tool, **arguments), "orders") == [(path, form)]


@pytest.mark.parametrize(
    ("tool", "arguments", "kind", "path", "form"),
    [
        ("insert-many", {"documents": [{}]}, AccessKind.INSERT, ("documents",), SiteForm.DOCUMENTS),
        ("update-many", {"update": {"$set": {"a": 1}}}, AccessKind.UPDATE, ("filter",), SiteForm.UPDATE_FILTER),
        ("update-many", {"update": {"$set": {"a": 1}}, "upsert": True}, AccessKind.INSERT, (), SiteForm.UPSERT),
        ("delete-many", {}, AccessKind.DELETE, ("filter",), SiteForm.UPDATE_FILTER),
        ("drop-collection", {}, AccessKind.DROP, (), SiteForm.NONE),
    ],
    ids=["insert", "update", "upsert", "delete", "drop"],
)
def test_what_is_written_has_its_place(
    tool: str, arguments: dict[str, Any], kind: AccessKind, path: SitePath, form: SiteForm
) -> None:
    assert of(derived(tool, **arguments), "orders", kind) == [(path, form)]


def test_the_same_collection_in_every_form_is_one_access_and_as_many_places() -> None:
    pipeline = [
        {"$lookup": {"from": "orders", "as": "a", "localField": "x", "foreignField": "y"}},
        {"$lookup": {"from": "orders", "as": "b", "pipeline": [{"$unionWith": "orders"}]}},
        {
            "$graphLookup": {
                "from": "orders",
                "startWith": "$x",
                "connectFromField": "x",
                "connectToField": "y",
                "as": "g",
            }
        },
        {
            "$facet": {
                "f": [{"$unionWith": {"coll": "orders", "pipeline": []}}],
                "x/y~z" * 40: [{"$unionWith": "orders"}],
            }
        },
    ]
    derivation = derived("aggregate", pipeline=pipeline)
    assert [access.namespace.collection for access in derivation.command.accesses] == ["orders"]
    assert of(derivation, "orders") == [
        (("pipeline",), SiteForm.PIPELINE_HEAD),
        (("pipeline", 0, "$lookup"), SiteForm.LOOKUP),
        (("pipeline", 1, "$lookup"), SiteForm.LOOKUP),
        (("pipeline", 1, "$lookup", "pipeline", 0, "$unionWith"), SiteForm.UNION),
        (("pipeline", 2, "$graphLookup"), SiteForm.GRAPH_RESTRICT),
        (("pipeline", 3, "$facet", "f", 0, "$unionWith"), SiteForm.UNION),
        (("pipeline", 3, "$facet", "x/y~z" * 40, 0, "$unionWith"), SiteForm.UNION),
    ]


def test_every_input_of_a_fusion_reads_the_collection_from_its_beginning() -> None:
    inputs = {"text": [{"$search": {"text": {}}}], "vector": [{"$match": {"a": 1}}]}
    derivation = derived("aggregate", pipeline=[{"$rankFusion": {"input": {"pipelines": inputs}}}])
    inside = ("pipeline", 0, "$rankFusion", "input", "pipelines")
    assert of(derivation, "orders") == [
        (("pipeline",), SiteForm.PIPELINE_HEAD),
        ((*inside, "text"), SiteForm.PIPELINE_HEAD),
        ((*inside, "vector"), SiteForm.PIPELINE_HEAD),
    ]
    exported = {"name": "aggregate", "arguments": {"pipeline": [{"$scoreFusion": {"input": {"pipelines": inputs}}}]}}
    found = derived("export", exportTitle="t", exportTarget=[exported])
    assert len(of(found, "orders", AccessKind.EXPORT)) == len(of(found, "orders")) == 3


def test_what_lies_behind_a_view_has_the_places_of_the_view() -> None:
    source, other = (Namespace(database="sales", collection=name) for name in ("orders", "open"))
    view = View(namespace=other, source=source, pipeline=[{"$lookup": {"from": "items", "as": "i", "pipeline": []}}])
    pipeline = [{"$lookup": {"from": "open", "as": "a", "pipeline": []}}, {"$unionWith": "open"}]
    derivation = derived("aggregate", pipeline=pipeline)
    through = derivation.through(expand(derivation.command, {other: [view]}))
    assert through.sites[: len(derivation.sites)] == derivation.sites
    behind = [index for index, access in enumerate(through.command.accesses) if access.via_view == other]
    assert [through.command.accesses[index].namespace.collection for index in behind] == ["orders", "items"]
    assert [[(site.path, site.form) for site in through.sites if site.access == index] for index in behind] == [
        [(("pipeline", 0, "$lookup"), SiteForm.VIEW), (("pipeline", 1, "$unionWith"), SiteForm.VIEW)]
    ] * 2


def test_a_derivation_without_views_stays_as_it_is() -> None:
    derivation = derived("find")
    assert derivation.through(replace(derivation.command)) == derivation
