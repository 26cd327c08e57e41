"""What a call under row filters has to answer: the same as on a database that holds nothing but their rows.

A ``World`` is random collections under one policy, three times on the database: ``kept`` holds only the rows that the
filters admit, ``full`` the same rows among hidden ones, ``other`` the same rows among other hidden ones. Which rows a
filter admits is asked of the database and not of the code under test.

- oracle: the rewritten call on ``full`` answers what the call as it was answers on ``kept``;
- non-interference: the rewritten call answers on ``full`` and on ``other`` the same bytes, errors included.

What the MongoDB MCP server sends for a call is done here with PyMongo (``tests/soundness`` watches the real server).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from uuid import uuid4

import bson
from bson import json_util
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from sidecar.commands import derive
from sidecar.errors import SidecarError
from sidecar.model import AccessVerdict, Decision, JsonObject, ToolCall
from sidecar.obligations import plan
from tests.obligations.cases import COLLECTIONS, DATABASE, ROWS, Document, Generator
from tests.obligations.reduced import disguised, reduced
from tests.parts import outside_database

Client: TypeAlias = MongoClient[dict[str, Any]]
Policy: TypeAlias = dict[str, JsonObject]
Masks: TypeAlias = dict[str, list[Any]]
Rewrite: TypeAlias = Callable[..., ToolCall | None]
"""Returns what is sent instead of a call under row filters and masks by collection, and with ``most`` under a limit on
documents; None where the call is refused."""

CASES_OF_A_WORLD: Final = 30

_HIDDEN: Final = ("full", "other")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the database made of a call."""

    failed: str = ""
    """Its words, without the database's name."""
    documents: tuple[bytes, ...] = ()


@dataclass(slots=True)
class Tally:
    """How many cases ended how, and the worst of them."""

    ends: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    @property
    def refused(self) -> float:
        """The share of calls that were refused."""
        return self.ends["refused"] / self.ends.total()


def rewritten(
    call: ToolCall, policy: Policy, masks: Masks | None = None, *, most: int | None = None
) -> ToolCall | None:
    """Return what the sidecar sends instead of a call, by its own walk and its own plan; None where it refuses."""
    try:
        derivation = derive(call)
        verdicts = tuple(
            AccessVerdict(
                owner="sales",
                filter=policy.get(access.namespace.collection),
                mask=tuple((masks or {}).get(access.namespace.collection, ())),
                max_documents=most,
            )
            for access in derivation.command.accesses
        )
        decision = Decision(allow=True, reasons=(), server="ro", accesses=verdicts, revision="r")
        return plan(decision, call, derivation).call or call
    except SidecarError:
        return None


def as_values(value: JsonObject) -> Document:
    """Return what the MongoDB MCP server makes of extended JSON: a date is one."""
    found: Document = json_util.loads(json_util.dumps(value))
    return found


def perform(client: Client, database: str, call: ToolCall) -> Outcome:
    """Do on a database what the MongoDB MCP server does for the call."""
    collection = client[database][str(call.arguments["collection"])]
    try:
        found = [*_answers(collection, call.name, as_values(call.arguments))]
    except OperationFailure as error:
        said = error.details or {}
        return Outcome(failed=f"{said.get('code')}: {said.get('errmsg')}".replace(database, DATABASE))
    return Outcome(documents=tuple(map(bson.encode, found)))


def _answers(collection: Any, tool: str, arguments: Document, limit: int = 10) -> Iterator[Document]:
    """Yield what comes back; ``limit`` is the server's own for a find that says none."""
    match tool:
        case "export":
            [target] = arguments["exportTarget"]
            yield from _answers(collection, target["name"], target["arguments"], 0)
        case "count":
            yield from collection.aggregate(
                [{"$match": arguments.get("query", {})}, {"$group": {"_id": 1, "n": {"$sum": 1}}}]
            )
        case "aggregate":
            yield from collection.aggregate(arguments["pipeline"])
        case "find":
            sort = [*arguments.get("sort", {}).items()] or None
            yield from collection.find(
                arguments.get("filter", {}),
                arguments.get("projection"),
                sort=sort,
                limit=arguments.get("limit", limit),
            )
        case _:
            raise AssertionError(tool)


def write(client: Client, database: str, call: ToolCall) -> str:
    """Do a write as the MongoDB MCP server does it; ``done`` or ``failed``."""
    collection = client[database][str(call.arguments["collection"])]
    arguments = as_values(call.arguments)
    try:
        match call.name:
            case "insert-many":
                collection.insert_many(arguments["documents"])
            case "update-many":
                collection.update_many(
                    arguments.get("filter", {}), arguments["update"], upsert=arguments.get("upsert", False)
                )
            case "delete-many":
                collection.delete_many(arguments.get("filter", {}))
            case _:
                raise AssertionError(call.name)
    except (PyMongoError, bson.errors.InvalidDocument):
        return "failed"
    return "done"


