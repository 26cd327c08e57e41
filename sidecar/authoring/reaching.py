"""``mcp-sidecar policy who``: which callers reach a database or a collection, by which grant and line, on which server.

The reverse of ``policy show``, from the same rules: OPA's partial evaluation of the owner's grants, with the place
known and the caller not, joined with the platform's routes, agents and scopes. It lists groups and agents that could
reach the place, not people: their names are those that tokens carry.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from sidecar.authoring.counting_issuers import counting, of_each
from sidecar.authoring.engine import Engine
from sidecar.authoring.explain import FACTS
from sidecar.authoring.hours import hours_of_windows
from sidecar.authoring.obliged import refused
from sidecar.authoring.switched_off import Servers, switched_off
from sidecar.authoring.terms import TermWriter, has_unnamed, names_of, resolved, unfolded
from sidecar.errors import ConfigurationError
from sidecar.model import JsonObject, JsonValue, Target, TargetKind
from sidecar.policy import read_residual
from sidecar.policyset import CAPABILITIES, OBLIGATIONS, data_place

_COLLECTION: Final = "input.access.collection"
_TARGET: Final = "input.access.target"
_NAMED: Final = ("tool", "prompt", "resource", "question")
_UNKNOWN: Final = (
    *("input.subject", "input.actor", "input.action", "input.command", "input.context"),
    *("input.access.kind", "input.access.via", "input.access.via_view", _TARGET),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedPlace:
    """A database, a collection in it, or something outside of the catalog that can be run."""

    database: str
    collection: str | None
    """None is the database and every collection in it."""
    target: Target | None = None

    @classmethod
    def read(cls, text: str) -> "AskedPlace":
        """Read ``DATABASE``, ``DATABASE.COLLECTION`` (the first dot ends the database) or ``tool/NAME``.

        No database has a slash in its name (MongoDB manual, naming restrictions).

        Raises:
            ConfigurationError: it names no database.
        """
        kind, slash, name = text.partition("/")
        if slash:
            if kind not in _NAMED or not name:
                raise ConfigurationError(f"{text!r} names no place: write {', '.join(f'{one}/NAME' for one in _NAMED)}")
            return cls(database="", collection="", target=Target(kind=TargetKind(kind), id=name))
        database, dot, collection = text.partition(".")
        if not database or (dot and not collection):
            raise ConfigurationError(f"{text!r} names no place: write DATABASE or DATABASE.COLLECTION")
        return cls(database=database, collection=collection if dot else None)


async def who(engine: Engine, place: AskedPlace, servers: Servers, issuers: Collection[str] = ()) -> JsonObject:
    """Return who could reach a place under a policy folder.

    Args:
        engine: over the folder.
        place: the database or collection.
        servers: those that are configured; of others it is not known which tools are on.
        issuers: those that are trusted; none where that is not known.

    Raises:
        ConfigurationError: OPA cannot evaluate the folder.
    """
    asked: JsonObject = {"database": place.database, "collection": place.collection}
    if place.target is not None:
        asked["target"] = {"kind": place.target.kind.value, "id": place.target.id}
    facts = await engine.value("data.authoring.facts.reach", asked, "-d", FACTS)
    if not isinstance(facts, dict):
        raise ConfigurationError("the policy folder does not answer")
    known: Any = facts
    owners = sorted({one["owner"] for one in known["held"]} - {"platform"})
    grants: dict[str, list[dict[str, Any]]] = {}
    denies: dict[str, list[str]] = {}
    for owner in (one for one in owners if f"teams/{one}" in engine.policies.bundles):
        grants[owner] = _merged(await _grants(engine, place, owner))
        denies[owner] = await _denies(engine, place, owner)
    meeting = [(way, grant) for way in known["ways"] for grant in grants.get(way["owner"], [])]
    meeting += [(way, _platform_grant(engine, one)) for way in known["ways"] for one in way["grants"]]
    several = len(issuers) > 1
    rows = _without_longer_ways(_joined(row for way, grant in meeting for row in _row(way, grant, several=several)))
    suspended = await _suspended(engine, known["suspended"], rows)
    return {
        "place": asked,
        "held": known["held"],
        "reach": [_marked(row, servers, suspended, mongodbs_own=known["mongodbs_own"]) for row in rows],
        "denies": {owner: [*codes] for owner, codes in denies.items() if codes},
        "suspended": known["suspended"],
        "mongodbs_own": known["mongodbs_own"],
        "views": known["views"],
        "closed": [*dict.fromkeys(said for way, grant in meeting for said in _closed(way, grant, several=several))],
    }


async def _suspended(engine: Engine, listed: Any, rows: Iterable[dict[str, Any]]) -> frozenset[str]:
    """Return the agents of the rows that are suspended; the patterns are OPA's to match."""
    if not listed["agents"]:
        return frozenset()
    agents: list[JsonValue] = [*sorted({agent for row in rows for agent in row["agents"]})]
    found = await engine.value("data.authoring.facts.suspended_agents", agents, "-d", FACTS)
    return frozenset(map(str, found)) if isinstance(found, list) else frozenset()


