"""Which obligations of an allow can be discharged on this call, and how; decided before anything is forwarded.

An enforcement point that cannot perform an obligation must not honour the permit (XACML 3.0 section 7.18). What can be
discharged is in the tables here, an obligation at a form of place; what is not there is refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeAlias

from sidecar.errors import ObligationNotSupported
from sidecar.model import AccessVerdict, Decision, JsonObject, JsonValue, ToolCall, Trait
from sidecar.obligations import finds, limits, masking, rewrite, writes
from sidecar.obligations.approvals import Waits, waits
from sidecar.obligations.indexes import INDEXES, IndexView
from sidecar.obligations.masks import Mask, MaskNotUsable, read_mask
from sidecar.obligations.probes import Probe, probes
from sidecar.obligations.results import FORMS
from sidecar.obligations.row_filter import FilterNotUsable, RowFilter, read_filter
from sidecar.sites import Derivation, SiteForm, SitePath

MAX_ADDED: Final = 8192
"""Conditions and values that all filters together add to a call, so that a small call does not become a large one."""

_HELD_TOOLS: Final = frozenset(
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
"""Tools with a place for a filter or a mask; whether a call of one can be held to it, its arguments say."""


_WHOLE: Final[Mapping[str, str]] = {
    "collection-schema": "it is made of a sample of all documents and tells their fields; use aggregate with $sample",
    "collection-storage-size": "it is the size of all documents; use count, or $bsonSize in aggregate",
    "db-stats": "it is of all documents of all collections; use count, or $bsonSize in aggregate",
    "create-index": "an index is over all documents, and fails by what they hold",
    "drop-collection": "it is of all documents; use delete-many",
    "drop-index": "an index is over all documents",
    "rename-collection": "it is of all documents",
}
"""Tools that are about a collection as a whole, and why none of what they say or do can be of some documents only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is done for an allow to stand."""

    indexes: IndexView | None = None
    """What the result shows of the collection's indexes; None where that is all."""
    names: bool = False
    """The list of names in the result is cut down to those that a grant of the caller reaches."""
    call: ToolCall | None = None
    """What is sent instead of the call; None where it is sent as it is."""
    find_of: str = ""
    """The collection of a find that is sent as a pipeline, whose answer becomes that of a find again."""
    withholds: bool = False
    """What the server says of a failure does not go back: it can quote what the caller may not see."""

    rows: tuple[str, ...] = ()
    """The filters and numbers that its documents are held to, one text for each access; empty where there are none."""
    most_documents: int | None = None
    """How many documents may come back."""
    time_ms: int | None = None
    """After how many milliseconds it is ended."""
    most_bytes: int | None = None
    """How large the answer may be."""
    most_affected: int | None = None
    """How many documents it may change."""
    probes: tuple[Probe, ...] = ()
    """What the server is asked before the call goes there."""
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
            error = ObligationNotSupported(detail, access=index, conditions=tuple(conditions))
            if not {"filter", "mask"}.isdisjoint(conditions):
                error.because = _WHOLE.get(tool, "")
            raise error
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
    masks = {index: verdict.mask for index, verdict in enumerate(decision.accesses) if verdict.mask}
    most = limits.most_documents(decision, derivation.command)
    came = call
    view = _index_view(filters, masks, derivation) if call.name == INDEXES else None
    if masks and (piped := _piped(most, call, derivation, decision)) is not None:
        call, derivation = piped
    arguments = _held(filters, masks, call.arguments, derivation) if filters or masks else call.arguments
    if most is not None and call is came:
        arguments = limits.limited(most, call, arguments, derivation, decision)
    most_bytes = limits.most_bytes(decision, derivation.command)
    if most_bytes is not None:
        arguments = limits.smaller(most_bytes, call.name, arguments)
    sent = replace(call, arguments=arguments) if arguments is not call.arguments else call
    collection = call.arguments.get("collection")
    asked = probes(decision, sent, derivation)
    return Plan(
        indexes=view,
        names=any(verdict.reachable_names for verdict in decision.accesses),
        call=sent if sent is not came else None,
        find_of=str(collection) if call is not came else "",
        withholds=bool(filters or masks or view),
        rows=rows_of(decision),
        most_documents=most,
        time_ms=limits.time_ms(decision, derivation.command),
        most_bytes=most_bytes,
        most_affected=min((one.most for one in asked if one.most), default=None),
        probes=asked,
        waits=waiting,
    )


def _index_view(
    filters: dict[int, RowFilter], masks: dict[int, tuple[JsonValue, ...]], derivation: Derivation
) -> IndexView | None:
    """Take what the collection's own indexes are held to from what has to be held to it in a call.

    Raises:
        ObligationNotSupported: the mask is none.
    """
    own = [site.access for site in derivation.sites if site.form is SiteForm.NONE]
    held = _HeldTo()
    for access in own:
        if (rows := filters.pop(access, None)) is not None:
            held.rows[repr(rows.query)] = access, rows
        if mask := masks.pop(access, None):
            held.masks[access] = mask
    if not (held.rows or held.masks):
        return None
    return IndexView(mask=_mask(held) if held.masks else None)