# --- worlds -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Random collections under one policy, on a database three times."""

    client: Client
    policy: Policy
    masks: Masks
    databases: dict[str, str]
    """Their names by ``kept``, ``full`` and ``other``."""
    most: int | None = None
    """How many documents of each collection a call may show."""

    def sent(self, call: ToolCall, rewrite: Rewrite) -> ToolCall | None:
        if self.most is None:
            return rewrite(call, self.policy, self.masks)
        return rewrite(call, self.policy, self.masks, most=self.most)

    def outcome(self, which: str, call: ToolCall) -> Outcome:
        return perform(self.client, self.databases[which], call)


@contextmanager
def world(
    client: Client,
    generator: Generator,
    policy: Policy | None = None,
    masks: Masks | None = None,
    most: int | None = None,
) -> Iterator[World]:
    """Random collections for as long as the block lasts."""
    masks = masks or {}
    chosen = generator.policy() if policy is None else policy
    prefix = f"o{uuid4().hex[:12]}"
    names = {which: f"{prefix}_{which}" for which in ("kept", *_HIDDEN)}
    try:
        for collection in COLLECTIONS:
            _fill(client, generator, (chosen.get(collection), masks.get(collection, [])), names, collection)
        yield World(client=client, policy=chosen, masks=masks, databases=names, most=most)
    finally:
        for name in names.values():
            client.drop_database(name)


def _fill(
    client: Client,
    generator: Generator,
    held: tuple[JsonObject | None, list[Any]],
    names: dict[str, str],
    collection: str,
) -> None:
    row_filter, mask = held
    pool = [generator.document(collection, number) for number in range(2 * ROWS)]
    target = client[names["kept"]][collection]
    target.insert_many(pool)
    admitted = {document["_id"] for document in target.find(as_values(row_filter or {}))}
    if row_filter is not None or mask:
        target.delete_many({})
        if permitted := [reduced(one, mask) for one in pool if one["_id"] in admitted]:
            target.insert_many(permitted)
    for which in _HIDDEN:
        share = generator.random.random()
        mixed = [one for one in pool if one["_id"] in admitted or generator.random.random() < share]
        if which == "other":
            free = [one for one in mask if not any(_meet(one, field) for field in _fields(row_filter))]
            mixed = [disguised(one, free, generator.random) for one in mixed]
        if mixed:
            client[names[which]][collection].insert_many(mixed)


def _fields(row_filter: Any) -> Iterator[str]:
    """The fields that choose the rows; another value there would be another row."""
    for key, value in (row_filter or {}).items():
        if key.startswith("$"):
            for part in value:
                yield from _fields(part)
        else:
            yield key


def _meet(masked: Any, field: str) -> bool:
    path = masked if isinstance(masked, str) else masked["field"]
    return f"{path}.".startswith(f"{field}.") or f"{field}.".startswith(f"{path}.")


# --- judging ----------------------------------------------------------------------------------------------------------

LACKING: Final = ("$graphLookup",)
"""What the stand-in does in another way than MongoDB, ignoring ``restrictSearchWithMatch``. There the command is looked
at instead (``restricted``)."""


def judge(case: ToolCall, of: World, rewrite: Rewrite, tally: Tally) -> None:
    """Run one case, and note how it ended."""
    sent = of.sent(case, rewrite)
    if sent is None:
        tally.ends["refused"] += 1
        return
    if of.policy and not outside_database() and any(word in str(case.arguments) for word in LACKING):
        good = restricted(sent.arguments, of.policy)
        tally.ends["looked at"] += 1
        if not good:
            tally.faults.append(_described("a restriction is missing", case, sent, of))
        return
    expected, full, other = of.outcome("kept", case), of.outcome("full", sent), of.outcome("other", sent)
    if of.most is not None:
        expected = _limited(case, of, expected, full, tally)
    tally.ends["failed on both" if expected.failed else "answered"] += 1
    if bool(expected.failed) != bool(full.failed) or not _same(expected.documents, full.documents):
        tally.faults.append(_described(f"expected {_shown(expected)}, was {_shown(full)}", case, sent, of))
    if full.failed != other.failed or not _same(full.documents, other.documents):
        tally.faults.append(_described(f"tells of hidden rows: {_shown(full)} and {_shown(other)}", case, sent, of))


