"""How many documents a call may give, and for how long it may read.

A limit on documents is one on what comes back, however many the database looks at. It is put behind everything of the
caller's: as the ``limit`` of a find, as the last stage of a pipeline. A document that comes back can hold others in its
lists, so a pipeline may collect documents (``$push``, ``$facet``, a ``$lookup`` from a limited collection) only where
its own words bound how many: those in lists are counted like those that come back, and at most so many may be.

A document that is made of several (``$first`` and ``$max`` of a ``$group``, ``$shift`` over its neighbours) counts as
that many: a hundred computed fields can hold a hundred documents.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from sidecar.errors import ObligationNotSupported
from sidecar.model import AccessKind, Command, Decision, JsonObject, JsonValue, ToolCall
from sidecar.obligations.rewrite import edited, value_at
from sidecar.sites import Derivation, SitePath

DOCUMENTS: Final = "max_documents"
TIME: Final = "max_time_ms"
BYTES: Final = "max_bytes"
"""The keys of the decision contract."""

_GIVING: Final = frozenset({AccessKind.READ, AccessKind.EXPORT})
"""What documents come back of."""

_ENDABLE: Final = frozenset({AccessKind.READ, AccessKind.METADATA, AccessKind.EXPORT})
"""What can be ended at any moment: nothing is left half done. No abort signal reaches the writes of the server."""

_STORING: Final = frozenset(
    {AccessKind.INSERT, AccessKind.UPDATE, AccessKind.DELETE, AccessKind.CREATE, AccessKind.DROP, AccessKind.INDEX}
)
"""What is answered with what it did; that is not withheld for its size once it is done."""

_SERVERS_FIND: Final = 10
_SERVERS_SAMPLE: Final = 50
_SERVERS_BYTES: Final = 1_048_576
"""What the server takes where a call does not say (3.0.4: ``limit`` of find, ``sampleSize`` of collection-schema,
``responseBytesLimit``)."""

_TIMES_SENT: Final = 3
"""The server sends a document twice, once of that as a text in a text, and counts the bytes of its BSON: about a third.
What is still too large is withheld."""

_BOUNDING: Final = frozenset({"aggregate", "aggregate-db", "collection-schema", "find"})
"""Tools with a ``responseBytesLimit``."""

LIMITED: Final = frozenset({"aggregate", "aggregate-db", "collection-schema", "export", "find"})
"""Tools that give documents, or what is found in them, and have a place for a number."""

GIVING_DOCUMENTS: Final = frozenset({"aggregate", "aggregate-db", "find"})
"""Tools whose structured content has the documents that come back."""

GIVING_NONE: Final = frozenset({"count", "delete-many", "explain", "insert-many", "update-many"})
"""Tools whose answers hold no stored document."""

_SAME: Final = frozenset(
    [
        "$addFields",
        "$bucket",
        "$bucketAuto",
        "$fill",
        "$graphLookup",
        "$group",
        "$lookup",
        "$match",
        "$project",
        "$redact",
        "$replaceRoot",
        "$replaceWith",
        "$rerank",
        "$score",
        "$set",
        "$setWindowFields",
        "$skip",
        "$sort",
        "$sortByCount",
        "$unset",
    ]
)
"""Stages after which there are no more documents than before."""

_SINGLE: Final = frozenset(
    [
        "$avg",
        "$bottom",
        "$count",
        "$covariancePop",
        "$covarianceSamp",
        "$denseRank",
        "$derivative",
        "$documentNumber",
        "$expMovingAvg",
        "$first",
        "$integral",
        "$last",
        "$linearFill",
        "$locf",
        "$max",
        "$median",
        "$min",
        "$minMaxScaler",
        "$percentile",
        "$rank",
        "$shift",
        "$stdDevPop",
        "$stdDevSamp",
        "$sum",
        "$top",
    ]
)
"""Accumulators that give what one document holds, or a number; every other one collects."""


_PICKING: Final = frozenset(["$bottom", "$locf", "$max", "$min", "$shift", "$top"])
"""Those of them that give what a document holds, which can be the whole of it; another one for each field."""

_ENDS: Final = frozenset(["$first", "$last"])
"""The same, of one document for all fields of a group."""


class _Emitted(NamedTuple):
    """What leaves a pipeline: how many documents, and how many more are inside their lists. None: nothing says."""

    documents: int | None
    inside: int
    made_of: int = 1
    """Of how many documents one of them can be made."""
    shown: int | None = None
    """How many documents all of them together are made of."""

    def then(self, documents: int | None, inside: int, made_of: int) -> "_Emitted":
        """Return what leaves a stage that these come to; what it makes of them shows no documents but theirs."""
        if documents is None:
            return _Emitted(None, inside, made_of)
        made_of = made_of if self.shown is None else min(made_of, self.shown)
        shown = documents * made_of
        return _Emitted(documents, inside, made_of, shown if self.shown is None else min(shown, self.shown))


_ALL: Final = _Emitted(None, 0)
"""What a collection itself gives."""


def most_documents(decision: Decision, command: Command) -> int | None:
    """Return how many documents may come back: the strictest number of all accesses that documents come back of."""
    numbers = [
        verdict.max_documents
        for access, verdict in zip(command.accesses, decision.accesses, strict=True)
        if verdict.max_documents is not None and access.kind in _GIVING
    ]
    return min(numbers, default=None)


def time_ms(decision: Decision, command: Command) -> int | None:
    """Return after how many milliseconds the call is ended: the strictest number of all accesses.

    Raises:
        ObligationNotSupported: the call does something that cannot be ended at any moment.
    """
    numbers = {index: ms for index, one in enumerate(decision.accesses) if (ms := one.max_time_ms) is not None}
    if not numbers:
        return None
    index = min(numbers, key=lambda one: numbers[one])
    if not {access.kind for access in command.accesses} <= _ENDABLE:
        raise _refused(TIME, "a call that writes", "cannot be ended halfway; read only", index)
    return numbers[index]


def most_bytes(decision: Decision, command: Command) -> int | None:
    """Return how large the answer may be: the strictest number of all accesses that do more than store."""
    numbers = [
        verdict.max_bytes
        for access, verdict in zip(command.accesses, decision.accesses, strict=True)
        if verdict.max_bytes is not None and access.kind not in _STORING
    ]
    return min(numbers, default=None)


def smaller(most: int, tool: str, arguments: JsonObject) -> JsonObject:
    """Return arguments with which the server leaves documents away that would make an answer of more bytes."""
    if tool not in _BOUNDING:
        return arguments
    return _with_number(arguments, ("responseBytesLimit",), max(1, most // _TIMES_SENT), _SERVERS_BYTES)


def limited(most: int, call: ToolCall, arguments: JsonObject, derivation: Derivation, decision: Decision) -> JsonObject:
    """Return arguments with which at most so many documents come back; they never allow more than those before.

    Args:
        most: the number.
        call: as it came; what it says is judged.
        arguments: the same, with what other obligations have changed of it.
        derivation: of the call.
        decision: the allow.

    Raises:
        ObligationNotSupported: a stage collects documents, or copies them, and nothing bounds how many.
    """
    index = next(at for at, one in enumerate(decision.accesses) if one.max_documents == most)
    if call.name == "collection-schema":
        return _with_number(arguments, ("sampleSize",), most, _SERVERS_SAMPLE)
    if call.name not in LIMITED:
        return arguments
    inside, operation = _operation(call)
    if operation == "find":
        return _with_number(arguments, (*inside, "limit"), most, None if inside else _SERVERS_FIND)
    path: SitePath = (*inside, "pipeline")
    stages = _stages(value_at(call.arguments, path))
    try:
        flow = _through(stages, path, _ALL, _HeldPlaces.of(derivation, decision, most))
    except ObligationNotSupported as error:
        error.access = index
        raise
    if flow.shown is not None and flow.shown <= most:
        return arguments
    changed = edited(arguments, path, lambda pipeline: [*_stages(pipeline), {"$limit": most // flow.made_of}])
    if not isinstance(changed, dict):
        raise ObligationNotSupported("a pipeline without arguments", conditions=(DOCUMENTS,))
    return changed


def _operation(call: ToolCall) -> tuple[SitePath, str]:
    """Return where the arguments of the operation are, and whether it is a find or an aggregation."""
    if call.name != "export":
        return (), "find" if call.name == "find" else "aggregate"
    target = value_at(call.arguments, ("exportTarget", 0))
    name = target.get("name") if isinstance(target, dict) else None
    if name not in ("find", "aggregate"):
        raise ObligationNotSupported("an export of another form", conditions=(DOCUMENTS,))
    return ("exportTarget", 0, "arguments"), str(name)


def _with_number(arguments: JsonObject, path: SitePath, most: int, own: int | None) -> JsonObject:
    """Return arguments whose number is the caller's, or the server's own, if that is a smaller one from 1."""
    said = value_at(arguments, path)
    number = own if said is None else said
    if isinstance(number, int | float) and not isinstance(number, bool) and 1 <= number <= most:
        return arguments
    changed = edited(arguments, path, lambda _: most)
    if not isinstance(changed, dict):
        raise ObligationNotSupported("a number without arguments", conditions=(DOCUMENTS,))
    return changed


class _HeldPlaces(NamedTuple):
    """Where the call reads what is limited."""

    most: int
    paths: frozenset[SitePath]

    @classmethod
    def of(cls, derivation: Derivation, decision: Decision, most: int) -> "_HeldPlaces":
        """Return the places of a call."""
        held = {at for at, one in enumerate(decision.accesses) if one.max_documents is not None}
        return cls(most, frozenset(site.path for site in derivation.sites if site.access in held))

    def within(self, path: SitePath) -> bool:
        """Whether something limited is read at the path or below it."""
        return any(place[: len(path)] == path for place in self.paths)

    def require(self, count: int | None, construct: str, advice: str) -> int:
        """Return how many documents a construct collects, if they are not too many."""
        if count is None or count > self.most:
            raise _refused(DOCUMENTS, construct, advice.format(most=self.most))
        return count


_BEFORE: Final = 'collects documents, of which only {most} may come back; put {{"$limit": {most}}} or less before it'
_COPIES: Final = 'copies documents, of which you may read only {most}; put {{"$limit": {most}}} or less before it'
_JOINED: Final = (
    "joins documents of which only {most} may come back; put a $limit before it and one at the end of its pipeline, "
    "whose product is at most {most}"
)
_FACETS: Final = "collects documents, of which only {most} may come back; end each of its pipelines with a $limit"
_TOGETHER: Final = "collects more than {most} documents together with the stages before it; use smaller limits"


def _through(stages: Sequence[JsonValue], path: SitePath, before: _Emitted, places: _HeldPlaces) -> _Emitted:
    """Return what leaves a pipeline.

    Args:
        stages: of the pipeline.
        path: where it stands.
        before: what it starts with.
        places: where the call reads what is limited.

    Raises:
        ObligationNotSupported: more documents than may come back can be in lists of what leaves.
    """
    flow = before._replace(inside=0)
    for index, stage in enumerate(stages):
        if not isinstance(stage, dict) or len(stage) != 1:
            raise ObligationNotSupported("a stage of another form", conditions=(DOCUMENTS,))
        [(name, spec)] = stage.items()
        inside, joined = _inside(name, spec, (*path, index), flow, places)
        inside = places.require(flow.inside + inside, name, _TOGETHER)
        flow = flow.then(_leaving(name, spec, flow, places), inside, max(_made_of(name, spec, flow.made_of), joined))
        places.require(flow.made_of, name, _BEFORE)
    return flow


def _made_of(name: str, spec: JsonValue, before: int) -> int:
    """Return of how many documents one that leaves a stage can be made, where one before it is of so many."""
    if name in ("$count", "$facet"):
        return 1
    if not isinstance(spec, dict):
        return before
    match name:
        case "$group":
            own = [{*field} for key, field in spec.items() if key != "_id" and isinstance(field, dict)]
            ends = _ENDS & {key for one in own for key in one}
            return before * max(sum(not _PICKING.isdisjoint(one) for one in own) + len(ends), 1)
        case "$bucket" | "$bucketAuto":
            return before * max(_picked(spec.get("output")), 1)
        case "$setWindowFields":
            return before * (1 + _picked(spec.get("output")))
        case "$fill":
            filled = [field for field in _values(spec.get("output")) if isinstance(field, dict)]
            return before * (1 + sum(field.get("method") == "locf" for field in filled))
        case _:
            return before


def _picked(output: JsonValue) -> int:
    """Return how many computed fields can hold another document each."""
    picking = _PICKING | _ENDS
    return sum(isinstance(field, dict) and not picking.isdisjoint(field) for field in _values(output))


def _leaving(name: str, spec: JsonValue, flow: _Emitted, places: _HeldPlaces) -> int | None:
    """Return how many documents leave a stage."""
    before = flow.documents
    match name:
        case "$limit":
            return _smaller(before, spec)
        case "$sample":
            return _smaller(before, spec.get("size") if isinstance(spec, dict) else None)
        case "$count" | "$facet":
            return 1
        case "$group" if isinstance(spec, dict) and "_id" in spec and spec["_id"] is None:
            return 1
        case "$out" | "$merge":
            return places.require(flow.shown, name, _COPIES)
        case "$changeStream":
            raise _refused(DOCUMENTS, name, "never ends, so it has no number of documents; use find or aggregate")
        case _:
            return before if name in _SAME else None


def _inside(name: str, spec: JsonValue, path: SitePath, flow: _Emitted, places: _HeldPlaces) -> tuple[int, int]:
    """Return how many documents a stage puts into lists, and of how many one is made that it adds to those before."""
    if not isinstance(spec, dict):
        return 0, 1
    match name:
        case "$group" if _collects(value for key, value in spec.items() if key != "_id"):
            return places.require(flow.shown, name, _BEFORE), 1
        case "$bucket" | "$bucketAuto" | "$setWindowFields" if _collects(_values(spec.get("output"))):
            return places.require(flow.shown, name, _BEFORE), 1
        case "$facet":
            inner = [_through(_stages(pipeline), (*path, name, key), flow, places) for key, pipeline in spec.items()]
            return sum(places.require(one.shown, name, _FACETS) + one.inside for one in inner), 1
        case "$graphLookup" if places.within((*path, name)):
            raise _refused(DOCUMENTS, name, "has no number of documents that it joins; use $lookup with $limit")
        case "$lookup" if places.within((*path, name)):
            one = _through(_stages(spec.get("pipeline", [])), (*path, name, "pipeline"), _ALL, places)
            outer, joined = flow.documents, one.shown
            number = None if outer is None or joined is None else outer * (joined + one.inside)
            return places.require(number, name, _JOINED), 1
        case "$unionWith" if places.within((*path, name)):
            one = _through(_stages(spec.get("pipeline", [])), (*path, name, "pipeline"), _ALL, places)
            return one.inside, one.made_of
        case _:
            return 0, 1


def _collects(fields: Iterable[JsonValue]) -> bool:
    """Whether one of the computed fields holds what several documents do."""
    known = _SINGLE | {"window"}
    return any(not isinstance(field, dict) or not field.keys() <= known for field in fields)


def _values(output: JsonValue) -> Iterable[JsonValue]:
    return output.values() if isinstance(output, dict) else ()


def _smaller(before: int | None, said: JsonValue) -> int | None:
    if isinstance(said, bool) or not isinstance(said, int | float) or said < 1:
        return before
    return int(said) if before is None else min(before, int(said))


def _stages(pipeline: JsonValue) -> list[JsonValue]:
    if not isinstance(pipeline, list):
        raise ObligationNotSupported("a pipeline that is no list", conditions=(DOCUMENTS,))
    return pipeline


def _refused(condition: str, construct: str, advice: str, access: int | None = None) -> ObligationNotSupported:
    """Return the refusal of a construct that a limit cannot be held on, with what to change."""
    error = ObligationNotSupported(f"{condition}: {construct}", access=access, conditions=(condition,))
    error.because = f"{construct} {advice}"
    return error
