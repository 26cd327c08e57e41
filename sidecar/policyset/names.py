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

import msgspec

from sidecar.errors import ConfigurationError
from sidecar.policyset.data_lines import where
from sidecar.policyset.finding import Rule, Severity, Violation
from sidecar.policyset.folder import SCHEMAS, TEAMS, PolicySet
from sidecar.policyset.manifest import decode_strictly
from sidecar.policyset.mentions import BUILTIN_PATTERNS, PARTS, FunctionDefinition, Mentions, Syntax
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
        '"glob": [i | some i, p in input.glob; not i in {j | some j, q in input.glob; _ = glob.match(q, null, "")}]}'
    ),
)
"""Of an ``opa``, with ``patterns`` as its input; not for strict builtin errors. The answer is which are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """A text that a function takes for a pattern, and where it stands."""

    syntax: Syntax
    text: str
    file: str
    line: int


def is_library(path: str, content: bytes) -> bool:
    """Whether a module of the platform is part of what teams may call."""
    return path.startswith("platform/") and path.endswith(".rego") and _LIBRARY_MODULE.search(content) is not None


def unresolved(
    modules: Mapping[str, Mentions], library: Sequence[Mentions], team: str, policies: PolicySet
) -> Iterator[Violation]:
    """Find what the served modules of one team name and nothing defines, and what no grant can be.

    Args:
        modules: what each of them mentions, by file.
        library: what the modules of the library define.
        team: the name of the team's folder.
        policies: the whole set.
    """
    rules = frozenset(rule.path for mentions in (*modules.values(), *library) for rule in mentions.rules)
    known = _NamesThere(rules=rules, data=team_data(policies, team), team=team, question=_question(policies))
    for file, mentions in modules.items():
        seen: set[tuple[int, str]] = set()
        found = [(mention.line, known.fault(mention.path)) for mention in mentions.mentions]
        for line, message in (*found, *((line, _advised(message)) for line, message in mentions.faults)):
            if message and (line, message) not in seen:
                seen.add((line, message))
                yield Violation(file=file, line=line, rule=Rule.NAME, message=message)
    yield from _unread_rules(modules, team)


def patterns_of(
    modules: Mapping[str, Mentions], library: Sequence[Mentions], team: str, policies: PolicySet
) -> Iterator[Pattern]:
    """Yield what the modules of one team hand to functions as patterns, by literals and by names of the team's data."""
    functions = [one for mentions in (*library, *modules.values()) for one in mentions.functions]
    takes = _pattern_arguments(functions)
    data = team_data(policies, team)
    own = ("data", "mcp", "grants", team)
    for file, mentions in modules.items():
        for call in mentions.calls:
            for index, syntax in takes.get(call.function, {}).items():
                argument = call.arguments[index] if index < len(call.arguments) else None
                if argument is None:
                    continue
                for text, line in argument.texts:
                    yield Pattern(syntax=syntax, text=text, file=file, line=line)
                if argument.path[: len(own)] == own:
                    yield from _in_data(syntax, argument.path[len(own) :], data, team, policies)


def patterns(found: Iterable[Pattern]) -> bytes:
    """Return the input of ``TRY_PATTERNS``."""
    texts = _texts(found)
    return msgspec.json.encode({syntax.value: texts[syntax] for syntax in Syntax})


def unreadable(status: int, output: bytes, found: Sequence[Pattern]) -> list[Violation]:
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
    refused = [one for one in found if (one.syntax, one.text) in bad]
    return [
        Violation(
            file=one.file,
            line=one.line,
            rule=Rule.PATTERN,
            message=f"OPA cannot read {_cut(one.text)} as a {one.syntax}",
        )
        for one in dict.fromkeys(refused[:_MOST])
    ]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``: did you mean …?`` for the known name that is most like another, or an empty text."""
    close = get_close_matches(name, sorted(set(known)), n=1)
    return f": did you mean {close[0]}?" if close else ""


def team_data(policies: PolicySet, team: str) -> Any:
    """Return what ``data.mcp.grants.<team>`` will be; an empty object where a team has no data."""
    merged: dict[str, Any] = {}
    for path, content in policies.files:
        if path.startswith(f"{TEAMS}{team}/") and path.endswith("/data.json"):
            document = decode_strictly(content)
            for name in reversed(path.split("/")[2:-1]):
                document = {name: document}
            for name in ("mcp", "grants", team):
                document = document.get(name, {}) if isinstance(document, dict) else {}
            merged |= document if isinstance(document, dict) else {}
    return merged


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
    places = [schema]
    for taken, step in enumerate(steps):
        options = [option for place in places for option in _options(place)]
        objects = [option for option in options if isinstance(option.get("properties"), dict)]
        if not objects or any(option.get("additionalProperties") is not False for option in objects):
            return ""
        names = {name for option in objects for name in option["properties"]}
        if step not in names:
            return f"a question has no {'.'.join(('input', *steps[: taken + 1]))}{nearest(step, names)}"
        places = [option["properties"][step] for option in objects if step in option["properties"]]
    return ""


def _options(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        alternatives = [one for key in ("anyOf", "oneOf") for one in schema.get(key, ())]
        yield from (one for one in alternatives if isinstance(one, dict))
        if not alternatives:
            yield schema


def _question(policies: PolicySet) -> Any:
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


def _pattern_arguments(functions: Sequence[FunctionDefinition]) -> dict[RegoPath, dict[int, Syntax]]:
    """Return which arguments of which functions reach a builtin that takes them for patterns."""
    takes = {path: dict(arguments) for path, arguments in BUILTIN_PATTERNS.items()}
    grown = True
    while grown:
        grown = False
        for function in functions:
            mine = takes.setdefault(function.path, {})
            for call in function.calls:
                for index, syntax in dict(takes.get(call.function, {})).items():
                    given = call.arguments[index].path if index < len(call.arguments) else ()
                    position = (
                        function.parameters.index(given[0])
                        if len(given) == 1 and given[0] in function.parameters
                        else -1
                    )
                    if position >= 0 and position not in mine:
                        mine[position] = syntax
                        grown = True
    return takes


def _in_data(syntax: Syntax, steps: RegoPath, data: Any, team: str, policies: PolicySet) -> Iterator[Pattern]:
    value = data
    for step in steps:
        value = value.get(step) if isinstance(value, dict) else None
    members = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
    for index, text in members:
        if isinstance(text, str):
            place = ("mcp", "grants", team, *steps, *(() if index is None else (index,)))
            file, line = where(place, policies, bundle=f"{TEAMS}{team}")
            yield Pattern(syntax=syntax, text=text, file=file, line=line)


def _texts(found: Iterable[Pattern]) -> dict[Syntax, list[str]]:
    texts: dict[Syntax, dict[str, None]] = {syntax: {} for syntax in Syntax}
    for one in found:
        texts[one.syntax][one.text] = None
    return {syntax: list(members) for syntax, members in texts.items()}


def _cut(text: str) -> str:
    shown = json.dumps(text, ensure_ascii=False)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
