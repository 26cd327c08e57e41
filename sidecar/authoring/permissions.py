"""``mcp-sidecar policy show``: everything that one identity could be granted, from the rules that decide.

OPA's partial evaluation of the teams' grants (``sidecar.policy.residual``, the same that the list of tools stands on)
joined with what the platform delegates, routes and leaves open. A row is a way to be granted something, not a promise:
another part of the same call can still refuse it. What partial evaluation could not turn into a database, a collection
or a kind is written beside the row as a condition; so are the owner's denies that could hold for this caller in it,
which are evaluated like the grants, and the platform's windows on its databases and kinds.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from sidecar.authoring.coverage import PATTERN, merged, without_covered
from sidecar.authoring.engine import Engine
from sidecar.authoring.explain import FACTS
from sidecar.authoring.hours import hours_of_windows
from sidecar.authoring.known_database import database_glob, settled
from sidecar.authoring.obliged import refused
from sidecar.authoring.switched_off import Servers, switched_off
from sidecar.authoring.terms import TermWriter, has_unnamed, names_of, resolved, unfolded, variables
from sidecar.errors import ConfigurationError
from sidecar.model import Identity, JsonObject, JsonValue, RequestContext
from sidecar.policy import (
    COMPILE_QUERY,
    COMPILE_UNKNOWNS,
    PossibleGrant,
    possible_document,
    read_residual,
    residual_document,
    visibility_document,
)
from sidecar.policyset import CAPABILITIES, OBLIGATIONS

_COLLECTION: Final = "access.collection"
_EVERY: Final = frozenset({f"is_string({_COLLECTION})", f'{_COLLECTION} != ""'})
"""How the library asks for the pattern ``*``; other patterns are globs, which match no empty name either."""

_COMPUTED: Final = "(computed)"
"""A grant whose parts are not known before there is a call."""

_DENY_QUERY: Final = "data.mcp.platform.visible.owners[owner]; data.mcp.teams[owner].deny[grant]"
"""``COMPILE_QUERY`` about denies; the code stands where the grant does. Only the authoring kit asks it."""


_NAMED_AFTER: Final = 8
"""Owners whose authors' names of variables are looked for: each takes one more evaluation, with its trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Partial:
    """What partial evaluation leaves of a question, and what is needed to write it."""

    ways: tuple[PossibleGrant, ...]
    arities: dict[str, int]
    modules: list[Any]
    names: dict[str, str]

    def writer(self, database: str | None = None) -> TermWriter:
        return TermWriter(self.arities, self.modules, names=self.names, database=database)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """One way to a grant, in words."""

    possible: PossibleGrant
    grant: JsonObject
    """What of it is known."""
    globs: list[JsonValue]
    """Patterns that the collection must match one of, as the library's ``on`` asks them."""
    conditions: list[JsonValue]
    """What could not be turned into a column."""
    database_globs: list[str]
    """Patterns that the database must match, each of them."""
    expressions: list[Any]
    """The conditions in OPA's syntax tree, but for those that only ask that something is there."""
    needed: list[str]
    """What only has to be there."""
    partial: _Partial

    @property
    def identifier(self) -> str:
        return str(self.grant.get("id", _COMPUTED))

    def conditions_in(self, database: str) -> list[JsonValue] | None:
        """Return the conditions with a database put in; None where one of them does not hold there."""
        known = [settled(one, database) for one in self.expressions]
        if False in known:
            return None
        writing = self.partial.writer(database)
        left = [one for one, held in zip(self.expressions, known, strict=True) if held is None]
        return _told_once([*writing.conditions(left), *self.needed], self.globs)


