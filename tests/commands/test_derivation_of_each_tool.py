"""What each tool derives, typical and edge, and what it refuses one step further."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.commands.catalog import CATALOG
from sidecar.commands.derive import derive
from sidecar.commands.tool import Category
from sidecar.errors import CallRefused, CommandNotDerivable, InvalidArguments, UnknownTool
from sidecar.model import Command, ToolCall, Trait


def spelt(value):
    """A test id that is the same in every process: sets are sorted."""
    return str(sorted(value) if isinstance(value, set | frozenset) else value)[:60]


DB = {"connectionId": "preconfigured", "database": "sales"}
COLL = {**DB, "collection": "orders"}
PROJECT = "0123456789abcdef01234567"
CLUSTER = {"projectId": PROJECT, "clusterName": "c1"}


def run(tool: str, arguments: dict) -> Command:
    return derive(ToolCall(name=tool, arguments=arguments)).command


def accesses(command: Command) -> set[str]:
    return {
        f"{access.kind}:{access.target.kind}:{access.target.id}"
        if access.target
        else f"{access.kind}:{access.namespace.database}.{access.namespace.collection}"
        for access in command.accesses
    }


def aggregate(*stages: dict) -> tuple[str, dict]:
    return "aggregate", {**COLL, "pipeline": list(stages)}


def explain(name: str, arguments: dict, **more: object) -> tuple[str, dict]:
    return "explain", {**COLL, "method": [{"name": name, "arguments": arguments}], **more}


def export(name: str, arguments: dict) -> tuple[str, dict]:
    return "export", {**COLL, "exportTitle": "t", "exportTarget": [{"name": name, "arguments": arguments}]}


READ = "read:sales.orders"
REPLACE = {f"{kind}:hr.pay" for kind in ("delete", "create", "insert")}
SEARCH_INDEX = {
    "type": "search",
    "mappings": {"dynamic": True},
    "synonyms": [{"name": "s", "analyzer": "a", "source": {"collection": "words"}}],
}
EMBEDDED = {
    "type": "vectorSearch",
    "fields": [{"type": "autoEmbed", "path": "t", "model": "voyage-4", "modality": "text"}],
}
DOCUMENTS = {"$documents": [{"a": 1}]}

DERIVED: list[tuple[tuple[str, dict], set[str], set[str]]] = [
    (("list-databases", {"connectionId": "preconfigured"}), {"metadata:."}, set()),
    (("list-connections", {}), {"metadata:."}, set()),
    (("list-collections", DB), {"metadata:sales."}, set()),
    (("db-stats", {**DB, "database": "local"}), {"metadata:local.", "admin:local."}, {"system_namespace"}),
    (("collection-indexes", COLL), {"metadata:sales.orders"}, set()),
    (("collection-storage-size", COLL), {"metadata:sales.orders"}, set()),
    (("collection-schema", {**COLL, "sampleSize": 5}), {READ}, set()),
    (("mongodb-logs", {"connectionId": "preconfigured", "limit": 5}), {"admin:."}, set()),
    (("find", COLL), {READ}, set()),
    (("find", {**COLL, "limit": 10.0}), {READ}, set()),
    (("find", {**COLL, "limit": 0}), {READ}, {"unbounded"}),
    (("find", {**COLL, "limit": -5}), {READ}, {"unbounded"}),
    (("find", {**COLL, "filter": {"$where": "1"}}), {READ}, {"server_side_js"}),
    (("find", {**COLL, "projection": {"a": "$$USER_ROLES"}}), {READ}, {"user_roles"}),
    (
        ("find", {**COLL, "collection": "system.profile"}),
        {"read:sales.system.profile", "admin:sales.system.profile"},
        {"system_namespace"},
    ),
    (
        ("find", {**COLL, "database": "Admin", "collection": "x"}),
        {"read:Admin.x", "admin:Admin.x"},
        {"system_namespace"},
    ),
    (("count", {**COLL, "query": {"a": 1}}), {READ}, set()),
    (aggregate(), {READ}, set()),
    (aggregate({"$lookup": {"from": "c", "as": "c"}}), {READ, "read:sales.c"}, set()),
    (
        aggregate({"$lookup": {"from": {"db": "hr", "coll": "p"}, "as": "c", "pipeline": [{"$unionWith": "q"}]}}),
        {READ, "read:hr.p", "read:hr.q"},
        {"cross_database"},
    ),
    (aggregate({"$lookup": {"as": "c", "pipeline": [DOCUMENTS]}}), {READ}, set()),
    (aggregate({"$unionWith": {"pipeline": [DOCUMENTS, {"$unionWith": "q"}]}}), {READ, "read:sales.q"}, set()),
    (aggregate({"$unionWith": {"db": "hr", "coll": "p"}}), {READ, "read:hr.p"}, {"cross_database"}),
    (
        aggregate(
            {
                "$graphLookup": {
                    "from": "g",
                    "startWith": "$a",
                    "connectFromField": "b",
                    "connectToField": "c",
                    "as": "d",
                }
            }
        ),
        {READ, "read:sales.g"},
        set(),
    ),
    (aggregate({"$facet": {"x": [{"$unionWith": "q"}], "y": []}}), {READ, "read:sales.q"}, set()),
    (
        aggregate({"$rankFusion": {"input": {"pipelines": {"a": [{"$unionWith": "q"}]}}}}),
        {READ, "read:sales.q"},
        set(),
    ),
    (
        aggregate({"$scoreFusion": {"input": {"pipelines": {"a": [{"$limit": 1}]}, "normalization": "none"}}}),
        {READ},
        set(),
    ),
    (
        aggregate({"$out": {"db": "hr", "coll": "pay"}}),
        {READ, *REPLACE},
        {"writes_via_pipeline", "cross_database", "unbounded"},
    ),
    (
        aggregate({"$facet": {"x": [{"$out": {"db": "hr", "coll": "pay"}}]}}),
        {READ, *REPLACE},
        {"writes_via_pipeline", "cross_database", "unbounded"},
    ),
    (
        aggregate({"$limit": 3}, {"$merge": {"into": "t", "whenMatched": [{"$set": {"a": "$$new.b"}}]}}),
        {READ, "insert:sales.t", "update:sales.t"},
        {"writes_via_pipeline"},
    ),
    (aggregate({"$limit": 1}, {"$merge": "t"}), {READ, "insert:sales.t", "update:sales.t"}, {"writes_via_pipeline"}),
    (
        aggregate({"$limit": 1}, {"$out": {"s3": {"bucket": "b"}}}),
        {READ, "external:service:s3"},
        {"writes_via_pipeline", "external_service"},
    ),
    (
        aggregate({"$limit": 1}, {"$merge": {"into": {"atlas": {"db": "x"}}}}),
        {READ, "external:service:atlas"},
        {"writes_via_pipeline", "external_service"},
    ),
    (
        aggregate({"$limit": 1}, {"$unionWith": {"db": "hr", "coll": "p", "pipeline": [{"$out": "t"}]}}),
        {READ, "read:hr.p"} | {f"{k}:{d}.t" for k in ("delete", "create", "insert") for d in ("hr", "sales")},
        {"writes_via_pipeline", "cross_database", "unbounded"},
    ),
    (aggregate({"$vectorSearch": {"index": "i", "path": "p", "queryVector": [1], "limit": 2}}), {READ}, set()),
    (
        aggregate({"$vectorSearch": {"index": "i", "path": "p", "query": {"text": "t"}}}),
        {READ, "external:service:embedding"},
        {"external_service"},
    ),
    (aggregate({"$rerank": {"query": "t"}}), {READ, "external:service:reranking"}, {"external_service"}),
    (aggregate({"$search": {"text": {"query": "t", "path": "p"}}}), {READ}, set()),
    (aggregate({"$collStats": {"count": {}}}), {READ, "metadata:sales.orders"}, set()),
    (aggregate({"$changeStream": {}}), {READ, "admin:sales.orders"}, {"change_stream"}),
    (
        ("aggregate-db", {**DB, "pipeline": [{"$changeStream": {"allChangesForCluster": 1}}]}),
        {"read:.", "admin:."},
        {"change_stream", "cross_database"},
    ),
    (("aggregate-db", {**DB, "pipeline": [{"$changeStream": {}}]}), {"read:sales.", "admin:sales."}, {"change_stream"}),
    (("aggregate-db", {**DB, "pipeline": [{"$currentOp": {"allUsers": True}}]}), {"admin:."}, set()),
    (
        ("aggregate-db", {**DB, "pipeline": [DOCUMENTS, {"$lookup": {"from": "c", "as": "c"}}]}),
        {"execute:sales.", "read:sales.c"},
        set(),
    ),
    (
        aggregate({"$project": {"x": {"$function": {"body": "f", "args": [], "lang": "js"}}}}),
        {READ},
        {"server_side_js"},
    ),
    (explain("find", {"filter": {"a": 1}}), {READ}, set()),
    (explain("count", {}, verbosity="executionStats"), {READ}, {"executes_plan"}),
    (
        explain("aggregate", {"pipeline": [{"$limit": 1}, {"$out": {"db": "hr", "coll": "pay"}}]}),
        {READ, *REPLACE},
        {"writes_via_pipeline", "cross_database"},
    ),
    (export("find", {}), {READ, "export:sales.orders"}, {"exports_file", "unbounded"}),
    (export("find", {"limit": 5}), {READ, "export:sales.orders"}, {"exports_file"}),
    (
        export("aggregate", {"pipeline": [{"$limit": 5}, {"$unwind": "$a"}]}),
        {READ, "export:sales.orders"},
        {"exports_file", "unbounded"},
    ),
    (("create-collection", COLL), {"create:sales.orders"}, set()),
    (("create-index", {**COLL, "definition": [{"type": "classic", "keys": {"a": 1}}]}), {"index:sales.orders"}, set()),
    (("create-index", {**COLL, "definition": [SEARCH_INDEX]}), {"index:sales.orders", "read:sales.words"}, set()),
    (
        ("create-index", {**COLL, "definition": [EMBEDDED]}),
        {"index:sales.orders", "external:service:embedding"},
        {"external_service"},
    ),
    (("insert-many", {**COLL, "documents": [{"a": {"$oid": "0" * 24}}]}), {"insert:sales.orders"}, set()),
    (("insert-many", {**COLL, "documents": [{"f": {"$code": "x"}}]}), {"insert:sales.orders"}, {"server_side_js"}),
    (
        ("update-many", {**COLL, "filter": {"a": 1}, "update": {"$set": {"b": 2}}}),
        {"update:sales.orders"},
        set(),
    ),
    (
        ("update-many", {**COLL, "update": {"$set": {"b": 2}}, "upsert": True}),
        {"update:sales.orders", "insert:sales.orders"},
        {"upsert", "whole_collection"},
    ),
    (("delete-many", {**COLL, "filter": {"a": 1}}), {"delete:sales.orders"}, set()),
    (("delete-many", COLL), {"delete:sales.orders"}, {"whole_collection"}),
    (("delete-many", {**COLL, "filter": {"$comment": "x"}}), {"delete:sales.orders"}, {"whole_collection"}),
    (("delete-many", {**COLL, "filter": {"$or": [{"a": 1}, {}]}}), {"delete:sales.orders"}, {"whole_collection"}),
    (("delete-many", {**COLL, "filter": {"$and": [{"a": 1}, {}]}}), {"delete:sales.orders"}, set()),
    (
        ("rename-collection", {**COLL, "newName": "o.2"}),
        {"drop:sales.orders", READ, "create:sales.o.2"},
        set(),
    ),
    (
        ("rename-collection", {**COLL, "newName": "o", "dropTarget": True}),
        {"drop:sales.orders", READ, "create:sales.o", "drop:sales.o"},
        {"drops_target"},
    ),
    (("drop-collection", COLL), {"drop:sales.orders"}, set()),
    (("drop-database", DB), {"drop:sales."}, set()),
    (("drop-index", {**COLL, "indexName": "a_1", "type": "classic"}), {"index:sales.orders"}, set()),
    (("drop-index", {**COLL, "indexName": "*", "type": "classic"}), {"index:sales.orders"}, {"all_indexes"}),
    (
        ("connect", {"connectionString": "mongodb://u:p@h"}),
        {"connect:service:"},
        {"credentials_in_arguments", "external_service", "network_exposure"},
    ),
    (("disconnect", {"connectionId": "preconfigured"}), {"connect:."}, set()),
    (("atlas-list-orgs", {}), {"metadata:organisation:"}, set()),
    (("atlas-list-projects", {"orgId": PROJECT}), {f"metadata:organisation:{PROJECT}"}, set()),
    (("atlas-list-clusters", {}), {"metadata:project:"}, set()),
    (("atlas-inspect-cluster", CLUSTER), {f"metadata:cluster:{PROJECT}/c1"}, set()),
    (("atlas-get-performance-advisor", CLUSTER), {f"admin:cluster:{PROJECT}/c1"}, set()),
    (
        ("atlas-connect-cluster", CLUSTER),
        {f"connect:cluster:{PROJECT}/c1", f"admin:project:{PROJECT}"},
        {"network_exposure"},
    ),
    (
        ("atlas-create-free-cluster", {"projectId": PROJECT, "name": "f"}),
        {f"create:cluster:{PROJECT}/f", f"admin:project:{PROJECT}"},
        {"cost", "network_exposure"},
    ),
    (("atlas-load-sample-dataset", {"projectId": PROJECT, "jobId": PROJECT}), {f"metadata:project:{PROJECT}"}, set()),
    (
        ("atlas-load-sample-dataset", CLUSTER),
        {f"create:cluster:{PROJECT}/c1", f"insert:cluster:{PROJECT}/c1"},
        set(),
    ),
    (
        (
            "atlas-streams-build",
            {"projectId": PROJECT, "resource": "processor", "pipeline": [{"$source": {}}, {"$https": {}}]},
        ),
        {f"admin:project:{PROJECT}", f"external:project:{PROJECT}"},
        {"cost", "external_service", "writes_via_pipeline"},
    ),
    (("atlas-local-create-deployment", {}), {"create:deployment:"}, {"runs_container"}),
    (("atlas-local-delete-deployment", {"deploymentName": "d"}), {"drop:deployment:d"}, set()),
    (("search-knowledge", {"query": "q"}), {"external:service:assistant"}, {"external_service"}),
]


@pytest.mark.parametrize(("call", "expected", "traits"), DERIVED, ids=spelt)
def test_a_call_derives_exactly_these_accesses_and_traits(call, expected, traits) -> None:
    command = run(*call)
    assert accesses(command) == expected
    assert command.traits == traits


REFUSED: list[tuple[tuple[str, dict], str, str]] = [
    (("find", {**COLL, "connectionId": "other"}), "connection_refused", "/arguments/connectionId"),
    (("find", {**COLL, "hint": "x"}), "unknown_argument", "/arguments/hint"),
    (("find", {**COLL, "__proto__": {}}), "unknown_argument", "/arguments/__proto__"),
    (("find", {**COLL, "limit": True}), "wrong_type", "/arguments/limit"),
    (("find", {**COLL, "limit": 0.1}), "out_of_range", "/arguments/limit"),
    (("find", {**COLL, "limit": float("inf")}), "out_of_range", "/arguments/limit"),
    (("find", {**COLL, "filter": None}), "wrong_type", "/arguments/filter"),
    (("find", DB), "missing_argument", "/arguments/collection"),
    (("find", {**COLL, "sort": {"a": 2}}), "not_allowed", "/arguments/sort/a"),
    (("find", {**COLL, "sort": {"a": True}}), "not_allowed", "/arguments/sort/a"),
    (
        ("find", {**COLL, "filter": {"$and": [{"a/b": {"__proto__": 1}}]}}),
        "key_refused",
        "/arguments/filter/$and/0/a~1b/__proto__",
    ),
    (("find", {**COLL, "filter": {"a\0": 1}}), "key_refused", "/arguments/filter/a\0"),
    (("find", {**COLL, "filter": {"a": {"$nope": 1}}}), "unknown_operator", "/arguments/filter/a/$nope"),
    (("find", {**COLL, "filter": {"$oid": "0" * 24}}), "unknown_operator", "/arguments/filter/$oid"),
    (("find", {**COLL, "filter": {"a": {"$oid": "0", "$ne": 1}}}), "ejson_refused", "/arguments/filter/a/$oid"),
    (("find", {**COLL, "filter": {"a": {"$regex": "x", "$ne": 1}}}), "ejson_refused", "/arguments/filter/a/$regex"),
    (("find", {**COLL, "filter": {"a": {"$symbol": "x"}}}), "ejson_refused", "/arguments/filter/a/$symbol"),
    (("find", {**COLL, "projection": {"a": {"$nope": 1}}}), "unknown_operator", "/arguments/projection/a/$nope"),
    (("aggregate", {**COLL, "collection": "", "pipeline": []}), "name_refused", "/arguments/collection"),
    (("drop-database", {**DB, "database": ""}), "name_refused", "/arguments/database"),
    (aggregate({"$match": {}, "$out": "x"}), "stage_form", "/arguments/pipeline/0"),
    (aggregate({}), "stage_form", "/arguments/pipeline/0"),
    (aggregate({"$nope": {}}), "unknown_stage", "/arguments/pipeline/0/$nope"),
    (
        aggregate({"$_internalInhibitOptimization": {}}),
        "unknown_stage",
        "/arguments/pipeline/0/$_internalInhibitOptimization",
    ),
    (aggregate({"$mergeCursors": {}}), "stage_refused", "/arguments/pipeline/0/$mergeCursors"),
    (aggregate({"$facet": {"x": {"$out": "y"}}}), "malformed", "/arguments/pipeline/0/$facet/x"),
    (
        aggregate({"$lookup": {"from": {"db": "x", "coll": {"$code": "c"}}, "as": "a"}}),
        "name_refused",
        "/arguments/pipeline/0/$lookup/from/coll",
    ),
    (aggregate({"$lookup": {"from": ["c"], "as": "a"}}), "malformed", "/arguments/pipeline/0/$lookup/from"),
    (aggregate({"$lookup": {"from": "c", "as": "a", "db": "x"}}), "unknown_option", "/arguments/pipeline/0/$lookup/db"),
    (
        aggregate({"$lookup": {"as": "a", "pipeline": [{"$match": {}}]}}),
        "missing_namespace",
        "/arguments/pipeline/0/$lookup",
    ),
    (aggregate({"$unionWith": {"db": "hr"}}), "name_refused", "/arguments/pipeline/0/$unionWith/coll"),
    (aggregate({"$out": {"s3": {}, "coll": "x"}}), "malformed", "/arguments/pipeline/0/$out"),
    (aggregate({"$out": {"coll": "x"}}), "malformed", "/arguments/pipeline/0/$out"),
    (aggregate({"$merge": {"into": "a.b.."}}), "name_refused", "/arguments/pipeline/0/$merge/into"),
    (aggregate({"$limit": 0}), "malformed", "/arguments/pipeline/0/$limit"),
    (aggregate({"$limit": float("inf")}), "malformed", "/arguments/pipeline/0/$limit"),
    (aggregate({"$match": {"$expr": {"$nope": 1}}}), "unknown_operator", "/arguments/pipeline/0/$match/$expr/$nope"),
    (
        aggregate(*({"$unionWith": f"c{i}"} for i in range(64))),
        "too_many_accesses",
        "/arguments/pipeline/63/$unionWith",
    ),
    (aggregate(*({"$skip": 1} for _ in range(501))), "too_many_stages", "/arguments/pipeline/500"),
    (("aggregate-db", {**DB, "pipeline": [{"$match": {}}]}), "first_stage", "/arguments/pipeline/0"),
    (("aggregate-db", {**DB, "pipeline": []}), "out_of_range", "/arguments/pipeline"),
    (
        ("aggregate-db", {**DB, "pipeline": [DOCUMENTS, {"$indexStats": {}}]}),
        "needs_collection",
        "/arguments/pipeline/1/$indexStats",
    ),
    (("explain", {**COLL, "method": [{"name": "find", "arguments": {}}] * 2}), "out_of_range", "/arguments/method"),
    (("explain", {**COLL, "method": []}), "out_of_range", "/arguments/method"),
    (explain("find", {"hint": 1}), "unknown_argument", "/arguments/method/0/arguments/hint"),
    (export("count", {}), "not_allowed", "/arguments/exportTarget/0/name"),
    (
        ("create-index", {**COLL, "definition": [SEARCH_INDEX | {"views": 1}]}),
        "unknown_argument",
        "/arguments/definition/0/views",
    ),
    (
        ("insert-many", {**COLL, "documents": [{"a": [{"$out": 1}]}]}),
        "operator_in_document",
        "/arguments/documents/0/a/0/$out",
    ),
    (("insert-many", {**COLL, "documents": [1]}), "wrong_type", "/arguments/documents/0"),
    (("update-many", {**COLL, "update": [{"$set": {"a": 1}}]}), "wrong_type", "/arguments/update"),
    (("update-many", {**COLL, "update": {"a": 1}}), "unknown_operator", "/arguments/update/a"),
    (("update-many", {**COLL, "update": {}}), "malformed", "/arguments/update"),
    (
        ("delete-many", {**COLL, "filter": {"__proto__": {"tenant": "me"}}}),
        "key_refused",
        "/arguments/filter/__proto__",
    ),
    (("rename-collection", {**COLL, "newName": "$x"}), "name_refused", "/arguments/newName"),
    (("atlas-inspect-cluster", {**CLUSTER, "clusterName": "a/b"}), "not_allowed", "/arguments/clusterName"),
    (("atlas-inspect-cluster", {**CLUSTER, "clusterName": "a\n"}), "not_allowed", "/arguments/clusterName"),
    (("atlas-load-sample-dataset", {"projectId": PROJECT}), "missing_argument", "/arguments/clusterName"),
    (("atlas-local-delete-deployment", {"deploymentName": ""}), "out_of_range", "/arguments/deploymentName"),
]


@pytest.mark.parametrize(("call", "reason", "path"), REFUSED, ids=spelt)
def test_a_call_is_refused_with_its_reason_and_pointer(call, reason, path) -> None:
    with pytest.raises((InvalidArguments, CommandNotDerivable)) as caught:
        run(*call)
    assert (caught.value.reason, caught.value.path) == (reason, path)


@pytest.mark.parametrize("name", ["", "Find", "find ", "atlas", "find\0", "__proto__"])
def test_a_name_that_is_not_in_the_catalog_is_an_unknown_tool(name) -> None:
    with pytest.raises(UnknownTool):
        run(name, COLL)


def test_the_catalog_has_all_53_tools_in_four_categories() -> None:
    counts = {category: sum(tool.category is category for tool in CATALOG.values()) for category in Category}
    assert counts == {Category.MONGODB: 25, Category.ATLAS: 22, Category.ATLAS_LOCAL: 4, Category.ASSISTANT: 2}


@pytest.mark.parametrize(("call", "_expected", "_traits"), DERIVED, ids=spelt)
def test_a_row_announces_the_kinds_and_traits_that_its_calls_have(call, _expected, _traits) -> None:
    tool, command = CATALOG[call[0]], run(*call)
    plain = {access.kind for access in command.accesses}
    if Trait.SYSTEM_NAMESPACE not in command.traits:
        assert plain <= tool.kinds
        assert command.traits <= tool.traits
    assert tool.needs <= plain


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [100, 500, 100_000])
def test_nesting_is_refused_at_its_bound_without_recursion(depth) -> None:
    with pytest.raises(CallRefused, match="too_deep"):
        run("count", {**COLL, "query": {"a": nested(depth)}})


def test_nesting_below_its_bound_is_derived() -> None:
    assert run("count", {**COLL, "query": {"a": nested(99)}}).accesses


def test_objects_of_very_many_keys_are_refused() -> None:
    for tool, key, value in (
        ("count", "query", {str(i): 1 for i in range(10_001)}),
        ("count", "query", {"$or": [{"a": 1}] * 50_000}),
        ("insert-many", "documents", [{str(i): 1 for i in range(1_000_000)}]),
    ):
        with pytest.raises(CallRefused, match="too_large"):
            run(tool, {**COLL, key: value})
    run("insert-many", {**COLL, "documents": [{str(i): 1 for i in range(100_000)}]})


def test_the_reference_page_is_up_to_date() -> None:
    script = Path(__file__).resolve().parents[2] / "tools" / "command_reference.py"
    done = subprocess.run([sys.executable, str(script), "--check"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


HOSTILE: list[tuple[str, dict]] = [
    ("ten thousand facets", {"pipeline": [{"$facet": {f"f{i}": [] for i in range(9_999)}}]}),
    ("aliases in aliases", {"pipeline": [{"$facet": {"o": []}}, {"$match": {".".join(["o"] * 250): 1}}]}),
    ("deep expression", {"pipeline": [{"$match": {"$expr": None}}]}),
    ("forty thousand list items", {"pipeline": [{"$match": {"a": {"$in": list(range(40_000))}}}]}),
    ("one long key", {"pipeline": [{"$match": {"k" * 900_000: {"$nope": 1}}}]}),
]


@pytest.mark.parametrize(("title", "arguments"), HOSTILE, ids=[title for title, _ in HOSTILE])
def test_hostile_shapes_end_in_an_answer_or_a_short_refusal(title, arguments) -> None:
    deep: object = "$a"
    for _ in range(27):
        deep = {"$not": [deep]}
    if title == "deep expression":
        arguments = {"pipeline": [{"$match": {"$expr": deep}}]}
    refusal = None
    try:
        run("aggregate", {**COLL, **arguments})
    except CallRefused as refused:
        refusal = refused
    assert refusal is None or len(refusal.path) + len(refusal.message) < 1000


def test_a_derivation_needs_little_stack_at_the_greatest_depth() -> None:
    pipeline: list = [{"$match": {"$expr": {"$gt": ["$" + ".".join(["f"] * 200), 1]}}}]
    for _ in range(19):
        pipeline = [{"$facet": {"f": pipeline}}]
    frames = len(inspect.stack(0))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(frames + 120)
    try:
        command = run("aggregate", {**COLL, "pipeline": pipeline})
    finally:
        sys.setrecursionlimit(limit)
    assert command.stages == ("$facet",) * 19 + ("$match",)
