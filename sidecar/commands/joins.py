"""Stages that reach other namespaces or hold pipelines of their own.

``$out`` and ``$merge`` are writes wherever they stand. mongod refuses them inside nested pipelines, but the MongoDB MCP
server forwards them and older servers executed some (reference, section 2.2; SERVER-38362, SERVER-45529).

Sources: MongoDB manual 8.x; Atlas Data Federation documentation for ``{db, coll}``, ``s3``, ``azure``, ``gcs`` and
``atlas`` forms; reference, section 2.2.
"""

from collections.abc import Callable, Sequence
from typing import Final

from sidecar.commands.computed import analyse_expression
from sidecar.commands.draft import Draft
from sidecar.commands.fields import analyse_filter
from sidecar.commands.options import assignments, field_name, field_names, options
from sidecar.commands.place import NONE, Flow, InnerPipeline, Place, resolve, resolve_pair
from sidecar.commands.pointer import below
from sidecar.commands.refusals import an_object, malformed
from sidecar.commands.shape import ALL, FieldOrigin, Shape
from sidecar.errors import CommandNotDerivable
from sidecar.model import AccessKind, JsonObject, JsonValue, Namespace, Target, TargetKind, Trait
from sidecar.sites import SiteForm

_STORED: Final = Flow()
"""What flows out of a collection itself; only read."""

_EXTERNAL_SINKS: Final = frozenset({"s3", "azure", "gcs", "atlas"})


