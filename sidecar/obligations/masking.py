"""How a call is changed so that it reads only what a mask leaves of documents, form by form.

In a pipeline the stages of the mask come before all that the caller wrote, except for conditions that have to come
first, or that MongoDB can answer from an index there, and look at no masked field. In ``find`` the projection leaves
the fields out. Where nothing can be put before what the caller asks for, it must not look at a masked field at all:
what a command looks at was found by the walk that derived it. What has no way is refused.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Final

from sidecar.errors import ObligationNotSupported
from sidecar.model import JsonObject, JsonValue
from sidecar.obligations import projections
from sidecar.obligations.masks import Mask, stage_below
from sidecar.obligations.rewrite import an_object, edited, mentions, named, refused, require_after, stages_of
from sidecar.sites import Derivation, SiteForm, SitePath

_META: Final = frozenset({"textScore", "searchScore", "vectorSearchScore", "score", "randVal"})
"""What ``$meta`` may name: none of it is a part of a document, as ``indexKey`` is, and in a clustered collection the
``recordId``: there it is the ``_id`` (manual, "Clustered Collections")."""

SIZE: Final = 16
"""What one field of a mask adds to a place, counted as conditions and values of a filter are."""

Looked = Mapping[SitePath, frozenset[str]]


def require_no_keys(arguments: JsonValue) -> None:
    """Return if no ``$meta`` of a call gives back parts of documents past the stages of a mask.

    Raises:
        ObligationNotSupported: one does.
    """
    stack = [arguments]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            if "$meta" in node and not (isinstance(node["$meta"], str) and node["$meta"] in _META):
                raise _refused("this $meta", "can hold values of fields that you may not see; leave it out")
            stack.extend(node.values())


def require_unlooked(mask: Mask, paths: Collection[str], what: str) -> None:
    """Return if none of these paths leads to a masked field.

    Raises:
        ObligationNotSupported: one does, or it cannot be told where they lead.
    """
    for path in paths:
        if field := mask.touched(path):
            advice = (
                "which you may not see; use plain conditions on other fields, or aggregate, which sees what is left"
            )
            raise _refused(what, f"looks at {field if path else 'any field, also ' + field}, {advice}")


def masked(mask: Mask, form: SiteForm, arguments: JsonObject, path: SitePath, derivation: Derivation) -> JsonObject:
    """Return the arguments of a call with a mask at one of its places.

    Raises:
        ObligationNotSupported: the place cannot be held to the mask.
    """
    return _FORMS[form](mask, arguments, path, derivation)


def _query(mask: Mask, arguments: JsonObject, path: SitePath, derivation: Derivation) -> JsonObject:
    """A query, and beside the one of ``find`` a projection and a sort order."""
    require_unlooked(mask, derivation.command.fields.filtered, "this query, its sort or its projection")
    if path[-1] != "filter":
        return arguments
    return _edited(arguments, (*path[:-1], "projection"), lambda found: projections.masked(mask, found))


def _written(mask: Mask, arguments: JsonObject, _path: SitePath, derivation: Derivation) -> JsonObject:
    require_unlooked(mask, derivation.command.fields.filtered, "this filter or update")
    return arguments


def _inserted(mask: Mask, arguments: JsonObject, path: SitePath, _derivation: Derivation) -> JsonObject:
    documents = arguments.get(str(path[-1]))
    for document in documents if isinstance(documents, list) else [{}]:
        if field := mask.held_by(document):
            raise _refused("a document", f"has {field}, which you may not see; what you may not see you cannot write")
    return arguments


def _pipeline(mask: Mask, arguments: JsonObject, path: SitePath, derivation: Derivation) -> JsonObject:
    looks = derivation.looks
    return _edited(arguments, path, lambda found: pipeline_head(mask, found, path, looks))


def pipeline_head(mask: Mask, pipeline: JsonValue, path: SitePath, looks: Looked) -> list[JsonValue]:
    """Return a pipeline that sees what the mask leaves.

    Args:
        mask: the mask.
        pipeline: its stages, of which the first is the caller's.
        path: where it stands in the call.
        looks: what the first stage looks at, by where it stands.

    Raises:
        ObligationNotSupported: it starts with a stage that looks at a masked field before anything can take it away, or
            holds one that reads something else than documents.
    """
    stages = stages_of(pipeline)
    first, options = named(stages[0]) if stages else ("", None)
    looked = looks.get((*path, 0, first), frozenset({""}))
    if first in _FIRST:
        require_after(stages[1:], "mask")
        _FIRST[first](mask, an_object(options), looked)
        return [stages[0], *mask.stages, *stages[1:]]
    require_after(stages, "mask")
    if first == "$match":
        if not any(map(mask.touched, looked)):
            return [stages[0], *mask.stages, *stages[1:]]
        if mentions(options, "$text"):
            raise _refused("$text", "looks at all fields of the text index; use other conditions")
    return [*mask.stages, *stages]


def _geo_near(mask: Mask, options: JsonObject, looked: frozenset[str]) -> None:
    require_unlooked(mask, looked, "$geoNear without a key, or one that")
    made = [str(options[name]) for name in ("distanceField", "includeLocs") if name in options]
    require_unlooked(mask, made, "a distance or place under a name that")


def _vector_search(mask: Mask, options: JsonObject, looked: frozenset[str]) -> None:
    require_unlooked(mask, looked, "$vectorSearch")
    for name in ("returnStoredSource", "parentFilter", "nestedOptions", "explainOptions"):
        if name in options:
            raise _refused(f"{name} of $vectorSearch", "gives back something else than documents; leave it out")


def _search(_mask: Mask, _options: JsonObject, _looked: frozenset[str]) -> None:
    raise _refused("a search", "looks at all fields of its index; use $match, which sees what is left")


_FIRST: Final[Mapping[str, Callable[[Mask, JsonObject, frozenset[str]], None]]] = {
    "$geoNear": _geo_near,
    "$vectorSearch": _vector_search,
    **dict.fromkeys(("$search", "$searchMeta", "$rankFusion", "$scoreFusion"), _search),
}
"""First stages that nothing may stand before."""


def _lookup(mask: Mask, arguments: JsonObject, path: SitePath, derivation: Derivation) -> JsonObject:
    def changed(spec: JsonValue) -> JsonValue:
        options = an_object(spec)
        if "foreignField" in options:
            require_unlooked(mask, [str(options["foreignField"])], "foreignField")
        return _with_pipeline(mask, options, path, derivation.looks)

    return _edited(arguments, path, changed)


def _union(mask: Mask, arguments: JsonObject, path: SitePath, derivation: Derivation) -> JsonObject:
    def changed(spec: JsonValue) -> JsonValue:
        options: JsonObject = {"coll": spec} if isinstance(spec, str) else an_object(spec)
        return _with_pipeline(mask, options, path, derivation.looks)

    return _edited(arguments, path, changed)


def _graph(mask: Mask, arguments: JsonObject, path: SitePath, derivation: Derivation) -> JsonObject:
    """A graph is followed over what is stored; right after it, what it found is masked where it stands."""
    require_unlooked(mask, derivation.looks.get(path, {""}), "$graphLookup")
    *above, index, _ = path

    def masked_after(pipeline: JsonValue) -> JsonValue:
        stages = stages_of(pipeline)
        at = int(index) + 1
        options = an_object(an_object(stages[at - 1])["$graphLookup"])
        if any(part.isdigit() for part in str(options["as"]).split(".")):
            raise _refused("this name for what is found", "can be a position in a list; use a name without numbers")
        if "depthField" in options:
            require_unlooked(mask, [str(options["depthField"])], "a depth under a name that")
        return [*stages[:at], stage_below(mask, str(options["as"])), *stages[at:]]

    return _edited(arguments, tuple(above), masked_after)


def _with_pipeline(mask: Mask, options: JsonObject, path: SitePath, looks: Looked) -> JsonObject:
    head = pipeline_head(mask, options.get("pipeline", []), (*path, "pipeline"), looks)
    return {**options, "pipeline": head}


def _nowhere(_mask: Mask, _arguments: JsonObject, path: SitePath, _derivation: Derivation) -> JsonObject:
    stage = next((step for step in reversed(path) if isinstance(step, str) and step.startswith("$")), "this use")
    raise _refused(stage, "has no place where fields could be left out; find, count, aggregate and export have one")


def _behind_a_view(_mask: Mask, _arguments: JsonObject, _path: SitePath, _derivation: Derivation) -> JsonObject:
    raise _refused("this view", "reads a collection of which you may not see all fields; read that collection")


_Masking = Callable[[Mask, JsonObject, SitePath, Derivation], JsonObject]
_FORMS: Final[Mapping[SiteForm, _Masking]] = {
    SiteForm.FILTER: _query,
    SiteForm.UPDATE_FILTER: _written,
    SiteForm.PIPELINE_HEAD: _pipeline,
    SiteForm.LOOKUP: _lookup,
    SiteForm.UNION: _union,
    SiteForm.GRAPH_RESTRICT: _graph,
    SiteForm.DOCUMENTS: _inserted,
    SiteForm.UPSERT: _written,
    SiteForm.VIEW: _behind_a_view,
    SiteForm.NONE: _nowhere,
}
"""What a mask changes at each form of place."""


def _edited(arguments: JsonObject, path: SitePath, change: Callable[[JsonValue], JsonValue]) -> JsonObject:
    found = edited(arguments, path, change)
    if not isinstance(found, dict):
        raise ObligationNotSupported("a place that is the whole call")
    return found


def _refused(construct: str, advice: str) -> ObligationNotSupported:
    return refused(construct, advice, "mask")
