"""Aggregation expressions: which fields a computed value reads, and how much larger than them it can be.

Every function records into the log what it finds and returns the size of the value (``sidecar.commands.growth``). An
operator that is not in the table is refused, and so is an object with several of them.

Source: MongoDB manual 8.x, "Expression Operators", "Variables in Aggregation Expressions"; reference, section 2.2.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from sidecar.commands.amplifiers import MOST, capped, literal_number, literal_text
from sidecar.commands.ejson import is_typed
from sidecar.commands.field_log import ROOT, FieldLog
from sidecar.commands.growth import ONE, UNKNOWN, Size, largest, released, times, total
from sidecar.commands.operators import EXPRESSION, FIELDLESS_META, SCALAR, first_operator
from sidecar.commands.pointer import below
from sidecar.commands.refusals import an_object, held, malformed, unknown_operator
from sidecar.commands.sorting import analyse_sort
from sidecar.errors import CommandNotDerivable
from sidecar.model import JsonObject, JsonValue

_LENGTHS: Final = frozenset({"$size", "$strLenCP", "$strLenBytes"})
_ROUNDING: Final = frozenset({"$ceil", "$floor", "$round", "$trunc", "$toInt", "$toLong", "$abs"})
_LEAST_GROWTH: Final = 100
"""Growth is noted from here on: what every ordinary command does need not be in every question."""

_DOCUMENT_VARIABLES: Final = frozenset({"ROOT", "CURRENT", "new"})
"""Variables that hold a whole document. A user's own variable holds what its definition has used already."""


def analyse_expression(log: FieldLog, value: JsonValue, at: str) -> Size:
    """Record the fields of an aggregation expression and return the size of its value.

    Raises:
        CommandNotDerivable: an operator that is not in the table, or several in one object.
    """
    if isinstance(value, str):
        return _reference(log, value) if value.startswith("$") else ONE
    if isinstance(value, list):
        return total([analyse_expression(log, item, f"{at}/{index}") for index, item in enumerate(value)])
    return _object(log, value, at) if isinstance(value, dict) else ONE


def grown(log: FieldLog, copies: int, at: str) -> None:
    """Note the size of what a command makes, if it is worth noting."""
    if copies >= _LEAST_GROWTH:
        log.amplifiers.note("growth", min(copies, MOST), at)


def _reference(log: FieldLog, value: str) -> Size:
    if not value.startswith("$$"):
        path = value[1:]
        log.use(path)
        return _sized(log, path)
    name, _, rest = value[2:].partition(".")
    if name in _DOCUMENT_VARIABLES:
        log.use(rest)
        return _sized(log, rest)
    bound = log.scope.get(name)
    if isinstance(bound, int):
        return Size(1, {(bound, rest): 1})
    if bound is not None:
        return bound
    log.use_variable(name)
    return Size(log.variable_sizes.get(name, 1))


def _sized(log: FieldLog, path: str) -> Size:
    """Return the size of a field of the documents at this stage; of a document, that of all its fields together."""
    if not log.sizes:
        return ONE
    others = log.sizes.get("", 1)
    if not path:
        return Size(min(others + sum(log.sizes.values()), MOST))
    return Size(log.sizes.get(path.partition(".")[0], others))


def _object(log: FieldLog, value: JsonObject, at: str) -> Size:
    if len(value) == 1:
        [(operator, operand)] = value.items()
        rule = _OPERATORS.get(operator)  # no key of a typed value is among them
        if rule is not None:
            return rule(log, operand, f"{at}/{operator}")
    operator = first_operator(value)
    if not operator:
        return total([analyse_expression(log, item, below(at, key)) for key, item in value.items()])
    if is_typed(value):
        return ONE
    if len(value) != 1:
        raise CommandNotDerivable("mixed_operators", "An expression object has exactly one operator.", at)
    raise unknown_operator(operator, below(at, operator))


