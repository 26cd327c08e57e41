"""Sort documents: which fields they order by."""

from sidecar.commands.ejson import whole_number
from sidecar.commands.field_log import ROOT, FieldLog
from sidecar.commands.operators import FIELDLESS_META
from sidecar.commands.pointer import below
from sidecar.commands.refusals import an_object, malformed, unknown_operator
from sidecar.model import JsonObject, JsonValue


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
