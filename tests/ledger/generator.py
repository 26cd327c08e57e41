"""Random tool calls that name a forbidden collection at random depth and in every form the reference lists.

Written from the reference (sections 1.1 and 2.2) and independent of the code under test: nothing of ``sidecar`` is
imported, and the database that a nested pipeline runs on is followed here a second time.

A call comes with its ``Spot``s: where the forbidden name stands, and what the call does there.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

SECRETS = "secrets"
"""The forbidden collection: no generated call says this word anywhere but in a namespace."""

VAULT = "vault"
HOME = "sales"
DATABASES = (HOME, "hr", VAULT)
ORDINARY = ("orders", "lists", "a.b", "Secrets", "secret", "secrets.old")
"""Collections that a call may name besides; some look like the forbidden one."""

CONNECTION = {"connectionId": "preconfigured"}
DEEPEST = 5

READ = frozenset({"read"})
REPLACE = frozenset({"delete", "create", "insert"})
MERGE = frozenset({"insert", "update"})
EXTERNAL = frozenset({"external"})

Step = str | None
"""A key, or None for any position of a list and for a key that the caller is free to choose."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A place in the arguments that names the forbidden collection."""

    path: tuple[Step, ...]
    kinds: frozenset[str]
    database: str
    """Where the collection is, with what is inherited; empty for a sink outside the deployment."""

    def below(self, *steps: Step) -> "Spot":
        return Spot((*steps, *self.path), self.kinds, self.database)


@dataclass(frozen=True, slots=True)
class Case:
    """A call and everything forbidden that it does."""

    tool: str
    arguments: dict[str, Any]
    spots: tuple[Spot, ...]


Draw = Callable[[st.SearchStrategy[Any]], Any]
Part = tuple[Any, list[Spot]]

NOISE: tuple[dict[str, Any], ...] = (
    {"$match": {}},
    {"$match": {"from": "orders", "coll": "lists", "into": {"db": "hr"}}},
    {"$match": {"$or": [{"a": 1}, {"b": {"$in": [1, 2]}}]}},
    {"$set": {"note": {"$literal": {"$lookup": {"from": "orders"}}}}},
    {"$project": {"a": 1, "b": {"$concat": ["$a", "x"]}}},
    {"$group": {"_id": "$a", "n": {"$sum": 1}}},
    {"$sort": {"a": -1}},
    {"$limit": 7},
    {"$skip": 1},
    {"$unwind": {"path": "$a"}},
    {"$replaceWith": {"$mergeObjects": ["$a", "$b"]}},
    {"$unionWith": "orders"},
    {"$lookup": {"from": "lists", "as": "l", "localField": "a", "foreignField": "b"}},
)


def _noise(draw: Draw) -> list[Any]:
    return copy.deepcopy(draw(st.lists(st.sampled_from(NOISE), max_size=2)))


def _pair(database: str) -> dict[str, str]:
    return {"db": database, "coll": SECRETS}


def _lookup(source: Any, **more: Any) -> dict[str, Any]:
    return {"$lookup": {"from": source, "as": "j", **more}}


def _graph(source: Any) -> dict[str, Any]:
    fields = {"startWith": "$a", "connectFromField": "b", "connectToField": "c", "as": "g", "maxDepth": 3}
    return {"$graphLookup": {"from": source, **fields}}