async def show(
    engine: Engine, identity: Identity, context: RequestContext, servers: Servers, *, every_row: bool = False
) -> JsonObject:
    """Return the permissions of an identity under a policy folder.

    Args:
        engine: over the folder.
        identity: who would call.
        context: what is true of the request.
        servers: those that are configured; of others it is not known which tools are on.
        every_row: show rows that another row covers, too.

    Raises:
        ConfigurationError: OPA cannot evaluate the folder.
    """
    granting = await _partial(engine, identity, COMPILE_QUERY)
    ways = [_told(one, granting) for one in granting.ways]
    denying = await _partial(engine, identity, _DENY_QUERY)
    denies = [_deny(one, denying) for one in denying.ways]
    question = visibility_document(identity, context, {}, possible=possible_document(granting.ways))
    facts = await _facts(engine, question, [*map(_way_document, ways)], [_way_document(one.way) for one in denies])
    reached = [row for row in facts.get("rows", []) if _conditions(row, ways[row["way"]]) is not None]
    rows = [_row(row, ways[row["way"]]) for row in reached]
    rows += [_own_row(row) for row in facts.get("own_rows", [])]
    joined = merged(rows)
    kept, covered = (joined, []) if every_row else without_covered(joined)
    ordered = sorted((_finished(row, denies, servers) for row in kept), key=_order)
    return {"subject": residual_document(identity)["subject"], "actor": residual_document(identity)["actor"]} | {
        "permissions": [*ordered],
        "covered": [*covered],
        "denies": _denies_document(denies, {row["owner"] for row in rows}),
        "unreached": _unreached(ways, reached),
        "suspended": facts.get("suspended", []),
        "limits": facts.get("limits", []),
    }


async def _partial(engine: Engine, identity: Identity, query: str) -> _Partial:
    """Return what partial evaluation leaves, and what authors called its variables."""
    document = residual_document(identity)
    unknowns = [part for unknown in COMPILE_UNKNOWNS for part in ("--unknowns", unknown)]
    answer = await engine.evaluate(query, document, "--partial", *unknowns)
    # What the Compile API calls "support" is "modules" on the command line (OPA, presentation/v1).
    partial = answer.get("partial", {})
    ways = read_residual({"queries": partial.get("queries", [])})
    names: dict[str, str] = {}
    anonymous = sorted({way.owner for way in ways if has_unnamed([*way.conditions, way.grant])})
    for owner in anonymous[:_NAMED_AFTER]:
        narrowed = query.replace("data.mcp.platform.visible.owners[owner]", f"owner := {_quoted(owner)}")
        traced = await engine.evaluate(narrowed, document, "--partial", "--explain=full", *unknowns)
        names |= names_of(traced.get("explanation") or [])
    return _Partial(ways=ways, arities=_arities(engine), modules=partial.get("modules") or [], names=names)


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _way_document(way: _Way) -> JsonObject:
    document = possible_document([way.possible])[0]
    return {**document, "database_globs": [*way.database_globs]} if isinstance(document, dict) else {}


async def _facts(
    engine: Engine, question: JsonObject, ways: list[JsonValue], denies: list[JsonValue]
) -> dict[str, Any]:
    # The platform's rules take no question with a key more, so the ways stand beside it.
    document: JsonObject = {"question": question, "ways": ways, "denies": denies}
    facts = await engine.value("data.authoring.facts.permissions", document, "-d", FACTS)
    if not isinstance(facts, dict):
        raise ConfigurationError("the policy folder does not answer")
    return facts


def _arities(engine: Engine) -> dict[str, int]:
    """Return how many arguments each builtin takes that a policy may use."""
    capabilities = msgspec.json.decode(dict(engine.policies.files)[CAPABILITIES])
    return {one["name"]: len(one["decl"].get("args", [])) for one in capabilities["builtins"]}


def _told(way: PossibleGrant, partial: _Partial) -> _Way:
    writing = partial.writer()
    conditions, known = unfolded(way.conditions)
    grant = resolved(way.grant, known)
    globs = [writing.value(one["terms"][1]) for one in conditions if _is_glob(one, writing)]
    databases = [glob for one in conditions if (glob := database_glob(one)) is not None]
    others = [one for one in conditions if not _is_glob(one, writing) and not _is_grant(one)]
    left = [one for one in others if database_glob(one) is None]
    said = writing.conditions(left)
    globs += ["*"] if {*said} >= _EVERY else []
    needed = [*_needed(way, grant, known, writing)]
    value = writing.value(grant)
    return _Way(
        possible=way,
        grant=value if isinstance(value, dict) else {},
        globs=globs,
        conditions=_told_once([*said, *needed], globs),
        database_globs=databases,
        expressions=left,
        needed=needed,
        partial=partial,
    )


