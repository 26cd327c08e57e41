"""Whether the values that a team's modules spell out can be: kinds, traits, hours, databases, scopes, tools, stages.

A value that a part of a question never has makes its rule hold never, or always. What the contract closes (the
``enum`` in ``schema/question.json``) is refused; what can be right somewhere else, or tomorrow, is a warning. Names of
groups and agents are in ``named_apart``.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.commands import CATALOG, STAGES
from sidecar.policyset.finding import Rule, Severity, Violation
from sidecar.policyset.folder import PolicySet
from sidecar.policyset.holdings import GLOB_SIGNS, Holdings, holdings_of
from sidecar.policyset.mentions import Argument, Syntax
from sidecar.policyset.names import cut, nearest, schema_options
from sidecar.policyset.roles import Hours, QuestionPart, RoleUse, Spot, spots
from sidecar.policyset.slips import Slips

_INPUT: Final = "input"
_DATABASE: Final = (_INPUT, "access", "database")
_MOST: Final = 100
"""Findings that are told of one team."""

_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_FORMS: Final = {
    "from": (re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]"), "HH:MM, from 00:00 to 23:59"),
    "to": (re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]|24:00"), "HH:MM, from 00:00 to 24:00"),
}
_PARTS: Final = ("days", "from", "to", "timezone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What parts of a team's question can be.

    Args:
        question: the schema of a team's question.
        holdings: the databases that the platform's data gives the team.
        scopes: those that the platform's data knows.
        issuers: those that the sidecar trusts; none if that is not known.
    """

    question: Any
    holdings: Holdings
    scopes: Collection[str]
    issuers: Collection[str]


def values_of(tables: Mapping[str, Any], question: Any, team: str, issuers: Collection[str]) -> Values:
    """Return what the parts of one team's question can be, as the platform's data says."""
    try:
        holdings, scopes = holdings_of(tables, team), frozenset(map(str, tables["scopes"]))
    except (KeyError, TypeError, AttributeError):
        holdings, scopes = Holdings(), frozenset()  # the schema says what is wrong
    return Values(question=question, holdings=holdings, scopes=scopes, issuers=issuers)


def misspelt(found: Iterable[RoleUse], values: Values, policies: PolicySet) -> list[Violation]:
    """Find what no question ever has, with file and line."""
    judge = _Judge(values)
    told: dict[Violation, None] = {}
    for use in found:
        for place, message, severity in judge.problems(use):
            file, line = place.at(policies)
            told[Violation(file=file, line=line, rule=Rule.NAME, message=message, severity=severity)] = None
            if len(told) == _MOST:
                return list(told)
    return list(told)


def timezones(found: Iterable[RoleUse]) -> Iterator[tuple[Syntax, Spot]]:
    """Yield the time zones of hours, which OPA itself has to know."""
    for use in found:
        if isinstance(use.role, Hours):
            for name, _, part in use.argument.parts:
                if name == "timezone" and part.kind == "string":
                    yield from ((Syntax.TIMEZONE, spot) for spot in spots(use, part, (name,)))


_Misspelling = tuple[Spot, str, Severity]


