"""How a call is changed so that it reads only rows of a filter, form by form; what has no way is refused.

The places come from the walk that derived the call, so nothing is looked for here a second time; a place is changed by
what its form says. Every change is a conjunction around what the caller wrote, so no words of the caller's can take it
back, or stands before the caller's first stage.

The order of evaluation is not left to the server's optimiser. It may try the conditions of neighbouring ``$match``
stages in any order, so a condition of the caller's that can fail, by a division by zero for example, would tell by its
error of rows that are hidden: such a pipeline gets a ``$limit`` behind the filter, over which no ``$match`` is moved
(manual, "Aggregation Pipeline Optimization"). Where no stage can be put between, it is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sidecar.errors import ObligationNotSupported
from sidecar.model import JsonObject, JsonValue
from sidecar.sites import SitePath

_EVERYTHING: Final = 2**53 - 1
"""More documents than there are; the most that is exact on its way through the server."""

_CALM: Final = frozenset(
    [
        "$eq",
        "$ne",
        "$gt",
        "$gte",
        "$lt",
        "$lte",
        "$cmp",
        "$and",
        "$or",
        "$not",
        "$literal",
        "$const",
        "$ifNull",
        "$cond",
        "$isArray",
        "$isNumber",
        "$type",
        "$switch",
    ]
)
"""Expression operators that give a value for every operand, and so never an error."""

_AFTER: Final = frozenset(
    [
        "$match",
        "$project",
        "$addFields",
        "$set",
        "$unset",
        "$sort",
        "$limit",
        "$skip",
        "$sample",
        "$unwind",
        "$redact",
        "$replaceRoot",
        "$replaceWith",
        "$setWindowFields",
        "$fill",
        "$densify",
        "$group",
        "$bucket",
        "$bucketAuto",
        "$count",
        "$sortByCount",
        "$lookup",
        "$graphLookup",
        "$unionWith",
        "$facet",
        "$out",
        "$merge",
        "$score",
        "$rerank",
    ]
)
"""Stages that see nothing but the documents of the stage before them, or have places of their own."""

_FUSIONS: Final = frozenset({"$rankFusion", "$scoreFusion"})
"""They have to come first, and each pipeline inside has a place of its own."""

_SEARCH_TELLS: Final = ("count", "facet", "returnStoredSource", "returnScope", "scoreDetails", "tracking")
"""Options of ``$search`` whose results are not the documents of the collection as they are now."""

_NESTED: Final = ("returnStoredSource", "parentFilter", "nestedOptions", "explainOptions")
"""The same of ``$vectorSearch``."""

Query = JsonObject
Head = Callable[[Query, list[JsonValue], JsonObject], list[JsonValue]]
"""Takes the filter, the pipeline and the options of its first stage."""


def refused(construct: str, advice: str, condition: str = "filter") -> ObligationNotSupported:
    """Return the refusal of a construct that cannot be held to rows of a filter or a mask, with what to change."""
    error = ObligationNotSupported(f"{condition}: {construct}", conditions=(condition,))
    error.because = f"{construct} {advice}"
    return error


def conjunction(query: Query, callers: JsonValue) -> JsonObject:
    """Return the filter and what the caller asks for, both of which must hold."""
    return {"$and": [query, callers]} if callers else query


def query_filter(query: Query, callers: JsonValue) -> JsonValue:
    """Return what stands for a caller's query where nothing can be put between the two.

    Raises:
        ObligationNotSupported: the query can fail, and would tell of hidden rows by that.
    """
    if can_fail(callers):
        raise refused(
            "$expr or $where in this query",
            "can fail on documents that are not yours; use aggregate, or plain conditions",
        )
    return conjunction(query, callers)


def pipeline_head(query: Query, pipeline: JsonValue) -> JsonValue:
    """Return a pipeline that reads the rows of the filter alone.

    Raises:
        ObligationNotSupported: it starts with a stage that reads in another way, or holds one that does.
    """
    stages = stages_of(pipeline)
    first, options = named(stages[0]) if stages else ("", None)
    head = _HEADS.get(first, _before)
    require_after(stages if head is _before else stages[1:])
    return head(query, stages, options if isinstance(options, dict) else {})


def require_after(stages: Sequence[JsonValue], condition: str = "filter") -> None:
    """Return if every stage reads what the stage before it gives, also inside ``$facet``.

    Raises:
        ObligationNotSupported: one does not.
    """
    for name, spec in map(named, stages):
        if name not in _AFTER:
            raise refused(name, "does not read documents one by one; leave it out", condition)
        if name == "$facet":
            for pipeline in an_object(spec).values():
                require_after(stages_of(pipeline), condition)


def lookup(query: Query, spec: JsonValue) -> JsonValue:
    """Return a ``$lookup`` in any of its forms whose foreign documents are rows of the filter."""
    options = an_object(spec)
    return {**options, "pipeline": pipeline_head(query, options.get("pipeline", []))}


def union(query: Query, spec: JsonValue) -> JsonValue:
    """Return a ``$unionWith`` in any of its forms whose documents are rows of the filter."""
    options = {"coll": spec} if isinstance(spec, str) else an_object(spec)
    return {**options, "pipeline": pipeline_head(query, options.get("pipeline", []))}


def graph_restrict(query: Query, spec: JsonValue) -> JsonValue:
    """Return a ``$graphLookup`` that goes over rows of the filter alone: what is hidden also ends a path."""
    options = an_object(spec)
    key = "restrictSearchWithMatch"
    return {**options, key: query_filter(query, options.get(key))}


def can_fail(condition: JsonValue) -> bool:
    """Whether a query can end with an error because of what a document holds."""
    stack = [condition]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            if "$where" in node or ("$expr" in node and not _is_calm(node["$expr"])):
                return True
            stack.extend(value for key, value in node.items() if key != "$expr")
    return False


def _is_calm(expression: JsonValue) -> bool:
    stack = [expression]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            if "$literal" in node or "$const" in node:
                if len(node) > 1:
                    return False
                continue
            if any(key.startswith("$") and key not in _CALM for key in node):
                return False
            if "$switch" in node and not _has_default(node["$switch"]):
                return False
            stack.extend(node.values())
    return True


def _has_default(switch: JsonValue) -> bool:
    """Whether a ``$switch`` has a value for what none of its branches is about; without one it fails."""
    return isinstance(switch, dict) and "default" in switch


def _before(query: Query, stages: list[JsonValue], _options: JsonObject) -> list[JsonValue]:
    return [{"$match": query}, *_barrier(stages), *stages]


def _match(query: Query, stages: list[JsonValue], options: JsonObject) -> list[JsonValue]:
    """A ``$match`` with ``$text`` has to come first, so the filter goes into the caller's own."""
    barrier = _barrier(stages)
    if not barrier:
        return [{"$match": conjunction(query, options)}, *stages[1:]]
    if mentions(options, "$text"):
        raise refused("$text beside a condition that can fail", "cannot be held to your documents; leave $expr out")
    return _before(query, stages, options)


