"""Projections: what they compute, and what they let through.

Whether a projection includes or excludes is told as mongod tells it (``projection_parser.cpp``, 4.4 and later): a plain
inclusion, a computed field or a literal makes it inclusive; a field that is switched off, ``_id`` apart, exclusive. Of
what remains, ``$meta`` alone includes in ``$project`` and not in ``find``; ``{items: {$slice: 1}}`` in ``find`` and
``{items: {sku: 0}}`` look inclusive and are not (reference, 10.7). Where it cannot be told, every field passes.
"""

from dataclasses import dataclass, field

from sidecar.commands.amplifiers import literal_number
from sidecar.commands.arguments import is_number
from sidecar.commands.computed import analyse_expression, grown
from sidecar.commands.ejson import is_typed
from sidecar.commands.field_log import FieldLog
from sidecar.commands.fields import analyse_conditions
from sidecar.commands.operators import first_operator
from sidecar.commands.place import Flow
from sidecar.commands.pointer import below
from sidecar.commands.refusals import unknown_operator
from sidecar.commands.shape import NOTHING, FieldOrigin, Shape
from sidecar.model import JsonObject, JsonValue


@dataclass(slots=True)
class _Found:
    """What the leaves of a projection say."""

    log: FieldLog
    shape: Shape
    is_find: bool
    included: dict[str, FieldOrigin] = field(default_factory=dict)
    excluded: list[str] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    includes: bool = False
    """A leaf says that only what is named goes on."""
    excludes_id: bool = False
    unclear: bool = False


def project(log: FieldLog, projection: JsonObject, at: str, flow: Flow, *, is_find: bool = False) -> None:
    """Record what a projection computes on, and let through what it lets through.

    Args:
        log: where to record.
        projection: of ``find``, or of ``$project``.
        at: where it stands.
        flow: the documents before it, and after it.
        is_find: it is the one of ``find``, which has operators of its own and is not read as Extended JSON.

    Raises:
        CommandNotDerivable: an operator that is not known.
    """
    found = _Found(log, flow.shape, is_find)
    _level(found, projection, at, "")
    only_id = not found.excluded and "_id" in found.included
    if found.unclear or not (found.includes or only_id) or (found.includes and found.excluded):
        for path in found.excluded:
            flow.shape.drop(path)
        for path, origin in found.included.items():
            flow.shape.add(path, origin)
        return
    names = found.included
    if not found.excludes_id and "_id" not in names:
        names = {"_id": flow.shape.origin("_id"), **names}
    flow.shape.close(names)
    default = flow.sizes.get("", 1)
    firsts = {name.partition(".")[0] for name in names}
    kept = {name: flow.sizes.get(name, default) for name in firsts if default > 1 or name in flow.sizes}
    flow.sizes = kept | found.sizes


def _level(found: _Found, level: JsonObject, at: str, prefix: str) -> None:
    for key, value in level.items():
        if key.startswith("$"):
            raise unknown_operator(key, below(at, key))
        path = prefix + key.removesuffix(".$")
        if isinstance(value, bool):
            _flag(found, path, keep=value)
            continue
        number = value if found.is_find and is_number(value) else (None if found.is_find else literal_number(value))
        if number is not None and not (isinstance(value, dict) and "$literal" in value):
            _flag(found, path, keep=bool(number))
        elif isinstance(value, dict) and not first_operator(value):
            found.unclear = found.unclear or not value
            _level(found, value, below(at, key), path + ".")
        else:
            _computed(found, value, below(at, key), path)


def _flag(found: _Found, path: str, *, keep: bool) -> None:
    if keep:
        found.included[path] = found.shape.origin(path)
        found.includes = found.includes or path != "_id"
    elif path == "_id":
        found.excludes_id = True
    else:
        found.excluded.append(path)


def _computed(found: _Found, value: JsonValue, at: str, path: str) -> None:
    operator = next(iter(value)) if isinstance(value, dict) else ""
    if found.is_find and operator in ("$slice", "$elemMatch"):
        found.included[path] = found.shape.origin(path)
        found.log.use(path)
        if operator == "$elemMatch":
            analyse_conditions(found.log, {operator: value[operator]} if isinstance(value, dict) else {}, at, path)
            return
    elif value is None or (isinstance(value, dict) and is_typed(value)):
        found.unclear = True
        return
    elif operator != "$meta" or not found.is_find:
        found.includes = True
    origin, copies = read_value(found.log, value, at, found.shape)
    found.sizes[path.partition(".")[0]] = copies
    if path not in found.included:
        found.included[path] = origin


def read_value(log: FieldLog, value: JsonValue, at: str, shape: Shape) -> tuple[FieldOrigin, int]:
    """Record what one computed field reads; return what it is made of, and its size."""
    if isinstance(value, str) and value.startswith("$") and not value.startswith("$$"):
        copies = analyse_expression(log, value, at).copies
        return shape.origin(value[1:]), copies
    with log.reading() as read:
        copies = analyse_expression(log, value, at).copies
    grown(log, log.repeated * copies, at)
    return (shape.computed(read) if read.paths or read.origins else NOTHING), copies
