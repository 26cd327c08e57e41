"""Field analysis: what a command filters, sorts, groups or computes on, and what it can give back.

``use("")`` records the root of the document, and so every field: wherever it cannot be told which fields matter, the
root is recorded. A path that is recorded covers all paths below it, so aliases need no tracking beyond their source:
whoever renames ``person`` has used ``person``, and with it ``person.ssn``. Only names under which a *foreign* document
is embedded (``as`` of ``$lookup``) are tracked, because there the path changes without any field being used.

Source: MongoDB manual 8.x, "Aggregation Expressions", "Project Fields to Return"; reference, sections 2.2 and 10.7.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sidecar.commands.arguments import is_number
from sidecar.commands.ejson import REFERENCE_KEYS, is_typed, whole_number
from sidecar.commands.operators import (
    EXPRESSION,
    FIELDLESS_META,
    QUERY_COMPARISON,
    QUERY_FIELD,
    QUERY_HARMLESS,
    QUERY_LOGICAL,
    QUERY_WHOLE,
)
from sidecar.commands.pointer import below
from sidecar.commands.values import hold_to_data
from sidecar.errors import CommandNotDerivable
from sidecar.model import JsonObject, JsonValue

MAX_PATHS: Final = 256
"""Distinct fields that are told apart; beyond it a command counts as using every field."""

MAX_PATH_LENGTH: Final = 512
"""Characters of a field path that is told apart."""

MAX_EMBEDDED: Final = 64
"""Names of embedded foreign documents that are told apart; beyond it a command counts as using every field."""

ROOT: Final = ""
"""The path of the document itself."""


class FieldLog:
    """Collects the paths that a command uses, from the root of whichever document they are in."""

    __slots__ = ("_embedded", "_used")

    def __init__(self) -> None:
        self._used: dict[str, None] = {}
        self._embedded: list[str] = []

    @property
    def used(self) -> tuple[str, ...]:
        """Every path, each once, in the order of reading; only the root, if it is among them."""
        return (ROOT,) if ROOT in self._used else tuple(self._used)

    def embed(self, name: str) -> None:
        """Note that foreign documents stand under ``name``: paths into them are recorded from their own root too."""
        if ROOT in self._used or name in self._embedded:
            return
        if len(self._embedded) == MAX_EMBEDDED:
            self.use(ROOT)
            return
        self._embedded.append(name)
        for path in tuple(self._used):  # a path read before may be read again, and mean the foreign document then
            for other in _seen_through(name, path):
                self.use(other)

    def use(self, path: str) -> None:
        """Record one dotted path, also without its array positions (``a.0.b``, ``a.$[].b``)."""
        used = self._used
        found = [path]
        while found and ROOT not in used:
            path = found.pop()
            if path in used:
                continue
            if not path or len(path) > MAX_PATH_LENGTH or len(used) >= MAX_PATHS:
                used[ROOT] = None
                return
            used[path] = None
            if "." in path:
                found.append(".".join(part for part in path.split(".") if not _is_position(part)))
            for name in self._embedded:
                found += _seen_through(name, path)


def _is_position(part: str) -> bool:
    return part.isdigit() or part.startswith("$")


def _seen_through(name: str, path: str) -> tuple[str, ...]:
    """Return what ``path`` means in the foreign documents that stand under ``name``, if it leads there."""
    if path == name or name.startswith(path + "."):
        return (ROOT,)
    return (path[len(name) + 1 :],) if path.startswith(name + ".") else ()


def analyse_filter(log: FieldLog, query: JsonObject, at: str, prefix: str = "") -> None:
    """Record the fields of a query predicate; ``prefix`` ends with a dot or is empty.

    Raises:
        CommandNotDerivable: an operator that is not in the tables, or one that is not of its form.
    """
    for key, value in query.items():
        if key.startswith("$") and key not in REFERENCE_KEYS:
            _analyse_clause(log, key, value, below(at, key), prefix)
            continue
        log.use(prefix + key)
        if isinstance(value, dict):
            _analyse_conditions(log, value, below(at, key), prefix + key)
        elif isinstance(value, list):
            hold_to_data(value, below(at, key))


def _analyse_clause(log: FieldLog, key: str, value: JsonValue, at: str, prefix: str) -> None:
    if key in QUERY_LOGICAL:
        if not isinstance(value, list):
            raise malformed(at, "a list of filters")
        for index, clause in enumerate(value):
            analyse_filter(log, an_object(clause, f"{at}/{index}"), f"{at}/{index}", prefix)
    elif key == "$expr":
        analyse_expression(log, value, at)
    elif key in QUERY_WHOLE:
        log.use(ROOT)
    elif key not in QUERY_HARMLESS:
        raise unknown_operator(key, at)


def _analyse_conditions(log: FieldLog, conditions: JsonObject, at: str, path: str) -> None:
    """Check the operators on one field. The field itself is recorded, and so is everything below it."""
    operators = [key for key in conditions if key.startswith("$")]
    if not operators or is_typed(conditions) or {"$ref", "$id"} <= conditions.keys():
        hold_to_data(conditions, at)
        return
    if len(operators) != len(conditions):
        raise CommandNotDerivable("mixed_operators", "An object has either operators or fields, not both.", at)
    for key, value in conditions.items():
        if key not in QUERY_FIELD:
            raise unknown_operator(key, below(at, key))
        if isinstance(value, dict | list):
            _analyse_operand(log, key, value, below(at, key), path)


def _analyse_operand(log: FieldLog, key: str, value: JsonObject | list[JsonValue], at: str, path: str) -> None:
    if key in QUERY_COMPARISON:
        hold_to_data(value, at)
    elif isinstance(value, list):
        if key == "$all":
            for index, item in enumerate(value):
                _analyse_all(log, item, f"{at}/{index}", path)
    elif key == "$elemMatch":
        analyse_element(log, value, at, path)
    elif key == "$not":
        _analyse_conditions(log, value, at, path)


def _analyse_all(log: FieldLog, item: JsonValue, at: str, path: str) -> None:
    """One element of ``$all``: a value, or conditions on one element of the array."""
    if isinstance(item, dict) and item.keys() == {"$elemMatch"} and isinstance(item["$elemMatch"], dict):
        analyse_element(log, item["$elemMatch"], f"{at}/$elemMatch", path)
    else:
        hold_to_data(item, at)


def analyse_element(log: FieldLog, value: JsonObject, at: str, path: str) -> None:
    """Record the fields of conditions on one element of the array at ``path``, or of a filter on its fields."""
    if any(key in QUERY_FIELD for key in value):
        _analyse_conditions(log, value, at, path)
    else:
        analyse_filter(log, value, at, path + ".")


def analyse_expression(log: FieldLog, value: JsonValue, at: str) -> None:
    """Record the fields of an aggregation expression.

    Raises:
        CommandNotDerivable: an operator that is not in the table, or several in one object.
    """
    if isinstance(value, str):
        if value.startswith("$"):
            _analyse_reference(log, value)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            analyse_expression(log, item, f"{at}/{index}")
    elif isinstance(value, dict):
        _analyse_object(log, value, at)


def _analyse_reference(log: FieldLog, value: str) -> None:
    if not value.startswith("$$"):
        log.use(value[1:])
        return
    name, _, rest = value[2:].partition(".")
    if name in _DOCUMENT_VARIABLES:
        log.use(rest)


_DOCUMENT_VARIABLES: Final = frozenset({"ROOT", "CURRENT", "new"})
"""Variables that hold a whole document. A user's own variable holds what its definition has used already."""


