"""Whether what a team's modules name is there: rules of the library and of the team, keys of data, parts of a question.

Each name that is spelled out is looked up, and a name that nothing defines keeps the set from being served: a rule that
asks for it would never hold, and a ``deny`` that never holds protects nothing. What is not spelled out
(``data.mcp.grants.red[x]``) is followed as far as it is. Regular expressions and globs that stand in a module, or in
the team's data where a module uses them as such, are tried by OPA itself.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final
from zoneinfo import available_timezones

import msgspec

from sidecar.errors import ConfigurationError
from sidecar.policyset.finding import Rule, Severity, Violation
from sidecar.policyset.folder import SCHEMAS, PolicySet
from sidecar.policyset.mentions import PARTS, Mentions, Syntax
from sidecar.policyset.roles import RoleUse, Spot
from sidecar.policyset.syntax_tree import RegoPath
from sidecar.printing import printable

QUESTION: Final = f"{SCHEMAS}/question.json"
LIBRARY: Final = ("mcp", "lib")
_LIBRARY_MODULE: Final = re.compile(rb"^package\s+mcp\.lib\b", re.MULTILINE)
_READ_RULES: Final = ("grant", "deny", "approver")
_MOST: Final = 100
"""Findings of one kind that are told."""
_LONGEST: Final = 80

TRY_PATTERNS: Final = (
    "eval",
    *("--format", "raw", "--stdin-input"),
    (
        '{"regular expression": [i | some i, p in input["regular expression"]; not regex.is_valid(p)], '
        '"time zone": [i | some i, p in input["time zone"]; not time.clock([0, p])], '
        '"glob": [i | some i, p in input.glob; not i in {j | some j, q in input.glob; _ = glob.match(q, null, "")}]}'
    ),
)
"""Of an ``opa``, with ``patterns`` as its input; not for strict builtin errors. The answer is which are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A text that a function takes for a pattern, and where it stands."""

    syntax: Syntax
    spot: Spot


def is_library(path: str, content: bytes) -> bool:
    """Whether a module of the platform is part of what teams may call."""
    return path.startswith("platform/") and path.endswith(".rego") and _LIBRARY_MODULE.search(content) is not None


def unresolved(
    modules: Mapping[str, Mentions], library: Sequence[Mentions], team: str, *, data: Any, question: Any
) -> Iterator[Violation]:
    """Find what the served modules of one team name and nothing defines, and what no grant can be.

    Args:
        modules: what each of them mentions, by file.
        library: what the modules of the library define.
        team: the name of the team's folder.
        data: the team's.
        question: the schema of what the team is asked.
    """
    rules = frozenset(rule.path for mentions in (*modules.values(), *library) for rule in mentions.rules)
    known = _NamesThere(rules=rules, data=data, team=team, question=question)
    for file, mentions in modules.items():
        seen: set[tuple[int, str]] = set()
        found = [(mention.line, known.fault(mention.path)) for mention in mentions.mentions]
        for line, message in (*found, *((line, _advised(message)) for line, message in mentions.faults)):
            if message and (line, message) not in seen:
                seen.add((line, message))
                yield Violation(file=file, line=line, rule=Rule.NAME, message=message)
    yield from _unread_rules(modules, team)


def patterns_of(found: Iterable[RoleUse]) -> Iterator[Pattern]:
    """Yield what functions take for patterns."""
    for use in found:
        if isinstance(use.role, Syntax):
            for spot in use.texts():
                yield Pattern(syntax=use.role, spot=spot)


def patterns(found: Iterable[Pattern]) -> bytes:
    """Return the input of ``TRY_PATTERNS``."""
    texts = _texts(found)
    return msgspec.json.encode({syntax.value: texts[syntax] for syntax in Syntax})


def unreadable(status: int, output: bytes, found: Sequence[Pattern], policies: PolicySet) -> list[Violation]:
    """Read what ``TRY_PATTERNS`` printed about these.

    Raises:
        ConfigurationError: no answer; one pattern can take all memory that a check may have.
    """
    try:
        answer = msgspec.json.decode(output, type=dict[str, list[int]]) if status == 0 else None
    except msgspec.DecodeError:
        answer = None
    if answer is None or set(answer) != {syntax.value for syntax in Syntax}:
        raise ConfigurationError(f"the patterns of the teams were not tried: {printable(output)}")
    texts = _texts(found)
    bad = {(syntax, texts[syntax][index]) for syntax in Syntax for index in answer[syntax.value]}
    refused = [one for one in found if (one.syntax, one.spot.text) in bad]
    return list(dict.fromkeys(_unreadable(one, policies) for one in refused[:_MOST]))


def _unreadable(one: Pattern, policies: PolicySet) -> Violation:
    file, line = one.spot.at(policies)
    if one.syntax is Syntax.TIMEZONE:
        message = f"there is no time zone {cut(one.spot.text)}{nearest(one.spot.text, available_timezones())}"
        return Violation(file=file, line=line, rule=Rule.NAME, message=message)
    message = f"OPA cannot read {cut(one.spot.text)} as a {one.syntax}"
    return Violation(file=file, line=line, rule=Rule.PATTERN, message=message)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``: did you mean …?`` for the known name that is most like another, or an empty text."""
    close = get_close_matches(name, sorted(set(known)), n=1)
    return f": did you mean {close[0]}?" if close else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _NamesThere:
    """What one team's modules can name."""

    rules: frozenset[RegoPath]
    data: Any
    team: str
    question: Any

    def fault(self, path: RegoPath) -> str:
        """Return what is wrong with a path; empty where it leads to something, or to what is judged elsewhere."""
        match path:
            case ("input", *steps):
                return _no_part(steps, self.question)
            case ("data", "mcp", "grants", self.team, *steps):
                return self._no_key(steps)
            case ("data", *steps) if tuple(steps[:2]) == LIBRARY or tuple(steps[:3]) == ("mcp", "teams", self.team):
                return self._no_rule(tuple(steps))
            case _:
                return ""  # out of reach, which the lint says

    def _no_rule(self, path: RegoPath) -> str:
        if any(rule[: len(path)] == path or path[: len(rule)] == rule for rule in self.rules):
            return ""
        # The first step that no rule has is the wrong one.
        at = next(n for n in range(len(path) + 1) if not any(rule[:n] == path[:n] for rule in self.rules)) - 1
        names = (rule[at] for rule in self.rules if rule[:at] == path[:at] and len(rule) > at)
        return f"nothing defines data.{'.'.join(path[: at + 1])}{nearest(path[at], names)}"

    def _no_key(self, steps: Sequence[str]) -> str:
        value = self.data
        for taken, step in enumerate(steps):
            place = ".".join(("data.mcp.grants", self.team, *steps[:taken]))
            if not isinstance(value, dict):
                return f"{place} is no object in the team's data, so it has no {step}"
            if step not in value:
                return f"the team's data.json has no {place}.{step}{nearest(step, map(str, value))}"
            value = value[step]
        return ""


