"""What OPA's validator finds in the platform's data, in the words of its author."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sidecar.policyset.names import cut, nearest

_ADDITIONAL: Final = ("Additional property ", " is not allowed")
_ONE_OF: Final = " must be one of the following: "
_TOO_FEW: Final = "Must have at least "
_REQUIRED: Final = " is required"


class SchemaProblems:
    """Reads findings of ``json.match_schema``.

    Args:
        schema: of the data.
        data: that was held to it.
    """

    def __init__(self, schema: Any, data: Any) -> None:
        self._schema = schema
        self._data = data

    def told(self, problems: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Yield place and message of each that says something by itself; both are of the validator."""
        incomplete = {field for field, said in problems if said.endswith(_REQUIRED)}
        for field, said in problems:
            if not (said.startswith(_TOO_FEW) and said.endswith(" properties") and field in incomplete):
                try:
                    yield field, self._in_words(field, said)
                except (AttributeError, TypeError):
                    yield field, said  # a set may have a schema of its own, of a form that is not read here

    def _in_words(self, field: str, said: str) -> str:
        steps = field.split(".")
        schema = next(self._schemas(self._schema, steps), {})
        properties = schema.get("properties", {})
        match said:
            case _ if said.startswith(_ADDITIONAL[0]) and said.endswith(_ADDITIONAL[1]):
                name = said.removeprefix(_ADDITIONAL[0]).removesuffix(_ADDITIONAL[1])
                known = f": there are {', '.join(properties)}" if properties else ""
                return f"there is no {cut(name)} here{nearest(name, properties) or known}"
            case _ if _ONE_OF in said:
                value = _at(self._data, steps)
                listed = said.partition(_ONE_OF)[2].replace('"', "")
                advice = nearest(value, listed.split(", ")) if isinstance(value, str) else ""
                given = cut(value) if isinstance(value, str) else "this"
                return f"{given} is none of {listed}{advice}"
            case _ if said.startswith(_TOO_FEW) and said.endswith(" properties"):
                optional = [name for name in properties if name not in schema.get("required", ())]
                return f"one of these is needed: {', '.join(optional)}" if optional else said
            case _:
                return said

    def _schemas(self, schema: Any, steps: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the schemas of what steps lead to; references are to definitions of the same schema."""
        schema = self._resolved(schema)
        if not isinstance(schema, dict):
            return
        if not steps:
            yield schema
            return
        below = schema.get("properties", {}).get(steps[0])
        if below is None and steps[0].isdigit() and "items" in schema:
            below = schema["items"]
        yield from self._schemas(schema.get("additionalProperties") if below is None else below, steps[1:])

    def _resolved(self, schema: Any) -> Any:
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        if isinstance(reference, str) and reference.startswith("#/$defs/"):
            return self._schema.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
        return schema


def _at(data: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        if isinstance(data, list) and step.isdigit() and int(step) < len(data):
            data = data[int(step)]
        elif isinstance(data, Mapping):
            data = data.get(step)
        else:
            return None
    return data
