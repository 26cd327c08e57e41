r"""Are the patterns in the platform's data globs that OPA can read.

``names.rego`` hands them to ``glob.match`` under strict builtin errors: one that does not compile fails every question
that reaches it, which for a route or a suspended agent is everybody's. Measured with OPA 1.22.2, on 39,000 texts of the
characters that mean something: one that fails (``[``, ``{a``, ``a\``, ``[]``, ``[a-]``) fails for every name, also the
empty one, and one that does not, for none. So OPA tries each once, with the empty name, when a set is checked.

What a pattern of a team's data is for, only its modules know; those are left alone.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from sidecar.errors import ConfigurationError
from sidecar.opa.containment import Rule, Violation
from sidecar.opa.places import MOST_PROBLEMS, PLATFORM, pointer, where
from sidecar.opa.policies import PolicySet

_ANY: Final = "*"
_HOLDINGS: Final = (
    ("deployments", _ANY, "whole"),
    *(("deployments", _ANY, table, _ANY) for table in ("databases", "prefixes", "targets")),
)
LISTS: Final = (
    ("routes", _ANY, "agents"),
    *((*holding, part, _ANY, "collections") for holding in _HOLDINGS for part in ("delegated", "obligations")),
    *(("grants", _ANY, part) for part in ("deployments", "databases", "collections")),
    *(
        ("agents", *whose, part)
        for whose in (("default",), ("registered", _ANY))
        for part in ("servers", "deployments")
    ),
    ("windows", _ANY, "databases"),
    ("suspended", "agents"),
)
"""The lists of globs in the platform's data: what ``schema/platform.json`` calls globs, and the rules give to
``names.matches``. ``*`` is every member."""

_LONGEST: Final = 80
"""Characters of a pattern in a finding."""


def _members(names: Sequence[str]) -> str:
    """Return a comprehension in Rego of every member of the lists of one kind, each with its place."""
    steps = [f"step{number}" if name == _ANY else json.dumps(name) for number, name in enumerate((*names, _ANY))]
    place = "".join(f"[{step}]" for step in steps)
    return f"{{[[{', '.join(steps)}], text] | text := data.{'.'.join(PLATFORM)}{place}}}"


QUERY: Final = (
    f"[bad | all := {' | '.join(map(_members, LISTS))}; "
    'some bad in all - {[place, text] | some [place, text] in all; _ = glob.match(text, null, "")}]'
)
"""Place and pattern of each that does not compile."""


def unusable(answer: Any, policies: PolicySet) -> list[Violation]:
    """Return the patterns that the answer to ``QUERY`` names, with their places in the files.

    Raises:
        ConfigurationError: it is no such answer.
    """
    try:
        found = msgspec.convert(answer, list[tuple[list[str | int], Any]])
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"the globs in the platform's data were not tried: {error}") from None
    violations = [_violation((*PLATFORM, *place), pattern, policies) for place, pattern in found[:MOST_PROBLEMS]]
    return sorted(violations, key=lambda one: (one.file, one.line))


def _violation(place: Sequence[str | int], pattern: Any, policies: PolicySet) -> Violation:
    text = json.dumps(pattern, ensure_ascii=False)
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    file, line = where(place, policies)
    message = f"{pointer(place)}: OPA cannot read {text} as a glob"
    return Violation(file=file, line=line, rule=Rule.DATA, message=message)
