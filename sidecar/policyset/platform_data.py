r"""What OPA itself says of the platform's data, as it loads it: held to its schema, its globs and times tried.

One evaluation without any module, wherever a set is checked: at start, at reload, and by ``policy check``.

Are the patterns in the platform's data globs that OPA can read.

``names.rego`` hands them to ``glob.match`` under strict builtin errors: one that does not compile fails every question
that reaches it, which for a route or a suspended agent is everybody's. Measured with OPA 1.22.2, on 39,000 texts of the
characters that mean something: one that fails (``[``, ``{a``, ``a\``, ``[]``, ``[a-]``) fails for every name, also the
empty one, and one that does not, for none. So OPA tries each once, with the empty name, when a set is checked.

What a pattern of a team's data is for, only its modules know; those are left alone.
"""

import contextlib
import json
from collections.abc import Collection, Sequence
from itertools import islice
from typing import Any, Final
from zoneinfo import available_timezones

import msgspec

from sidecar.errors import ConfigurationError
from sidecar.policyset import known_platform
from sidecar.policyset.data_lines import MOST_PROBLEMS, PLATFORM, pointer, where
from sidecar.policyset.finding import Rule, Severity, Violation
from sidecar.policyset.folder import SCHEMAS, PolicySet
from sidecar.policyset.issuer_lists import issuer_findings
from sidecar.policyset.names import nearest
from sidecar.policyset.platform_names import platform_tables
from sidecar.policyset.question_reads import digest_of_rules
from sidecar.policyset.schema_problems import SchemaProblems
from sidecar.printing import printable

_SCHEMA: Final = f"{SCHEMAS}/platform.json"
_DATA: Final = "platform/data.json"
_LONGEST: Final = 80
"""Characters of a value in a finding."""

_ANY: Final = "*"
_HOLDINGS: Final = (
    ("deployments", _ANY, "whole"),
    *(("deployments", _ANY, table, _ANY) for table in ("databases", "prefixes", "targets")),
)
GLOB_LISTS: Final = (
    ("routes", _ANY, "agents"),
    *((*holding, part, _ANY, "collections") for holding in _HOLDINGS for part in ("delegated", "obligations")),
    *(("grants", _ANY, part) for part in ("deployments", "databases", "collections", "targets")),
    *(
        ("agents", *whose, part)
        for whose in (("default",), ("registered", _ANY))
        for part in ("servers", "deployments")
    ),
    ("approvers", _ANY, "agents"),
    ("limits", _ANY, "agents"),
    ("windows", _ANY, "databases"),
    ("suspended", "agents"),
)
"""The lists of globs in the platform's data: what ``schema/platform.json`` calls globs, and the rules give to
``names.matches``. ``*`` is every member."""


_ISSUER_LISTS: Final = (
    ("routes", _ANY),
    ("grants", _ANY),
    ("approvers", _ANY),
    ("agents", "default"),
    ("agents", "registered", _ANY),
    ("traits", _ANY),
    *((*holding, "delegated", _ANY) for holding in _HOLDINGS),
)
"""The entries that count for the issuers that they list: all that the rules give to ``issuers.counts``."""
_ISSUER_NAMES: Final = (("break_glass", _ANY, "issuer"), ("suspended", "subjects", _ANY, "issuer"))


def _all_at(names: Sequence[str], said: str = "value") -> str:
    """Return a comprehension in Rego of the term for every value of one kind, each with its place."""
    steps = [f"step{number}" if name == _ANY else json.dumps(name) for number, name in enumerate(names)]
    place = "".join(f"[{step}]" for step in steps)
    return f"{{[[{', '.join(steps)}], {said}] | value := data.{'.'.join(PLATFORM)}{place}}}"


def _members(names: Sequence[str]) -> str:
    """Return the same of every member of the lists of one kind."""
    return _all_at((*names, _ANY))


_SCOPES: Final = (
    '{[["scopes", scope], object.get(data.mcp.platform, ["scope_issuers", scope], null)] | '
    "some scope, _ in data.mcp.platform.scopes}"
)
_ISSUER_QUERY: Final = " | ".join(
    (
        *(_all_at(names, 'object.get(value, "issuers", null)') for names in _ISSUER_LISTS),
        *map(_all_at, _ISSUER_NAMES),
        _SCOPES,
    )
)


_GLOB_QUERY: Final = (
    f"[bad | all := {' | '.join(map(_members, GLOB_LISTS))}; "
    'some bad in all - {[place, text] | some [place, text] in all; _ = glob.match(text, null, "")}]'
)
"""Place and pattern of each that does not compile."""


_FORM: Final = ("configuration", "input_check")
"""The platform's rule that says whether the tables can be used, and what it uses: the names of the modules, which are
those of their packages."""


def _query(tables: str, sound: str) -> str:
    return (
        '{"there": [1 | _ = data.mcp.platform], '
        f'"held": [answer | answer := json.match_schema({tables}, input)], '
        f'"globs": {_GLOB_QUERY}, '
        f'"issuers": [one | some one in {_ISSUER_QUERY}], '
        f'"sound": [1 | {sound}], '
        '"zones": [[index, zone] | some index, window in data.mcp.platform.windows; zone := window.hours.timezone; '
        "not time.clock([0, zone])], "
        '"moments": [[index, moment] | some index, glass in data.mcp.platform.break_glass; moment := glass.until; '
        "not time.parse_rfc3339_ns(moment)]}"
    )


_ALONE: Final = _query("data.mcp.platform", "false")
_WITH_RULE: Final = _query(
    f"object.remove(data.mcp.platform, {json.dumps(_FORM)})", f"data.mcp.platform.{_FORM[0]}.in_form"
)


