"""Stages that reach other namespaces or hold pipelines of their own.

``$out`` and ``$merge`` are writes wherever they stand. mongod refuses them inside nested pipelines, but the MongoDB MCP
server forwards them and older servers executed some (reference, section 2.2; SERVER-38362, SERVER-45529).

Sources: MongoDB manual 8.x; Atlas Data Federation documentation for ``{db, coll}``, ``s3``, ``azure``, ``gcs`` and
``atlas`` forms; reference, section 2.2.
"""

from collections.abc import Sequence
from typing import Final

from sidecar.commands.draft import Draft
from sidecar.commands.fields import an_object, analyse_expression, analyse_filter, malformed
from sidecar.commands.options import assignments, field_name, field_names, options
from sidecar.commands.place import NONE, Nested, Place, resolve, resolve_pair
from sidecar.commands.pointer import below
from sidecar.errors import CommandNotDerivable
from sidecar.model import AccessKind, JsonObject, JsonValue, Namespace, Target, TargetKind, Trait

_EXTERNAL_SINKS: Final = frozenset({"s3", "azure", "gcs", "atlas"})


def lookup(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    """``$lookup`` in all forms: ``from`` as a string or ``{db, coll}``, with or without a pipeline, or ``$documents``.

    A nested string inherits the database of the foreign collection, not of the command (Data Federation; and mongod
    for the few cross-database lookups it has).
    """
    known = options(spec, at, "from localField foreignField let pipeline as")
    place.flow.joined = True
    draft.fields.embed(field_name(known.get("as"), f"{at}/as"))
    for key in ("localField", "foreignField"):
        if key in known:
            draft.fields.use(field_name(known[key], f"{at}/{key}"))
    _analyse_variables(draft, known, at)
    if "from" not in known:
        return (_nested_documents(known, place, at),)
    foreign = resolve(known["from"], place.database, f"{at}/from")
    draft.touch(AccessKind.READ, foreign, f"{at}/from")
    return (_nested(known["pipeline"], foreign, f"{at}/pipeline"),) if "pipeline" in known else NONE


def graph_lookup(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    """``$graphLookup``: the foreign documents are filtered and followed by three of its fields."""
    keys = "from startWith connectFromField connectToField as maxDepth depthField restrictSearchWithMatch"
    known = options(spec, at, keys)
    place.flow.joined = True
    draft.fields.embed(field_name(known.get("as"), f"{at}/as"))
    for key in ("connectFromField", "connectToField"):
        draft.fields.use(field_name(known.get(key), f"{at}/{key}"))
    analyse_expression(draft.fields, known.get("startWith"), f"{at}/startWith")
    if "restrictSearchWithMatch" in known:
        where = f"{at}/restrictSearchWithMatch"
        analyse_filter(draft.fields, an_object(known["restrictSearchWithMatch"], where), where)
    draft.touch(AccessKind.READ, resolve(known.get("from"), place.database, f"{at}/from"), f"{at}/from")
    return NONE


def union_with(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    """``$unionWith``: a collection, ``{coll, pipeline}``, ``{db, coll, pipeline}``, or ``$documents``."""
    place.flow.joined = True
    place.flow.limit = None
    if isinstance(spec, str):
        draft.touch(AccessKind.READ, resolve(spec, place.database, at), at)
        return NONE
    known = options(spec, at, "db coll pipeline")
    if "coll" not in known and "db" not in known:
        return (_nested_documents(known, place, at),)
    foreign = resolve_pair({"db": place.database, "coll": None, **known}, at)
    draft.touch(AccessKind.READ, foreign, f"{at}/coll")
    return (_nested(known["pipeline"], foreign, f"{at}/pipeline"),) if "pipeline" in known else NONE


def facet(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    """``$facet``: every value is a pipeline on the same collection."""
    place.flow.joined = True
    place.flow.limit = None
    found = []
    for key, pipeline in assignments(spec, at):
        draft.fields.embed(key)
        found.append(Nested(pipeline, Place(place.database, place.collection), below(at, key)))
    return found


def fuse(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    """``$rankFusion`` and ``$scoreFusion``: every input pipeline runs on the same collection."""
    place.own(at)
    place.flow.joined = True
    known = options(spec, at, "input combination scoreDetails")
    if "combination" in known:
        combination = options(known["combination"], f"{at}/combination", "weights method expression")
        analyse_expression(draft.fields, combination.get("expression"), f"{at}/combination/expression")
    where = f"{at}/input/pipelines"
    pipelines = options(known.get("input"), f"{at}/input", "pipelines normalization").get("pipelines")
    return [
        Nested(pipeline, Place(place.database, place.collection), below(where, key))
        for key, pipeline in assignments(pipelines, where)
    ]


def out(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    """``$out`` replaces its target: what is there is deleted, and the target is created and filled."""
    draft.traits.add(Trait.WRITES_VIA_PIPELINE)
    if _sends_away(draft, spec, at):
        return NONE
    where = at
    if isinstance(spec, dict):
        spec = {key: value for key, value in options(spec, at, "db coll timeseries").items() if key != "timeseries"}
        where = f"{at}/coll"
    for target in _written(draft, place, spec, at):
        for kind in (AccessKind.DELETE, AccessKind.CREATE, AccessKind.INSERT):
            draft.touch(kind, target, where)
    return NONE


def merge(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[Nested]:
    """``$merge`` inserts into and updates its target, whatever ``whenMatched`` says: law 2 before fine distinctions."""
    draft.traits.add(Trait.WRITES_VIA_PIPELINE)
    known: JsonObject = {"into": spec}
    where = at
    if not isinstance(spec, str):
        known = options(spec, at, "into on let whenMatched whenNotMatched")
        where = f"{at}/into"
    _analyse_variables(draft, known, at)
    if "on" in known:
        for name in field_names(known["on"], f"{at}/on"):
            draft.fields.use(name)
    if _sends_away(draft, known.get("into"), where):
        targets: Sequence[Namespace] = ()
    else:
        targets = _written(draft, place, known.get("into"), where)
        for target in targets:
            draft.touch(AccessKind.INSERT, target, where)
            draft.touch(AccessKind.UPDATE, target, where)
    return _nested_update(known, place, targets, at)


def _nested_update(known: JsonObject, place: Place, targets: Sequence[Namespace], at: str) -> Sequence[Nested]:
    update = known.get("whenMatched")
    if not isinstance(update, list):
        for key in ("whenMatched", "whenNotMatched"):
            if not isinstance(known.get(key, ""), str):
                raise malformed(f"{at}/{key}", "a string or, for whenMatched, a pipeline")
        return NONE
    target = targets[0] if targets else Namespace(database=place.database)
    return (_nested(update, target, f"{at}/whenMatched"),)


def _written(draft: Draft, place: Place, value: JsonValue, at: str) -> Sequence[Namespace]:
    """Return the targets of a write. In a foreign pipeline a bare name is taken both ways: no server documents it."""
    target = resolve(value, place.database, at)
    if isinstance(value, str) and draft.database and place.database != draft.database:
        return (target, resolve(value, draft.database, at))
    return (target,)


def _sends_away(draft: Draft, value: JsonValue, at: str) -> bool:
    """Add the access of a sink outside the deployment (Data Federation), if the value is one.

    Raises:
        CommandNotDerivable: a sink with siblings.
    """
    if not isinstance(value, dict) or _EXTERNAL_SINKS.isdisjoint(value):
        return False
    if len(value) != 1:
        raise CommandNotDerivable("malformed", "An external sink stands alone.", at)
    sink = next(iter(value))
    draft.touch_target(AccessKind.EXTERNAL, Target(kind=TargetKind.SERVICE, id=sink), f"{at}/{sink}")
    return True


def _analyse_variables(draft: Draft, known: JsonObject, at: str) -> None:
    if "let" in known:
        for key, value in assignments(known["let"], f"{at}/let"):
            analyse_expression(draft.fields, value, below(f"{at}/let", key))


def _nested(pipeline: JsonValue, namespace: Namespace, at: str) -> Nested:
    return Nested(pipeline, Place(namespace.database, namespace.collection), at)


def _nested_documents(known: JsonObject, place: Place, at: str) -> Nested:
    """Return the pipeline of a join without a collection; it has to bring its own documents."""
    pipeline = known.get("pipeline")
    first = pipeline[0] if isinstance(pipeline, list) and pipeline else None
    if not isinstance(first, dict) or first.keys() != {"$documents"}:
        raise CommandNotDerivable("missing_namespace", "Without a collection the pipeline starts with $documents.", at)
    return Nested(pipeline, Place(place.database, ""), f"{at}/pipeline")
