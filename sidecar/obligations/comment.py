"""A ``$comment`` in a call, so that the database's profiler and slow-query log lead back to its trace.

It is a label and no obligation: where a call has no place for it, the call goes without. The place is one that the
derivation found, so nothing is looked for a second time, and it changes neither what is read nor how: it never stands
before a stage that must be first, or that is cheap only where it is first.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sidecar.model import JsonObject, JsonValue, ToolCall
from sidecar.obligations.rewrite import edited, value_at
from sidecar.sites import Site, SiteForm

_TOOLS: Final = frozenset({"aggregate", "count", "explain", "export", "find", "update-many"})
"""Not ``delete-many``: its server asks the user with the filter in words, and a second time must ask the same."""

_PLACES: Final = frozenset({SiteForm.FILTER, SiteForm.UPDATE_FILTER, SiteForm.PIPELINE_HEAD})

_MAY_FOLLOW: Final = frozenset(
    {
        "$addFields",
        "$bucket",
        "$bucketAuto",
        "$densify",
        "$facet",
        "$fill",
        "$graphLookup",
        "$group",
        "$limit",
        "$lookup",
        "$project",
        "$redact",
        "$replaceRoot",
        "$replaceWith",
        "$set",
        "$setWindowFields",
        "$skip",
        "$sort",
        "$sortByCount",
        "$unionWith",
        "$unset",
        "$unwind",
    }
)
"""First stages that an empty ``$match`` may stand before. Not ``$sample`` and ``$count``, which read no collection
from end to end only where they are first; nor ``$out`` and ``$merge``."""


def with_comment(call: ToolCall, sites: Sequence[Site], comment: str) -> ToolCall | None:
    """Return the call with a comment at the outermost place that can have one; None where there is none.

    Args:
        call: as it would be sent.
        sites: of the call as it came; what was rewritten for an obligation has the same outermost places.
        comment: our own words, nothing of the caller's.
    """
    if call.name not in _TOOLS:
        return None
    found = min((site for site in sites if site.form in _PLACES), key=lambda site: len(site.path), default=None)
    if found is None:
        return None
    value = value_at(call.arguments, found.path)
    changed = _pipeline(value, comment) if found.form is SiteForm.PIPELINE_HEAD else _query(value, comment)
    if changed is None:
        return None
    arguments = edited(call.arguments, found.path, lambda _: changed)
    return replace(call, arguments=arguments) if isinstance(arguments, dict) else None


def _query(value: JsonValue, comment: str) -> JsonObject | None:
    """A caller's own comment stays, further in: ours is the one at the top."""
    if value is not None and not isinstance(value, dict):
        return None
    query = value or {}
    return {"$and": [query], "$comment": comment} if "$comment" in query else {**query, "$comment": comment}


def _pipeline(value: JsonValue, comment: str) -> JsonValue:
    if not isinstance(value, list):
        return None
    if not value:
        return [{"$match": {"$comment": comment}}]
    first = value[0]
    if not isinstance(first, dict) or len(first) != 1:
        return None
    [(name, spec)] = first.items()
    if name == "$match":
        query = _query(spec, comment)
        return None if query is None else [{"$match": query}, *value[1:]]
    return [{"$match": {"$comment": comment}}, *value] if name in _MAY_FOLLOW else None