def _leaves(here: str, other: str) -> dict[str, Part]:
    """Every stage that names the forbidden collection itself; ``here`` is inherited, ``other`` is named."""

    def at(*path: Step, kinds: frozenset[str] = READ, database: str = here) -> list[Spot]:
        return [Spot(path, kinds, database)]

    into = ("$merge", "into")
    return {
        "lookup": (_lookup(SECRETS, localField="a", foreignField="b"), at("$lookup", "from")),
        "lookup pipeline": (_lookup(SECRETS, let={"v": "$a"}, pipeline=[]), at("$lookup", "from")),
        "lookup pair": (_lookup(_pair(other)), at("$lookup", "from", "coll", database=other)),
        "graph": (_graph(SECRETS), at("$graphLookup", "from")),
        "graph pair": (_graph(_pair(other)), at("$graphLookup", "from", "coll", database=other)),
        "union": ({"$unionWith": SECRETS}, at("$unionWith")),
        "union coll": ({"$unionWith": {"coll": SECRETS}}, at("$unionWith", "coll")),
        "union pipeline": ({"$unionWith": {"coll": SECRETS, "pipeline": []}}, at("$unionWith", "coll")),
        "union pair": ({"$unionWith": _pair(other)}, at("$unionWith", "coll", database=other)),
        "out": ({"$out": SECRETS}, at("$out", kinds=REPLACE)),
        "out pair": ({"$out": _pair(other)}, at("$out", "coll", kinds=REPLACE, database=other)),
        "out timeseries": (
            {"$out": {**_pair(other), "timeseries": {"timeField": "t"}}},
            at("$out", "coll", kinds=REPLACE, database=other),
        ),
        "out atlas": (
            {"$out": {"atlas": {"projectId": "p", "clusterName": "c", **_pair(other)}}},
            at("$out", "atlas", "coll", kinds=EXTERNAL, database=""),
        ),
        "merge": ({"$merge": SECRETS}, at("$merge", kinds=MERGE)),
        "merge into": ({"$merge": {"into": SECRETS, "on": "_id"}}, at(*into, kinds=MERGE)),
        "merge pair": (
            {"$merge": {"into": _pair(other), "whenMatched": "replace"}},
            at(*into, "coll", kinds=MERGE, database=other),
        ),
        "merge update": (
            {"$merge": {"into": "lists", "whenMatched": [{"$set": {"a": 1}}, _lookup(_pair(other))]}},
            at("$merge", "whenMatched", None, "$lookup", "from", "coll", database=other),
        ),
        "merge atlas": (
            {"$merge": {"into": {"atlas": {"projectId": "p", "clusterName": "c", **_pair(other)}}}},
            at(*into, "atlas", "coll", kinds=EXTERNAL, database=""),
        ),
    }


LEAVES = tuple(_leaves(HOME, VAULT))
NESTS = (
    *("lookup", "lookup pair", "lookup documents", "union coll", "union pair", "union documents"),
    *("facet", "rank fusion", "score fusion"),
)


def _wrap(part: Part, *steps: Step) -> list[Spot]:
    return [spot.below(*steps) for spot in part[1]]


def _nest(draw: Draw, form: str, here: str, depth: int, *, on_collection: bool) -> Part:
    """A stage around a pipeline that names the forbidden collection somewhere."""
    other, name = draw(st.sampled_from(DATABASES)), draw(st.sampled_from(ORDINARY))
    pair = {"db": other, "coll": name}
    foreign = other if form.endswith("pair") else here
    has_collection = on_collection if form == "facet" else "documents" not in form
    part = _pipeline(draw, foreign, depth - 1, on_collection=has_collection)
    match form:
        case "lookup" | "lookup pair":
            return _lookup(name if form == "lookup" else pair, pipeline=part[0]), _wrap(part, "$lookup", "pipeline")
        case "union coll" | "union pair":
            spec = pair if form == "union pair" else {"coll": name}
            return {"$unionWith": {**spec, "pipeline": part[0]}}, _wrap(part, "$unionWith", "pipeline")
        case "lookup documents":
            pipeline = [{"$documents": [{"a": 1}]}, *part[0]]
            return {"$lookup": {"as": "j", "pipeline": pipeline}}, _wrap(part, "$lookup", "pipeline")
        case "union documents":
            pipeline = [{"$documents": [{"a": 1}]}, *part[0]]
            return {"$unionWith": {"pipeline": pipeline}}, _wrap(part, "$unionWith", "pipeline")
        case "facet":
            return {"$facet": {"f": [{"$limit": 1}], "g": part[0]}}, _wrap(part, "$facet", None)
        case _:
            key, extra = ("$scoreFusion", {"normalization": "none"}) if form == "score fusion" else ("$rankFusion", {})
            spec = {"input": {"pipelines": {"p": [{"$sort": {"a": 1}}], "q": part[0]}, **extra}}
            return {key: spec}, _wrap(part, key, "input", "pipelines", None)