def lookup(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    """``$lookup`` in all forms: ``from`` as a string or ``{db, coll}``, with or without a pipeline, or ``$documents``.

    A nested string inherits the database of the foreign collection, not of the command (Data Federation; and mongod
    for the few cross-database lookups it has).
    """
    known = options(spec, at, "from localField foreignField let pipeline as")
    draft.fields.amplifiers.count("$lookup.count", at)
    name = field_name(known.get("as"), f"{at}/as")
    draft.fields.embed(name)
    for key in ("localField", "foreignField"):
        if key in known:
            draft.fields.use(field_name(known[key], f"{at}/{key}"))
    _analyse_variables(draft, place, known, at)
    _embed(place.flow, name, _STORED)
    if "from" not in known:
        nested = _nested_documents(known, place, at)
        return (nested._replace(then=lambda inner: _embed(place.flow, name, inner)),)
    foreign = resolve(known["from"], place.database, f"{at}/from")
    draft.touch(AccessKind.READ, foreign, f"{at}/from", SiteForm.LOOKUP)
    if "pipeline" not in known:
        return NONE
    nested = _nested(known["pipeline"], foreign, at, "pipeline")
    return (nested._replace(then=lambda inner: _embed(place.flow, name, inner)),)


def _embed(flow: Flow, name: str, foreign: Flow) -> None:
    """Put the documents of another flow under a name; a path below it is one in them, recorded in both spellings."""
    inner = foreign.shape
    if inner.unknown:
        origin = ALL
    elif inner.is_open:
        origin = FieldOrigin(frozenset({"", name}), inner.origin("").parts)
    else:
        whole = inner.origin("")
        origin = FieldOrigin(frozenset(), whole.bases | whole.parts)
    if "." in name:
        flow.shape.add(name, origin)
    else:
        flow.shape.set(name, origin)
    flow.resize(name, foreign.largest())


def graph_lookup(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    """``$graphLookup``: the foreign documents are filtered and followed by three of its fields."""
    keys = "from startWith connectFromField connectToField as maxDepth depthField restrictSearchWithMatch"
    known = options(spec, at, keys)
    draft.fields.amplifiers.count("$lookup.count", at)
    name = field_name(known.get("as"), f"{at}/as")
    draft.fields.embed(name)
    _embed(place.flow, name, _STORED)
    for key in ("connectFromField", "connectToField"):
        draft.fields.use(field_name(known.get(key), f"{at}/{key}"))
    analyse_expression(draft.fields, known.get("startWith"), f"{at}/startWith")
    if "restrictSearchWithMatch" in known:
        where = f"{at}/restrictSearchWithMatch"
        analyse_filter(draft.fields, an_object(known["restrictSearchWithMatch"], where), where)
    foreign = resolve(known.get("from"), place.database, f"{at}/from")
    draft.touch(AccessKind.READ, foreign, f"{at}/from", SiteForm.GRAPH_RESTRICT)
    return NONE


def union_with(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    """``$unionWith``: a collection, ``{coll, pipeline}``, ``{db, coll, pipeline}``, or ``$documents``."""
    draft.fields.amplifiers.count("$unionWith.count", at)
    flow = place.flow
    flow.limit = None
    if isinstance(spec, str):
        draft.touch(AccessKind.READ, resolve(spec, place.database, at), at, SiteForm.UNION)
        flow.shape.unite(Shape())
        return NONE
    known = options(spec, at, "db coll pipeline")
    if "coll" not in known and "db" not in known:
        return (_nested_documents(known, place, at)._replace(then=_united(flow)),)
    foreign = resolve_pair({"db": place.database, "coll": None, **known}, at)
    draft.touch(AccessKind.READ, foreign, f"{at}/coll", SiteForm.UNION)
    if "pipeline" not in known:
        flow.shape.unite(Shape())
        return NONE
    return (_nested(known["pipeline"], foreign, at, "pipeline")._replace(then=_united(flow)),)


def _united(flow: Flow) -> Callable[[Flow], None]:
    """Return what lets the documents of another pipeline go on beside those of this one."""

    def unite(inner: Flow) -> None:
        flow.shape.unite(inner.shape)
        flow.documents = max(flow.documents, inner.documents)
        for name, copies in inner.sizes.items():
            flow.resize(name, max(copies, flow.sizes.get(name, 1)))

    return unite


def facet(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    """``$facet``: every value is a pipeline on the same collection."""
    flow = place.flow
    flow.limit = None
    pipelines = assignments(spec, at)
    draft.fields.amplifiers.note("$facet.pipelines", len(pipelines), at)
    before, documents, sizes = flow.shape.copy(), flow.documents, dict(flow.sizes)
    flow.shape.close({key: ALL for key, _ in pipelines})
    flow.sizes, flow.documents = {}, 1
    found = []
    for key, pipeline in pipelines:
        draft.fields.embed(key)
        inner = Flow(shape=before.copy(), sizes=dict(sizes), documents=documents)
        where = Place(place.database, place.collection, inner)
        found.append(InnerPipeline(pipeline, where, below(at, key), (key,), _gathered(flow, key)))
    return found


def _gathered(flow: Flow, key: str) -> Callable[[Flow], None]:
    """Return what puts the documents of one pipeline of a ``$facet`` under its name."""

    def gather(inner: Flow) -> None:
        flow.shape.set(key, inner.shape.whole().fixed())
        flow.resize(key, inner.largest())

    return gather


def fuse(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    """``$rankFusion`` and ``$scoreFusion``: every input pipeline runs on the same collection."""
    own = place.own(at)
    known = options(spec, at, "input combination scoreDetails")
    where = f"{at}/input/pipelines"
    pipelines = assignments(
        options(known.get("input"), f"{at}/input", "pipelines normalization").get("pipelines"), where
    )
    draft.fields.amplifiers.note("$facet.pipelines", len(pipelines), where)
    if "combination" in known:
        combination = options(known["combination"], f"{at}/combination", "weights method expression")
        analyse_expression(draft.fields, combination.get("expression"), f"{at}/combination/expression")
        _check_weights(combination, [key for key, _ in pipelines], f"{at}/combination/weights")
    for key, pipeline in pipelines:
        if not isinstance(pipeline, list) or not pipeline:  # mongod 8.2 ends on an empty one (CVE-2026-8063)
            raise malformed(below(where, key), "a pipeline with at least one stage")
        draft.read_again(own, (*draft.path, "input", "pipelines", key))
    inside = Place(place.database, place.collection)
    return [
        InnerPipeline(pipeline, inside, below(where, key), ("input", "pipelines", key), _selected(place.flow))
        for key, pipeline in pipelines
    ]


def _check_weights(combination: JsonObject, names: Sequence[str], at: str) -> None:
    """Hold the weights to the pipelines: a name that is not there takes all of mongod's memory (CVE-2026-13075).

    Raises:
        CommandNotDerivable: a weight of a pipeline that is not there.
    """
    if "weights" in combination:
        for key in an_object(combination["weights"], at):
            if key not in names:
                raise CommandNotDerivable("unknown_option", "There is no pipeline of this name.", below(at, key))


def _selected(flow: Flow) -> Callable[[Flow], None]:
    """Return what keeps the documents as they are: the inner pipelines only choose and rank them."""

    def select(inner: Flow) -> None:
        flow.shape.unknown = flow.shape.unknown or inner.shape.unknown

    return select


def out(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
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


def merge(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    """``$merge`` counts as insert and update of its target with any ``whenMatched``: law 2 before fine distinctions."""
    draft.traits.add(Trait.WRITES_VIA_PIPELINE)
    known: JsonObject = {"into": spec}
    where = at
    if not isinstance(spec, str):
        known = options(spec, at, "into on let whenMatched whenNotMatched")
        where = f"{at}/into"
    _analyse_variables(draft, place, known, at)
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


def _nested_update(known: JsonObject, place: Place, targets: Sequence[Namespace], at: str) -> Sequence[InnerPipeline]:
    update = known.get("whenMatched")
    if not isinstance(update, list):
        for key in ("whenMatched", "whenNotMatched"):
            if not isinstance(known.get(key, ""), str):
                raise malformed(f"{at}/{key}", "a string or, for whenMatched, a pipeline")
        return NONE
    target = targets[0] if targets else Namespace(database=place.database)
    return (_nested(update, target, at, "whenMatched"),)


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


def _analyse_variables(draft: Draft, place: Place, known: JsonObject, at: str) -> None:
    if "let" in known:
        for key, value in assignments(known["let"], f"{at}/let"):
            with draft.fields.reading() as read:
                size = analyse_expression(draft.fields, value, below(f"{at}/let", key))
            draft.fields.variable_sizes[key] = max(size.copies, draft.fields.variable_sizes.get(key, 1))
            origin = place.flow.shape.computed(read)
            draft.fields.variables.setdefault(key, set()).update(origin.parts)


def _nested(pipeline: JsonValue, namespace: Namespace, at: str, key: str) -> InnerPipeline:
    return InnerPipeline(pipeline, Place(namespace.database, namespace.collection), f"{at}/{key}", (key,))


def _nested_documents(known: JsonObject, place: Place, at: str) -> InnerPipeline:
    """Return the pipeline of a join without a collection; it has to bring its own documents."""
    pipeline = known.get("pipeline")
    first = pipeline[0] if isinstance(pipeline, list) and pipeline else None
    if not isinstance(first, dict) or first.keys() != {"$documents"}:
        raise CommandNotDerivable("missing_namespace", "Without a collection the pipeline starts with $documents.", at)
    return InnerPipeline(pipeline, Place(place.database, ""), f"{at}/pipeline", ("pipeline",))
