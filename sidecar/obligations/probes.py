"""What is asked of the server before a call goes there: how many documents it is of, and by which plan it finds them.

A probe is a call of the sidecar's own at the same server, made of the call as it will be sent, so with every filter in
place. It is no transaction: what is counted can be another number a moment later.

A plan is read by an allow-list of its stages (MongoDB 8.0, ``explain`` results): what is not known is not believed to
be no scan. Nothing of it that repeats the caller's words is looked at.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sidecar import strict_json
from sidecar.errors import ObligationNotSupported
from sidecar.model import AccessKind, Decision, JsonObject, JsonValue, ToolCall
from sidecar.sites import Derivation, Site, SiteForm

AFFECTED: Final = "max_affected"
UNSCANNED: Final = "no_collection_scan"
"""The keys of the decision contract."""

_UNCHANGING: Final = frozenset({AccessKind.READ, AccessKind.METADATA, AccessKind.EXPORT})
"""What affects nothing; of every other kind it has to be known how much."""

_UNSEEING: Final = frozenset({AccessKind.METADATA, AccessKind.INSERT, AccessKind.CREATE, AccessKind.DROP})
"""What looks for no documents; of every other kind it has to be known how."""

_COUNTABLE: Final = frozenset({"delete-many", "update-many"})
_FILTERED: Final = frozenset({"count", "delete-many", "find", "update-many"})

_ANY_NUMBER: Final[JsonObject] = {"$group": {"_id": 1, "n": {"$sum": 1}}}
"""What the server puts behind the filter of a find or a count to count its documents (3.0.4)."""

_SCAN: Final = "COLLSCAN"

_PLAN_STAGES: Final = frozenset(
    [
        "AND_HASH",
        "AND_SORTED",
        "COUNT",
        "COUNT_SCAN",
        "DELETE",
        "DISTINCT_SCAN",
        "EOF",
        "EXPRESS_CLUSTERED_IXSCAN",
        "EXPRESS_IXSCAN",
        "FETCH",
        "GEO_NEAR_2D",
        "GEO_NEAR_2DSPHERE",
        "GROUP",
        "IDHACK",
        "IXSCAN",
        "LIMIT",
        "OR",
        "PROJECTION_COVERED",
        "PROJECTION_DEFAULT",
        "PROJECTION_SIMPLE",
        "RETURN_KEY",
        "SHARDING_FILTER",
        "SHARD_MERGE",
        "SHARD_MERGE_SORT",
        "SINGLE_SHARD",
        "SKIP",
        "SORT",
        "SORT_KEY_GENERATOR",
        "SORT_MERGE",
        "SUBPLAN",
        "TEXT_MATCH",
        "UPDATE",
    ]
)
"""Stages that look at no more of a collection than their inputs do, or at what an index names."""

_INPUTS: Final = ("inputStage", "inputStages", "shards", "winningPlan", "queryPlan")
"""Where the inputs of a stage are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """One question to the server that must be answered well before a call goes there."""

    obligation: str
    access: int
    call: ToolCall
    most: int = 0
    """How many documents the call may be of."""

    def judge(self, result: bytes, *, failed: bool) -> None:
        """Return if the answer lets the call go.

        Args:
            result: the JSON text of the tool result.
            failed: it is an error.

        Raises:
            ObligationNotSupported: it does not, or it cannot be told.
        """
        structured = None if failed else _structured(result)
        if self.obligation == AFFECTED:
            self._judge_count(structured)
        else:
            self._judge_plan(structured)

    def _judge_count(self, structured: JsonObject | None) -> None:
        count = structured.get("count") if structured is not None else None
        if isinstance(count, bool) or not isinstance(count, int):
            raise refused(AFFECTED, "the server cannot count what this filter finds; use plain conditions", self.access)
        if count > self.most:
            because = f"it is of {count} documents, and at most {self.most} are allowed at a time; narrow the filter"
            raise refused(AFFECTED, because, self.access)

    def _judge_plan(self, structured: JsonObject | None) -> None:
        stages = [*_stages_of(structured.get("explainResult"))] if structured is not None else [""]
        if _SCAN in stages:
            raise refused(
                UNSCANNED,
                "the database would look at every document of the collection; use a condition on an indexed field "
                "(collection-indexes lists them)",
                self.access,
            )
        if not stages or not _PLAN_STAGES.issuperset(stages):
            raise refused(
                UNSCANNED, "the plan of the database cannot be judged; use find with plain conditions", self.access
            )


def probes(decision: Decision, call: ToolCall, derivation: Derivation) -> tuple[Probe, ...]:
    """Return what is to be asked before the call goes.

    Args:
        decision: the allow.
        call: as it will be sent.
        derivation: of the call that was decided.

    Raises:
        ObligationNotSupported: no question could tell what has to be known.
    """
    if not any(one.max_affected is not None or one.no_collection_scan for one in decision.accesses):
        return ()
    return (*_counts(decision, call, derivation), *_plans(decision, call, derivation))


def _counts(decision: Decision, call: ToolCall, derivation: Derivation) -> Iterator[Probe]:
    kinds = [access.kind for access in derivation.command.accesses]
    held = {
        index: one.max_affected
        for index, one in enumerate(decision.accesses)
        if one.max_affected is not None and kinds[index] not in _UNCHANGING
    }
    if not held:
        return
    index = min(held, key=lambda at: held[at])
    most = held[index]
    if call.name == "insert-many":
        documents = call.arguments.get("documents")
        if not isinstance(documents, list) or len(documents) > most:
            raise refused(AFFECTED, f"at most {most} documents are allowed at a time; insert fewer", index)
    elif call.name in _COUNTABLE:
        arguments: JsonObject = {**_collection(call), "query": call.arguments.get("filter", {})}
        yield Probe(obligation=AFFECTED, access=index, call=ToolCall(name="count", arguments=arguments), most=most)
    else:
        raise refused(AFFECTED, f"how many documents {call.name} is of cannot be counted before", index)