def _analyse_object(log: FieldLog, value: JsonObject, at: str) -> None:
    operator = next((key for key in value if key.startswith("$")), None)
    if operator is None:
        for key, item in value.items():
            analyse_expression(log, item, below(at, key))
        return
    if is_typed(value):
        return
    if len(value) != 1:
        raise CommandNotDerivable("mixed_operators", "An expression object has exactly one operator.", at)
    if operator not in EXPRESSION:
        raise unknown_operator(operator, below(at, operator))
    rule = _EXPRESSION_RULES.get(operator, analyse_expression)
    rule(log, value[operator], below(at, operator))


def _analyse_literal(_log: FieldLog, _value: JsonValue, _at: str) -> None:
    """``$literal``: nothing inside is evaluated."""


def _analyse_get_field(log: FieldLog, value: JsonValue, at: str) -> None:
    """``$getField``: a field named by a literal of the current document, or else whatever the name evaluates to."""
    spec = value if isinstance(value, dict) and "field" in value else {"field": value}
    field, source = spec["field"], spec.get("input", "$$CURRENT")
    if isinstance(field, dict) and field.keys() == {"$literal"}:
        field = field["$literal"]
        literal = isinstance(field, str)
    else:
        literal = isinstance(field, str) and not field.startswith("$")
    if literal and isinstance(field, str) and source in ("$$CURRENT", "$$ROOT"):
        log.use(field)
        return
    analyse_expression(log, source, at)
    if not literal:
        log.use(ROOT)


def _analyse_meta(log: FieldLog, value: JsonValue, _at: str) -> None:
    if not isinstance(value, str) or value not in FIELDLESS_META:
        log.use(ROOT)


def _analyse_top(log: FieldLog, value: JsonValue, at: str) -> None:
    """``$top`` and its kin: the keys of ``sortBy`` are fields of the grouped documents."""
    if isinstance(value, dict) and isinstance(value.get("sortBy"), dict):
        analyse_sort(log, value["sortBy"], below(at, "sortBy"))
        value = {key: item for key, item in value.items() if key != "sortBy"}
    analyse_expression(log, value, at)


