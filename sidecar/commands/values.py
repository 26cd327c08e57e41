"""Plain data inside a command: what is stored, and what stored values are compared with.

One rule for all of it: a key that starts with ``$`` belongs to a typed value or a DBRef. MongoDB takes any other for a
field's name, and so would compare with, or store, something that the caller did not mean (``{"$gt": {"$Date": …}}``).
"""

from sidecar.commands.ejson import REFERENCE_KEYS, is_typed
from sidecar.commands.pointer import below
from sidecar.errors import CommandNotDerivable
from sidecar.model import JsonValue


def hold_to_data(value: JsonValue, at: str, reason: str = "operator_in_value") -> None:
    """Return if nothing inside a scanned value could be taken for an operator.

    Raises:
        CommandNotDerivable: an object has a ``$`` key that is not one of a typed value or a DBRef.
    """
    if isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, (dict, list)):
                hold_to_data(item, f"{at}/{index}", reason)
    elif isinstance(value, dict) and not is_typed(value):
        for key, item in value.items():
            if key.startswith("$") and key not in REFERENCE_KEYS:
                raise CommandNotDerivable(reason, "In data only typed values have keys with $.", below(at, key))
            if isinstance(item, (dict, list)):
                hold_to_data(item, below(at, key), reason)