def _scalar(log: FieldLog, value: JsonValue, at: str) -> Size:
    """An operator whose value is of one size for every operand."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            analyse_expression(log, item, f"{at}/{index}")
    else:
        analyse_expression(log, value, at)
    return ONE


def _literal(_log: FieldLog, value: JsonValue, _at: str) -> Size:
    """``$literal``: nothing inside is evaluated."""
    return Size(max(len(value), 1)) if isinstance(value, list) else ONE


def _get_field(log: FieldLog, value: JsonValue, at: str) -> Size:
    """``$getField``: a field named by a literal of the current document, or else the one that the name evaluates to."""
    spec = value if isinstance(value, dict) and "field" in value else {"field": value}
    name, source = spec["field"], spec.get("input", "$$CURRENT")
    if isinstance(name, dict) and name.keys() == {"$literal"}:
        name = name["$literal"]
        literal = isinstance(name, str)
    else:
        literal = isinstance(name, str) and not name.startswith("$")
    if literal and isinstance(name, str) and source in ("$$CURRENT", "$$ROOT"):
        log.use(name)
        return _sized(log, name)
    if not literal:
        analyse_expression(log, name, at)
        log.use(ROOT)
    return analyse_expression(log, source, at)


def _meta(log: FieldLog, value: JsonValue, _at: str) -> Size:
    if not isinstance(value, str) or value not in FIELDLESS_META:
        log.use(ROOT)
    return ONE


def _cond(log: FieldLog, value: JsonValue, at: str) -> Size:
    """``$cond`` is one of its branches; the condition is only looked at."""
    if isinstance(value, list) and len(value) == len(("if", "then", "else")):
        sizes = [analyse_expression(log, item, f"{at}/{index}") for index, item in enumerate(value)]
        return largest(sizes[1:])
    if not isinstance(value, dict):
        return analyse_expression(log, value, at)
    known = held(value, at, "if then else")
    analyse_expression(log, known.get("if"), f"{at}/if")
    return largest([analyse_expression(log, known.get(key), f"{at}/{key}") for key in ("then", "else")])


def _switch(log: FieldLog, value: JsonValue, at: str) -> Size:
    known = held(value, at, "branches default")
    branches = known.get("branches")
    sizes = [analyse_expression(log, known.get("default"), f"{at}/default")]
    if not isinstance(branches, list):
        raise malformed(f"{at}/branches", "a list of branches")
    for index, item in enumerate(branches):
        where = f"{at}/branches/{index}"
        branch = held(item, where, "case then")
        analyse_expression(log, branch.get("case"), f"{where}/case")
        sizes.append(analyse_expression(log, branch.get("then"), f"{where}/then"))
    return largest(sizes)


def _if_null(log: FieldLog, value: JsonValue, at: str) -> Size:
    items = value if isinstance(value, list) else [value]
    return largest([analyse_expression(log, item, f"{at}/{index}") for index, item in enumerate(items)])


@contextmanager
def _bound(log: FieldLog, names: Mapping[str, Size | int]) -> Iterator[None]:
    """Bind variables for the expressions inside the block."""
    before = log.scope
    log.scope = {**before, **names}
    try:
        yield
    finally:
        log.scope = before


def _let(log: FieldLog, value: JsonValue, at: str) -> Size:
    known = held(value, at, "vars in")
    where = f"{at}/vars"
    sizes = {
        name: analyse_expression(log, item, below(where, name))
        for name, item in an_object(known.get("vars"), where).items()
    }
    with _bound(log, sizes):
        return analyse_expression(log, known.get("in"), f"{at}/in")


def _variable(known: JsonObject, at: str, default: str) -> str:
    name = known.get("as", default)
    if not isinstance(name, str) or not name or name.startswith("$") or "." in name:
        raise malformed(f"{at}/as", "the name of a variable")
    return name


@contextmanager
def _repeating(log: FieldLog, size: Size, at: str) -> Iterator[None]:
    """Count what is evaluated inside the block once for each element."""
    before = log.repeated
    log.depth += 1
    log.repeated = min(before * size.copies, MOST)
    log.amplifiers.note("$map.depth", log.depth, at)
    grown(log, log.repeated, at)
    try:
        yield
    finally:
        log.depth -= 1
        log.repeated = before


def _next(log: FieldLog) -> int:
    log.binding += 1
    return log.binding


def _map(log: FieldLog, value: JsonValue, at: str) -> Size:
    """``$map``: what holds the element gives the list again, all else is repeated for each of its elements."""
    known = held(value, at, "input as in arrayIndexAs")
    source = analyse_expression(log, known.get("input"), f"{at}/input")
    element = _next(log)
    names: dict[str, Size | int] = {_variable(known, at, "this"): element}
    if isinstance(known.get("arrayIndexAs"), str):
        names[str(known["arrayIndexAs"])] = ONE
    with _bound(log, names), _repeating(log, source, at):
        made = analyse_expression(log, known.get("in"), f"{at}/in")
    kept, rest = released(made, element)
    again = _repeated(rest, source, known.get("input"))
    return total([times(source, kept), again]) if kept else again


def _repeated(made: Size, source: Size, given: JsonValue) -> Size:
    """Return the size of something that is made once for each element of a list."""
    size = times(Size(made.copies), source.copies)
    if not made.of:
        return size
    often = source.copies if _is_written_out(given) else max(source.copies, UNKNOWN)
    return Size(size.copies, times(made, often).of)


def _is_written_out(value: JsonValue) -> bool:
    """Say whether a list is as long as the call writes it, so that its size is its length."""
    if isinstance(value, list):
        return True
    if not isinstance(value, dict) or value.keys() != {"$range"}:
        return False
    numbers = value["$range"]
    return isinstance(numbers, list) and all(literal_number(number) is not None for number in numbers)


def _filter(log: FieldLog, value: JsonValue, at: str) -> Size:
    known = held(value, at, "input as cond limit arrayIndexAs")
    source = analyse_expression(log, known.get("input"), f"{at}/input")
    names: dict[str, Size | int] = {_variable(known, at, "this"): source}
    if isinstance(known.get("arrayIndexAs"), str):
        names[str(known["arrayIndexAs"])] = ONE
    with _bound(log, names), _repeating(log, source, at):
        analyse_expression(log, known.get("cond"), f"{at}/cond")
    analyse_expression(log, known.get("limit"), f"{at}/limit")
    return source


def _reduce(log: FieldLog, value: JsonValue, at: str) -> Size:
    """``$reduce``: a step that holds ``$$value`` twice doubles it, for each element of a list of any length."""
    known = held(value, at, "input initialValue in as valueAs arrayIndexAs")
    source = analyse_expression(log, known.get("input"), f"{at}/input")
    initial = analyse_expression(log, known.get("initialValue"), f"{at}/initialValue")
    result, element = _next(log), _next(log)
    names: dict[str, Size | int] = {"value": result, _variable(known, at, "this"): element}
    for key in ("valueAs", "arrayIndexAs"):
        if isinstance(known.get(key), str):
            names[str(known[key])] = result if key == "valueAs" else ONE
    with _bound(log, names), _repeating(log, source, at):
        step = analyse_expression(log, known.get("in"), f"{at}/in")
    copies, rest = released(step, result)
    kept, rest = released(rest, element)
    added = _repeated(rest, source, known.get("input"))
    if copies > 1:
        log.amplifiers.note("$reduce.copies", copies, at)
        return total([initial, added])
    return total([initial, times(source, kept), added]) if kept else total([initial, added])


def _range(log: FieldLog, value: JsonValue, at: str) -> Size:
    """``$range``: as many numbers as its bounds say; up to the size of an array, it is bounded by that."""
    bounds = value if isinstance(value, list) else [value]
    ends = [_end(log, item, f"{at}/{index}") for index, item in enumerate(bounds)]
    numbers = [number for number, _ in ends]
    size = max((copies for _, copies in ends), default=0)
    step = numbers[2] if len(numbers) > len(("start", "end")) else 1.0
    if len(numbers) < len(("start", "end")) or None in numbers[:2] or step is None or abs(step) < 1:
        log.amplifiers.note("$range.length", None, at)
        return ONE
    start, end = numbers[0] or 0, numbers[1] or 0
    if size:  # one end is the length of a list: what is written beside it, and the list
        extra = capped((abs(start) + abs(end)) / abs(step))
        log.amplifiers.note("$range.length", extra, at)
        return Size(min(size + extra, MOST))
    length = max(capped((end - start) / step), 0)
    log.amplifiers.note("$range.length", length, at)
    grown(log, log.repeated * length, at)
    return Size(max(length, 1))


def _end(log: FieldLog, value: JsonValue, at: str) -> tuple[float | None, int]:
    """Return a bound of ``$range`` as a literal part and the size of the list whose length is the other part.

    The literal part is None where the bound is neither. Every part is read exactly once.
    """
    number = literal_number(value)
    if number is not None or not isinstance(value, dict) or len(value) != 1:
        analyse_expression(log, value, at)
        return number, 0
    [(operator, inner)] = value.items()
    where = below(at, operator)
    if operator in _LENGTHS:
        argument = inner[0] if isinstance(inner, list) and len(inner) == 1 else inner
        return 0.0, analyse_expression(log, argument, where).copies
    if operator in _ROUNDING:
        argument = inner[0] if isinstance(inner, list) and inner else inner
        if isinstance(inner, list):
            analyse_expression(log, inner[1:], where)
        return _end(log, argument, where)
    if operator in ("$add", "$subtract") and isinstance(inner, list) and inner:
        parts = [_end(log, item, f"{where}/{index}") for index, item in enumerate(inner)]
        numbers = [abs(part) for part, _ in parts if part is not None]
        return (sum(numbers) if len(numbers) == len(parts) else None), max(copies for _, copies in parts)
    if operator == "$min" and isinstance(inner, list) and inner:
        ends = [_end(log, item, f"{where}/{index}") for index, item in enumerate(inner)]
        known = [(part, copies) for part, copies in ends if part is not None]
        return min(known, key=lambda end: (end[1], end[0])) if known else (None, 0)
    if operator == "$divide" and isinstance(inner, list) and len(inner) == len(("dividend", "divisor")):
        divisor = literal_number(inner[1])
        part, copies = _end(log, inner[0], f"{where}/0")
        if divisor is not None and abs(divisor) >= 1:
            return part, copies
        analyse_expression(log, inner[1], f"{where}/1")
        return None, copies
    analyse_expression(log, value, at)
    return None, 0


def _counted(construct: str, known: str) -> Callable[[FieldLog, JsonValue, str], Size]:
    """Return the rule of an operator that keeps the first ``n``; the keys of ``sortBy`` are fields of the documents."""

    def rule(log: FieldLog, value: JsonValue, at: str) -> Size:
        spec = held(value, at, known)
        if "n" in known.split():
            log.amplifiers.note(construct, literal_number(spec.get("n")), f"{at}/n")
        if "sortBy" in spec:
            analyse_sort(log, spec["sortBy"], f"{at}/sortBy")
        return total([analyse_expression(log, item, below(at, key)) for key, item in spec.items() if key != "sortBy"])

    return rule


def _percentile(log: FieldLog, value: JsonValue, at: str) -> Size:
    """``$percentile`` and ``$median``: other parameters crashed servers (CVE-2025-10061)."""
    known = held(value, at, "input p method")
    return total([analyse_expression(log, item, below(at, key)) for key, item in known.items()])


def _trim(log: FieldLog, value: JsonValue, at: str) -> Size:
    """``$trim``: its time is the length of the text times that of ``chars`` (CVE-2026-8202)."""
    known = held(value, at, "input chars")
    if "chars" in known:
        chars = literal_text(known["chars"])
        log.amplifiers.note("$trim.chars", None if chars is None else len(chars), f"{at}/chars")
    return total([analyse_expression(log, item, below(at, key)) for key, item in known.items()])


def _replace_all(log: FieldLog, value: JsonValue, at: str) -> Size:
    """``$replaceAll``: a text of which every part becomes a longer one; repeated, it grows by that factor each time.

    Of a replacement that is computed nothing is known; it is added, as by ``$concat``.
    """
    known = held(value, at, "input find replacement")
    source = analyse_expression(log, known.get("input"), f"{at}/input")
    others = [analyse_expression(log, known.get(key), f"{at}/{key}") for key in ("find", "replacement")]
    find, replacement = literal_text(known.get("find")), literal_text(known.get("replacement"))
    if replacement is None:
        return total([source, *others])
    longer = len(replacement) + 1 if find == "" else -(-len(replacement) // len(find or "?"))
    return times(source, max(longer, 1))


_TOP: Final = _counted("$topN.n", "n sortBy output")
_TOP_ONE: Final = _counted("$topN.n", "sortBy output")
_OperatorRule = Callable[[FieldLog, JsonValue, str], Size]
_RULES: Final[Mapping[str, _OperatorRule]] = {
    "$literal": _literal,
    "$const": _literal,
    "$getField": _get_field,
    "$meta": _meta,
    "$cond": _cond,
    "$switch": _switch,
    "$ifNull": _if_null,
    "$let": _let,
    "$map": _map,
    "$filter": _filter,
    "$reduce": _reduce,
    "$range": _range,
    "$replaceAll": _replace_all,
    "$top": _TOP_ONE,
    "$topN": _TOP,
    "$bottom": _TOP_ONE,
    "$bottomN": _TOP,
    "$firstN": _counted("$firstN.n", "n input"),
    "$lastN": _counted("$firstN.n", "n input"),
    "$maxN": _counted("$maxN.n", "n input"),
    "$minN": _counted("$maxN.n", "n input"),
    "$percentile": _percentile,
    "$median": _percentile,
    "$trim": _trim,
    "$ltrim": _trim,
    "$rtrim": _trim,
}

_OPERATORS: Final[Mapping[str, _OperatorRule]] = {
    name: _RULES.get(name, _scalar if name in SCALAR else analyse_expression) for name in EXPRESSION
}
"""Every operator of the table; one without a rule of its own holds what its operands hold."""