_EXPRESSION_RULES: Final[Mapping[str, Callable[[FieldLog, JsonValue, str], None]]] = {
    "$literal": _analyse_literal,
    "$const": _analyse_literal,
    "$getField": _analyse_get_field,
    "$meta": _analyse_meta,
    "$top": _analyse_top,
    "$topN": _analyse_top,
    "$bottom": _analyse_top,
    "$bottomN": _analyse_top,
}


def analyse_sort(log: FieldLog, value: JsonValue, at: str) -> None:
    """Record the keys of a sort document.

    Raises:
        CommandNotDerivable: not an object, a key that starts with ``$`` (other than ``$natural``), or a direction that
            is neither a number or word nor one ``$meta``.
    """
    for key, direction in an_object(value, at).items():
        if isinstance(direction, dict) and whole_number(direction) is not None:
            direction = 1  # noqa: PLW2901  # a typed number says no more than a plain one
        if isinstance(direction, list) or (isinstance(direction, dict) and direction.keys() != {"$meta"}):
            raise malformed(below(at, key), "1, -1 or one $meta")
        if key == "$natural":
            continue
        if key.startswith("$"):
            raise unknown_operator(key, below(at, key))
        log.use(ROOT if isinstance(direction, dict) and not _is_plain_meta(direction) else key)


def _is_plain_meta(direction: JsonObject) -> bool:
    meta = direction.get("$meta")
    return len(direction) == 1 and isinstance(meta, str) and meta in FIELDLESS_META


@dataclass(slots=True)
class Projection:
    """What the leaves of a projection say."""

    included: dict[str, None]
    computes: bool = False
    excludes_id: bool = False
    unclear: bool = False

    def returned(self) -> dict[str, None] | None:
        """The included paths with ``_id``, or None where every other field is returned too."""
        if self.unclear or not self.included:
            return None
        return self.included if self.excludes_id or "_id" in self.included else {"_id": None, **self.included}


def analyse_projection(log: FieldLog, projection: JsonObject, at: str) -> Projection:
    """Record what a projection computes on, and read what it lets through.

    Only a projection with at least one plain inclusion, and nothing but inclusions and computed fields besides
    ``_id: 0``, narrows what is returned: ``{items: {$slice: 1}}``, ``{m: {$meta: …}}`` and ``{items: {sku: 0}}`` look
    inclusive and are not (reference, 10.7).
    """
    found = Projection({})
    _analyse_level(log, projection, at, "", found)
    return found


def _analyse_level(log: FieldLog, level: JsonObject, at: str, prefix: str, found: Projection) -> None:
    for key, value in level.items():
        where = below(at, key)
        if key.startswith("$"):
            raise unknown_operator(key, where)
        path = prefix + key.removesuffix(".$")
        if isinstance(value, bool) or is_number(value):
            _analyse_flag(bool(value), path, found)
        elif isinstance(value, dict) and not any(inner.startswith("$") for inner in value):
            found.unclear = found.unclear or not value
            _analyse_level(log, value, where, path + ".", found)
        else:
            _analyse_computed(log, value, where, path, found)


def _analyse_flag(keep: bool, path: str, found: Projection) -> None:  # noqa: FBT001  # the value of the projection itself
    if keep:
        found.included[path] = None
    elif path == "_id":
        found.excludes_id = True
    else:
        found.unclear = True


def _analyse_computed(log: FieldLog, value: JsonValue, at: str, path: str, found: Projection) -> None:
    found.computes = True
    if value is None:
        found.unclear = True
    elif isinstance(value, dict) and next(iter(value)) in ("$slice", "$elemMatch", "$meta"):
        found.unclear = True
        log.use(path)
        if "$elemMatch" in value:
            _analyse_conditions(log, value, at, path)
        else:
            analyse_expression(log, value, at)
    else:
        found.unclear = found.unclear or (isinstance(value, dict) and is_typed(value))
        analyse_expression(log, value, at)


def an_object(value: JsonValue, at: str) -> JsonObject:
    """Return ``value`` if it is an object that the server keeps as one.

    Raises:
        CommandNotDerivable: it is something else, or an EJSON type.
    """
    if not isinstance(value, dict) or is_typed(value):
        raise malformed(at, "an object")
    return value


def malformed(at: str, wanted: str) -> CommandNotDerivable:
    """Return the refusal of a part that has another form than the manual gives it."""
    return CommandNotDerivable("malformed", f"This must be {wanted}.", at)


def unknown_operator(key: str, at: str) -> CommandNotDerivable:
    """Return the refusal of an operator that is not in the table for this place."""
    return CommandNotDerivable("unknown_operator", f"The operator {key[:64]} is not known here.", at)
