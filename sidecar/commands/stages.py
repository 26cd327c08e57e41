"""The closed table of aggregation stages: MongoDB 8.x and Atlas, by name, with the rule of each.

A rule writes what the stage touches into the draft and returns the pipelines inside it; it never walks them itself. A
stage that is not in the table is refused, and so is an option that is not in a stage's own list.

Sources: MongoDB manual 8.x, "Aggregation Stages"; Atlas documentation of search, vector search and Data Federation;
reference, section 2.2.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sidecar.commands import joins
from sidecar.commands.amplifiers import literal_number
from sidecar.commands.computed import analyse_expression, grown
from sidecar.commands.draft import Draft
from sidecar.commands.ejson import INT64, whole_number
from sidecar.commands.field_log import ROOT
from sidecar.commands.fields import analyse_filter
from sidecar.commands.operators import first_operator
from sidecar.commands.options import assignments, field_name, field_names, options, plain
from sidecar.commands.place import NONE, InnerPipeline, Place
from sidecar.commands.pointer import below
from sidecar.commands.projection import project, read_value
from sidecar.commands.refusals import an_object, malformed
from sidecar.commands.search import rerank, search, search_meta, vector_search
from sidecar.commands.shape import NOTHING, FieldOrigin
from sidecar.commands.sorting import analyse_sort
from sidecar.commands.windows import densify, fill, set_window_fields
from sidecar.errors import CommandNotDerivable
from sidecar.model import AccessKind, JsonValue, Namespace, Trait

StageRule = Callable[[Draft, Place, JsonValue, str], Sequence[InnerPipeline]]


def _match(draft: Draft, _place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    analyse_filter(draft.fields, an_object(spec, at), at)
    return NONE


def _project(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    project(draft.fields, an_object(spec, at), at, place.flow)
    return NONE


def _add_fields(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    flow = place.flow
    values = assignments(spec, at)
    made = [(key, value, *read_value(draft.fields, value, below(at, key), flow.shape)) for key, value in values]
    for key, value, origin, copies in made:
        (flow.shape.add if _merges(value) else flow.shape.set)(key, origin)
        flow.resize(key, copies)
    return NONE


def _merges(value: JsonValue) -> bool:
    """Say whether ``$addFields`` leaves what is beside the named parts: ``{a: {b: 1}}`` sets nothing but ``a.b``."""
    return isinstance(value, dict) and not first_operator(value)


def _unset(_draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    for name in field_names(spec, at):
        place.flow.shape.drop(name)
    return NONE


def _collect(draft: Draft, place: Place, fields: Mapping[str, JsonValue], at: str) -> None:
    """Let documents of these computed fields go on, made of those before."""
    origins: dict[str, FieldOrigin] = {}
    sizes: dict[str, int] = {}
    for key, value in fields.items():
        origin, sizes[key] = read_value(draft.fields, value, below(at, key), place.flow.shape)
        origins[key] = origin.fixed()
    place.flow.shape.close(origins)
    place.flow.gather(sizes)


def _group(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    _collect(draft, place, dict(assignments(spec, at)), at)
    return NONE


def _bucket(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    known = options(spec, at, "groupBy boundaries default output buckets granularity")
    plain([known.get("granularity")], at)
    if "buckets" in known:
        draft.fields.amplifiers.note("$bucketAuto.buckets", literal_number(known["buckets"]), f"{at}/buckets")
        analyse_expression(draft.fields, known["buckets"], f"{at}/buckets")
    by = read_value(draft.fields, known.get("groupBy"), f"{at}/groupBy", place.flow.shape)
    analyse_expression(draft.fields, known.get("default"), f"{at}/default")
    output = dict(assignments(known["output"], f"{at}/output")) if "output" in known else {"count": None}
    _collect(draft, place, output, f"{at}/output")
    place.flow.shape.set("_id", by[0].fixed())
    return NONE


def _count(_draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    place.flow.shape.close({field_name(spec, at): NOTHING})
    place.flow.gather({})
    place.flow.cap(1)
    return NONE


def _sort_by_count(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    _collect(draft, place, {"_id": spec}, at)
    place.flow.shape.set("count", NOTHING)
    return NONE


def _limit(_draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    place.flow.cap(_count_of_documents(spec, at, 1))
    return NONE


def _skip(_draft: Draft, _place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    _count_of_documents(spec, at, 0)
    return NONE


def _count_of_documents(spec: JsonValue, at: str, least: int) -> int:
    """Return a whole number in any of its spellings, of those that MongoDB takes for a number of documents (int64)."""
    count = whole_number(spec)
    if count is None or not least <= count < INT64:
        raise malformed(at, f"a whole number from {least} to {INT64 - 1}")
    return count


def _sample(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    size = options(spec, at, "size").get("size")
    draft.fields.amplifiers.note("$sample.size", literal_number(size), f"{at}/size")
    return _limit(draft, place, size, f"{at}/size")


def _sort(draft: Draft, _place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    analyse_sort(draft.fields, spec, at)
    return NONE


def _unwind(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    flow = place.flow
    flow.limit = None
    path, index = spec, None
    if isinstance(spec, dict):
        known = options(spec, at, "path includeArrayIndex preserveNullAndEmptyArrays")
        path, index = known.get("path"), known.get("includeArrayIndex")
    if not isinstance(path, str) or not path.startswith("$") or path.startswith("$$"):
        raise malformed(at, "a field path that starts with $")
    draft.fields.unwind(path[1:])
    draft.fields.amplifiers.count("$unwind.count", at)
    if index is not None:
        flow.shape.set(field_name(index, f"{at}/includeArrayIndex"), flow.shape.origin(path[1:]).fixed())
    first = path[1:].partition(".")[0]
    flow.multiply(flow.sizes.get(first, flow.sizes.get("", 1)))
    if first in flow.sizes:
        flow.sizes[first] = 1
    grown(draft.fields, flow.documents, at)
    return NONE


def _replace_root(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    return _replace_with(draft, place, options(spec, at, "newRoot").get("newRoot"), f"{at}/newRoot")


def _replace_with(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    flow = place.flow
    if isinstance(spec, dict) and spec and not first_operator(spec):
        made = {key: read_value(draft.fields, value, below(at, key), flow.shape) for key, value in spec.items()}
        flow.shape.close({key: origin for key, (origin, _) in made.items()})
        flow.sizes = {key.partition(".")[0]: copies for key, (_, copies) in made.items()}
    elif spec not in ("$$ROOT", "$$CURRENT"):
        flow.replace(*read_value(draft.fields, spec, at, flow.shape))
    return NONE


def _redact(draft: Draft, _place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    """``$$DESCEND`` evaluates the same expression at every level, so a path may mean any field of that name."""
    draft.fields.use(ROOT)
    analyse_expression(draft.fields, spec, at)
    return NONE


def _score(draft: Draft, _place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    known = options(spec, at, "score normalization weight scoreDetails")
    analyse_expression(draft.fields, known.get("score"), f"{at}/score")
    return NONE


def _geo_near(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    place.own(at)
    keys = "near distanceField key query maxDistance minDistance distanceMultiplier includeLocs spherical"
    known = options(spec, at, keys)
    key = field_name(known["key"], f"{at}/key") if "key" in known else ROOT
    draft.fields.use(key)
    for name in ("distanceField", "includeLocs"):
        if name in known:
            place.flow.shape.add(field_name(known[name], f"{at}/{name}"), FieldOrigin(frozenset(), frozenset({key})))
    if "query" in known:
        analyse_filter(draft.fields, an_object(known["query"], f"{at}/query"), f"{at}/query")
    analyse_expression(draft.fields, known.get("near"), f"{at}/near")
    return NONE


def _documents(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    if place.collection:
        raise CommandNotDerivable("needs_database", "This stage does not run on a collection.", at)
    with draft.fields.reading() as read:
        size = analyse_expression(draft.fields, spec, at)
    if not isinstance(spec, list):
        place.flow.multiply(size.copies)
        grown(draft.fields, size.copies, at)
    place.flow.shape.replace(place.flow.shape.computed(read))
    return NONE


def _diagnosing(known: str) -> StageRule:
    """Return the rule of a stage that tells of its own collection's storage, indexes or plans."""

    def rule(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
        plain(options(spec, at, known), at)
        place.flow.shape.unknown = True
        draft.touch(AccessKind.METADATA, place.own(at), at)
        return NONE

    return rule


def _administering(known: str) -> StageRule:
    """Return the rule of a stage that tells of other users' operations, sessions and queries, or of everything."""

    def rule(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
        plain(options(spec, at, known), at)
        place.flow.shape.unknown = True
        draft.touch(AccessKind.ADMIN, Namespace(), at)
        return NONE

    return rule


def _query_stats(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    if isinstance(spec, dict) and "transformIdentifiers" in spec:
        options(spec["transformIdentifiers"], f"{at}/transformIdentifiers", "algorithm hmacKey")
    return _administering("transformIdentifiers")(draft, place, spec, at)


def _change_stream(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    known = options(
        spec,
        at,
        "allChangesForCluster fullDocument fullDocumentBeforeChange resumeAfter showExpandedEvents startAfter "
        "startAtOperationTime",
    )
    draft.traits.add(Trait.CHANGE_STREAM)
    draft.fields.use(ROOT)
    place.flow.shape.unknown = True
    watched, via = Namespace(database=place.database, collection=place.collection), at
    if known.get("allChangesForCluster", False) is not False:
        draft.traits.add(Trait.CROSS_DATABASE)
        watched, via = Namespace(), f"{at}/allChangesForCluster"
    # A standing look at everything that others do there is more than reading documents.
    draft.touch(AccessKind.READ, watched, via)
    draft.touch(AccessKind.ADMIN, watched, via)
    return NONE


def _split_large_event(_draft: Draft, _place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    options(spec, at, "")
    return NONE


def _refuse(_draft: Draft, _place: Place, _spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
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
    "$setWindowFields": set_window_fields,
    "$fill": fill,
    "$densify": densify,
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
    "$search": search,
    "$searchMeta": search_meta,
    "$vectorSearch": vector_search,
    "$rerank": rerank,
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
    "$queryStats": _query_stats,
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
"""Every stage by name. ``$_internal…`` and stages of later versions are not here, and so are refused."""
