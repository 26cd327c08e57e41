"""Analysis of update documents: what they change, and what they store.

Source: MongoDB manual 8.x, "Update Operators".
"""

from sidecar.commands.ejson import is_typed
from sidecar.commands.field_log import ROOT, FieldLog
from sidecar.commands.fields import analyse_element
from sidecar.commands.operators import UPDATE, UPDATE_MODIFIED, UPDATE_MODIFIERS, UPDATE_STORED
from sidecar.commands.pointer import below
from sidecar.commands.refusals import an_object, unknown_operator
from sidecar.commands.values import hold_to_data
from sidecar.model import JsonObject, JsonValue


def analyse_update(log: FieldLog, update: JsonObject, at: str) -> None:
    """Record every field that an update document touches: the count of changed documents tells of each.

    Raises:
        CommandNotDerivable: a replacement document, an unknown operator, or an operator whose value is no object.
    """
    for operator, changes in update.items():
        where = below(at, operator)
        if operator not in UPDATE:
            raise unknown_operator(operator, where)
        for path, value in an_object(changes, where).items():
            if path.startswith("$"):
                raise unknown_operator(path, below(where, path))
            log.use(path)
            if operator == "$rename" and isinstance(value, str):
                log.use(value)
            elif isinstance(value, (dict, list)):
                _analyse_change(log, operator, value, below(where, path), path)


def _analyse_change(log: FieldLog, operator: str, value: JsonObject | list[JsonValue], at: str, path: str) -> None:
    """Hold what is stored to data, as documents to be inserted are; ``$pull`` has conditions instead."""
    if operator == "$pull":
        if isinstance(value, dict) and not is_typed(value):
            below_path = FieldLog()  # all but the whole document is covered by the path itself
            analyse_element(below_path, value, at, path)
            if ROOT in below_path.used:
                log.use(ROOT)
        return
    if operator in UPDATE_MODIFIED and isinstance(value, dict) and "$each" in value:
        for key in value:
            if key not in UPDATE_MODIFIERS:
                raise unknown_operator(key, below(at, key))
        hold_to_data(value["$each"], f"{at}/$each", "operator_in_document")
    elif operator in UPDATE_STORED:
        hold_to_data(value, at, "operator_in_document")
