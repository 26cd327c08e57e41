"""Options of stages: closed key lists, plain field names, computed fields."""

from collections.abc import ItemsView
from functools import cache

from sidecar.commands.ejson import is_typed
from sidecar.commands.pointer import below
from sidecar.commands.refusals import an_object, malformed, unknown_operator
from sidecar.errors import CommandNotDerivable
from sidecar.model import JsonObject, JsonValue


def options(spec: JsonValue, at: str, known: str) -> JsonObject:
    """Return the options of a stage.

    Args:
        spec: the stage's value.
        at: where it stands.
        known: the names of all options, separated by spaces.

    Raises:
        CommandNotDerivable: not an object, or an option that is not known.
    """
    found = an_object(spec, at)
    names = _names(known)
    for key in found:
        if key not in names:
            raise CommandNotDerivable("unknown_option", "This stage has no such option here.", below(at, key))
    return found


@cache
def _names(known: str) -> frozenset[str]:
    """Split the names of options; there are as many lists of them as stages."""
    return frozenset(known.split())


def plain(spec: JsonValue, at: str) -> None:
    """Hold the options of a stage to plain values: no key at any depth is an operator's. Extended JSON is a value.

    Raises:
        CommandNotDerivable: a key that starts with ``$``.
    """
    stack = [spec]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if is_typed(node):
                continue
            for key in node:
                if key.startswith("$"):
                    raise unknown_operator(key, at)
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)


def assignments(spec: JsonValue, at: str) -> ItemsView[str, JsonValue]:
    """Return the (field, expression) pairs of a stage that computes fields.

    Raises:
        CommandNotDerivable: not an object, or a field that starts with ``$``.
    """
    found = an_object(spec, at)
    for key in found:
        if key.startswith("$"):
            raise unknown_operator(key, below(at, key))
    return found.items()


def field_name(value: JsonValue, at: str) -> str:
    """Return a plain field path.

    Raises:
        CommandNotDerivable: not a string, empty, or an expression.
    """
    if not isinstance(value, str) or not value or value.startswith("$"):
        raise malformed(at, "a field path without a leading $")
    return value


def field_names(value: JsonValue, at: str) -> list[str]:
    """Return one or several plain field paths.

    Raises:
        CommandNotDerivable: as for ``field_name``.
    """
    if isinstance(value, list):
        return [field_name(item, f"{at}/{index}") for index, item in enumerate(value)]
    return [field_name(value, at)]