def _pipeline(draw: Draw, here: str, depth: int, *, on_collection: bool) -> Part:
    """A pipeline on the database ``here`` that names the forbidden collection at least once."""
    stages, spots = _noise(draw), []
    for _ in range(draw(st.integers(1, 2))):
        nests = NESTS if on_collection else tuple(form for form in NESTS if "fusion" not in form)
        if depth and draw(st.booleans()):
            part = _nest(draw, draw(st.sampled_from(nests)), here, depth, on_collection=on_collection)
        else:
            part = copy.deepcopy(_leaves(here, draw(st.sampled_from(DATABASES)))[draw(st.sampled_from(LEAVES))])
        stages += [part[0], *_noise(draw)]
        spots += _wrap(part, None)
    return stages, spots


@st.composite
def pipeline_cases(draw: Draw) -> Case:
    """A pipeline through each of the four tools that take one."""
    carrier = draw(st.sampled_from(("aggregate", "explain", "export", "aggregate-db")))
    home = draw(st.sampled_from((HOME, "hr")))
    stages, spots = _pipeline(draw, home, draw(st.integers(0, DEEPEST)), on_collection=carrier != "aggregate-db")
    base = {**CONNECTION, "database": home, "collection": draw(st.sampled_from(ORDINARY))}
    wrapped = [{"name": "aggregate", "arguments": {"pipeline": stages}}]
    match carrier:
        case "aggregate":
            return Case(carrier, {**base, "pipeline": stages}, tuple(spot.below("pipeline") for spot in spots))
        case "aggregate-db":
            first = draw(st.sampled_from(({"$documents": []}, {"$changeStream": {}}, {"$currentOp": {}})))
            arguments = {**CONNECTION, "database": home, "pipeline": [copy.deepcopy(first), *stages]}
            return Case(carrier, arguments, tuple(spot.below("pipeline") for spot in spots))
        case "explain":
            verbosity = draw(st.sampled_from(("queryPlanner", "executionStats")))
            at = ("method", None, "arguments", "pipeline")
            arguments = {**base, "method": wrapped, "verbosity": verbosity}
            return Case(carrier, arguments, tuple(spot.below(*at) for spot in spots))
        case _:
            at = ("exportTarget", None, "arguments", "pipeline")
            arguments = {**base, "exportTitle": "t", "exportTarget": wrapped}
            return Case(carrier, arguments, tuple(spot.below(*at) for spot in spots))


_PLAIN: dict[str, tuple[frozenset[str], dict[str, Any]]] = {
    "find": (READ, {"filter": {"a": 1}, "limit": 3}),
    "count": (READ, {"query": {}}),
    "collection-schema": (READ, {"sampleSize": 5}),
    "aggregate": (READ, {"pipeline": [{"$limit": 1}]}),
    "explain": (READ, {"method": [{"name": "count", "arguments": {"query": {"a": 1}}}]}),
    "export": (
        READ | {"export"},
        {"exportTitle": "t", "exportTarget": [{"name": "find", "arguments": {"filter": {}}}]},
    ),
    "collection-indexes": (frozenset({"metadata"}), {}),
    "collection-storage-size": (frozenset({"metadata"}), {}),
    "insert-many": (frozenset({"insert"}), {"documents": [{"a": 1}]}),
    "update-many": (frozenset({"update"}), {"filter": {"a": 1}, "update": {"$set": {"a": 2}}, "upsert": True}),
    "delete-many": (frozenset({"delete"}), {"filter": {"a": 1}}),
    "create-collection": (frozenset({"create"}), {}),
    "create-index": (frozenset({"index"}), {"definition": [{"type": "classic", "keys": {"a": 1}}]}),
    "drop-index": (frozenset({"index"}), {"indexName": "a_1", "type": "classic"}),
    "drop-collection": (frozenset({"drop"}), {}),
    "rename-collection": (frozenset({"drop", "read"}), {"newName": "lists"}),
}
"""Tools that name their collection plainly, with what each does to it (reference, section 1.1)."""


