"""Stages of Atlas Search and vector search. Text that is to be embedded or ranked leaves for a model's service.

Sources: Atlas documentation of search, vector search and reranking; ``mongodbSchemas.js`` of MongoDB MCP server 3.0.4.
"""

from collections.abc import Sequence
from typing import Final

from sidecar.commands.amplifiers import literal_number
from sidecar.commands.draft import Draft
from sidecar.commands.ejson import whole_number
from sidecar.commands.field_log import ROOT
from sidecar.commands.fields import analyse_filter
from sidecar.commands.options import field_name, options, plain
from sidecar.commands.place import NONE, InnerPipeline, Place
from sidecar.commands.pointer import below
from sidecar.commands.refusals import an_object, malformed
from sidecar.errors import CommandNotDerivable
from sidecar.model import AccessKind, JsonObject, JsonValue, Target, TargetKind

_EMBEDDING: Final = Target(kind=TargetKind.SERVICE, id="embedding")
_RERANKING: Final = Target(kind=TargetKind.SERVICE, id="reranking")

_SEARCH_OPTIONS: Final = (
    "index highlight concurrent count searchAfter searchBefore scoreDetails sort returnStoredSource returnScope "
    "tracking autocomplete compound embeddedDocument equals exists facet geoShape geoWithin hasAncestor hasRoot in "
    "knnBeta moreLikeThis near phrase queryString range regex span term text vectorSearch wildcard"
)


def search(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    """``$search`` reads its own collection; which fields it looks at, the index decides as much as the query."""
    place.own(at)
    draft.fields.use(ROOT)
    stack: list[JsonValue] = [options(spec, at, _SEARCH_OPTIONS)]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            inner = node.get("vectorSearch")
            if isinstance(inner, dict) and "query" in inner:
                draft.touch_target(AccessKind.EXTERNAL, _EMBEDDING, at)
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    if isinstance(spec, dict) and "returnScope" in spec:  # the documents are parts of those that were stored
        place.flow.shape.unknown = True
    return NONE


def search_meta(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    """``$searchMeta`` gives counts and facets, whose names are values of fields."""
    place.flow.shape.unknown = True
    return search(draft, place, spec, at)


_OLDER: Final = "exact index path numCandidates limit filter queryVector query model"
_NEWER: Final = ("searchNodePreference", "parentFilter", "returnStoredSource", "explainOptions", "nestedOptions")
"""Options that the server's own schema of ``$vectorSearch`` does not know. It takes them away where it applies:
in the tool's own pipeline, with a vector of plain numbers or a text. Everything else reaches MongoDB as it is."""


def vector_search(draft: Draft, place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    """``$vectorSearch``: a vector, or a text of which the embedding service makes one."""
    place.own(at)
    known = options(spec, at, f"{_OLDER} {' '.join(_NEWER)}")
    newer = [name for name in _NEWER if name in known]
    if newer and place.outermost and not _is_kept(known):
        text = "The server would drop this option here; use a queryVector of Extended JSON $binary, or $rankFusion."
        raise CommandNotDerivable("option_dropped", text, below(at, newer[0]))
    draft.fields.use(field_name(known.get("path"), f"{at}/path"))
    plain([known.get(name) for name in ("query", "queryVector", *_NEWER) if name != "parentFilter"], at)
    for name in ("filter", "parentFilter"):
        if name in known:
            analyse_filter(draft.fields, an_object(known[name], f"{at}/{name}"), f"{at}/{name}")
    if "query" in known or "model" in known:
        draft.touch_target(AccessKind.EXTERNAL, _EMBEDDING, at)
    if known.get("returnStoredSource", False) is not False or "nestedOptions" in known:
        place.flow.shape.unknown = True
    for name in ("limit", "numCandidates"):
        if name in known:
            draft.fields.amplifiers.note(f"$vectorSearch.{name}", literal_number(known[name]), f"{at}/{name}")
    if "limit" in known:
        limit = whole_number(known["limit"])
        if limit is None or limit < 1:
            raise malformed(f"{at}/limit", "a positive whole number")
        place.flow.cap(limit)
    return NONE


def _is_kept(known: JsonObject) -> bool:
    """Say whether no form of the server's own schema fits, so that it hands on the stage as it is."""
    vector = known.get("queryVector")
    return isinstance(vector, dict) and "$binary" in vector and "query" not in known


def rerank(draft: Draft, _place: Place, spec: JsonValue, at: str) -> Sequence[InnerPipeline]:
    """``$rerank`` sends parts of the documents to a model."""
    known = an_object(spec, at)
    plain(known, at)
    if "numDocsToRerank" in known:
        number = literal_number(known["numDocsToRerank"])
        draft.fields.amplifiers.note("$rerank.numDocsToRerank", number, f"{at}/numDocsToRerank")
    draft.fields.use(ROOT)
    draft.touch_target(AccessKind.EXTERNAL, _RERANKING, at)
    return NONE