def _piped(
    most: int | None, call: ToolCall, derivation: Derivation, decision: Decision
) -> tuple[ToolCall, Derivation] | None:
    """Return a find as a pipeline, where a mask needs one, with the limit of the find."""
    if call.name == "find" and most is not None:
        arguments = limits.limited(most, call, call.arguments, derivation, decision)
        call = replace(call, arguments=arguments)
    return finds.as_pipeline(call, derivation, decision)


def rows_of(decision: Decision) -> tuple[str, ...]:
    """Return what a decision holds documents to, in a form that can be compared; in Python ``1 == True``."""
    held = [(verdict.filter, verdict.max_documents, verdict.mask) for verdict in decision.accesses]
    return tuple(map(repr, held)) if any(map(any, held)) else ()


def without_rows(decision: Decision) -> Decision:
    """Return a decision whose documents were held to all of that before."""
    accesses = tuple(replace(verdict, filter=None, max_documents=None, mask=()) for verdict in decision.accesses)
    return replace(decision, accesses=accesses)


@dataclass(frozen=True, slots=True)
class _HeldTo:
    """What one place of a call is held to; where it has several accesses (an export reads and exports), by all."""

    rows: dict[str, tuple[int, RowFilter]] = field(default_factory=dict)
    """The different filters, each with one access that has it."""
    masks: dict[int, tuple[JsonValue, ...]] = field(default_factory=dict)
    """The masks by access."""


_HeldByPlace: TypeAlias = dict[tuple[SitePath, SiteForm], _HeldTo]


def _held(
    filters: Mapping[int, RowFilter],
    masks: Mapping[int, tuple[JsonValue, ...]],
    arguments: JsonObject,
    derivation: Derivation,
) -> JsonObject:
    """Return the arguments with the filters and masks at all of their places.

    What is deeper is changed first, and in one pipeline what comes later: a stage that is put in moves those behind
    it. At one place the mask is put in first and the filter before it: the rows are chosen by what is stored.
    """
    places = _places(filters, masks, derivation)
    if masks:
        masking.require_no_keys(arguments)
    traits = derivation.command.traits
    original = arguments
    for (path, form), place in sorted(places.items(), key=_order):
        index = next(iter(place.masks), 0)
        try:
            if Trait.EXECUTES_PLAN in traits:
                condition = "filter" if place.rows else "mask"
                advice = 'tells how many documents are looked at; use "queryPlanner"'
                raise rewrite.refused("this verbosity", advice, condition)
            if place.masks:
                arguments = masking.masked(_mask(place), form, arguments, path, derivation)
            for index, rows in place.rows.values():  # noqa: B007 - the refusal says of which
                if form in _CHECKS:
                    _CHECKS[form](rows, original)
                else:
                    arguments = _edited(arguments, path, partial(_FILTERS[form], rows, original, path))
        except ObligationNotSupported as error:
            error.access = index
            raise
    return arguments


def _places(
    filters: Mapping[int, RowFilter], masks: Mapping[int, tuple[JsonValue, ...]], derivation: Derivation
) -> _HeldByPlace:
    """Return what each place is held to.

    Raises:
        ObligationNotSupported: an access has no place, or the call would grow by too much.
    """
    places: _HeldByPlace = {}
    for site in derivation.sites:
        place = places.setdefault((site.path, site.form), _HeldTo())
        if site.access in filters:
            rows = filters[site.access]
            place.rows[repr(rows.query)] = site.access, rows
        if site.access in masks:
            place.masks[site.access] = masks[site.access]
    placed = {site.access for site in derivation.sites}
    for condition, missing in (("filter", filters.keys() - placed), ("mask", masks.keys() - placed)):
        if missing:
            raise ObligationNotSupported("an access without a place", conditions=(condition,))
    held = {where: place for where, place in places.items() if place.rows or place.masks}
    added = sum(rows.size for place in held.values() for _, rows in place.rows.values())
    added += masking.SIZE * sum(len(mask) for place in held.values() for mask in place.masks.values())
    if added > MAX_ADDED:
        condition = "filter" if filters else "mask"
        advice = "names collections that you see a part of at too many places; make it several calls"
        raise rewrite.refused("this call", advice, condition)
    return held


def _order(place: tuple[tuple[SitePath, SiteForm], _HeldTo]) -> tuple[int, int]:
    (path, _), _ = place
    *_, stage = (0, *(step for step in path if isinstance(step, int)))
    return -len(path), -stage


def _mask(place: _HeldTo) -> Mask:
    try:
        return read_mask([entry for mask in place.masks.values() for entry in mask])
    except MaskNotUsable as error:
        raise ObligationNotSupported(str(error), conditions=("mask",)) from error


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
    held = tool in _HELD_TOOLS or tool == INDEXES
    parts = {
        "filter": verdict.filter is not None and not held,
        "mask": bool(verdict.mask) and not held,
        "max_documents": verdict.max_documents is not None and tool not in limits.LIMITED | limits.GIVING_NONE,
        "max_affected": verdict.max_affected is not None and not tool,
        "no_collection_scan": verdict.no_collection_scan and not tool,
        "names": verdict.reachable_names and tool not in FORMS,
    }
    return [part for part, unmet in parts.items() if unmet]
