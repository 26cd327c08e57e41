"""The closed table of aggregation stages: MongoDB 8.x and Atlas, by name, with the rule of each.

A rule writes what the stage touches into the draft and returns the pipelines inside it; it never walks them itself. A
stage that is not in the table is refused, and so is an option that is not in a stage's own list.

Sources: MongoDB manual 8.x, "Aggregation Stages"; Atlas documentation of search, vector search and Data Federation;
reference, section 2.2.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sidecar.commands import joins
from sidecar.commands.draft import Draft
from sidecar.commands.ejson import INT64, whole_number
from sidecar.commands.fields import (
    ROOT,
    an_object,
    analyse_expression,
    analyse_filter,
    analyse_projection,
    analyse_sort,
    malformed,
)
from sidecar.commands.options import assignments, field_name, field_names, options, plain
from sidecar.commands.place import NONE, Nested, Place
from sidecar.commands.pointer import below
from sidecar.errors import CommandNotDerivable
from sidecar.model import AccessKind, JsonObject, JsonValue, Namespace, Target, TargetKind, Trait

StageRule = Callable[[Draft, Place, JsonValue, str], Sequence[Nested]]


def _match(draft: Draft, _place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    analyse_filter(draft.fields, an_object(spec, at), at)
    return NONE


def _project(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    found = analyse_projection(draft.fields, an_object(spec, at), at)
    flow = place.flow
    flow.computes = flow.computes or found.computes
    narrowed = found.returned()
    if narrowed is not None:
        flow.visible = narrowed
    return NONE


def _add_fields(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    place.flow.computes = True
    for key, value in assignments(spec, at):
        analyse_expression(draft.fields, value, below(at, key))
    return NONE


def _unset(_draft: Draft, _place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    field_names(spec, at)
    return NONE


def _group(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    place.flow.reshape()
    for key, value in assignments(spec, at):
        analyse_expression(draft.fields, value, below(at, key))
    return NONE


def _bucket(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    place.flow.reshape()
    known = options(spec, at, "groupBy boundaries default output buckets granularity")
    analyse_expression(draft.fields, known.get("groupBy"), f"{at}/groupBy")
    plain([known.get("buckets"), known.get("granularity")], at)
    if "output" in known:
        for key, value in assignments(known["output"], f"{at}/output"):
            analyse_expression(draft.fields, value, below(f"{at}/output", key))
    return NONE


def _count(_draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    field_name(spec, at)
    place.flow.visible = {}
    place.flow.computes = False
    place.flow.cap(1)
    return NONE


def _sort_by_count(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    place.flow.reshape()
    analyse_expression(draft.fields, spec, at)
    return NONE


def _limit(_draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    place.flow.cap(_count_of_documents(spec, at, 1))
    return NONE


def _skip(_draft: Draft, _place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    _count_of_documents(spec, at, 0)
    return NONE


def _count_of_documents(spec: JsonValue, at: str, least: int) -> int:
    """Return a whole number in any of its spellings, of those that MongoDB takes for a number of documents (int64)."""
    count = whole_number(spec)
    if count is None or not least <= count < INT64:
        raise malformed(at, f"a whole number from {least} to {INT64 - 1}")
    return count


def _sample(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    return _limit(draft, place, options(spec, at, "size").get("size"), f"{at}/size")


def _sort(draft: Draft, _place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    analyse_sort(draft.fields, spec, at)
    return NONE


def _unwind(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    place.flow.limit = None
    path = spec
    if isinstance(spec, dict):
        known = options(spec, at, "path includeArrayIndex preserveNullAndEmptyArrays")
        path = known.get("path")
        place.flow.computes = place.flow.computes or "includeArrayIndex" in known
    if not isinstance(path, str) or not path.startswith("$"):
        raise malformed(at, "a field path that starts with $")
    analyse_expression(draft.fields, path, at)
    return NONE


def _replace_root(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    place.flow.reshape()
    analyse_expression(draft.fields, options(spec, at, "newRoot").get("newRoot"), f"{at}/newRoot")
    return NONE


def _replace_with(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    place.flow.reshape()
    analyse_expression(draft.fields, spec, at)
    return NONE


def _redact(draft: Draft, _place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    """``$$DESCEND`` evaluates the same expression at every level, so a path may mean any field of that name."""
    draft.fields.use(ROOT)
    analyse_expression(draft.fields, spec, at)
    return NONE


def _score(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    place.flow.computes = True
    known = options(spec, at, "score normalization weight scoreDetails")
    analyse_expression(draft.fields, known.get("score"), f"{at}/score")
    return NONE


def _geo_near(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    place.own(at)
    place.flow.computes = True
    keys = "near distanceField key query maxDistance minDistance distanceMultiplier includeLocs spherical"
    known = options(spec, at, keys)
    draft.fields.use(field_name(known["key"], f"{at}/key") if "key" in known else ROOT)
    if "query" in known:
        analyse_filter(draft.fields, an_object(known["query"], f"{at}/query"), f"{at}/query")
    analyse_expression(draft.fields, known.get("near"), f"{at}/near")
    return NONE


def _partition(draft: Draft, known: JsonObject, at: str) -> None:
    analyse_expression(draft.fields, known.get("partitionBy"), f"{at}/partitionBy")
    if "partitionByFields" in known:
        for name in field_names(known["partitionByFields"], f"{at}/partitionByFields"):
            draft.fields.use(name)
    if "sortBy" in known:
        analyse_sort(draft.fields, known["sortBy"], f"{at}/sortBy")


def _set_window_fields(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    place.flow.computes = True
    known = options(spec, at, "partitionBy sortBy output")
    _partition(draft, known, at)
    for key, value in assignments(known.get("output"), f"{at}/output"):
        where = below(f"{at}/output", key)
        function = {name: part for name, part in an_object(value, where).items() if name != "window"}
        analyse_expression(draft.fields, function, where)
    return NONE


def _fill(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    place.flow.computes = True
    known = options(spec, at, "partitionBy partitionByFields sortBy output")
    _partition(draft, known, at)
    for key, value in assignments(known.get("output"), f"{at}/output"):
        where = below(f"{at}/output", key)
        draft.fields.use(key)
        analyse_expression(draft.fields, options(value, where, "value method").get("value"), where)
    return NONE


def _densify(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    place.flow.computes = True
    place.flow.limit = None
    known = options(spec, at, "field partitionByFields range")
    draft.fields.use(field_name(known.get("field"), f"{at}/field"))
    _partition(draft, known, at)
    options(known.get("range"), f"{at}/range", "step unit bounds")
    return NONE


def _documents(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    if place.collection:
        raise CommandNotDerivable("needs_database", "This stage does not run on a collection.", at)
    analyse_expression(draft.fields, spec, at)
    place.flow.reshape()
    return NONE


def _search(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    """Atlas Search reads its own collection; which fields, the index decides as much as the query."""
    place.own(at)
    draft.fields.use(ROOT)
    place.flow.joined = True
    stack: list[JsonValue] = [options(spec, at, _SEARCH_OPTIONS)]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            inner = node.get("vectorSearch")
            if isinstance(inner, dict) and "query" in inner:
                draft.touch_target(AccessKind.EXTERNAL, _EMBEDDING, at)
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return NONE


_SEARCH_OPTIONS: Final = (
    "index highlight concurrent count searchAfter searchBefore scoreDetails sort returnStoredSource returnScope "
    "tracking autocomplete compound embeddedDocument equals exists facet geoShape geoWithin hasAncestor hasRoot in "
    "knnBeta moreLikeThis near phrase queryString range regex span term text vectorSearch wildcard"
)
_EMBEDDING: Final = Target(kind=TargetKind.SERVICE, id="embedding")
_RERANKING: Final = Target(kind=TargetKind.SERVICE, id="reranking")


def _vector_search(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    """Text that is to be embedded leaves for the embedding service (reference, section 2.2)."""
    place.own(at)
    known = options(spec, at, "exact index path numCandidates limit filter queryVector query model")
    draft.fields.use(field_name(known.get("path"), f"{at}/path"))
    plain([known.get("query"), known.get("queryVector")], at)
    if "filter" in known:
        analyse_filter(draft.fields, an_object(known["filter"], f"{at}/filter"), f"{at}/filter")
    if "query" in known or "model" in known:
        draft.touch_target(AccessKind.EXTERNAL, _EMBEDDING, at)
    if "limit" in known:
        return _limit(draft, place, known["limit"], f"{at}/limit")
    return NONE


def _rerank(draft: Draft, _place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    plain(an_object(spec, at), at)
    draft.fields.use(ROOT)
    draft.touch_target(AccessKind.EXTERNAL, _RERANKING, at)
    return NONE


def _diagnosing(known: str) -> StageRule:
    """Return the rule of a stage that tells of its own collection's storage, indexes or plans."""

    def rule(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
        plain(options(spec, at, known), at)
        place.flow.joined = True
        draft.touch(AccessKind.METADATA, place.own(at), at)
        return NONE

    return rule


def _administering(known: str) -> StageRule:
    """Return the rule of a stage that tells of other users' operations, sessions and queries, or of everything."""

    def rule(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
        plain(options(spec, at, known), at)
        place.flow.joined = True
        draft.touch(AccessKind.ADMIN, Namespace(), at)
        return NONE

    return rule


def _change_stream(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    known = options(
        spec,
        at,
        "allChangesForCluster fullDocument fullDocumentBeforeChange resumeAfter showExpandedEvents startAfter "
        "startAtOperationTime",
    )
    draft.traits.add(Trait.CHANGE_STREAM)
    draft.fields.use(ROOT)
    place.flow.joined = True
    watched, via = Namespace(database=place.database, collection=place.collection), at
    if known.get("allChangesForCluster", False) is not False:
        draft.traits.add(Trait.CROSS_DATABASE)
        watched, via = Namespace(), f"{at}/allChangesForCluster"
    # A standing look at everything that others do there is more than reading documents.
    draft.touch(AccessKind.READ, watched, via)
    draft.touch(AccessKind.ADMIN, watched, via)
    return NONE


def _split_large_event(_draft: Draft, _place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    options(spec, at, "")
    return NONE


def _refuse(_draft: Draft, _place: Place, _spec: JsonValue, at: str) -> Sequence[Nested]:
    raise CommandNotDerivable("stage_refused", "This stage is not available through this server.", at)


STAGES: Final[Mapping[str, StageRule]] = {
    # The collection's own documents, one after the other.
    "$match": _match,
    "$project": _project,
    "$addFields": _add_fields,
    "$set": _add_fields,
    "$unset": _unset,
    "$sort": _sort,
    "$limit": _limit,
    "$skip": _skip,
    "$sample": _sample,
    "$unwind": _unwind,
    "$redact": _redact,
    "$replaceRoot": _replace_root,
    "$replaceWith": _replace_with,
    "$geoNear": _geo_near,
    "$setWindowFields": _set_window_fields,
    "$fill": _fill,
    "$densify": _densify,
    "$score": _score,
    # Groups and counts.
    "$group": _group,
    "$bucket": _bucket,
    "$bucketAuto": _bucket,
    "$count": _count,
    "$sortByCount": _sort_by_count,
    # Other namespaces, and pipelines inside pipelines.
    "$lookup": joins.lookup,
    "$graphLookup": joins.graph_lookup,
    "$unionWith": joins.union_with,
    "$facet": joins.facet,
    "$rankFusion": joins.fuse,
    "$scoreFusion": joins.fuse,
    "$documents": _documents,
    # Writes.
    "$out": joins.out,
    "$merge": joins.merge,
    # Search; text may leave for a model.
    "$search": _search,
    "$searchMeta": _search,
    "$vectorSearch": _vector_search,
    "$rerank": _rerank,
    # Facts about one collection.
    "$collStats": _diagnosing("latencyStats storageStats count queryExecStats operationStats"),
    "$indexStats": _diagnosing(""),
    "$planCacheStats": _diagnosing("allHosts"),
    "$listSearchIndexes": _diagnosing("id name"),
    # Everybody's operations, sessions, queries, catalog.
    "$currentOp": _administering(
        "allUsers idleConnections idleCursors idleSessions localOps targetAllNodes truncateOps"
    ),
    "$listSessions": _administering("allUsers users"),
    "$listLocalSessions": _administering("allUsers users"),
    "$listSampledQueries": _administering("namespace"),
    "$listCatalog": _administering(""),
    "$listClusterCatalog": _administering("shards tracked balancingConfiguration"),
    "$queryStats": _administering("transformIdentifiers"),
    "$querySettings": _administering("showDebugQueryShape"),
    "$shardedDataDistribution": _administering(""),
    "$backupCursor": _administering(
        "incrementalBackup thisBackupName srcBackupName blockSize disableIncrementalBackup"
    ),
    "$backupCursorExtend": _administering("backupId timestamp"),
    # Streams of changes.
    "$changeStream": _change_stream,
    "$changeStreamSplitLargeEvent": _split_large_event,
    # Known, and refused: internal stages, Atlas SQL, and what exists in Atlas Stream Processing only.
    "$mergeCursors": _refuse,
    "$listMqlEntities": _refuse,
    "$sql": _refuse,
    "$source": _refuse,
    "$emit": _refuse,
    "$https": _refuse,
    "$externalFunction": _refuse,
    "$cachedLookup": _refuse,
    "$validate": _refuse,
    "$tumblingWindow": _refuse,
    "$hoppingWindow": _refuse,
    "$sessionWindow": _refuse,
}
"""Every stage by name. ``$_internal…`` and whatever a later version adds are not here, and so are refused."""
