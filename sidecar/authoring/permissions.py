"""``mcp-sidecar policy show``: everything that one identity could be granted, from the rules that decide.

OPA's partial evaluation of the teams' grants (``sidecar.policy.residual``, the same that the list of tools stands on)
joined with what the platform delegates, routes and leaves open. A row is a way to be granted something, not a promise:
a deny, a closed hour or another part of the same call can still refuse it, and a condition that partial evaluation
could not turn into a database, a collection or a kind is written beside the row.
"""

from typing import Any, Final

from sidecar.authoring.engine import Engine
from sidecar.authoring.explain import FACTS
from sidecar.authoring.terms import render_expression, value_of
from sidecar.errors import ConfigurationError
from sidecar.model import Identity, JsonObject, JsonValue, RequestContext
from sidecar.policy.document import visibility_document
from sidecar.policy.residual import (
    COMPILE_QUERY,
    COMPILE_UNKNOWNS,
    Possible,
    possible_document,
    read_residual,
    residual_document,
)

_COLLECTION: Final = "input.access.collection"
_GRANT_PARTS: Final = ("filter", "mask", "max_documents", "max_time_ms", "approval")


async def show(engine: Engine, identity: Identity, context: RequestContext) -> JsonObject:
    """Return the permissions of an identity under a policy folder.

    Raises:
        ConfigurationError: OPA cannot evaluate the folder.
    """
    ways = await _ways(engine, identity)
    question = visibility_document(identity, context, {}, possible=possible_document(ways))
    facts = await _facts(engine, question, [possible_document([way])[0] for way in ways])
    rows = [_row(row, ways[row["way"]]) for row in facts.get("rows", [])]
    rows += [_own_row(row) for row in facts.get("own_rows", [])]
    ordered = sorted(_merged(rows), key=_order)
    return {"subject": residual_document(identity)["subject"], "actor": residual_document(identity)["actor"]} | {
        "permissions": [*ordered],
        "unreached": _unreached(ways, facts.get("rows", [])),
    }


async def _ways(engine: Engine, identity: Identity) -> tuple[Possible, ...]:
    unknowns = [part for unknown in COMPILE_UNKNOWNS for part in ("--unknowns", unknown)]
    answer = await engine.evaluate(COMPILE_QUERY, residual_document(identity), "--partial", *unknowns)
    # What the Compile API calls "support" is "modules" on the command line (OPA, presentation/v1).
    return read_residual({"queries": answer.get("partial", {}).get("queries", [])})


async def _facts(engine: Engine, question: JsonObject, ways: list[JsonValue]) -> dict[str, Any]:
    # The platform's rules take no question with a key more, so the ways stand beside it.
    document: JsonObject = {"question": question, "ways": ways}
    facts = await engine.value("data.authoring.facts.permissions", document, "-d", FACTS)
    if not isinstance(facts, dict):
        raise ConfigurationError("the policy folder does not answer")
    return facts


def _row(row: dict[str, Any], way: Possible) -> JsonObject:
    grant = value_of(way.grant)
    parts = grant if isinstance(grant, dict) else {}
    collections = sorted(way.collections) if way.collections is not None else None
    return {
        "owner": way.owner,
        "grant": parts.get("id", str(grant)),
        "deployment": row["deployment"],
        "servers": [row["server"]],
        "database": _database(row, way),
        "collections": collections if collections is not None else _globs(way) or row["delegated"],
        "kinds": row["kinds"],
        "conditions": _conditions(way),
        **{part: parts.get(part) for part in _GRANT_PARTS},
        "platform_obligations": _obligations(row),
    }


def _own_row(row: dict[str, Any]) -> JsonObject:
    return {
        "owner": "platform",
        "grant": row["grant"],
        "deployment": row["deployment"],
        "servers": [row["server"]],
        "database": row["name"] + ("*" if row["table"] == "prefixes" else ""),
        "collections": row["collections"],
        "kinds": row["kinds"],
        "conditions": [],
        **dict.fromkeys(_GRANT_PARTS),
        "platform_obligations": _obligations(row),
    }


def _obligations(row: dict[str, Any]) -> list[JsonValue]:
    return [one for one in row["obligations"] if set(one["kinds"]) & set(row["kinds"])]


def _conditions(way: Possible) -> list[JsonValue]:
    """Return what could not be turned into a column; a pattern matches no empty name, so that need not be said."""
    patterned = bool(_globs(way))
    said = [_readable(render_expression(one)) for one in way.conditions if not _is_glob(one)]
    return [one for one in dict.fromkeys(said) if not (patterned and one == f'{_COLLECTION} != ""')]


def _readable(condition: str) -> str:
    """Say a negated condition in words: what partial evaluation leaves of it is a name that it made up."""
    return "unless what the rule excludes holds" if _MADE_UP in condition else condition


_MADE_UP = "data.partial."
"""Where OPA puts the rules that it makes while it evaluates partially."""


def _merged(rows: list[JsonObject]) -> list[JsonObject]:
    """Take rows together that differ in server or collections only: OPA lists each alternative by itself."""
    merged: dict[str, JsonObject] = {}
    for row in rows:
        key = repr({name: value for name, value in row.items() if name not in {"servers", "collections"}})
        known = merged.setdefault(key, row)
        for part in ("servers", "collections"):
            names = {str(name) for one in (known, row) for name in _listed(one[part])}
            known[part] = [*sorted(names)]
    return list(merged.values())


def _listed(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _database(row: dict[str, Any], way: Possible) -> str:
    """Return the database, a prefix with ``*``, or ``<target kind>`` for what is no namespace."""
    name: str = row["name"]
    match row["table"]:
        case "prefixes":
            own = sorted(one for one in way.databases or () if one.startswith(name))
            return ", ".join(own) or f"{name}*"
        case "targets":
            return f"<{name}>"
        case _:
            return name


def _globs(way: Possible) -> list[JsonValue]:
    """Return the patterns that the collection must match one of, as the library's ``on`` asks them."""
    conditions: tuple[Any, ...] = way.conditions
    return [value_of(one["terms"][1]) for one in conditions if _is_glob(one)]


def _is_glob(expression: Any) -> bool:
    """Whether an expression is ``glob.match(<pattern>, null, input.access.collection)``."""
    match expression:
        case {"terms": [operator, {"type": "string"}, {"type": "null"}, name, *_], **rest} if not rest.get("negated"):
            return render_expression({"terms": [operator, name]}) == f"glob.match({_COLLECTION})"
        case _:
            return False


def _unreached(ways: tuple[Possible, ...], rows: list[Any]) -> list[JsonValue]:
    """Return the grants that match this identity and lead nowhere: no route, no delegation, or a ceiling."""
    used = {row["way"] for row in rows}
    reached = {(way.owner, _identifier(way)) for index, way in enumerate(ways) if index in used}
    every = {(way.owner, _identifier(way)) for way in ways}
    return [{"owner": owner, "grant": grant} for owner, grant in sorted(every - reached)]


def _identifier(way: Possible) -> str:
    grant = value_of(way.grant)
    return str(grant.get("id", "")) if isinstance(grant, dict) else str(grant)


def _order(row: JsonObject) -> tuple[str, ...]:
    return tuple(str(row[key]) for key in ("deployment", "database", "collections", "kinds", "owner", "grant"))