def _told_once(said: list[str], globs: list[JsonValue]) -> list[JsonValue]:
    implied = _EVERY if globs else frozenset()
    return [one for one in dict.fromkeys(said) if one not in implied]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Deny:
    """One way to a deny, in words."""

    way: _Way
    code: str
    constant: bool
    """Whether the code is a text of its author; one that is computed may not be there."""

    @property
    def collections(self) -> list[str] | None:
        """The patterns that the collection must match one of; None is every collection."""
        named = self.way.possible.collections
        return sorted(named) if named is not None else [str(one) for one in self.way.globs] or None

    @property
    def always(self) -> bool:
        """Whether it holds for every call of this caller."""
        way = self.way.possible
        return (
            self.constant
            and not self.way.conditions
            and not self.way.database_globs
            and (way.kinds, way.databases, self.collections) == (None, None, None)
        )

    def meets(self, row: dict[str, Any]) -> bool:
        """Whether it could hold in a row of its owner and place; what cannot be told could."""
        way = self.way.possible
        collections = row["collections"]
        return (way.kinds is None or not way.kinds.isdisjoint(row["kinds"])) and (
            self.collections is None
            or any(one == other or PATTERN & {*one, *other} for one in self.collections for other in collections)
        )


def _deny(way: PossibleGrant, partial: _Partial) -> _Deny:
    writing = partial.writer()
    code: Any = resolved(way.grant, unfolded(way.conditions)[1])
    constant = isinstance(code, dict) and code.get("type") == "string"
    said = _COMPUTED if code is None else str(writing.value(code))
    return _Deny(way=_told(way, partial), code=said, constant=constant)


def _finished(row: dict[str, Any], denies: list[_Deny], servers: Servers) -> JsonObject:
    """Return a row with the denies of its owner among its conditions, what this build makes of it, and no more."""
    conditions = [*_listed(row["conditions"]), *_denied(row, denies)]
    left = {key: conditions if key == "conditions" else value for key, value in row.items() if key != "denied"}
    return {**left, "refused": refused(row), "off": [*switched_off(row["kinds"], row["servers"], servers)]}


def _denied(row: dict[str, Any], denies: list[_Deny]) -> Iterator[str]:
    """Say which denies of the owner could still take a row away."""
    found = [deny for index, deny in enumerate(denies) if index in row["denied"] and deny.meets(row)]
    always = sorted({deny.code for deny in found if deny.always})
    if always:
        yield f"never: {row['owner']} denies it ({', '.join(always)})"
    elif found:
        yield f"unless {row['owner']} denies it ({', '.join(sorted({deny.code for deny in found}))})"


def _denies_document(denies: list[_Deny], owners: set[JsonValue]) -> list[JsonValue]:
    """Return the denies of those who own something in the table, with what each asks; each once."""
    merged: dict[str, dict[str, Any]] = {}
    for deny in denies:
        way = deny.way.possible
        one = {
            "owner": way.owner,
            "code": deny.code,
            "kinds": sorted(way.kinds) if way.kinds is not None else None,
            "databases": sorted(way.databases) if way.databases is not None else None,
            "conditions": deny.way.conditions,
        }
        known = merged.setdefault(repr(one), {**one, "collections": deny.collections})
        known["collections"] = _either(known["collections"], deny.collections)
    return [one for _, one in sorted(merged.items()) if one["owner"] in owners]


def _either(some: list[str] | None, others: list[str] | None) -> list[str] | None:
    return None if some is None or others is None else sorted({*some, *others})


def _lacks(row: dict[str, Any]) -> Iterator[str]:
    """Say which scopes the token lacks for a row."""
    for scopes in row["lacks"]:
        one_of = "" if len(scopes) == 1 else "one of "
        yield f"with {one_of}{', '.join(scopes)}, which the token lacks"


