"""Field analysis: what a command filters, sorts, groups or computes on, and what it can give back.

``use("")`` records the root of the document, and so every field: wherever it cannot be told which fields matter, the
root is recorded. A path that is recorded covers all paths below it, so aliases need no tracking beyond their source:
a stage that renames ``person`` has used ``person``, and with it ``person.ssn``. Only names under which a *foreign*
document is embedded (``as`` of ``$lookup``) are tracked, because there the path changes without any field being used.

Source: MongoDB manual 8.x, "Aggregation Expressions", "Project Fields to Return"; reference, sections 2.2 and 10.7.
"""

from typing import Final

from sidecar.commands.amplifiers import MOST
from sidecar.commands.computed import analyse_expression
from sidecar.commands.ejson import REFERENCE_KEYS, is_typed
from sidecar.commands.field_log import ROOT, FieldLog
from sidecar.commands.operators import QUERY_COMPARISON, QUERY_FIELD, QUERY_HARMLESS, QUERY_LOGICAL, QUERY_WHOLE
from sidecar.commands.pointer import below
from sidecar.commands.refusals import an_object, malformed, unknown_operator
from sidecar.commands.values import hold_to_data
from sidecar.errors import CommandNotDerivable
from sidecar.model import JsonObject, JsonValue

_LEAST_COMBINATIONS: Final = 100
"""Combinations are noted from here on; every filter has a few."""


def analyse_filter(log: FieldLog, query: JsonObject, at: str, prefix: str = "") -> int:
    """Record the fields of a query predicate; ``prefix`` ends with a dot or is empty.

    Returns:
        In how many ways its alternatives can be combined: the query planner of some servers writes them all down
        (CVE-2026-1850).

    Raises:
        CommandNotDerivable: an operator that is not in the tables, or one that is not of its form.
    """
    combinations = 1
    for key, value in query.items():
        if key.startswith("$") and key not in REFERENCE_KEYS:
            combinations = min(combinations * _analyse_clause(log, key, value, below(at, key), prefix), MOST)
            continue
        log.use(prefix + key)
        if isinstance(value, dict):
            analyse_conditions(log, value, below(at, key), prefix + key)
        elif isinstance(value, list):
            hold_to_data(value, below(at, key))
    if combinations > _LEAST_COMBINATIONS:
        log.amplifiers.note("$or.combinations", combinations, at)
    return combinations


def _analyse_clause(log: FieldLog, key: str, value: JsonValue, at: str, prefix: str) -> int:
    if key in QUERY_LOGICAL:
        return _analyse_alternatives(log, key, value, at, prefix)
    if key == "$expr":
        analyse_expression(log, value, at)
    elif key in QUERY_WHOLE:
        log.use(ROOT)
        if key == "$jsonSchema":
            log.amplifiers.note("$jsonSchema.depth", _depth(value), at)
    elif key not in QUERY_HARMLESS:
        raise unknown_operator(key, at)
    return 1


def _analyse_alternatives(log: FieldLog, key: str, value: JsonValue, at: str, prefix: str) -> int:
    if not isinstance(value, list):
        raise malformed(at, "a list of filters")
    combinations = 0 if key == "$or" else 1
    for index, clause in enumerate(value):
        where = f"{at}/{index}"
        inner = an_object(clause, where)
        ways = analyse_filter(log, inner, where, prefix)
        if key == "$or":
            combinations += ways
        else:
            combinations = min(combinations * (ways if key == "$and" else max(ways, len(inner))), MOST)
    return combinations or 1


def _depth(value: JsonValue) -> int:
    """Return how many containers are inside one another; the scan has bounded them."""
    level, depth = [value], 0
    while level:
        level = [
            child
            for node in level
            if isinstance(node, (dict, list))
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
        depth += 1
    return depth


def analyse_conditions(log: FieldLog, conditions: JsonObject, at: str, path: str) -> None:
    """Check the operators on one field. The field itself is recorded, and so is everything below it.

    Raises:
        CommandNotDerivable: an operator that is not known, or one that is not of its form.
    """
    operators = [key for key in conditions if key.startswith("$")]
    if not operators or is_typed(conditions) or {"$ref", "$id"} <= conditions.keys():
        hold_to_data(conditions, at)
        return
    if len(operators) != len(conditions):
        raise CommandNotDerivable("mixed_operators", "An object has either operators or fields, not both.", at)
    for key, value in conditions.items():
        if key not in QUERY_FIELD:
            raise unknown_operator(key, below(at, key))
        if isinstance(value, (dict, list)):
            _analyse_operand(log, key, value, below(at, key), path)


_POSITIONS: Final = frozenset({"$bitsAllSet", "$bitsAnySet", "$bitsAllClear", "$bitsAnyClear"})
"""CVE-2026-8199: the memory that a list of bit positions takes while it is read."""


def _analyse_operand(log: FieldLog, key: str, value: JsonObject | list[JsonValue], at: str, path: str) -> None:
    if key in QUERY_COMPARISON:
        hold_to_data(value, at)
    elif isinstance(value, list):
        if key == "$all":
            for index, item in enumerate(value):
                _analyse_all(log, item, f"{at}/{index}", path)
        elif key in _POSITIONS:
            log.amplifiers.note("$bitsAllSet.positions", len(value), at)
    elif key == "$elemMatch":
        analyse_element(log, value, at, path)
    elif key == "$not":
        analyse_conditions(log, value, at, path)


def _analyse_all(log: FieldLog, item: JsonValue, at: str, path: str) -> None:
    """One element of ``$all``: a value, or conditions on one element of the array."""
    if isinstance(item, dict) and item.keys() == {"$elemMatch"} and isinstance(item["$elemMatch"], dict):
        analyse_element(log, item["$elemMatch"], f"{at}/$elemMatch", path)
    else:
        hold_to_data(item, at)


def analyse_element(log: FieldLog, value: JsonObject, at: str, path: str) -> None:
    """Record the fields of conditions on one element of the array at ``path``, or of a filter on its fields."""
    if any(key in QUERY_FIELD for key in value):
        analyse_conditions(log, value, at, path)
    else:
        analyse_filter(log, value, at, path + ".")