def _marked(row: dict[str, Any], servers: Servers, suspended: frozenset[str], *, mongodbs_own: bool) -> JsonObject:
    """Return a row with what would refuse all of it or a part."""
    named = sorted({*row["agents"]} & suspended)
    why = "system_namespace" if mongodbs_own else None
    if named and len(named) == len(row["agents"]):
        why = why or "suspended"
    return {
        **row,
        "refused": why or refused(row),
        "suspended": [*named],
        "off": [*switched_off(row["kinds"], [row["server"]], servers)],
    }


def _joined(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take rows together that differ in kinds only."""
    joined: dict[str, dict[str, Any]] = {}
    for row in rows:
        known = joined.setdefault(repr({key: value for key, value in row.items() if key != "kinds"}), row)
        known["kinds"] = sorted({*known["kinds"], *row["kinds"]})
    return [*joined.values()]


def _without_longer_ways(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Drop rows whose route asks for one more group, where another route to the same server gives all of it."""
    return [row for row in rows if row["asks_more"] is False or not any(_is_shorter(other, row) for other in rows)]


def _is_shorter(other: dict[str, Any], row: dict[str, Any]) -> bool:
    return (
        other["asks_more"] is False
        and all(other[key] == row[key] for key in _SAME)
        and all({*other[key]} >= {*row[key]} for key in ("kinds", "agents", "scopes"))
        and ("*" in other["route_scopes"] or {*other["route_scopes"]} >= {*row["route_scopes"]})
    )


_SAME: Final = (
    *("owner", "grant", "at", "deployment", "server", "groups", "collections", "roles", "conditions", "issuers"),
    *("agents_of", "scopes_of", "platform_obligations", *OBLIGATIONS),
)


async def _left(engine: Engine, place: AskedPlace, owner: str, rule: str) -> tuple[list[Any], TermWriter]:
    """Return what partial evaluation leaves of an owner's rule, and a writer of it."""
    access: JsonObject = {"database": place.database}
    access |= {} if place.collection is None else {"collection": place.collection}
    unknowns = [*_UNKNOWN, *([_COLLECTION] if place.collection is None else [])]
    if place.target is not None:
        access["target"] = {"kind": place.target.kind.value, "id": place.target.id}
        unknowns.remove(_TARGET)
    query = f"data.mcp.teams[{msgspec.json.encode(owner).decode()}].{rule}[grant]"
    options = [part for unknown in unknowns for part in ("--unknowns", unknown)]
    partial = (await engine.evaluate(query, {"access": access}, "--partial", *options)).get("partial", {})
    names: dict[str, str] = {}
    if has_unnamed(partial.get("queries")):
        traced = await engine.evaluate(query, {"access": access}, "--partial", "--explain=full", *options)
        names = names_of(traced.get("explanation") or [])
    capabilities = msgspec.json.decode(dict(engine.policies.files)[CAPABILITIES])
    arities = {one["name"]: len(one["decl"].get("args", [])) for one in capabilities["builtins"]}
    queries = [[_owned_by(owner), *expressions] for expressions in partial.get("queries", [])]
    ways = [*read_residual({"queries": [*queries]})]
    return ways, TermWriter(arities, partial.get("modules") or [], names=names, database=place.database)


def _owned_by(owner: str) -> Any:
    names = {"type": "ref", "value": [{"type": "var", "value": "eq"}]}
    return {"index": 0, "terms": [names, {"type": "var", "value": "owner"}, {"type": "string", "value": owner}]}


async def _grants(engine: Engine, place: AskedPlace, owner: str) -> list[dict[str, Any]]:
    ways, writing = await _left(engine, place, owner, "grant")
    return [_grant(engine, way, writing) for way in ways]


async def _denies(engine: Engine, place: AskedPlace, owner: str) -> list[str]:
    ways, writing = await _left(engine, place, owner, "deny")
    codes = (resolved(way.grant, unfolded(way.conditions)[1]) for way in ways)
    return sorted({"(computed)" if code is None else str(writing.value(code)) for code in codes})


def _grant(engine: Engine, way: Any, writing: TermWriter) -> dict[str, Any]:
    """Return one way to a grant: who must call, and what else must hold."""
    conditions, known = unfolded(way.conditions)
    value = writing.value(resolved(way.grant, known))
    grant: dict[str, Any] = value if isinstance(value, dict) else {}
    caller: dict[str, list[str]] = {part: [] for part in _CALLER}
    left = [one for one in conditions if not _says_who(one, writing, caller)]
    globs = [glob for one in left if (glob := _collection_glob(one, writing)) is not None]
    said = writing.conditions([one for one in left if _collection_glob(one, writing) is None])
    globs += ["*"] if {*said} >= _EVERY else []
    said = [one for one in said if one not in ({"grant"} | (_EVERY if globs else set()))]
    collections = sorted(way.collections) if way.collections is not None else globs or None
    name = str(grant.get("id", "(computed)"))
    return {
        "grant": name,
        "at": _lines(engine, way.owner, name),
        "kinds": None if way.kinds is None else sorted(way.kinds),
        "collections": collections,
        "groups": [caller.pop("groups")],
        **caller,
        "listed": [],
        "conditions": [*dict.fromkeys(said)],
        **{part: grant.get(part) for part in OBLIGATIONS},
    }


_CALLER: Final = ("groups", "roles", "scopes", "agents", "issuers")
_EVERY: Final = frozenset({"is_string(access.collection)", 'access.collection != ""'})
"""How the library asks for the pattern ``*``."""


def _collection_glob(expression: Any, writing: TermWriter) -> str | None:
    match expression:
        case {"terms": [operator, {"type": "string", "value": str(pattern)}, {"type": "null"}, name], **rest} if (
            not rest.keys() - {"index"} and writing.term(name) == "access.collection"
        ):
            return pattern if writing.term(operator) == "glob.match" else None
        case _:
            return None


def _says_who(expression: Any, writing: TermWriter, caller: dict[str, list[str]]) -> bool:
    """Take a condition about the caller's groups, roles, scopes, agent or issuer into its column."""
    match expression:
        case {"terms": [operator, left, right], **rest} if not rest.keys() - {"index"}:
            name = writing.term(operator)
            for one, other in ((left, right), (right, left)):
                where = writing.term(other)
                part = (_HELD if name in _MEMBER else _IS if name in _EQUAL else {}).get(where)
                if part is not None and one.get("type") == "string":
                    caller[part].append(one["value"])
                    return True
            return False
        case _:
            return False


_HELD: Final = {"subject.groups": "groups", "subject.roles": "roles", "subject.scopes": "scopes"}
_IS: Final = {"actor.id": "agents", "subject.issuer": "issuers"}
_MEMBER: Final = frozenset({"in", "internal.member_2"})
_EQUAL: Final = frozenset({"eq", "equal"})


def _lines(engine: Engine, owner: str, grant: str) -> list[str]:
    """Return the lines on which a grant's id stands; of an id that is computed, those of the rules that could be it."""
    written = re.compile(rf'"id"\s*:\s*{re.escape(msgspec.json.encode(grant).decode())}')
    return _lines_with(engine, owner, written) or _lines_with(engine, owner, _NO_ID)


_NO_ID: Final = re.compile(r'^grant contains (?!.*"id"\s*:\s*")')
"""The head of a grant in which no id is spelled out."""


def _lines_with(engine: Engine, owner: str, written: re.Pattern[str]) -> list[str]:
    return [
        f"{path}:{number}"
        for path, content in engine.policies.files
        if path.startswith(f"teams/{owner}/") and path.endswith(".rego") and not path.endswith("_test.rego")
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1)
        if written.search(line)
    ]


