"""What the texts in a team's modules are taken for: patterns, hours, or values of one part of a question.

``lib.has_trait("unbounded")`` holds its text against ``input.command.traits``, because that is what the library does
with its argument; ``input.access.kind in {"read"}`` does so by itself. So the roles of arguments follow from what the
modules do, the library's and the team's alike, and from a few functions below them that are named here.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sidecar.policyset.data_lines import where
from sidecar.policyset.folder import TEAMS, PolicySet
from sidecar.policyset.manifest import decode_strictly
from sidecar.policyset.mentions import (
    BUILTIN_COMPARISONS,
    BUILTIN_PATTERNS,
    MEMBERSHIP,
    Argument,
    FunctionCall,
    FunctionDefinition,
    Mentions,
    Syntax,
)
from sidecar.policyset.syntax_tree import RegoPath

_DATA: Final = ("data", "mcp", "grants")


@dataclass(frozen=True, slots=True)
class QuestionPart:
    """A part of a question that a text is held against: itself, or its members."""

    path: RegoPath
    one_of: bool
    glob: bool = False
    """Whether the text is a glob."""


@dataclass(frozen=True, slots=True)
class Hours:
    """What ``lib.during`` takes."""


Role = Syntax | QuestionPart | Hours
HOURS: Final = Hours()
_GLOBS: Final = frozenset({("glob", "match"), ("mcp", "platform", "names", "matches")})
_DURING: Final = ("mcp", "platform", "calendar", "during")

_MOST_WRAPPED: Final = 8
"""Functions around functions in which a role is followed: how many there are is the authors' choice."""
_DEEPEST: Final = 2
"""Objects inside an object of data that are read: a value that has a role has none below."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two arguments of a function that it holds against each other."""

    mine: int
    other: int
    within: bool
    """Whether the first is held against the members of the other."""
    glob: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """What functions do with their arguments, by the paths of the functions."""

    arguments: Mapping[RegoPath, Mapping[int, frozenset[Role]]]
    """Of the arguments that have a role, by their positions."""
    pairs: Mapping[RegoPath, frozenset[_Pair]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleUse:
    """One argument that has a role, and where it stands."""

    role: Role
    argument: Argument
    file: str
    line: int
    place: tuple[str | int, ...] = ()
    """In the team's data, from the top of all data; empty for what stands in the module."""

    def at(self, policies: PolicySet, line: int, steps: Sequence[str | int] = ()) -> tuple[str, int]:
        """Return file and line of a part of the argument: by its line in the module, by its steps in data."""
        if not self.place:
            return self.file, line or self.line
        return where((*self.place, *steps), policies, bundle=f"{TEAMS}{self.place[2]}")

    def texts(self) -> Iterator["Spot"]:
        """Yield each text of the argument."""
        yield from spots(self, self.argument, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A text in the argument of a use."""

    text: str
    use: RoleUse
    line: int
    steps: tuple[str | int, ...]

    def at(self, policies: PolicySet) -> tuple[str, int]:
        """Return file and line of the text. In data that is read again, so ask only for a finding."""
        return self.use.at(policies, self.line, self.steps)


def spots(use: RoleUse, argument: Argument, steps: tuple[str | int, ...]) -> Iterator[Spot]:
    """Yield each text of an argument of a use, or of a part of it that these steps lead to."""
    for text, line in argument.texts:
        # Of an array in data the second is the number of the member.
        below = (line,) if use.place and argument.kind == "array" else ()
        yield Spot(text=text, use=use, line=0 if use.place else line, steps=(*steps, *below))


def roles_of(library: Iterable[Mentions], modules: Iterable[Mentions]) -> Roles:
    """Return which arguments of which functions have a role, by what the functions do with them."""
    functions = [one for mentions in (*library, *modules) for one in mentions.functions]
    arguments: dict[RegoPath, dict[int, frozenset[Role]]] = {
        path: {index: frozenset({syntax}) for index, syntax in arguments.items()}
        for path, arguments in BUILTIN_PATTERNS.items()
    }
    arguments[_DURING] = {0: frozenset({HOURS})}
    pairs: dict[RegoPath, frozenset[_Pair]] = {
        path: frozenset(_both_ways(path, *pair)) for path, pair in BUILTIN_COMPARISONS.items()
    }
    roles = Roles(arguments=arguments, pairs=pairs)
    for _ in range(_MOST_WRAPPED):
        grown = False
        for function in functions:
            mine = arguments.setdefault(function.path, {})
            for position, role in _taken(function, roles):
                if role not in mine.get(position, frozenset()):
                    mine[position] = mine.get(position, frozenset()) | {role}
                    grown = True
            more = frozenset(_related(function, roles)) - pairs.get(function.path, frozenset())
            pairs[function.path] = pairs.get(function.path, frozenset()) | more
            grown = grown or bool(more)
        if not grown:
            break
    return roles


def _both_ways(path: RegoPath, one: int, other: int) -> Iterator[_Pair]:
    yield _Pair(one, other, within=path == MEMBERSHIP, glob=path in _GLOBS)
    yield _Pair(other, one, within=False, glob=False)


def uses(modules: Mapping[str, Mentions], roles: Roles, data: Any, team: str) -> Iterator[RoleUse]:
    """Yield what stands where a role is: in the modules of one team, in rules that are constants, in the team's data.

    Args:
        modules: what each mentions, by file.
        roles: of the arguments.
        data: the team's.
        team: its name.
    """
    constants = {path: (file, one) for file, mentions in modules.items() for path, one in mentions.constants}
    defined = Counter(rule.path for mentions in modules.values() for rule in mentions.rules)
    constants = {path: one for path, one in constants.items() if defined[path] == 1}
    for file, mentions in modules.items():
        for call in mentions.calls:
            # A function of the team may have the name of a builtin.
            if (*mentions.package, *call.function) in defined:
                continue
            for argument, role in _held(call, roles):
                use = RoleUse(role=role, argument=argument, file=file, line=call.line)
                yield from _spelled_out(use, mentions.package, constants, data, team)


def _spelled_out(
    use: RoleUse, package: RegoPath, constants: Mapping[RegoPath, tuple[str, Argument]], data: Any, team: str
) -> Iterator[RoleUse]:
    path, own = use.argument.path, (*_DATA, team)
    if use.argument.kind:
        yield use
    elif path[: len(own)] == own:
        steps = path[len(own) :]
        yield replace(use, argument=_of_data(data, steps), place=(*own[1:], *steps))
    elif path and path[0] != "input":
        rule = path[1:] if path[0] == "data" else (*package, *path)
        if rule in constants:
            file, argument = constants[rule]
            yield replace(use, argument=argument, file=file)


def _held(call: FunctionCall, roles: Roles) -> Iterator[tuple[Argument, Role]]:
    """Yield the arguments of a call that have a role, each with it."""
    for index, found in roles.arguments.get(call.function, {}).items():
        if index < len(call.arguments):
            for role in sorted(found, key=repr):
                yield call.arguments[index], role
    for pair in sorted(roles.pairs.get(call.function, ()), key=repr):
        if max(pair.mine, pair.other) < len(call.arguments):
            against = call.arguments[pair.other]
            if against.path[:1] == ("input",):
                place = QuestionPart(against.path, against.one_of or pair.within, glob=pair.glob)
                yield call.arguments[pair.mine], place


def _related(function: FunctionDefinition, roles: Roles) -> Iterator[_Pair]:
    """Yield the arguments of a function that it holds against each other."""
    position = {(name,): index for index, name in enumerate(function.parameters) if name}
    for call in function.calls:
        for pair in roles.pairs.get(call.function, ()):
            if max(pair.mine, pair.other) < len(call.arguments):
                mine, other = call.arguments[pair.mine], call.arguments[pair.other]
                if mine.path in position and other.path in position:
                    within = pair.within or other.one_of
                    yield replace(pair, mine=position[mine.path], other=position[other.path], within=within)


def _taken(function: FunctionDefinition, roles: Roles) -> Iterator[tuple[int, Role]]:
    """Yield the arguments of a function that reach a role inside it."""
    for call in function.calls:
        for argument, role in _held(call, roles):
            name = argument.path
            if len(name) == 1 and name[0] in function.parameters:
                yield function.parameters.index(name[0]), role


def _of_data(data: Any, steps: Sequence[str]) -> Argument:
    """Return a value of data as an argument; lines are looked up when there is a finding."""
    value = data
    for step in steps:
        value = value.get(step) if isinstance(value, dict) else None
    return _argument(value)


def _argument(value: Any, depth: int = 0) -> Argument:
    match value:
        case str():
            return Argument(kind="string", texts=((value, 0),))
        case list():
            texts = tuple((text, index) for index, text in enumerate(value) if isinstance(text, str))
            return Argument(kind="array", texts=texts)
        case dict():
            parts = value.items() if depth < _DEEPEST else ()
            known = tuple((str(name), 0, _argument(one, depth + 1)) for name, one in parts)
            return Argument(kind="object", parts=known, whole=depth < _DEEPEST)
        case _:
            return Argument(kind="number" if isinstance(value, int | float) else "null")


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