def _geo_near(query: Query, stages: list[JsonValue], options: JsonObject) -> list[JsonValue]:
    near = {**options, "query": query_filter(query, options.get("query"))}
    return [{"$geoNear": near}, *_barrier(stages[1:]), *stages[1:]]


def _vector_search(query: Query, stages: list[JsonValue], options: JsonObject) -> list[JsonValue]:
    """The index answers with the nearest of the rows; it may lag behind, so what it finds is looked at once more."""
    for name in _NESTED:
        if name in options:
            raise refused(f"{name} of $vectorSearch", "gives back something else than documents; leave it out")
    search = {**options, "filter": conjunction(query, options.get("filter"))}
    return [{"$vectorSearch": search}, {"$match": query}, *_barrier(stages[1:]), *stages[1:]]


def _search(query: Query, stages: list[JsonValue], options: JsonObject) -> list[JsonValue]:
    for name in _SEARCH_TELLS:
        if name in options:
            raise refused(f"{name} of $search", "tells of all documents of the index; leave it out")
    if mentions(stages, "$$SEARCH_META"):
        raise refused("$$SEARCH_META", "tells of all documents of the index; use $count behind $search")
    return [stages[0], {"$match": query}, *_barrier(stages[1:]), *stages[1:]]


def _fusion(_query: Query, stages: list[JsonValue], options: JsonObject) -> list[JsonValue]:
    if options.get("scoreDetails", False) is not False:
        raise refused("scoreDetails", "tells of all documents of the index; leave it out")
    return [stages[0], *_barrier(stages[1:]), *stages[1:]]


def _search_meta(_query: Query, _stages: list[JsonValue], _options: JsonObject) -> list[JsonValue]:
    raise refused("$searchMeta", "counts all documents of the index; use $search and $count")


_HEADS: Final[Mapping[str, Head]] = {
    "$match": _match,
    "$geoNear": _geo_near,
    "$vectorSearch": _vector_search,
    "$search": _search,
    "$searchMeta": _search_meta,
    **dict.fromkeys(_FUSIONS, _fusion),
}
"""First stages that nothing may stand before; before every other one that may follow a ``$match``, one is put."""


def _barrier(stages: Sequence[JsonValue]) -> list[JsonValue]:
    """Return what keeps the conditions of these stages behind the filter, where one of them can fail."""
    conditions = [spec for name, spec in map(named, stages) if name == "$match"]
    return [{"$limit": _EVERYTHING}] if any(map(can_fail, conditions)) else []


def mentions(value: JsonValue, word: str) -> bool:
    """Whether a key or a text anywhere begins with the word."""
    stack = [value]
    while stack:
        node = stack.pop()
        if isinstance(node, str) and node.startswith(word):
            return True
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            stack.extend(node.keys())
            stack.extend(node.values())
    return False


def stages_of(pipeline: JsonValue) -> list[JsonValue]:
    """Return the stages of a pipeline, or refuse what is none."""
    if not isinstance(pipeline, list):
        raise ObligationNotSupported("a pipeline that is no list", conditions=("filter",))
    return pipeline


def named(stage: JsonValue) -> tuple[str, JsonValue]:
    """Return the name of a stage and what it says, or refuse what is none."""
    if not isinstance(stage, dict) or len(stage) != 1:
        raise ObligationNotSupported("a stage of another form", conditions=("filter",))
    [(name, spec)] = stage.items()
    return name, spec


def an_object(spec: JsonValue) -> JsonObject:
    """Return the options of a stage, or refuse what are none."""
    if not isinstance(spec, dict):
        raise ObligationNotSupported("options of another form", conditions=("filter",))
    return spec


def value_at(value: JsonValue, path: SitePath) -> JsonValue:
    """Return what stands at a path; None where nothing does."""
    for step in path:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def edited(value: JsonValue, path: SitePath, change: Callable[[JsonValue], JsonValue]) -> JsonValue:
    """Return a value in which the one at the path is changed; nothing of the original is, and the rest is shared.

    The last key of the path may be missing; then the change is of None.
    """
    if not path:
        return change(value)
    step, *rest = path
    if isinstance(value, dict) and isinstance(step, str):
        return {**value, step: edited(value.get(step), tuple(rest), change)}
    if isinstance(value, list) and isinstance(step, int):
        return [edited(one, tuple(rest), change) if index == step else one for index, one in enumerate(value)]
    raise ObligationNotSupported("a place that the call does not have")
