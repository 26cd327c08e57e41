"""A ``find`` that is sent as a pipeline, and its answer as that of a ``find``.

A projection that passes all other fields computes nothing, so a field of which a part is left has no place in it. The
same query as a pipeline has. What the MongoDB MCP server answers to the two differs in a sentence and in the name of a
number (3.0.4: ``find.js``, ``aggregate.js``); the total beyond the limit, which only ``find`` knows, is left out.
"""

from dataclasses import replace
from typing import Final

from sidecar import strict_json
from sidecar.errors import ObligationNotSupported, UpstreamProtocolViolation
from sidecar.mcp import jsonrpc
from sidecar.model import Decision, JsonObject, JsonValue, ToolCall
from sidecar.obligations import projections
from sidecar.obligations.masks import ABSENT, Mask, MaskNotUsable, read_mask
from sidecar.obligations.rewrite import mentions
from sidecar.sites import Derivation, Site, SiteForm

_FIND: Final = "find"
_AGGREGATE: Final = "aggregate"
_SERVERS_LIMIT: Final = 10
"""What the server takes where a call does not say."""

_STRUCTURED: Final = frozenset({"documents", "count", "appliedLimits"})
_KEPT: Final[tuple[str, ...]] = ("connectionId", "database", "collection", "responseBytesLimit")


def as_pipeline(call: ToolCall, derivation: Derivation, decision: Decision) -> tuple[ToolCall, Derivation] | None:
    """Return a call with the same documents and its places, where a mask needs it; None where ``find`` can do.

    Nor is there one where the call says something that a pipeline does in another way.
    """
    if call.name != _FIND or len(derivation.sites) != 1:
        return None
    [site] = derivation.sites
    entries = decision.accesses[site.access].mask
    if site.form is not SiteForm.FILTER or all(not isinstance(one, dict) or one.get("as") == ABSENT for one in entries):
        return None
    try:
        mask = read_mask(entries)
    except MaskNotUsable:
        return None  # the plan refuses it
    stages = _stages(call.arguments)
    looked = derivation.command.fields.filtered
    if stages is None or any(map(mask.touched, looked)) or _can_do(mask, call.arguments.get("projection")):
        return None
    kept: JsonObject = {key: call.arguments[key] for key in _KEPT if key in call.arguments}
    sent = ToolCall(name=_AGGREGATE, arguments={**kept, "pipeline": stages})
    sites = (Site(site.access, ("pipeline",), SiteForm.PIPELINE_HEAD),)
    return sent, replace(derivation, sites=sites, looks={("pipeline", 0, "$match"): frozenset(looked)})


def _can_do(mask: Mask, projection: JsonValue) -> bool:
    try:
        projections.masked(mask, projection)
    except ObligationNotSupported:
        return False
    return True


def _stages(arguments: JsonObject) -> list[JsonValue] | None:
    """Return the stages that say the same as a find; None where a stage would say something else."""
    query, sort = arguments.get("filter") or {}, arguments.get("sort") or {}
    limit, projection = arguments.get("limit", _SERVERS_LIMIT), arguments.get("projection") or {}
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1 or not isinstance(projection, dict):
        return None
    if not isinstance(sort, dict) or any(key.startswith("$") or isinstance(way, dict) for key, way in sort.items()):
        return None
    if mentions(query, "$near") or not projections.is_stage(projection):
        return None
    parts: dict[str, JsonValue] = {"$match": query, "$sort": sort, "$limit": limit, "$project": projection}
    return [{name: spec} for name, spec in parts.items() if spec]


def as_find(result: bytes, collection: str) -> bytes:
    """Return the JSON text of an answer to ``aggregate`` as one to ``find``.

    Raises:
        UpstreamProtocolViolation: it is not of the known form.
    """
    try:
        answer = strict_json.DECODER.decode(result.decode())
    except (ValueError, RecursionError):
        raise _unknown() from None
    if not isinstance(answer, dict):
        raise _unknown()
    structured, content = answer.get("structuredContent"), answer.get("content")
    if not isinstance(structured, dict) or structured.keys() != _STRUCTURED:
        raise _unknown()
    first, *rest = content if isinstance(content, list) and content else [None]
    if not isinstance(first, dict) or first.keys() != {"type", "text"} or not isinstance(structured["documents"], list):
        raise _unknown()
    documents, limits = structured["documents"], structured["appliedLimits"]
    said = f'Query on collection "{collection}" gave {len(documents)} documents.'
    return jsonrpc.encode(
        {
            **answer,
            "content": [{"type": "text", "text": said}, *rest],
            "structuredContent": {"documents": documents, "appliedLimits": limits},
        }
    )


def _unknown() -> UpstreamProtocolViolation:
    return UpstreamProtocolViolation("an answer to a pipeline cannot be made one to a find")
