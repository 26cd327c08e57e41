"""Groups and agents that one place names and another nearly names: a slip that grants, limits or suspends nothing.

No table has all groups, nor all agents: an issuer has. A caller may have a second group with a route, and an agent that
is not registered has the rights of the default. So a name that stands in one place alone is told only where another
place has it otherwise spelt, and never refused.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.policyset.data_lines import PLATFORM, pointer, where
from sidecar.policyset.finding import Rule, Severity, Violation
from sidecar.policyset.folder import PolicySet
from sidecar.policyset.holdings import GLOB_SIGNS
from sidecar.policyset.roles import QuestionPart, RoleUse, Spot
from sidecar.policyset.slips import Slips

_RULES: Final = "rules"
_GROUPS: Final = frozenset({("input", "subject", "groups")})
_AGENTS: Final = frozenset({("input", "actor", "id"), ("input", "actor", "chain")})
_MOST: Final = 100
"""Findings that are told."""

_Where = Spot | tuple[str | int, ...]
"""In a team's folder, or below the platform's data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """One kind of names: where each place has which."""

    name: str
    said: Mapping[str, str]
    """By place: what names them there, in words."""
    places: dict[str, dict[str, _Where]]


def named_apart(found: Iterable[RoleUse], tables: Mapping[str, Any], policies: PolicySet) -> list[Violation]:
    """Return a warning for each name of one place that is nearly that of another.

    Args:
        found: what the modules of all teams spell out.
        tables: the platform's.
        policies: the whole set.
    """
    try:
        groups = _Kind(name="group", said=_GROUP_PLACES, places=dict(_groups(tables)))
        agents = _Kind(name="agent", said=_AGENT_PLACES, places=dict(_agents(tables)))
    except (KeyError, TypeError, AttributeError):
        return []  # the schema says what is wrong
    for use in found:
        if isinstance(use.role, QuestionPart):
            for kind, paths in ((groups, _GROUPS), (agents, _AGENTS)):
                if use.role.path in paths:
                    for spot in use.texts():
                        kind.places.setdefault(_RULES, {}).setdefault(spot.text, spot)
    slips = [*_slips(groups), *_slips(agents)]
    return [_warning(place, message, policies) for place, message in slips[:_MOST]]


_GROUP_PLACES: Final = {
    "routes": "no route names",
    _RULES: "no team's rule names",
    "grants": "no grant of the platform names",
    "limits": "no limit names",
    "traits": "no trait is for",
}
_AGENT_PLACES: Final = {
    "registered": "nobody has registered",
    _RULES: "no team's rule names",
    "routes": "no route names",
    "limits": "no limit names",
    "suspended": "nothing suspends",
}


def _groups(tables: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, _Where]]]:
    for table in ("routes", "grants", "limits"):
        yield table, _listed((table,), enumerate(tables.get(table, ())), "groups")
    yield "traits", _listed(("traits",), tables["traits"].items(), "groups")


def _agents(tables: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, _Where]]]:
    yield "registered", {name: ("agents", "registered", name) for name in tables["agents"]["registered"]}
    for table in ("routes", "limits"):
        yield table, _listed((table,), enumerate(tables.get(table, ())), "agents")
    yield "suspended", _listed((), [("suspended", tables["suspended"])], "agents")


def _listed(above: tuple[str, ...], entries: Iterable[tuple[int | str, Any]], names: str) -> dict[str, _Where]:
    """Return the names in one list of each entry, and where each stands."""
    return {
        str(name): (*above, key, names, number) for key, entry in entries for number, name in enumerate(entry[names])
    }


def _slips(kind: _Kind) -> Iterator[tuple[_Where, str]]:
    """Yield where a name stands that no other place has, and what it is nearly."""
    if any(GLOB_SIGNS & set(name) for name in kind.places["routes"] if name != "*" and kind.name == "group"):
        return  # names of groups are exact: what looks like a pattern is another mistake
    for place, names in kind.places.items():
        others = {name: other for other, more in kind.places.items() if other != place for name in more}
        slips = Slips(name for name in others if not GLOB_SIGNS & set(name))
        for name, at in names.items():
            if name not in others and not GLOB_SIGNS & set(name) and (meant := slips.meant(name)):
                yield at, f"{kind.said[others[meant]]} the {kind.name} {name}: did you mean {meant}?"


def _warning(place: _Where, message: str, policies: PolicySet) -> Violation:
    if isinstance(place, Spot):
        file, line = place.at(policies)
    else:
        file, line = where((*PLATFORM, *place), policies)
        message = f"{pointer((*PLATFORM, *place))}: {message}"
    return Violation(file=file, line=line, rule=Rule.NAME, message=message, severity=Severity.WARNING)
