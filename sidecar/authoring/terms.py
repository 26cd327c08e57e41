"""OPA's syntax tree as text that its author would recognise; for reading, never for evaluation.

Partial evaluation leaves names that no author wrote: variables of the compiler (``__local12__3``), results in the place
of a last argument, rules below ``data.partial``. They are put back into what they stand for, or said in words. What the
question holds is written without ``input.`` before it: there is nothing else that a condition could be about.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, Final

import msgspec

from sidecar.authoring.hours import moment_in_words, read_hours

_INFIX: Final = {
    "eq": "==",
    "equal": "==",
    "assign": ":=",
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
    "and": "&",
    "or": "|",
    "internal.member_2": "in",
}

_WORDS: Final = {"internal.member_3": "member", "internal.template_string": "text"}
"""Builtins that have no name in Rego: ``some k, v in …`` and ``$"…"``."""

_MEMBER: Final = ("in", "internal.member_2")
_TRAITS: Final = "command.traits"

_QUESTION: Final = "question"
"""The whole of ``input``."""

_COMPREHENSIONS: Final = {
    "arraycomprehension": ("[", "]"),
    "setcomprehension": ("{", "}"),
    "objectcomprehension": ("{", "}"),
}

EXCLUDED: Final = "unless what the rule excludes holds"
ASKED: Final = "if what the rule asks holds"
"""Of rules that partial evaluation made up, where it did not say of what."""

_INSTANCE: Final = re.compile(r"__\d+$")
"""What partial evaluation puts behind a variable of the compiler (``__local6__1``)."""

_PLAIN: Final = {"command.fields.returned == []": "nothing of a document comes back"}
"""Conditions of the library that are clearer in words."""

_DEEPEST: Final = 8
"""Rules of the compiler within one another that are put in words."""


class TermWriter:
    """Writes terms and expressions.

    Args:
        arities: how many arguments each builtin takes. In an expression, one more is what its result must be.
        modules: those that partial evaluation made up, in OPA's JSON; their rules are written out where they are asked.
        names: what authors called the compiler's variables.
        database: what stands in the place of ``input.access.database``, where that is known.
    """

    def __init__(
        self,
        arities: Mapping[str, int],
        modules: Sequence[Any] = (),
        *,
        names: Mapping[str, str] | None = None,
        database: str | None = None,
    ) -> None:
        self._arities = arities
        self._names = names or {}
        self._database = database
        self._told: dict[str, str] = {}
        self._rules: dict[str, list[Any]] = {}
        self._depth = 0
        for rule in (rule for module in modules for rule in module.get("rules", [])):
            self._rules.setdefault(str(rule.get("head", {}).get("name", "")), []).append(rule)

    def conditions(self, expressions: Sequence[Any]) -> list[str]:
        """Write what must hold together; hours of the week are one condition."""
        said, rest = read_hours(expressions)
        return [*map(self.expression, rest), *said]

    def expression(self, expression: Any) -> str:
        """Write one expression; what this page does not know is written as an ellipsis."""
        match expression:
            case {"with": list()}:
                return "… with …"
            case {"terms": terms, **rest} if _made_up_rule(terms):
                said = self._made_up(terms)
                if rest.get("negated"):
                    return f"unless {said}" if said else EXCLUDED
                return said or ASKED
            case {"terms": [operator, {"type": "string"} as trait, traits], **rest} if (
                self.term(operator) in _MEMBER and self.term(traits) == _TRAITS
            ):
                return f"the command has {'not ' if rest.get('negated') else ''}the trait {self.term(trait)}"
            case {"terms": [operator, left, right], **rest} if moment := moment_in_words(operator, left, right):
                return ("not " if rest.get("negated") else "") + moment
            case {"terms": terms, **rest}:
                said = self._terms(terms)
                return _PLAIN.get(said, said) if not rest.get("negated") else f"not {said}"
            case _:
                return "…"

    def term(self, term: Any) -> str:
        """Write one term."""
        match term:
            case {"type": "ref", "value": [_, *_]}:
                return self._reference(term["value"])
            case {"type": "var", "value": str(name)}:
                return self._variable(name)
            case {"type": "call", "value": list(terms)}:
                return self._terms(terms)
            case {"type": str(kind), "value": dict(parts)} if kind in _COMPREHENSIONS:
                return self._comprehension(_COMPREHENSIONS[kind], parts)
            case {"type": "string" | "number" | "boolean" | "null"}:
                return msgspec.json.encode(self.value(term)).decode()
            case _:
                return self._collection(term)

    def value(self, term: Any) -> Any:
        """Return a constant term as a value; what is not constant stands as its text in angle brackets."""
        match term:
            case {"type": "object", "value": list(members)}:
                return {str(self.value(key)): self.value(value) for key, value in members}
            case {"type": "array" | "set", "value": list(items)}:
                return [self.value(item) for item in items]
            case {"type": "null"}:
                return None  # its value is an object, in OPA's JSON
            case {"type": "string" | "number" | "boolean"}:
                return term.get("value")
            case _:
                return f"<{self.term(term)}>"

    def _made_up(self, terms: Any) -> str:
        """Write what a rule that partial evaluation made up asks; empty where that is not known."""
        head, *arguments = terms if isinstance(terms, list) else [terms]
        rules = self._rules.get(str(head["value"][-1].get("value")), [])
        if self._depth >= _DEEPEST or not all(_is_asked(rule, len(arguments)) for rule in rules):
            return ""
        self._depth += 1
        ways = [" and ".join(self._body(rule, arguments)) for rule in rules]
        self._depth -= 1
        return " or ".join(dict.fromkeys(ways)) if all(ways) else ""

    def _body(self, rule: Any, arguments: list[Any]) -> list[str]:
        names = [one["value"] for one in rule["head"].get("args", [])]
        body, _ = unfolded(resolved(rule["body"], dict(zip(names, arguments, strict=True))))
        return self.conditions(body)

    def _collection(self, term: Any) -> str:
        match term:
            case {"type": "array", "value": list(items)}:
                return f"[{', '.join(map(self.term, items))}]"
            case {"type": "set", "value": list(items)}:
                return f"{{{', '.join(map(self.term, items))}}}" if items else "set()"
            case {"type": "object", "value": list(members)}:
                return f"{{{', '.join(f'{self.term(key)}: {self.term(value)}' for key, value in members)}}}"
            case _:
                return "…"

    def _reference(self, parts: list[Any]) -> str:
        head, *rest = parts
        names = [part["value"] if part.get("type") == "string" else None for part in rest]
        if head == _var("input") and names == ["access", "database"] and self._database is not None:
            return msgspec.json.encode(self._database).decode()
        if head == _var("input"):
            if not rest:
                return _QUESTION
            first, *rest = rest
            start = str(first["value"]) if _is_name(first) else f"{_QUESTION}[{self.term(first)}]"
        elif head == _var("data"):
            start, rest = _rule(names, rest)
        else:
            start = self.term(head)
        return start + "".join(map(self._step, rest))

    def _step(self, part: Any) -> str:
        return f".{part['value']}" if _is_name(part) else f"[{self.term(part)}]"

    def _comprehension(self, brackets: tuple[str, str], parts: dict[str, Any]) -> str:
        key, head = parts.get("key"), parts.get("term", parts.get("value"))
        body, known = unfolded(parts.get("body", []))
        said = self.term(resolved(head, known))
        if key is not None:
            said = f"{self.term(resolved(key, known))}: {said}"
        conditions = "; ".join(map(self.expression, body))
        return f"{brackets[0]}{said} | {conditions or 'true'}{brackets[1]}"

    def _terms(self, terms: Any) -> str:
        match terms:
            case [operator, *arguments]:
                return self._call(self.term(operator), arguments)
            case {"type": _}:
                return self.term(terms)
            case {"domain": domain, "body": list(body), **names}:
                return self._every([names.get("key"), names.get("value")], domain, body)
            case _:
                return "…"

    def _every(self, names: Sequence[Any], domain: Any, body: list[Any]) -> str:
        each = [self.term(name) for name in names if name is not None]
        if len(each) > 1 and each[0] == "_":
            del each[0]
        return f"every {', '.join(each) or '_'} in {self.term(domain)} {{ {'; '.join(map(self.expression, body))} }}"

    def _call(self, name: str, arguments: list[Any]) -> str:
        if name not in _INFIX and self._arities.get(name) == len(arguments) - 1:
            *arguments, result = arguments
            said = self._call(name, arguments)
            held = self.term(result)
            if result.get("type") == "var" and _made_up(str(result.get("value"))):
                return f"{held} := {said}" if held != "_" else f"{said} is there"
            return f"{said} == {held}"
        if name in _INFIX and len(arguments) >= 2:  # noqa: PLR2004 - both sides of an operator
            left, right, *result = map(self.term, arguments)
            return f"{left} {_INFIX[name]} {right}" + (f" == {result[0]}" if result else "")
        return f"{_WORDS.get(name, name)}({', '.join(map(self.term, arguments))})"

    def _variable(self, name: str) -> str:
        """Return what the author called it; a number behind it tells apart what has one name."""
        if name in {"input", "data"}:
            return _QUESTION if name == "input" else name
        if not _made_up(name):
            return name
        author = self._names.get(_INSTANCE.sub("__", name), "_")
        if author == "_" or name in self._told:
            return self._told.get(name, "_")
        taken = set(self._told.values())
        self._told[name] = next(one for one in _numbered(author) if one not in taken)
        return self._told[name]


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name}{number}" for number in count(2))


def unfolded(expressions: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """Put what the compiler's variables stand for in their place.

    Returns:
        The expressions that are more than such a variable's meaning, with all of them in it; and the meanings.
    """
    known: dict[str, Any] = {}
    rest = []
    for one in expressions:
        name, meaning = _meaning(one)
        if name and name not in known:
            known[name] = meaning
        else:
            rest.append(one)
    return [resolved(one, known) for one in rest], known


def resolved(node: Any, known: Mapping[str, Any]) -> Any:
    """Return a part of the tree with what its variables stand for; a meaning that contains itself stays a name."""
    match node:
        case {"type": "var", "value": str(name)} if name in known:
            return resolved(known[name], {other: meaning for other, meaning in known.items() if other != name})
        case dict():
            return {key: resolved(value, known) for key, value in node.items()}
        case list():
            return [resolved(value, known) for value in node]
        case _:
            return node


def variables(node: Any) -> Iterator[str]:
    """Name every variable in a part of the tree, as often as it is there."""
    match node:
        case {"type": "var", "value": str(name)}:
            yield name
        case dict():
            for value in node.values():
                yield from variables(value)
        case list():
            for value in node:
                yield from variables(value)
        case _:
            return


def has_unnamed(node: Any) -> bool:
    """Whether a variable in a part of the tree has the compiler's name and not its author's."""
    return any(name.startswith("__local") for name in variables(node))


def _meaning(expression: Any) -> tuple[str, Any]:
    """Return the variable of the compiler that an expression says the meaning of, and the meaning."""
    match expression:
        case {"terms": [operator, left, right], **rest} if (
            not rest.keys() - {"index", "generated"} and operator in _EQUALITY
        ):
            for one, other in ((left, right), (right, left)):
                if one.get("type") == "var" and _made_up(str(one.get("value"))):
                    return one["value"], other
        case _:
            pass
    return "", None


def _var(name: str) -> dict[str, str]:
    return {"type": "var", "value": name}


_EQUALITY: Final = tuple({"type": "ref", "value": [_var(name)]} for name in ("eq", "equal", "assign"))


def _made_up(name: str) -> bool:
    return name.startswith(("$", "__"))


def _made_up_rule(terms: Any) -> bool:
    """Whether an expression asks a rule that partial evaluation made up (``data.partial.__not1_2_3__``)."""
    head = terms[0] if isinstance(terms, list) and terms else terms
    match head:
        case {"type": "ref", "value": [root, {"value": "partial"}, *rest]} if root == _var("data"):
            return any(isinstance(part.get("value"), str) and "__" in part["value"] for part in rest)
        case _:
            return False


def _is_asked(rule: Any, arguments: int) -> bool:
    """Whether a rule is only ever true, of so many arguments, and has no other branch."""
    head = rule.get("head", {})
    taken = head.get("args", [])
    truth = head.get("value", _TRUE) == _TRUE
    return truth and "else" not in rule and len(taken) == arguments and all(one.get("type") == "var" for one in taken)


_TRUE: Final = {"type": "boolean", "value": True}


def _rule(names: list[str | None], rest: list[Any]) -> tuple[str, list[Any]]:
    """Return how a reference to a rule begins, and the steps behind it: a team's own rules need no package."""
    if names[:1] == ["partial"]:
        names, rest = names[1:], rest[1:]
    match names:
        case ["mcp", "teams", str(), str(rule), *_]:
            return rule, rest[4:]
        case ["mcp", "lib", *_]:
            return "lib", rest[2:]
        case _:
            return "data", rest


def _is_name(part: Any) -> bool:
    return part.get("type") == "string" and str(part["value"]).isidentifier()


def names_of(events: Iterable[Any]) -> dict[str, str]:
    """Return what authors called the compiler's variables, from OPA's trace of the partial evaluation.

    The trace says the name of a variable that an author wrote. The compiler puts the result of a call into another one,
    and lets the two be equal.
    """
    names: dict[str, str] = {}
    same: dict[str, str] = {}
    for event in events:
        for name, told in (event.get("LocalMetadata") or {}).items():
            author = str(told.get("name", ""))
            if _made_up(name) and author and not _made_up(author):
                names[name] = author
        node = event.get("Node")
        match node.get("terms") if isinstance(node, dict) else None:
            case [operator, {"type": "var", "value": str(left)}, {"type": "var", "value": str(right)}] if (
                operator in _EQUALITY
            ):
                same[right] = left
                same.setdefault(left, right)
            case _:
                pass
    return {other: names[name] for other, name in same.items() if name in names} | names
