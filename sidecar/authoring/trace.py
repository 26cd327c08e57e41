"""What OPA's own trace says of the rules of one team: which held, and where the others stopped.

The trace is that of ``opa eval --explain=full --disable-indexing`` on ``data.mcp.teams.<team>.{grant,deny}`` with the
question as the team sees it. Without indexing, because an index skips rules that cannot match, and those are just what
an author asks about. Each rule is one ``Enter`` event; a condition that does not hold is a ``Fail`` in the same query.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sidecar.authoring.terms import TermWriter, resolved, unfolded
from sidecar.model import JsonObject, JsonValue

Lines = Callable[[str], list[str]]

_REFERENCE: Final = re.compile(r"input(?:\.[a-z_]\w*)+")
_DATA: Final = re.compile(r"data\.mcp\.(?:grants|platform)(?:\.[a-z_]\w*)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyExpression:
    """One expression of a policy."""

    file: str
    line: int
    text: str
    """The line as its author wrote it."""
    locals: tuple[tuple[str, JsonValue], ...] = ()
    """What the author's variables on the line held, where the expression failed."""

    @property
    def at(self) -> str:
        """``file:line``, as editors find it."""
        return f"{self.file}:{self.line}"


@dataclass(slots=True, kw_only=True)
class RuleRun:
    """One rule of a team and how far it came."""

    rule: str
    """``grant`` or ``deny``."""
    label: str
    """The grant's id or the deny's code as written; empty where it is computed."""
    head: PolicyExpression
    held: bool = False
    fulfilled: int = 0
    """Conditions before the one that failed, in the attempt that came furthest."""
    failed: PolicyExpression | None = None
    because: PolicyExpression | None = None
    """The innermost condition that failed, where that is in another rule."""
    _query: int = field(default=-1, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fail:
    query: int
    index: int
    number: int
    """Of its event in the trace."""
    place: PolicyExpression
    callee: str


_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_READING: Final = TermWriter({})


def read_trace(events: Sequence[dict[str, Any]], team_folder: str, lines: Lines) -> list[RuleRun]:
    """Return the runs of a team's ``grant`` and ``deny`` rules, in the order of the trace.

    Args:
        events: OPA's ``explanation``.
        team_folder: ``teams/<team>/``; only rules below it are returned.
        lines: gives the lines of a file of the set.
    """
    runs: dict[int, RuleRun] = {}
    reasons: dict[str, PolicyExpression] = {}
    begun: dict[int, int] = {}
    last: _Fail | None = None
    for number, event in enumerate(events):
        query, node = event["QueryID"], event["Node"]
        match event["Op"]:
            case "Eval":
                begun[query] = number
            case "Enter" if isinstance(node, dict) and _is_rule(node, event, team_folder):
                runs[query] = _run(node, event, lines)
            case "Exit" if query in runs:
                runs[query].held = True
            case "Fail":
                fail = _fail(event, number, lines)
                # What failed before this condition began failed on the way to one that held.
                since = begun.get(query, 0)
                inner = last.place if last is not None and last.query > query and last.number > since else None
                last = fail
                if fail.callee and inner is not None:
                    # OPA evaluates a rule once for one question and only says "Fail" the next time.
                    reasons.setdefault(fail.callee, inner)
                if query in runs:
                    _note(runs[query], fail, inner or reasons.get(fail.callee))
            case _:
                pass
    return list(runs.values())


def values_of(place: PolicyExpression, question: JsonObject) -> dict[str, JsonValue]:
    """Return what the parts of the question that a condition names are; a part that is not there is left out."""
    found: dict[str, JsonValue] = {}
    for name in dict.fromkeys(_REFERENCE.findall(place.text)):
        value: JsonValue = question
        for part in name.split(".")[1:]:
            if not isinstance(value, dict) or part not in value:
                break
            value = value[part]
        else:
            found[name] = value
    return found | dict(place.locals)


def data_of(place: PolicyExpression) -> list[str]:
    """Return the tables of data that a condition names."""
    return [*dict.fromkeys(_DATA.findall(place.text))]


def missing_of(place: PolicyExpression, question: JsonObject) -> list[str]:
    """Return the parts of the question that a condition names and that are not there."""
    return [name for name in dict.fromkeys(_REFERENCE.findall(place.text)) if name not in values_of(place, question)]


def _is_rule(node: dict[str, Any], event: dict[str, Any], team_folder: str) -> bool:
    return "head" in node and _name(node) in {"grant", "deny"} and event["Location"]["file"].startswith(team_folder)


def _name(node: dict[str, Any]) -> str:
    name = node["head"].get("name", "")
    return name if isinstance(name, str) else ""


def _run(node: dict[str, Any], event: dict[str, Any], lines: Lines) -> RuleRun:
    return RuleRun(rule=_name(node), label=_label(_key(node)), head=_place(event, lines), _query=event["QueryID"])


def _key(node: dict[str, Any]) -> Any:
    """Return the head's key as it is written: OPA moves one that holds data into the body, behind a name of its own."""
    body = node.get("body")
    return resolved(node["head"].get("key"), unfolded(body if isinstance(body, list) else [])[1])


def _label(key: Any) -> str:
    """Return the id of a grant or the code of a deny, where its author wrote a constant."""
    match key:
        case {"type": "string", "value": str(code)}:
            return code
        case {"type": "object", "value": list(members)}:
            for member in members:
                match member:
                    case [{"value": "id"}, {"type": "string", "value": str(identifier)}]:
                        return identifier
                    case _:
                        continue
        case _:
            pass
    return ""


def _note(run: RuleRun, fail: _Fail, inner: PolicyExpression | None) -> None:
    """Keep the failure of the attempt that came furthest."""
    if run.failed is None or fail.index > run.fulfilled:
        run.fulfilled, run.failed = fail.index, fail.place
        run.because = inner if inner is not None and inner.at != fail.place.at else None


def _fail(event: dict[str, Any], number: int, lines: Lines) -> _Fail:
    node = event["Node"]
    index = node.get("index", 0) if isinstance(node, dict) else 0
    place = _place(event, lines)
    place = replace(place, locals=tuple(_locals(event, place.text)))
    return _Fail(query=event["QueryID"], index=index, number=number, place=place, callee=_callee(node))


def _locals(event: dict[str, Any], text: str) -> Iterator[tuple[str, JsonValue]]:
    """Yield the variables that stand on a line and are known there, by the names that their author gave them."""
    words = set(_WORD.findall(text))
    told = event.get("LocalMetadata") or {}
    for one in event.get("Locals") or []:
        name = str((told.get(one.get("name")) or {}).get("name", ""))
        if name in words and not name.startswith(("__", "$")):
            yield name, _READING.value(one)


def _callee(node: Any) -> str:
    """Return the rule or function that an expression asks, with its arguments; empty for a builtin."""
    terms = node.get("terms") if isinstance(node, dict) else None
    head = terms[0] if isinstance(terms, list) and terms else terms
    value = head.get("value") if isinstance(head, dict) else None
    is_rule = isinstance(value, list) and bool(value) and value[0].get("value") == "data"
    return repr(terms) if is_rule else ""


def _place(event: dict[str, Any], lines: Lines) -> PolicyExpression:
    location = event["Location"]
    file, row = str(location.get("file", "")), int(location.get("row", 1))
    source = lines(file)
    return PolicyExpression(file=file, line=row, text=source[row - 1].strip() if 0 < row <= len(source) else "")
