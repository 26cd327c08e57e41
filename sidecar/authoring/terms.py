"""OPA's syntax tree as text that its author would recognise; for reading, never for evaluation."""

from typing import Any, Final

import msgspec

_INFIX: Final = {
    "eq": "==",
    "equal": "==",
    "neq": "!=",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
    "plus": "+",
    "minus": "-",
    "mul": "*",
    "div": "/",
    "rem": "%",
    "internal.member_2": "in",
}


def render_expression(expression: Any) -> str:
    """Write one expression; what this page does not know is written as an ellipsis."""
    match expression:
        case {"with": list()}:
            return "… with …"
        case {"terms": terms, **rest}:
            return ("not " if rest.get("negated") else "") + _terms(terms)
        case _:
            return "…"


def render_term(term: Any) -> str:
    """Write one term."""
    match term:
        case {"type": "ref", "value": [head, *rest]}:
            return render_term(head) + "".join(_step(part) for part in rest)
        case {"type": "var", "value": str(name)}:
            return "_" if name.startswith(("$", "__")) else name
        case {"type": "array", "value": list(items)}:
            return f"[{', '.join(map(render_term, items))}]"
        case {"type": "set", "value": list(items)}:
            return f"{{{', '.join(map(render_term, items))}}}"
        case {"type": "object", "value": list(members)}:
            return f"{{{', '.join(f'{render_term(key)}: {render_term(value)}' for key, value in members)}}}"
        case {"type": "call", "value": list(terms)}:
            return _terms(terms)
        case {"type": "string" | "number" | "boolean" | "null"}:
            return msgspec.json.encode(term.get("value")).decode()
        case _:
            return "…"


def value_of(term: Any) -> Any:
    """Return a constant term as a value; what is not constant stands as its text in angle brackets."""
    match term:
        case {"type": "object", "value": list(members)}:
            return {str(value_of(key)): value_of(value) for key, value in members}
        case {"type": "array" | "set", "value": list(items)}:
            return [value_of(item) for item in items]
        case {"type": "string" | "number" | "boolean" | "null"}:
            return term.get("value")
        case _:
            return f"<{render_term(term)}>"


def _terms(terms: Any) -> str:
    match terms:
        case [operator, *arguments]:
            name = render_term(operator)
            if name in _INFIX and len(arguments) == 2:  # noqa: PLR2004 - both sides of an operator
                return f"{render_term(arguments[0])} {_INFIX[name]} {render_term(arguments[1])}"
            return f"{name.removeprefix('data.partial.')}({', '.join(map(render_term, arguments))})"
        case {"type": _}:
            return render_term(terms)
        case _:
            return "…"


def _step(part: Any) -> str:
    match part:
        case {"type": "string", "value": str(name)} if name.isidentifier():
            return f".{name}"
        case _:
            return f"[{render_term(part)}]"
