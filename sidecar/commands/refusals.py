"""The refusals that all rules of this room share."""

from sidecar.commands.ejson import is_typed
from sidecar.commands.pointer import below
from sidecar.errors import CommandNotDerivable
from sidecar.model import JsonObject, JsonValue


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


def held(value: JsonValue, at: str, known: str) -> JsonObject:
    """Return ``value`` if it is an object with no other keys than these, separated by spaces.

    Raises:
        CommandNotDerivable: not an object, or a key that is not known.
    """
    found = an_object(value, at)
    names = known.split()
    for key in found:
        if key not in names:
            raise CommandNotDerivable("unknown_option", "This has no such option here.", below(at, key))
    return found
