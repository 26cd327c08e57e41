"""Which entries of the platform's data count for no issuer, and which name one that is not trusted here.

``issuers.rego`` closes all of that by itself: an entry that names no issuer counts for no caller once several issuers
are trusted, and a name that no token has admits no caller. So these are warnings, for the operator who wonders why.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from sidecar.policyset.data_lines import MOST_PROBLEMS, PLATFORM, pointer, where
from sidecar.policyset.finding import Rule, Severity, Violation
from sidecar.policyset.folder import PolicySet

_ALL: Final = "*"
_LONGEST: Final = 120
"""Characters of a name in a finding."""

JsonPlace = tuple[str | int, ...]


def issuer_findings(
    entries: Sequence[tuple[list[str | int], Any]], issuers: Collection[str], policies: PolicySet
) -> list[Violation]:
    """Return a warning for each entry that is silent where several issuers are trusted, and for each unknown name.

    Args:
        entries: place below the platform's data, and the list or the one name of issuers there; null is no list.
        issuers: those that the sidecar trusts; none if that is not known here, and then nothing is found.
        policies: the set that the entries are of.
    """
    if not issuers:
        return []
    found = [problem for place, listed in entries for problem in _problems(tuple(place), listed, issuers)]
    told = [_warning(place, message, policies) for place, message in found[:MOST_PROBLEMS]]
    return sorted(told, key=lambda one: (one.file, one.line))


def _problems(place: JsonPlace, listed: Any, issuers: Collection[str]) -> Iterator[tuple[JsonPlace, str]]:
    if listed is None:
        if len(issuers) > 1:
            said = "scope_issuers has no entry for it" if place[0] == "scopes" else "it has no `issuers`"
            yield place, f"counts for no caller, because {len(issuers)} issuers are trusted and {said}"
        return
    for at, name in _names(place, listed):
        if isinstance(name, str) and name != _ALL and name not in issuers:
            text = json.dumps(name)
            yield at, f"{text if len(text) <= _LONGEST else text[:_LONGEST] + '…'} is not a configured issuer"


def _names(place: JsonPlace, listed: Any) -> Iterator[tuple[JsonPlace, Any]]:
    """Yield each name with its own place."""
    if not isinstance(listed, list):
        yield place, listed
        return
    below = ("scope_issuers", *place[1:]) if place[0] == "scopes" else (*place, "issuers")
    for number, name in enumerate(listed):
        yield (*below, number), name


def _warning(place: JsonPlace, message: str, policies: PolicySet) -> Violation:
    file, line = where((*PLATFORM, *place), policies)
    return Violation(
        file=file,
        line=line,
        rule=Rule.ISSUER,
        message=f"{pointer((*PLATFORM, *place))}: {message}",
        severity=Severity.WARNING,
    )