def arguments(policies: PolicySet) -> tuple[str, ...]:
    """Return those of an ``opa`` in the folder of the set, with ``schema_of`` the set as its input.

    Not for strict builtin errors: there the first glob that cannot be read would be the answer. The platform's own rule
    is asked beside it only where the rules are those of this build and no table has the name of one of them.
    """
    options = ("eval", "--format", "raw", "--ignore", "*.rego", "--stdin-input", "-b", PLATFORM[-1])
    tables = platform_tables(policies)
    if not tables or tables.keys() & {*_FORM} or digest_of_rules(policies) != known_platform.RULES:
        return (*options, _ALONE)
    modules = (word for name in _FORM for word in ("-d", f"{PLATFORM[-1]}/{name}.rego"))
    return (*options, *modules, _WITH_RULE)


MISSING: Final = Violation(
    file=_DATA,
    line=1,
    rule=Rule.DATA,
    message="there is none, so every call is refused",
    severity=Severity.WARNING,
)
"""Of a set without any. It is served: a platform may begin with rules, and all that follows from them is refusal."""


def schema_of(policies: PolicySet) -> bytes:
    """Return the schema of the platform's data; one that holds of everything where the set has none."""
    return dict(policies.aside).get(_SCHEMA, b"{}")


def is_sound(output: bytes) -> bool:
    """Whether an evaluation that said nothing of any fault says that the platform's rules can use the data."""
    with contextlib.suppress(msgspec.DecodeError):
        return bool(_ANSWER.decode(output).sound)
    return False


def findings(status: int, output: bytes, policies: PolicySet, issuers: Collection[str]) -> list[Violation]:
    """Read what the evaluation printed.

    Args:
        status: of the command.
        output: of the command.
        policies: the set that it looked at.
        issuers: those that the sidecar trusts; none if that is not known here.

    Raises:
        ConfigurationError: no answer; one pattern can take all memory that a check may have.
    """
    answer = _answered(status, output)
    if not answer.there:
        message = "there is no mcp.platform"
        return [Violation(file=_DATA, line=1, rule=Rule.DATA, message=message)]
    if not answer.held:
        raise ConfigurationError(f"the platform's data cannot be held to {_SCHEMA}")
    _, problems = answer.held[0]
    words = SchemaProblems(_decoded(schema_of(policies)), platform_tables(policies))
    told = words.told([(one.field, one.desc) for one in problems])
    found = [_problem(field, said, policies) for field, said in islice(told, MOST_PROBLEMS)]
    found += [_unread(("windows", index, "hours", "timezone"), zone, policies) for index, zone in answer.zones]
    found += [_unread(("break_glass", index, "until"), moment, policies) for index, moment in answer.moments]
    found += unreadable_globs(answer.globs, policies)
    return found + issuer_findings(answer.issuers, issuers, policies)


def _unread(place: tuple[str | int, ...], value: Any, policies: PolicySet) -> Violation:
    """Return the finding on a zone or a moment that OPA's clock cannot read: a question that reaches it fails."""
    file, line = where((*PLATFORM, *place), policies)
    text = msgspec.json.encode(value).decode()
    advice = nearest(value, available_timezones()) if place[-1] == "timezone" and isinstance(value, str) else ""
    message = f"{pointer((*PLATFORM, *place))}: OPA's clock cannot read {text[:_LONGEST]}{advice}"
    return Violation(file=file, line=line, rule=Rule.DATA, message=message)


class _Problem(msgspec.Struct):
    field: str
    desc: str


class _Evaluation(msgspec.Struct):
    there: list[int]
    sound: list[int]
    """One, where the platform's own rule finds the tables usable; none, where that rule was not asked."""
    held: list[tuple[bool, list[_Problem]]]
    """What ``json.match_schema`` answers; empty where the schema is none."""
    globs: Any
    issuers: list[tuple[list[str | int], Any]]
    zones: list[tuple[int, Any]]
    moments: list[tuple[int, Any]]


_ANSWER: Final = msgspec.json.Decoder(_Evaluation)


def _answered(status: int, output: bytes) -> _Evaluation:
    with contextlib.suppress(msgspec.DecodeError):  # a ValidationError is one too
        if status == 0:
            return _ANSWER.decode(output)
    raise ConfigurationError(f"the platform's data cannot be looked at: {printable(output)}")


def _decoded(content: bytes) -> Any:
    with contextlib.suppress(msgspec.DecodeError, RecursionError):
        return msgspec.json.decode(content)
    return {}


def _problem(field: str, description: str, policies: PolicySet) -> Violation:
    file, line = where((*PLATFORM, *field.split(".")), policies)
    return Violation(file=file, line=line, rule=Rule.DATA, message=f"{field}: {description}")


def unreadable_globs(answer: Any, policies: PolicySet) -> list[Violation]:
    """Return the patterns that the answer to ``_GLOB_QUERY`` names, with their places in the files.

    Raises:
        ConfigurationError: it is no such answer.
    """
    try:
        found = msgspec.convert(answer, list[tuple[list[str | int], Any]])
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"the globs in the platform's data were not tried: {error}") from None
    violations = [_unreadable_glob((*PLATFORM, *place), pattern, policies) for place, pattern in found[:MOST_PROBLEMS]]
    return sorted(violations, key=lambda one: (one.file, one.line))


def _unreadable_glob(place: Sequence[str | int], pattern: Any, policies: PolicySet) -> Violation:
    text = json.dumps(pattern, ensure_ascii=False)
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    file, line = where(place, policies)
    message = f"{pointer(place)}: OPA cannot read {text} as a glob"
    return Violation(file=file, line=line, rule=Rule.DATA, message=message)