def _plans(decision: Decision, call: ToolCall, derivation: Derivation) -> Iterator[Probe]:
    accesses = derivation.command.accesses
    kinds = [access.kind for access in accesses]
    held = {at for at, one in enumerate(decision.accesses) if one.no_collection_scan and kinds[at] not in _UNSEEING}
    if not held:
        return
    for site in derivation.sites:
        if site.access in held and not _is_head(site):
            raise refused(
                UNSCANNED,
                "no plan tells how a joined collection or a view is read; read the collection itself",
                site.access,
            )
    for method in _methods(call, min(held)):
        arguments: JsonObject = {**_collection(call), "method": [method], "verbosity": "queryPlanner"}
        yield Probe(obligation=UNSCANNED, access=min(held), call=ToolCall(name="explain", arguments=arguments))


def _is_head(site: Site) -> bool:
    """Whether the plan of the call is about the place: its own query, or the start of its own pipeline."""
    match site.form:
        case SiteForm.FILTER | SiteForm.UPDATE_FILTER | SiteForm.DOCUMENTS | SiteForm.UPSERT:
            return True
        case SiteForm.PIPELINE_HEAD:
            return not any(isinstance(step, str) and step.startswith("$") for step in site.path)
        case _:
            return False


def _methods(call: ToolCall, access: int) -> Iterator[JsonObject]:
    """Return what is to be explained: everything that the server makes of the call."""
    arguments = call.arguments
    if call.name in _FILTERED:
        _require_chosen_order(arguments, access)
        query = arguments.get("query" if call.name == "count" else "filter", {})
        yield _pipeline([{"$match": query}, _ANY_NUMBER])
        return
    if call.name in ("explain", "export"):
        [method] = _list(arguments.get("method" if call.name == "explain" else "exportTarget"), access)
        if not isinstance(method, dict) or not isinstance(method.get("arguments"), dict):
            raise refused(UNSCANNED, "this form of the call cannot be explained", access)
        inner, name = method["arguments"], method.get("name")
    else:
        inner, name = arguments, call.name
    match name:
        case "find" | "count" if isinstance(inner, dict):
            _require_chosen_order(inner, access)
            query = inner.get("query" if name == "count" else "filter", {})
            yield _pipeline([{"$match": query}, _ANY_NUMBER])
        case "aggregate" if isinstance(inner, dict):
            stages = _list(inner.get("pipeline"), access)
            writes = (
                bool(stages) and isinstance(stages[-1], dict) and not stages[-1].keys().isdisjoint({"$out", "$merge"})
            )
            reading = stages[:-1] if writes else stages
            yield _pipeline(reading)
            yield _pipeline([*reading, {"$count": "n"}])
        case _:
            raise refused(UNSCANNED, f"how {call.name} reads cannot be told before", access)


def _require_chosen_order(arguments: JsonObject, access: int) -> None:
    """Return if a find leaves its way to the planner: the natural order is a scan, with an index as without.

    Raises:
        ObligationNotSupported: it asks for the natural order.
    """
    sort = arguments.get("sort")
    if isinstance(sort, dict) and "$natural" in sort:
        raise refused(UNSCANNED, "$natural looks at every document of the collection; leave it out", access)


def _pipeline(stages: list[JsonValue]) -> JsonObject:
    return {"name": "aggregate", "arguments": {"pipeline": stages}}


def _list(value: JsonValue, access: int) -> list[JsonValue]:
    if not isinstance(value, list):
        raise refused(UNSCANNED, "this form of the call cannot be explained", access)
    return value


def _collection(call: ToolCall) -> JsonObject:
    return {key: call.arguments[key] for key in ("connectionId", "database", "collection") if key in call.arguments}


def _structured(result: bytes) -> JsonObject | None:
    try:
        answer = strict_json.DECODER.decode(result.decode())
    except (ValueError, RecursionError):
        return None
    structured = answer.get("structuredContent") if isinstance(answer, dict) else None
    return structured if isinstance(structured, dict) else None


def _stages_of(explained: JsonValue) -> Iterator[str]:
    """Yield the stages of every winning plan; an empty text for what has no known form."""
    if not isinstance(explained, dict):
        yield ""
    elif "shards" in explained:
        shards = explained["shards"]
        for shard in shards.values() if isinstance(shards, dict) and shards else [None]:
            yield from _stages_of(shard)
    else:
        planner = explained.get("queryPlanner")
        if "stages" in explained:
            first = next(iter(_plain_list(explained["stages"])), None)
            cursor = first.get("$cursor") if isinstance(first, dict) else None
            planner = cursor.get("queryPlanner") if isinstance(cursor, dict) else None
        yield from _plan_stages(planner.get("winningPlan") if isinstance(planner, dict) else None)


def _plan_stages(plan: JsonValue) -> Iterator[str]:
    """Yield the stages of one plan, its own first."""
    stack = [plan]
    while stack:
        node = stack.pop()
        if not isinstance(node, dict):
            yield ""
            continue
        inputs = [key for key in _INPUTS if key in node]
        stage = node.get("stage", "" if not inputs else None)
        if stage is not None:
            yield stage if isinstance(stage, str) else ""
        for key in inputs:
            value = node[key]
            stack.extend(value if isinstance(value, list) else [value])


def _plain_list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def refused(condition: str, because: str, access: int) -> ObligationNotSupported:
    """Return the refusal of a call that a limit cannot be held on, with what to change."""
    error = ObligationNotSupported(f"{condition}: {because}", access=access, conditions=(condition,))
    error.because = because
    return error