@st.composite
def plain_cases(draw: Draw) -> Case:
    """The forbidden collection in ``collection``, in ``newName``, or behind a synonym."""
    home = draw(st.sampled_from(DATABASES))
    base = {**CONNECTION, "database": home}
    choice = draw(st.sampled_from((*_PLAIN, "new name", "synonym")))
    if choice == "new name":
        arguments = {**base, "collection": "orders", "newName": SECRETS, "dropTarget": True}
        return Case("rename-collection", arguments, (Spot(("newName",), frozenset({"create"}), home),))
    if choice == "synonym":
        names = [*draw(st.lists(st.sampled_from(ORDINARY), max_size=2)), SECRETS]
        synonyms = [{"name": "s", "analyzer": "lucene.standard", "source": {"collection": name}} for name in names]
        definition = {"type": "search", "mappings": {"dynamic": True}, "synonyms": synonyms}
        at = ("definition", None, "synonyms", None, "source", "collection")
        return Case(
            "create-index", {**base, "collection": "orders", "definition": [definition]}, (Spot(at, READ, home),)
        )
    kinds, more = _PLAIN[choice]
    arguments = {**base, "collection": SECRETS, **copy.deepcopy(more)}
    return Case(choice, arguments, (Spot(("collection",), kinds, home),))


def cases() -> st.SearchStrategy[Case]:
    """Calls of every form, most of them pipelines."""
    return st.one_of(pipeline_cases(), pipeline_cases(), pipeline_cases(), plain_cases())


def mentions(arguments: Any, spot: Spot) -> bool:
    """Whether the arguments, perhaps mutated since, name the forbidden collection at this place."""
    found = [arguments]
    for step in spot.path:
        found = [child for node in found for child in _children(node, step)]
    return SECRETS in [node for node in found if isinstance(node, str)]


def _children(node: Any, step: Step) -> Iterator[Any]:
    if step is None and isinstance(node, list):
        yield from node
    elif isinstance(node, dict):
        yield from (child for key, child in node.items() if step in (None, key))


# --- mutations --------------------------------------------------------------------------------------------------------


def _variants(key: str) -> list[str]:
    """Keys that one reader could take for ``key`` and another for a stranger (threats, section 1)."""
    folded = key.replace("s", "\u017f").replace("k", "\u212a")
    case = [key.upper(), key.capitalize(), key.swapcase()]
    padded = [f"{key}\0", f"{key} ", f" {key}", f"{key}\u200b", f"\ufeff{key}"]
    return [name for name in (*case, folded, *padded, key.lstrip("$"), f"${key}", "__proto__", "") if name != key]


def _rename(draw: Draw, node: dict[str, Any], key: str) -> None:
    renamed = draw(st.sampled_from(_variants(key)))
    changed = {renamed if name == key else name: child for name, child in node.items()}
    node.clear()
    node.update(changed)


def _duplicate(draw: Draw, node: dict[str, Any], key: str) -> None:
    twin = draw(st.sampled_from((copy.deepcopy(node[key]), "orders", {}, [])))
    pair = [(key, node.pop(key)), (draw(st.sampled_from(_variants(key))), twin)]
    node.update(draw(st.permutations(pair)))


def _delete(_draw: Draw, node: dict[str, Any], key: str) -> None:
    del node[key]


def _wrap_value(draw: Draw, node: dict[str, Any], key: str) -> None:
    value = node[key]
    wraps = ([value], {key: value}, {"$literal": value}, {"coll": value}, {"$symbol": value}, {"0": value}, [[value]])
    node[key] = draw(st.sampled_from(wraps))


def _swap(draw: Draw, node: dict[str, Any], key: str) -> None:
    other = draw(st.sampled_from(sorted(node)))
    node[key], node[other] = node[other], node[key]


def _add(draw: Draw, node: dict[str, Any], _key: str) -> None:
    keys = (
        "$oid",
        "$date",
        "$ref",
        "$out",
        "$match",
        "from",
        "coll",
        "db",
        "pipeline",
        "into",
        "s3",
        "atlas",
        "x",
        "as",
    )
    node[draw(st.sampled_from(keys))] = draw(st.sampled_from(("orders", {}, [], 1, None)))


_MUTATIONS = (_rename, _duplicate, _delete, _wrap_value, _swap, _add)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if value:
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for child in value:
            yield from _objects(child)


@st.composite
def mutants(draw: Draw) -> tuple[Case, dict[str, Any]]:
    """A call, and its arguments after one to three mutations of any of their keys."""
    case = draw(cases())
    arguments = copy.deepcopy(case.arguments)
    for _ in range(draw(st.integers(1, 3))):
        objects = list(_objects(arguments))
        if objects:
            node = draw(st.sampled_from(objects))
            draw(st.sampled_from(_MUTATIONS))(draw, node, draw(st.sampled_from(sorted(node))))
    return case, arguments