def _merged(grants: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take ways together that differ in groups or collections only: OPA lists each alternative by itself."""
    merged: dict[str, dict[str, Any]] = {}
    for one in grants:
        known = merged.setdefault(repr({key: one[key] for key in one if key not in {"groups", "collections"}}), one)
        if known is not one:
            known["groups"] += [groups for groups in one["groups"] if groups not in known["groups"]]
            both = (known["collections"], one["collections"])
            known["collections"] = None if None in both else sorted({*both[0], *both[1]})
    return [*merged.values()]


def _row(way: dict[str, Any], grant: dict[str, Any], *, several: bool) -> Iterable[dict[str, Any]]:
    """Yield what a grant gives by one route; nothing where no issuer, agent or scope leaves a kind of it."""
    common = _common(way, grant, several=several)
    wanted = {kind for kind in way["kinds"] if grant["kinds"] is None or kind in grant["kinds"]}
    may: dict[str, list[str]] = way["agents_may"]
    named = [agent for agent in grant["agents"] if agent in may or "*" in may]
    able = [name for name in (named if grant["agents"] else may) if wanted & {*may.get(name, may.get("*", []))}]
    opening = sorted(scope for scope, opened in way["scopes_open"].items() if wanted & {*opened})
    agents = of_each(able, way["agents_issuers"], common, several=several)
    scopes = of_each(opening, way["scope_issuers"], common, several=several)
    by_agents = {kind for name in agents for kind in may.get(name, may.get("*", []))}
    by_scopes = {kind for scope in scopes for kind in way["scopes_open"][scope]}
    kinds = sorted(wanted & by_agents & by_scopes)
    if not kinds or common == []:
        return
    row: dict[str, Any] = {
        **{key: grant[key] for key in ("grant", "at", "collections", "roles", "conditions", *OBLIGATIONS)},
        **{key: way[key] for key in ("owner", "deployment", "server", "route")},
        "kinds": kinds,
        "groups": [*grant["groups"]],
        "route_groups": way["groups"],
        "asks_more": not ("*" in way["groups"] or all({*group} & {*way["groups"]} for group in grant["groups"])),
        "issuers": common or [],
        "agents": [*agents],
        "agents_of": {name: of for name, of in agents.items() if of != common},
        "scopes": [*scopes],
        "scopes_of": {name: of for name, of in scopes.items() if of != common},
        "route_scopes": way["scopes"],
        "platform_obligations": [one for one in way["obligations"] if {*one["kinds"]} & {*kinds}],
    }
    hours = hours_of_windows([one for one in way["windows"] if {*one["kinds"]} & {*kinds}], kinds)
    row["conditions"] = [*row["conditions"], *(f"token scope {scope}" for scope in grant["scopes"]), *hours]
    yield row


def _common(way: dict[str, Any], grant: dict[str, Any], *, several: bool) -> list[str] | None:
    """Return the issuers for which route, delegation and grant count together."""
    return counting([*way["issuers"], *([one] for one in grant["issuers"]), *grant["listed"]], several=several)


def _closed(way: dict[str, Any], grant: dict[str, Any], *, several: bool) -> Iterable[str]:
    """Say that a grant by a route counts for nobody."""
    if _common(way, grant, several=several) == []:
        yield f"{way['owner']}/{grant['grant']} by {way['route']}: no issuer is listed in all that a call needs"


def _platform_grant(engine: Engine, grant: dict[str, Any]) -> dict[str, Any]:
    """Return a grant of the platform's data as if a team had made it."""
    file, line = data_place(("mcp", "platform", "grants", grant["index"]), engine.policies)
    return {
        "grant": grant["id"],
        "at": [f"{file}:{line}"],
        "kinds": grant["kinds"],
        "collections": None,
        "conditions": [],
        "groups": [[group] for group in grant["groups"] if group != "*"] or [[]],
        **{part: [] for part in _CALLER if part != "groups"},
        "listed": [grant.get("issuers")],
        **dict.fromkeys(OBLIGATIONS),
        "names": grant.get("names"),
    }
