"""What OPA itself says of the platform's data, as it loads it: held to its schema, its globs and times tried.

One evaluation without any module, wherever a set is checked: at start, at reload, and by ``policy check``.
"""

import contextlib
from typing import Any, Final

import msgspec

from sidecar.errors import ConfigurationError
from sidecar.opa import globs
from sidecar.opa.containment import Rule, Violation
from sidecar.opa.generation import printable
from sidecar.opa.places import MOST_PROBLEMS, PLATFORM, pointer, where
from sidecar.opa.policies import SCHEMAS, PolicySet

_SCHEMA: Final = f"{SCHEMAS}/platform.json"
_DATA: Final = "platform/data.json"
_LONGEST: Final = 80
"""Characters of a value in a finding."""

_QUERY: Final = (
    '{"there": [1 | _ = data.mcp.platform], '
    '"held": [answer | answer := json.match_schema(data.mcp.platform, input)], '
    f'"globs": {globs.QUERY}, '
    '"zones": [[index, zone] | some index, window in data.mcp.platform.windows; zone := window.hours.timezone; '
    "not time.clock([0, zone])], "
    '"moments": [[index, moment] | some index, glass in data.mcp.platform.break_glass; moment := glass.until; '
    "not time.parse_rfc3339_ns(moment)]}"
)

ARGUMENTS: Final = ("eval", "--format", "raw", "--ignore", "*.rego", "--stdin-input", "-b", PLATFORM[-1], _QUERY)
"""Of an ``opa`` in the folder of the set, with ``schema_of`` the set as its input. Not for strict builtin errors: there
the first glob that cannot be read would be the answer."""


def schema_of(policies: PolicySet) -> bytes:
    """Return the schema of the platform's data; one that holds of everything where the set has none."""
    return dict(policies.aside).get(_SCHEMA, b"{}")


def findings(status: int, output: bytes, policies: PolicySet) -> list[Violation]:
    """Read what the evaluation printed.

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
    found = [_problem(one.field, one.desc, policies) for one in problems[:MOST_PROBLEMS]]
    found += [_unread(("windows", index, "hours", "timezone"), zone, policies) for index, zone in answer.zones]
    found += [_unread(("break_glass", index, "until"), moment, policies) for index, moment in answer.moments]
    return found + globs.unusable(answer.globs, policies)


def _unread(place: tuple[str | int, ...], value: Any, policies: PolicySet) -> Violation:
    """Return the finding on a zone or a moment that OPA's clock cannot read: a question that reaches it fails."""
    file, line = where((*PLATFORM, *place), policies)
    text = msgspec.json.encode(value).decode()
    return Violation(
        file=file,
        line=line,
        rule=Rule.DATA,
        message=f"{pointer((*PLATFORM, *place))}: OPA's clock cannot read {text[:_LONGEST]}",
    )


class _Problem(msgspec.Struct):
    field: str
    desc: str


class _Answer(msgspec.Struct):
    there: list[int]
    held: list[tuple[bool, list[_Problem]]]
    """What ``json.match_schema`` answers; empty where the schema is none."""
    globs: Any
    zones: list[tuple[int, Any]]
    moments: list[tuple[int, Any]]


_ANSWER: Final = msgspec.json.Decoder(_Answer)


def _answered(status: int, output: bytes) -> _Answer:
    with contextlib.suppress(msgspec.DecodeError):  # a ValidationError is one too
        if status == 0:
            return _ANSWER.decode(output)
    raise ConfigurationError(f"the platform's data cannot be looked at: {printable(output)}")


def _problem(field: str, description: str, policies: PolicySet) -> Violation:
    file, line = where((*PLATFORM, *field.split(".")), policies)
    return Violation(file=file, line=line, rule=Rule.DATA, message=f"{field}: {description}")