_PLAIN: Final = frozenset(
    {
        "$match",
        "$project",
        "$addFields",
        "$set",
        "$unset",
        "$sort",
        "$limit",
        "$skip",
        "$unwind",
        "$redact",
        "$unionWith",
    }
)
"""Stages that neither collect documents nor make one of several: behind them exactly so many may come back."""


def _limited(case: ToolCall, of: World, whole: Outcome, answer: Outcome, tally: Tally) -> Outcome:
    """Return what a call has to answer under the limit on documents, of what it answers without one on ``kept``.

    The first so many. Where a stage makes one document of several, how many it may be is the sidecar's to say: fewer
    than the limit, at least one, and no more documents in all of its lists than the limit either.
    """
    most = of.most or 0
    if case.name == "count" or (whole.failed and answer.failed):
        return whole
    shown = documents_in(answer)
    if len(answer.documents) > most or len(shown) > most:
        tally.faults.append(f"shows {len(answer.documents)} and in them {len(shown)} of {most}: {case}")
    if whole.failed:
        return answer  # it fails at a document that is not looked at any more
    arguments: Any = case.arguments
    if case.name == "export":
        [target] = arguments["exportTarget"]
        arguments = target["arguments"]
    stages = {name for stage in arguments.get("pipeline", ()) for name in stage}
    if "pipeline" not in arguments or stages <= _PLAIN:
        return Outcome(documents=whole.documents[:most])
    number = len(answer.documents)
    if whole.documents and not number:
        tally.faults.append(f"nothing comes back of {len(whole.documents)}: {case}")
    return Outcome(documents=whole.documents[:number])


def documents_in(outcome: Outcome) -> set[tuple[str, str]]:
    """The stored documents that an answer shows anywhere, each once, by collection and id."""
    found = set()
    stack: list[Any] = [bson.decode(document) for document in outcome.documents]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack.extend(value.values())
            if kinds := [kind for kind, field in _TELLING if field in value and "_id" in value]:
                found.add((kinds[0], repr(value["_id"])))
        elif isinstance(value, list):
            stack.extend(value)
    return found


_TELLING: Final = (("orders", "lines"), ("customers", "friends"), ("staff", "boss"))
"""A field that each document of a collection has, and of no other."""


def _same(left: tuple[bytes, ...], right: tuple[bytes, ...]) -> bool:
    """Whether two answers are the same bytes; MongoDB itself leaves the order of groups open."""
    return left == right or (bool(outside_database()) and _unordered(left) == _unordered(right))


def _unordered(documents: tuple[bytes, ...]) -> list[str]:
    return sorted(repr(_sorted(bson.decode(document))) for document in documents)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(one) for key, one in value.items()}
    return sorted(map(_sorted, value), key=repr) if isinstance(value, list) else value


def restricted(value: Any, policy: Policy) -> bool:
    """Whether each ``$graphLookup`` from a filtered collection is restricted to the filter, alone or in ``$and``."""
    if isinstance(value, list):
        return all(restricted(one, policy) for one in value)
    if not isinstance(value, dict):
        return True
    options = value.get("$graphLookup")
    if isinstance(options, dict) and options.get("from") in policy:
        wanted, found = policy[options["from"]], options.get("restrictSearchWithMatch", {})
        if found != wanted and wanted not in found.get("$and", ()):
            return False
    return all(restricted(one, policy) for one in value.values())


def _described(what: str, case: ToolCall, sent: ToolCall, of: World) -> str:
    parts = {"policy": of.policy, "masks": of.masks, "call": case.arguments, "sent": sent.arguments}
    return "\n".join([what, f"  {case.name}", *(f"  {name}: {json_util.dumps(part)}" for name, part in parts.items())])


def _shown(outcome: Outcome) -> str:
    shown = str([bson.decode(document) for document in outcome.documents[:4]])[:600]
    return outcome.failed[:300] or f"{len(outcome.documents)} documents, {shown}"


def run(
    client: Client,
    number: int,
    seed: str,
    rewrite: Rewrite = rewritten,
    *,
    masked: bool = False,
    limited: bool = False,
) -> Tally:
    """Run this many random cases, of row filters, or of masks with and without row filters, or those under limits."""
    tally = Tally()
    for index in range(-(-number // CASES_OF_A_WORLD)):
        generator = Generator(f"{seed}/{index}")
        masks = generator.masks() if masked else None
        most = generator.pick(1, 2, 3, 5, 8) if limited else None
        with world(client, generator, {} if masked and generator.chance(0.6) else None, masks, most) as of:
            for _ in range(CASES_OF_A_WORLD):
                tool, arguments = generator.call()
                judge(ToolCall(name=tool, arguments=arguments), of, rewrite, tally)
    return tally
