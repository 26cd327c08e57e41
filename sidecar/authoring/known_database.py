"""What is left of a condition once the database is known: it holds, it does not, or it is about more than that."""

from collections.abc import Callable, Mapping
from typing import Any, Final

_DATABASE: Final = ("input", "access", "database")

_COMPARED: Final[Mapping[tuple[str, ...], Callable[[Any, Any], bool]]] = {
    ("eq",): lambda left, right: left == right,
    ("equal",): lambda left, right: left == right,
    ("neq",): lambda left, right: left != right,
    ("startswith",): lambda text, start: str(text).startswith(start),
    ("endswith",): lambda text, end: str(text).endswith(end),
    ("contains",): lambda text, part: part in text,
    ("internal", "member_2"): lambda one, many: one in many,
}


def settled(expression: Any, database: str) -> bool | None:
    """Return whether an expression about the database alone holds; None where it is about more, or not known here."""
    match expression:
        case {"terms": [operator, *arguments], **rest} if not rest.keys() - {"index", "negated"}:
            known = _holds(_path(operator), arguments, database)
            return known if known is None or not rest.get("negated") else not known
        case _:
            return None


def database_glob(expression: Any) -> str | None:
    """Return the pattern of ``glob.match(<pattern>, null, input.access.database)``; None of everything else."""
    match expression:
        case {"terms": [operator, {"type": "string", "value": str(pattern)}, {"type": "null"}, name], **rest} if (
            not rest.keys() - {"index"} and (_path(operator), _path(name)) == (("glob", "match"), _DATABASE)
        ):
            return pattern
        case _:
            return None


def _holds(operator: tuple[str, ...], arguments: list[Any], database: str) -> bool | None:
    if operator == ("is_string",) and [_path(one) for one in arguments] == [_DATABASE]:
        return True
    compare = _COMPARED.get(operator)
    match arguments:
        case [left, right] if compare is not None and _DATABASE in {_path(left), _path(right)}:
            known = [_constant(one, database) for one in (left, right)]
            return None if None in known else compare(*known)
        case _:
            return None


def _constant(term: Any, database: str) -> Any:
    match term:
        case {"type": "string", "value": str(text)}:
            return text
        case {"type": "array" | "set", "value": list(items)}:
            texts = [_constant(item, database) for item in items]
            return texts if all(isinstance(text, str) for text in texts) else None
        case _:
            return database if _path(term) == _DATABASE else None


def _path(term: Any) -> tuple[str, ...]:
    match term:
        case {"type": "ref", "value": list(parts)}:
            return tuple(str(part.get("value")) for part in parts)
        case _:
            return ()