class _Judge:
    def __init__(self, values: Values) -> None:
        self._values = values
        self._closed: dict[QuestionPart, frozenset[str] | None] = {}
        open_values: Mapping[tuple[str, ...], tuple[str, Collection[str]]] = {
            (_INPUT, "subject", "scopes"): ("scope", values.scopes),
            (_INPUT, "subject", "issuer"): ("issuer", values.issuers),
            (_INPUT, "action", "tool"): ("tool", CATALOG),
            (_INPUT, "command", "stages"): ("stage", STAGES),
        }
        self._open = {path: (kind, frozenset(known), Slips(known)) for path, (kind, known) in open_values.items()}

    def problems(self, use: RoleUse) -> Iterator[_Misspelling]:
        """Judge one argument by its role; patterns are OPA's to judge."""
        match use.role:
            case Hours():
                yield from self._hours(use)
            case QuestionPart() as place:
                yield from self._held_against(use, place)
            case Syntax():
                pass

    def _held_against(self, use: RoleUse, place: QuestionPart) -> Iterator[_Misspelling]:
        """Judge texts that are held against one part of a question."""
        if place.path == _DATABASE:
            yield from self._databases(use, place)
            return
        closed = self._closed_values(place)
        kind, known, slips = self._open.get(place.path, ("", frozenset(), Slips(())))
        for spot in use.texts():
            if place.glob and GLOB_SIGNS & set(spot.text):
                continue
            if closed is not None and spot.text not in closed:
                yield spot, _never(place, spot.text, closed), Severity.WARNING if use.place else Severity.ERROR
            elif known and spot.text not in known and (meant := slips.meant(spot.text)):
                yield spot, f"there is no {kind} {cut(spot.text)}: did you mean {meant}?", Severity.WARNING

    def _hours(self, use: RoleUse) -> Iterator[_Misspelling]:
        """Judge what ``lib.during`` is given."""
        hours = use.argument
        whole = Spot(text="", use=use, line=0, steps=())
        if hours.kind != "object":
            yield whole, f"hours are an object of {_listed(_PARTS)}", Severity.ERROR
            return
        given = {name: part for name, _, part in hours.parts}
        for name, line, part in hours.parts:
            spot = Spot(text=name, use=use, line=line, steps=(name,))
            if name not in _PARTS:
                yield (
                    spot,
                    f"hours have no {cut(name)}{nearest(name, _PARTS) or f': they have {_listed(_PARTS)}'}",
                    (Severity.WARNING if set(_PARTS) <= given.keys() else Severity.ERROR),
                )
            else:
                yield from _part_of_hours(spot, name, part)
        missing = [name for name in _PARTS if name not in given]
        if missing and hours.whole and given.keys() <= set(_PARTS):
            yield whole, f"hours without {_listed(missing)} contain no moment", Severity.ERROR
        start, end = (_only_text(given.get(name, Argument())) for name in ("from", "to"))
        readable = all(_FORMS[name][0].fullmatch(one or "") for name, one in (("from", start), ("to", end)))
        if start and end and readable and start >= end:
            message = f"hours from {start} to {end} contain no moment; across midnight they are two rules"
            yield whole, message, Severity.ERROR

    def _databases(self, use: RoleUse, place: QuestionPart) -> Iterator[_Misspelling]:
        holdings = self._values.holdings
        if not holdings:
            return  # the platform has given the team nothing yet
        for spot in use.texts():
            is_glob = place.glob and bool(GLOB_SIGNS & set(spot.text))
            if not holdings.fits(spot.text, is_glob=is_glob):
                what = f"no database of the team fits {cut(spot.text)}"
                known = f": it has {_listed(holdings.shown())}" if holdings else ""
                yield spot, f"{what}{nearest(spot.text, holdings.names) or known}", Severity.WARNING

    def _closed_values(self, place: QuestionPart) -> frozenset[str] | None:
        """Return all texts that a part of a question can be; None where that is open."""
        if place not in self._closed:
            self._closed[place] = _enumerated(place, self._values.question)
        return self._closed[place]


def _part_of_hours(spot: Spot, name: str, part: Argument) -> Iterator[_Misspelling]:
    if name == "days":
        if part.kind and part.kind not in {"array", "set", "object"}:
            yield spot, "days are a set or a list of names", Severity.ERROR
        for day in spots(spot.use, part, spot.steps) if part.kind in {"array", "set"} else ():
            if day.text not in _DAYS:
                message = f"there is no day {cut(day.text)}{nearest(day.text.capitalize(), _DAYS)}"
                yield day, message, Severity.ERROR
    elif part.kind and part.kind != "string":
        yield spot, f"{name} is a text", Severity.ERROR
    elif (text := _only_text(part)) is not None and name in _FORMS and not _FORMS[name][0].fullmatch(text):
        yield spot, f"{name} is {_FORMS[name][1]}, and not {cut(text)}", Severity.ERROR


def _only_text(part: Argument) -> str | None:
    return part.texts[0][0] if part.kind == "string" and part.texts else None


def _never(place: QuestionPart, text: str, closed: Collection[str]) -> str:
    verb = "never holds" if place.one_of else "is never"
    advice = nearest(text, closed) or f": {'only ' if place.one_of else 'it is one of '}{_listed(sorted(closed))}"
    return f"{'.'.join(place.path)} {verb} {cut(text)}{advice}"


def _enumerated(place: QuestionPart, schema: Any) -> frozenset[str] | None:
    options = list(schema_options(schema, place.path[1:]))
    if place.one_of:
        options = [one for option in options for one in schema_options(option.get("items"), ())]
    texts: set[str] = set()
    for option in options:
        if isinstance(option.get("enum"), list):
            texts |= {one for one in option["enum"] if isinstance(one, str)}
        elif option.get("type") in {None, "string"}:
            return None
    return frozenset(texts) if texts else None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