def _no_part(steps: Sequence[str], schema: Any) -> str:
    """Hold a path to the schema of a team's question, where that is closed."""
    for taken, step in enumerate(steps):
        objects = [one for one in schema_options(schema, steps[:taken]) if isinstance(one.get("properties"), dict)]
        if not objects or any(option.get("additionalProperties") is not False for option in objects):
            return ""
        names = {name for option in objects for name in option["properties"]}
        if step not in names:
            return f"a question has no {'.'.join(('input', *steps[: taken + 1]))}{nearest(step, names)}"
    return ""


def schema_options(schema: Any, steps: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the schemas of what steps lead to, as far as properties say; several for a choice."""
    if not isinstance(schema, dict):
        return
    alternatives = [one for key in ("anyOf", "oneOf") for one in schema.get(key, ())]
    for one in alternatives:
        yield from schema_options(one, steps)
    if not alternatives and not steps:
        yield schema
    elif not alternatives and isinstance(schema.get("properties"), dict):
        yield from schema_options(schema["properties"].get(steps[0]), steps[1:])


def question_schema(policies: PolicySet) -> Any:
    """Return the schema of what a team is asked; an empty one where the set has none."""
    content = dict(policies.aside).get(QUESTION)
    try:
        return {} if content is None else json.loads(content)  # noqa: TID251 - the set's own schema, which OPA reads too
    except (ValueError, RecursionError):
        return {}  # OPA's own check says what is wrong with it


def _advised(message: str) -> str:
    if message.startswith("a grant has no part "):
        name = message.rpartition(" ")[2]
        return f"{message}{nearest(name, PARTS)}" if nearest(name, PARTS) else f"{message}: it has {', '.join(PARTS)}"
    return message


def _unread_rules(modules: Mapping[str, Mentions], team: str) -> Iterator[Violation]:
    """Find rules that nothing reads and whose names are nearly those of the two that are read."""
    root = ("mcp", "teams", team)
    read = {name for mentions in modules.values() for name in mentions.variables}
    read |= {
        one.path[4]
        for mentions in modules.values()
        for one in mentions.mentions
        if one.path[1:4] == root and one.path[4:]
    }
    for file, mentions in modules.items():
        for rule in mentions.rules:
            name = rule.path[-1]
            if rule.path[:-1] != root or name in read or name in _READ_RULES:
                continue
            if advice := nearest(name, _READ_RULES):
                message = f"nothing reads the rule {name}{advice}"
                yield Violation(file=file, line=rule.line, rule=Rule.NAME, message=message, severity=Severity.WARNING)


def _texts(found: Iterable[Pattern]) -> dict[Syntax, list[str]]:
    texts: dict[Syntax, dict[str, None]] = {syntax: {} for syntax in Syntax}
    for one in found:
        texts[one.syntax][one.spot.text] = None
    return {syntax: list(members) for syntax, members in texts.items()}


def cut(text: str) -> str:
    """Return a text in quotation marks, shortened to what fits into a message."""
    shown = json.dumps(text, ensure_ascii=False)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
