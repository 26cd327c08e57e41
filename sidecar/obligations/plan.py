"""Which obligations of an allow can be discharged on this call, and how; decided before anything is forwarded.

An enforcement point that cannot perform an obligation must not honour the permit (XACML 3.0 section 7.18). What can be
discharged is in the tables here, an obligation at a form of place; what is not there is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from sidecar.errors import ObligationNotSupported
from sidecar.model import AccessVerdict, Decision, JsonObject, JsonValue, ToolCall, Trait
from sidecar.obligations import limits, rewrite, writes
from sidecar.obligations.approvals import Waits, waits
from sidecar.obligations.results import FORMS
from sidecar.obligations.row_filter import FilterNotUsable, RowFilter, read_filter
from sidecar.sites import Derivation, SiteForm, SitePath

MAX_ADDED: Final = 8192
"""Conditions and values that all filters together add to a call, so that a small call does not become a large one."""

_FILTERED_TOOLS: Final = frozenset(
    {
        "aggregate",
        "aggregate-db",
        "count",
        "delete-many",
        "explain",
        "export",
        "find",
        "insert-many",
        "update-many",
    }
)
"""Tools with a place for a filter; whether a call of one can be held to it, its arguments say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is done for an allow to stand."""

    names: bool = False
    """The list of names in the result is cut down to those that a grant of the caller reaches."""
    call: ToolCall | None = None
    """What is sent instead of the call; None where it is sent as it is."""
    withholds: bool = False
    """What the server says of a failure does not go back: it can quote what the caller may not see."""

    rows: tuple[str, ...] = ()
    """The filters and numbers that its documents are held to, one text for each access; empty where there are none."""
    most_documents: int | None = None
    """How many documents may come back."""
    time_ms: int | None = None
    """After how many milliseconds it is ended."""
    waits: Waits = field(default_factory=Waits)
    """The approvals that have to be there before anything is forwarded."""

    @property
    def cuts(self) -> bool:
        """Whether something of the result is kept from the caller."""
        return self.names or self.withholds


def possible(decision: Decision, tool: str) -> Waits:
    """Return what a call waits for, if some call of the tool could be allowed so; ``plan`` says more of one call.

    Raises:
        ObligationNotSupported: no call could.
    """
    waiting = waits(decision)
    for index, verdict in enumerate(decision.accesses):
        if conditions := _unmet(verdict, tool):
            detail = f"{', '.join(conditions)} of access {index}"
            raise ObligationNotSupported(detail, access=index, conditions=tuple(conditions))
    return waiting


def plan(decision: Decision, call: ToolCall, derivation: Derivation) -> Plan:
    """Return what is to be done for the allow to stand.

    Args:
        decision: an allow.
        call: what it is about.
        derivation: all that the call touches, also through views, and where.

    Raises:
        ObligationNotSupported: something is asked for that cannot be done on this call; it says of which access.
    """
    waiting = possible(decision, call.name)
    filters = {
        index: _usable(index, verdict.filter)
        for index, verdict in enumerate(decision.accesses)
        if verdict.filter is not None
    }
    arguments = _filtered(filters, call.arguments, derivation) if filters else call.arguments
    most = limits.most_documents(decision, derivation.command)
    if most is not None:
        arguments = limits.limited(most, call, arguments, derivation, decision)
    return Plan(
        names=any(verdict.reachable_names for verdict in decision.accesses),
        call=replace(call, arguments=arguments) if arguments is not call.arguments else None,
        withholds=bool(filters),
        rows=rows_of(decision),
        most_documents=most,
        time_ms=limits.time_ms(decision, derivation.command),
        waits=waiting,
    )


def rows_of(decision: Decision) -> tuple[str, ...]:
    """Return what a decision holds documents to, in a form that can be compared; in Python ``1 == True``."""
    held = [(verdict.filter, verdict.max_documents) for verdict in decision.accesses]
    return tuple(map(repr, held)) if any(map(any, held)) else ()


def without_rows(decision: Decision) -> Decision:
    """Return a decision whose documents were held to all of that before."""
    accesses = tuple(replace(verdict, filter=None, max_documents=None) for verdict in decision.accesses)
    return replace(decision, accesses=accesses)


def _filtered(filters: Mapping[int, RowFilter], arguments: JsonObject, derivation: Derivation) -> JsonObject:
    """Return the arguments with the filters at all of their places.

    What is deeper is changed first: a stage put before others moves their positions. Where one place has several
    accesses with filters (an export reads and exports), all of them hold.
    """
    places: dict[tuple[SitePath, SiteForm], dict[str, tuple[int, RowFilter]]] = {}
    for site in derivation.sites:
        if site.access in filters:
            rows = filters[site.access]
            places.setdefault((site.path, site.form), {})[repr(rows.query)] = site.access, rows
    if filters.keys() - {site.access for site in derivation.sites}:
        raise ObligationNotSupported("an access without a place", conditions=("filter",))
    traits = derivation.command.traits
    added = sum(rows.size for found in places.values() for _, rows in found.values())
    if added > MAX_ADDED:
        raise rewrite.refused("this call", "names filtered collections at too many places; make it several calls")
    original = arguments
    for (path, form), found in sorted(places.items(), key=lambda item: -len(item[0][0])):
        for index, rows in found.values():
            try:
                if Trait.EXECUTES_PLAN in traits:
                    raise rewrite.refused(
                        "this verbosity", 'tells how many documents are looked at; use "queryPlanner"'
                    )
                if form in _CHECKS:
                    _CHECKS[form](rows, original)
                else:
                    arguments = _edited(arguments, path, partial(_FILTERS[form], rows, original, path))
            except ObligationNotSupported as error:
                error.access = index
                raise
    return arguments


_Discharge = Callable[[RowFilter, JsonObject, SitePath, JsonValue], JsonValue]
"""Takes the filter, the arguments as they came, the place, and the value that is there by now; returns the new one."""


def _edited(arguments: JsonObject, path: SitePath, change: Callable[[JsonValue], JsonValue]) -> JsonObject:
    found = rewrite.edited(arguments, path, change)
    if not isinstance(found, dict):
        raise ObligationNotSupported("a place that is the whole call")
    return found


def _by(change: Callable[[JsonObject, JsonValue], JsonValue]) -> _Discharge:
    """Return how a place is changed by its own value alone."""
    return lambda rows, _arguments, _path, value: change(rows.query, value)


def _written(rows: RowFilter, arguments: JsonObject, _path: SitePath, value: JsonValue) -> JsonValue:
    return writes.update_filter(rows, value, arguments)


def _inserted(rows: RowFilter, arguments: JsonObject) -> None:
    writes.require_rows(rows, arguments.get("documents"))


def _behind_a_view(_rows: RowFilter, _arguments: JsonObject, _path: SitePath, _value: JsonValue) -> JsonValue:
    raise rewrite.refused("this view", "reads a collection of which only some rows are yours; read that collection")


def _nowhere(_rows: RowFilter, _arguments: JsonObject, path: SitePath, _value: JsonValue) -> JsonValue:
    stage = next((step for step in reversed(path) if isinstance(step, str) and step.startswith("$")), "this use")
    raise rewrite.refused(stage, "has no place for a filter; find, count, aggregate and export have one")


_FILTERS: Final[Mapping[SiteForm, _Discharge]] = {
    SiteForm.FILTER: _by(rewrite.query_filter),
    SiteForm.UPDATE_FILTER: _written,
    SiteForm.PIPELINE_HEAD: _by(rewrite.pipeline_head),
    SiteForm.LOOKUP: _by(rewrite.lookup),
    SiteForm.UNION: _by(rewrite.union),
    SiteForm.GRAPH_RESTRICT: _by(rewrite.graph_restrict),
    SiteForm.VIEW: _behind_a_view,
    SiteForm.NONE: _nowhere,
}
"""What a row filter changes at each form of place."""

_CHECKS: Final[Mapping[SiteForm, Callable[[RowFilter, JsonObject], None]]] = {
    SiteForm.DOCUMENTS: _inserted,
    SiteForm.UPSERT: writes.require_upsert,
}
"""Where nothing is changed: what is stored has to be of the filter as it is."""


def _usable(index: int, query: JsonObject | None) -> RowFilter:
    try:
        return read_filter(query or {})
    except FilterNotUsable as error:
        raise ObligationNotSupported(str(error), access=index, conditions=("filter",)) from error


def _unmet(verdict: AccessVerdict, tool: str) -> list[str]:
    """Return the obligations on one access that cannot be discharged, by their keys of the decision contract."""
    parts = {
        "filter": verdict.filter is not None and tool not in _FILTERED_TOOLS,
        "mask": bool(verdict.mask),
        "max_documents": verdict.max_documents is not None and tool not in limits.LIMITED | limits.GIVING_NONE,
        "names": verdict.reachable_names and tool not in FORMS,
    }
    return [part for part, unmet in parts.items() if unmet]