def _needed(way: PossibleGrant, grant: Any, known: dict[str, Any], writing: TermWriter) -> Iterator[str]:
    """Say what only has to be there: the compiler has a name for it, which nothing else uses."""
    times = Counter(variables([way.grant, *way.conditions]))
    for name, meaning in known.items():
        whole = resolved(meaning, known)
        if times[name] == 1 and whole != grant and whole.get("type") in {"ref", "call"}:
            yield f"{writing.term(whole)} is there"


def _conditions(row: dict[str, Any], way: _Way) -> list[JsonValue] | None:
    """Return the conditions of a way in a place; None where one of them cannot hold there."""
    return way.conditions_in(row["name"]) if row["table"] == "databases" else way.conditions


def _row(row: dict[str, Any], way: _Way) -> dict[str, Any]:
    collections = way.possible.collections
    return {
        "denied": row["denied"],
        "owner": way.possible.owner,
        "grant": way.identifier,
        "deployment": row["deployment"],
        "servers": [row["server"]],
        "database": _database(row, way),
        "collections": sorted(collections) if collections is not None else way.globs or row["delegated"],
        "kinds": row["kinds"],
        "conditions": [
            *(_conditions(row, way) or ()),
            *hours_of_windows(row["windows"], row["kinds"]),
            *_lacks(row),
        ],
        **{part: way.grant.get(part) for part in OBLIGATIONS},
        "platform_obligations": _obligations(row),
    }


def _own_row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "denied": [],
        "owner": "platform",
        "grant": row["grant"],
        "deployment": row["deployment"],
        "servers": [row["server"]],
        "database": row["name"] + ("*" if row["table"] == "prefixes" else ""),
        "collections": row["collections"],
        "kinds": row["kinds"],
        "conditions": [*hours_of_windows(row["windows"], row["kinds"]), *_lacks(row)],
        **dict.fromkeys(OBLIGATIONS),
        "names": row["names"],
        "platform_obligations": _obligations(row),
    }


def _obligations(row: dict[str, Any]) -> list[JsonValue]:
    return [one for one in row["obligations"] if set(one["kinds"]) & set(row["kinds"])]


def _listed(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _database(row: dict[str, Any], way: _Way) -> str:
    """Return the database, a prefix with ``*``, or ``<target kind>`` for what is no namespace."""
    name: str = row["name"]
    match row["table"]:
        case "prefixes":
            own = sorted(one for one in way.possible.databases or () if one.startswith(name))
            own += [glob for glob in way.database_globs if not name.startswith(glob.removesuffix("*"))]
            return ", ".join(own) or f"{name}*"
        case "targets":
            return f"<{name}>"
        case _:
            return name


def _is_glob(expression: Any, writing: TermWriter) -> bool:
    """Whether an expression is ``glob.match(<pattern>, null, input.access.collection)``."""
    match expression:
        case {"terms": [operator, {"type": "string"}, {"type": "null"}, name], **rest} if not rest.get("negated"):
            return (writing.term(operator), writing.term(name)) == ("glob.match", _COLLECTION)
        case _:
            return False


def _is_grant(expression: Any) -> bool:
    """Whether an expression is the query's own ``grant``: that there is one."""
    match expression:
        case {"terms": {"type": "var", "value": "grant"}, **rest}:
            return not rest.get("negated")
        case _:
            return False


def _unreached(ways: list[_Way], rows: list[Any]) -> list[JsonValue]:
    """Return the grants that match this identity and lead nowhere: no route, no delegation, or a ceiling."""
    used = {row["way"] for row in rows}
    reached = {(way.possible.owner, way.identifier) for index, way in enumerate(ways) if index in used}
    every = {(way.possible.owner, way.identifier) for way in ways}
    return [{"owner": owner, "grant": grant} for owner, grant in sorted(every - reached)]


def _order(row: JsonObject) -> tuple[str, ...]:
    return tuple(str(row[key]) for key in ("deployment", "database", "collections", "kinds", "owner", "grant"))
