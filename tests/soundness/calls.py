"""Calls of every MongoDB tool: typical ones, edges, and as many generated ones as wanted, the same for one seed.

The generator knows nothing of ``sidecar.commands``; that some of what it makes is refused there is part of the test.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from sidecar.model import ToolCall

HOME: Final = "soundness_shop"
AWAY: Final = "soundness_hr"
THIRD: Final = "soundness-third"
DATABASES: Final = (HOME, AWAY, THIRD)

COLLECTIONS: Final = (
    "orders",
    "people",
    "items.archive",
    "Orders",
    "straße",
    "a-b",
    "test",
    "n" * 60,
    f"{AWAY}.people",
)
"""Names that differ by case or by where a dot stands are different namespaces; ``test`` is also what a side read of the
server's own names."""

ODD_NAMES: Final = (
    "",
    " ",
    "$cmd",
    "a\0b",
    "..",
    ".a",
    "*",
    "__proto__",
    "e\u0301",
    "a\u200bb",
    "system.profile",
    "fs.files",
)
ODD_DATABASES: Final = ("", "*", "a.b", "a b", "$external", "x" * 64, "__proto__")

SYSTEM_DATABASES: Final = ("admin", "local", "config")
"""Only ever read: the database may be a real one."""

Arguments = dict[str, Any]
T = TypeVar("T")
CONNECTION: Final[Arguments] = {"connectionId": "preconfigured"}


def on(database: str = HOME, collection: str | None = "orders", **more: Any) -> Arguments:
    """Arguments that name a database and, unless it is None, a collection."""
    return {**CONNECTION, "database": database, **({} if collection is None else {"collection": collection}), **more}


# --- pipelines --------------------------------------------------------------------------------------------------------

EQUALITY: Final = {"localField": "who", "foreignField": "_id", "as": "joined"}

READING_PIPELINES: Final[tuple[list[Any], ...]] = (
    [],
    [{"$match": {"n": {"$gte": 1}}}, {"$project": {"n": 1}}],
    [{"$lookup": {"from": "people", **EQUALITY}}],
    [{"$lookup": {"from": "people", "let": {"w": "$who"}, "pipeline": [{"$match": {"n": 1}}], "as": "joined"}}],
    [{"$lookup": {"from": {"db": AWAY, "coll": "people"}, **EQUALITY}}],
    [{"$lookup": {"pipeline": [{"$documents": [{"x": 1}]}], "as": "joined"}}],
    [
        {
            "$graphLookup": {
                "from": "people",
                "startWith": "$who",
                "connectFromField": "boss",
                "connectToField": "_id",
                "as": "b",
            }
        }
    ],
    [{"$unionWith": "people"}],
    [{"$unionWith": {"coll": "items.archive", "pipeline": [{"$limit": 1}]}}],
    [{"$unionWith": {"db": AWAY, "coll": "people", "pipeline": [{"$unionWith": "orders"}]}}],
    [{"$unionWith": {"pipeline": [{"$documents": [{"x": 1}]}]}}],
    [{"$facet": {"a": [{"$lookup": {"from": "people", **EQUALITY}}], "b": [{"$count": "n"}]}}],
    [
        {
            "$facet": {
                "f": [
                    {
                        "$lookup": {
                            "from": "people",
                            "pipeline": [
                                {
                                    "$unionWith": {
                                        "coll": "a-b",
                                        "pipeline": [
                                            {
                                                "$graphLookup": {
                                                    "from": "Orders",
                                                    "startWith": "$who",
                                                    "connectFromField": "w",
                                                    "connectToField": "_id",
                                                    "as": "g",
                                                }
                                            }
                                        ],
                                    }
                                }
                            ],
                            "as": "j",
                        }
                    }
                ]
            }
        }
    ],
    [{"$rankFusion": {"input": {"pipelines": {"one": [{"$match": {"n": 1}}, {"$sort": {"n": 1}}]}}}}],
    [{"$collStats": {"storageStats": {}}}],
    [{"$indexStats": {}}],
    [{"$planCacheStats": {}}],
    [{"$listSearchIndexes": {}}],
    [{"$vectorSearch": {"index": "v", "path": "p", "queryVector": [1, 2], "numCandidates": 5, "limit": 2}}],
    [{"$vectorSearch": {"index": "v", "path": "p", "query": {"text": "shoes"}, "numCandidates": 5, "limit": 2}}],
    [{"$search": {"index": "s", "text": {"query": "x", "path": "y"}}}, {"$unionWith": "people"}],
    [{"$currentOp": {"allUsers": True}}],
    [{"$match": {"x": {"$ref": "people", "$id": 1, "$db": AWAY}}}],
)
"""Also forms that the stand-in refuses: they are on the wire before it does."""

WRITING_PIPELINES: Final[tuple[list[Any], ...]] = (
    [{"$match": {"n": 1}}, {"$out": "made"}],
    [{"$out": {"db": AWAY, "coll": "made"}}],
    [{"$out": {"db": THIRD, "coll": "made", "timeseries": {"timeField": "at"}}}],
    [{"$merge": "people"}],
    [{"$merge": {"into": "people"}}],
    [{"$merge": {"into": {"db": AWAY, "coll": "people"}}}],
    [
        {
            "$merge": {
                "into": {"db": AWAY, "coll": "new.one"},
                "on": "_id",
                "whenMatched": "replace",
                "whenNotMatched": "discard",
            }
        }
    ],
    [{"$merge": {"into": "people", "whenMatched": "keepExisting", "whenNotMatched": "insert"}}],
    [{"$merge": {"into": "people", "whenMatched": "fail", "whenNotMatched": "fail"}}],
    [{"$merge": {"into": {"db": AWAY, "coll": "people"}, "let": {"v": "$n"}, "whenMatched": [{"$set": {"n": "$$v"}}]}}],
    [
        {"$lookup": {"from": "people", **EQUALITY}},
        {"$unset": "joined"},
        {"$merge": {"into": {"db": THIRD, "coll": "a"}}},
    ],
    [{"$facet": {"f": [{"$out": "nested"}]}}],
    [{"$unionWith": {"coll": "people", "pipeline": [{"$out": {"db": AWAY, "coll": "nested"}}]}}],
    [{"$lookup": {"from": "people", "pipeline": [{"$merge": {"into": {"db": AWAY, "coll": "x"}}}], "as": "j"}}],
    [{"$lookup": {"from": {"db": AWAY, "coll": "people"}, "pipeline": [{"$out": "bare"}], "as": "j"}}],
    [
        {
            "$facet": {
                "f": [{"$lookup": {"from": "a-b", "pipeline": [{"$facet": {"g": [{"$merge": "deep"}]}}], "as": "j"}}]
            }
        }
    ],
    [{"$out": "first"}, {"$merge": "second"}],
    [{"$out": {"s3": {"bucket": "b", "filename": "f", "format": {"name": "json"}}}}],
    [{"$out": {"atlas": {"projectId": "p", "clusterName": "c", "db": AWAY, "coll": "people"}}}],
    [{"$merge": {"into": {"atlas": {"projectId": "p", "clusterName": "c", "db": AWAY, "coll": "people"}}}}],
    [{"$rerank": {"query": {"text": "x"}, "model": "rerank-2.5", "numDocsToRerank": 5, "path": "p"}}, {"$out": "made"}],
)

REFUSED_PIPELINES: Final[tuple[list[Any], ...]] = (
    [{"$nothing": {}}],
    [{"$match": {}, "$out": "two"}],
    [{}],
    [{"$lookup": {"from": {"$symbol": "people"}, **EQUALITY}}],
    [{"$out": {"$symbol": "people"}}],
    [{"$ref": "a", "$id": 1, "$out": "t"}],
    [{"$_internalInhibitOptimization": {}}],
    [{"$match": {"__proto__": {"a": 1}}}],
    [{"$unionWith": {"coll": "", "pipeline": []}}],
    [{"$merge": {"into": {"db": "", "coll": "people"}}}],
    [{"$lookup": {"from": "people", "pipeline": [{"$documents": []}], "as": "j"}}],
)

DATABASE_PIPELINES: Final[tuple[list[Any], ...]] = (
    [{"$documents": [{"who": 1}]}],
    [{"$documents": [{"who": 1}]}, {"$lookup": {"from": "people", **EQUALITY}}],
    [{"$documents": [{"who": 1}]}, {"$unionWith": "orders"}, {"$unionWith": {"db": AWAY, "coll": "people"}}],
    [{"$documents": [{"_id": 1}]}, {"$merge": {"into": {"db": AWAY, "coll": "people"}}}],
    [{"$documents": [{"_id": 1}]}, {"$merge": "people"}],
    [{"$documents": [{"_id": 1}]}, {"$out": "made"}],
    [{"$documents": [{"_id": 1}]}, {"$out": {"db": AWAY, "coll": "made"}}],
    [{"$documents": [{"_id": 1}]}, {"$facet": {"a": [{"$lookup": {"from": "people", **EQUALITY}}]}}],
    [{"$currentOp": {"allUsers": True, "idleSessions": True}}],
    [{"$currentOp": {}}, {"$limit": 1}],
    [{"$currentOp": {}}, {"$lookup": {"from": "people", **EQUALITY}}],
    [{"$listLocalSessions": {"allUsers": True}}],
    [{"$queryStats": {}}],
    [{"$match": {}}],
    [{"$currentOp": {}, "$out": "x"}],
)

# --- generation -------------------------------------------------------------------------------------------------------


class Maker:
    """Random arguments from one seed."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)  # noqa: S311 - the same calls in every run are the point
        self._plain: tuple[Callable[[], Arguments], ...] = (
            lambda: {"$match": self.filter()},
            lambda: {"$project": {"n": 1, "twice": {"$multiply": ["$n", 2]}}},
            lambda: {self.pick("$addFields", "$set"): {"m": {"$concat": ["$name", "x"]}, "all": "$$ROOT"}},
            lambda: {"$unset": self.pick("n", ["n", "who"])},
            lambda: {"$sort": {"n": self.pick(1, -1)}},
            lambda: {"$limit": self.random.randint(1, 9)},
            lambda: {"$skip": self.random.randint(0, 3)},
            lambda: {"$sample": {"size": 2}},
            lambda: {"$unwind": self.pick("$tags", {"path": "$tags", "preserveNullAndEmptyArrays": True})},
            lambda: {"$group": {"_id": "$who", "all": {"$push": "$$ROOT"}}},
            lambda: {"$bucketAuto": {"groupBy": "$n", "buckets": 2}},
            lambda: {"$count": "n"},
            lambda: {"$sortByCount": "$who"},
            lambda: {"$replaceRoot": {"newRoot": {"$mergeObjects": ["$$ROOT", {"a": 1}]}}},
            lambda: {"$replaceWith": {"n": "$n"}},
            lambda: {"$redact": {"$cond": [{"$eq": ["$n", 1]}, "$$PRUNE", "$$DESCEND"]}},
            lambda: {"$setWindowFields": {"sortBy": {"n": 1}, "output": {"sum": {"$sum": "$n"}}}},
            lambda: {"$fill": {"output": {"n": {"value": 0}}}},
        )

    def pick(self, *values: T) -> T:
        """One of several values."""
        return self.random.choice(values)

    def chance(self, share: float) -> bool:
        """True in this share of the cases."""
        return self.random.random() < share

    def database(self) -> str:
        """A database; now and then one with an odd name."""
        return self.pick(*ODD_DATABASES) if self.chance(0.03) else self.pick(*DATABASES)

    def collection(self) -> str:
        """A collection; now and then one with an odd name."""
        return self.pick(*ODD_NAMES) if self.chance(0.03) else self.pick(*COLLECTIONS)

    def place(self, **more: Any) -> Arguments:
        """Arguments that name a collection."""
        return on(self.database(), self.collection(), **more)

    def filter(self, depth: int = 0) -> Arguments:
        """A query predicate."""
        simple: tuple[Arguments, ...] = (
            {},
            {"n": self.random.randint(0, 5)},
            {"n": {"$gte": 2, "$lt": 5}},
            {"who": {"$in": [1, 2, None]}},
            {"name": {"$regex": "^a", "$options": "i"}},
            {"at": {"$gt": {"$date": "2020-01-01T00:00:00Z"}}},
            {"_id": {"$oid": "0123456789abcdef01234567"}},
            {"tags": {"$elemMatch": {"$eq": "x"}}},
            {"$expr": {"$gt": ["$n", "$who"]}},
            {"$comment": "c"},
            {"link": {"$ref": "people", "$id": 1}},
            {"x": {"$not": {"$exists": True}}},
            {"big": {"$numberLong": "9007199254740993"}},
        )
        if depth < 2 and self.chance(0.3):
            return {self.pick("$and", "$or", "$nor"): [self.filter(depth + 1) for _ in range(2)]}
        return self.pick(*simple)

    def pipeline(self, depth: int = 0) -> list[Any]:
        """A pipeline, sometimes with a write at its end, at any depth."""
        stages = [self.stage(depth) for _ in range(self.random.randint(0, 4 if depth == 0 else 2))]
        if self.chance(0.25 if depth == 0 else 0.12):
            stages.append(self.sink(depth))
        return stages

    def stage(self, depth: int) -> Arguments:
        """A stage; one that nests while it is not too deep."""
        if depth < 4 and self.chance(0.55):
            return self.join(depth)
        return self.pick(*self._plain)()

    def join(self, depth: int) -> Arguments:
        """A stage that names another collection, or holds pipelines, or both."""
        here, there = self.collection(), {"db": self.database(), "coll": self.collection()}
        nested = self.pipeline(depth + 1)
        return self.pick(
            {"$lookup": {"from": here, **EQUALITY}},
            {"$lookup": {"from": here, "pipeline": nested, "as": "j"}},
            {"$lookup": {"from": here, "let": {"v": "$n"}, "pipeline": nested, **EQUALITY}},
            {"$lookup": {"from": there, "pipeline": nested, "as": "j"}},
            {"$lookup": {"pipeline": [{"$documents": [{"a": 1}]}, *nested], "as": "j"}},
            {"$unionWith": here},
            {"$unionWith": {"coll": here, "pipeline": nested}},
            {"$unionWith": {**there, "pipeline": nested}},
            {"$unionWith": {"pipeline": [{"$documents": [{"a": 1}]}, *nested]}},
            {"$facet": {"one": nested, "two": self.pipeline(depth + 1)}},
            {"$rankFusion": {"input": {"pipelines": {"one": nested, "two": [{"$sort": {"n": 1}}]}}}},
            {
                "$graphLookup": {
                    "from": here,
                    "startWith": "$who",
                    "connectFromField": "boss",
                    "connectToField": "_id",
                    "as": "g",
                    **({"restrictSearchWithMatch": self.filter()} if self.chance(0.5) else {}),
                }
            },
        )

    def sink(self, depth: int) -> Arguments:
        """A stage that writes."""
        here, there = self.collection(), {"db": self.database(), "coll": self.collection()}
        matched = self.pick("merge", "replace", "keepExisting", "fail", [{"$set": {"n": 1}}], [self.stage(depth + 1)])
        missing = self.pick("insert", "discard", "fail")
        return self.pick(
            {"$out": here},
            {"$out": there},
            {"$merge": here},
            {"$merge": {"into": here, "whenMatched": matched}},
            {"$merge": {"into": there, "on": "_id", "whenMatched": matched, "whenNotMatched": missing}},
        )

    def find(self) -> Arguments:
        """The arguments of a find, without its place."""
        optional = {
            "filter": self.filter(),
            "projection": self.pick({"n": 1}, {"_id": 0}, {"x": "$who"}, {"all": "$$ROOT"}),
            "sort": self.pick({"n": 1}, {"who": "desc"}, {"_id": -1}),
            "limit": self.pick(0, 1, 5, 1000, -3),
        }
        return {key: value for key, value in optional.items() if self.chance(0.5)}

    def wrapped(self, *names: str) -> list[Arguments]:
        """What ``explain`` and ``export`` wrap."""
        name = self.pick(*names)
        made = {
            "find": self.find,
            "count": lambda: {"query": self.filter()},
            "aggregate": lambda: {"pipeline": self.pipeline()},
        }
        return [{"name": name, "arguments": made[name]()}]

    def documents(self) -> list[Arguments]:
        """Documents to store, among them ones that look like commands."""
        one = (
            {"n": 1},
            {"n": {"$numberLong": "7"}},
            {"from": "people", "pipeline": "x"},
            {"deep": {"a": [{"b": None}]}},
        )
        return [dict(self.pick(*one)) for _ in range(self.random.randint(1, 4))]

    def update(self) -> Arguments:
        """An update document."""
        return self.pick(
            {"$set": {"n": 1}},
            {"$inc": {"n": 1}},
            {"$unset": {"x": ""}},
            {"$push": {"tags": "y"}},
            {"$rename": {"x": "y"}},
        )


def _find(maker: Maker) -> Iterator[Arguments]:
    for limit in (0, -1, -5, 1, 100, 101, 10_000, 0.1):
        yield on(limit=limit)
    yield on(HOME, "orders", filter={"n": 1}, projection={"n": 1, "_id": 0}, sort={"n": -1}, limit=5)
    yield on("admin", "system.users")
    yield on("local", "oplog.rs")
    yield on(HOME, "system.profile")
    for name in (*COLLECTIONS, *ODD_NAMES):
        yield on(HOME, name)
    for name in (*ODD_DATABASES, *SYSTEM_DATABASES):
        yield on(name)
    while True:
        yield maker.place(**maker.find())


def _count(maker: Maker) -> Iterator[Arguments]:
    yield on()
    yield on(query={})
    yield on(AWAY, "")
    while True:
        yield maker.place(query=maker.filter())


def _aggregate(maker: Maker) -> Iterator[Arguments]:
    for pipeline in (*READING_PIPELINES, *WRITING_PIPELINES, *REFUSED_PIPELINES):
        yield on(pipeline=pipeline)
    yield on("admin", "", pipeline=[{"$currentOp": {"allUsers": True}}])
    while True:
        yield maker.place(pipeline=maker.pipeline())


def _aggregate_db(maker: Maker) -> Iterator[Arguments]:
    for pipeline in DATABASE_PIPELINES:
        yield on(HOME, None, pipeline=pipeline)
    for first in ({"$documents": [{"who": 1}]}, {"$currentOp": {"allUsers": True}}):
        yield on("admin", None, pipeline=[first, {"$lookup": {"from": "people", **EQUALITY}}])
    while True:
        start: Arguments = maker.pick({"$documents": [{"_id": 1, "who": 2}]}, {"$documents": [{}]}, {"$currentOp": {}})
        yield on(maker.database(), None, pipeline=[start, *maker.pipeline()])


def _explain(maker: Maker) -> Iterator[Arguments]:
    for verbosity in ("queryPlanner", "queryPlannerExtended", "executionStats", "allPlansExecution"):
        yield on(method=[{"name": "find", "arguments": {"filter": {"n": 1}}}], verbosity=verbosity)
        yield on(
            method=[{"name": "aggregate", "arguments": {"pipeline": [{"$unionWith": "people"}]}}], verbosity=verbosity
        )
    yield on(method=[{"name": "count", "arguments": {"query": {"n": 1}}}])
    for pipeline in (*READING_PIPELINES, *WRITING_PIPELINES):
        yield on(method=[{"name": "aggregate", "arguments": {"pipeline": pipeline}}])
    yield on(method=[{"name": "find", "arguments": {}}, {"name": "find", "arguments": {}}])
    yield on(HOME, "", method=[{"name": "aggregate", "arguments": {"pipeline": [{"$currentOp": {}}]}}])
    while True:
        more = {"verbosity": maker.pick("queryPlanner", "executionStats")} if maker.chance(0.5) else {}
        yield maker.place(method=maker.wrapped("find", "count", "aggregate"), **more)


def _export(maker: Maker) -> Iterator[Arguments]:
    for pipeline in READING_PIPELINES:
        yield on(exportTitle="t", exportTarget=[{"name": "aggregate", "arguments": {"pipeline": pipeline}}])
    for pipeline in WRITING_PIPELINES[:4]:
        yield on(exportTitle="t", exportTarget=[{"name": "aggregate", "arguments": {"pipeline": pipeline}}])
    for form in ("relaxed", "canonical"):
        target = [{"name": "find", "arguments": {"filter": {"n": 1}, "limit": 0}}]
        yield on(exportTitle="t", exportTarget=target, jsonExportFormat=form)
    while True:
        yield maker.place(exportTitle="t", exportTarget=maker.wrapped("find", "aggregate"))


def _create_index(maker: Maker) -> Iterator[Arguments]:
    mappings: Arguments = {"dynamic": True}
    definitions: tuple[Arguments, ...] = (
        {"type": "classic", "keys": {"n": 1}},
        {"type": "classic", "keys": {"n": 1, "who": -1}},
        {"type": "classic", "keys": {"name": "text"}},
        {"type": "vectorSearch", "fields": [{"type": "vector", "path": "v", "numDimensions": 4}]},
        {
            "type": "vectorSearch",
            "fields": [{"type": "autoEmbed", "path": "t", "model": "voyage-4", "modality": "text"}],
        },
        {"type": "search", "mappings": mappings},
        {
            "type": "search",
            "mappings": mappings,
            "synonyms": [
                {"name": "s", "analyzer": "lucene.standard", "source": {"collection": "people"}},
                {"name": "t", "analyzer": "lucene.standard", "source": {"collection": "items.archive"}},
            ],
        },
        {"type": "search", "mappings": mappings, "unknown": {"collection": "people"}},
    )
    for definition in definitions:
        yield on(name="made", definition=[definition])
        yield on(THIRD, "not.there.yet", definition=[definition])
    while True:
        yield maker.place(
            definition=[{"type": "classic", "keys": {maker.pick("n", "who", "a.b"): maker.pick(1, -1, "hashed")}}]
        )


def _drop_index(maker: Maker) -> Iterator[Arguments]:
    for name in ("n_1", "*", "_id_", "made", ""):
        for kind in ("classic", "search"):
            yield on(indexName=name, type=kind)
    while True:
        yield maker.place(indexName=maker.pick("n_1", "*", "x"), type=maker.pick("classic", "classic", "search"))


def _insert(maker: Maker) -> Iterator[Arguments]:
    yield on(documents=[{"n": 1}])
    yield on(THIRD, "new.collection", documents=[{"n": n} for n in range(200)])
    yield on(documents=[])
    yield on(documents=[{"$out": "people"}])
    yield on(HOME, "system.js", documents=[{"n": 1}])
    while True:
        yield maker.place(documents=maker.documents())


def _update(maker: Maker) -> Iterator[Arguments]:
    yield on(update={"$set": {"n": 1}})
    yield on(filter={"n": 77}, update={"$set": {"n": 78}}, upsert=True)
    yield on(filter={"n": 1}, update={"$set": {"n": 1}}, upsert=False)
    yield on(AWAY, "absent", filter={"_id": 1}, update={"$set": {"n": 1}}, upsert=True)
    yield on(update=[{"$set": {"n": 1}}])
    yield on(filter={"__proto__": {"n": 1}}, update={"$set": {"n": 1}})
    while True:
        more = {"upsert": maker.pick(True, False)} if maker.chance(0.5) else {}
        yield maker.place(filter=maker.filter(), update=maker.update(), **more)


def _delete(maker: Maker) -> Iterator[Arguments]:
    yield on()
    yield on(filter={})
    yield on(filter={"__proto__": {"n": 1}})
    while True:
        yield maker.place(filter=maker.filter())


def _rename(maker: Maker) -> Iterator[Arguments]:
    yield on(newName="renamed")
    yield on(HOME, "people", newName="renamed", dropTarget=True)
    yield on(HOME, "items.archive", newName=f"{AWAY}.people", dropTarget=True)
    yield on(AWAY, "people", newName="dotted.new.name", dropTarget=False)
    yield on(HOME, "absent", newName="other")
    yield on(newName="")
    yield on(newName="$cmd")
    while True:
        more = {"dropTarget": maker.pick(True, False)} if maker.chance(0.6) else {}
        yield maker.place(newName=maker.collection(), **more)


def _on_collection(maker: Maker) -> Iterator[Arguments]:
    for name in (*COLLECTIONS, *ODD_NAMES):
        yield on(HOME, name)
    while True:
        yield maker.place()


def _on_schema(maker: Maker) -> Iterator[Arguments]:
    for size in (1, 50, 50_000, 0):
        yield on(sampleSize=size)
    yield from _on_collection(maker)


def _on_database(maker: Maker) -> Iterator[Arguments]:
    yield from (on(name, None) for name in (*DATABASES, *SYSTEM_DATABASES, "soundness_ünï", *ODD_DATABASES))
    while True:
        yield on(maker.database(), None)


def _dropping_databases(maker: Maker) -> Iterator[Arguments]:
    """Never one that is not ours."""
    yield from (on(name, None) for name in (*DATABASES, "soundness_absent", "", "*"))
    while True:
        yield on(maker.pick(*DATABASES), None)


def _logs(maker: Maker) -> Iterator[Arguments]:
    yield dict(CONNECTION)
    while True:
        yield {**CONNECTION, "type": maker.pick("global", "startupWarnings"), "limit": maker.random.randint(1, 50)}


def _connection(_maker: Maker) -> Iterator[Arguments]:
    yield {"connectionId": "another"}
    while True:
        yield dict(CONNECTION)


def _nothing(_maker: Maker) -> Iterator[Arguments]:
    yield {"unknown": 1}
    while True:
        yield {}


def _connect(_maker: Maker) -> Iterator[Arguments]:
    """``RECORDER`` stands for the address of the proxy, which no seed knows."""
    yield {"connectionString": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200"}
    for number in range(1 << 30):
        more = {"connectionName": f"c{number}"} if number % 2 else {}
        yield {"connectionString": f"mongodb://RECORDER/db{number}?directConnection=true", **more}


_MAKERS: Final[Mapping[str, Callable[[Maker], Iterator[Arguments]]]] = {
    "list-databases": _connection,
    "list-collections": _on_database,
    "db-stats": _on_database,
    "collection-indexes": _on_collection,
    "collection-storage-size": _on_collection,
    "collection-schema": _on_schema,
    "mongodb-logs": _logs,
    "find": _find,
    "count": _count,
    "aggregate": _aggregate,
    "aggregate-db": _aggregate_db,
    "explain": _explain,
    "export": _export,
    "insert-many": _insert,
    "update-many": _update,
    "delete-many": _delete,
    "create-collection": _on_collection,
    "create-index": _create_index,
    "rename-collection": _rename,
    "drop-collection": _on_collection,
    "drop-database": _dropping_databases,
    "drop-index": _drop_index,
    "connect": _connect,
    "disconnect": _connection,
    "list-connections": _nothing,
}

_HOW_MANY: Final[Mapping[str, int]] = {
    "aggregate": 190,
    "aggregate-db": 60,
    "explain": 100,
    "export": 50,
    "find": 80,
    "list-databases": 3,
    "mongodb-logs": 6,
    "connect": 4,
    "disconnect": 3,
    "list-connections": 3,
    "drop-database": 10,
}
_USUALLY: Final = 32

TOOLS: Final = tuple(_MAKERS)
"""The 25 MongoDB tools."""

MUTABLE: Final = tuple(name for name in TOOLS if _MAKERS[name] not in (_connection, _connect, _nothing, _logs))
"""The tools with arguments that name something, apart from hosts."""


def calls(tool: str, seed: int) -> Iterator[ToolCall]:
    """The calls of one tool, always the same ones for one seed."""
    made = _MAKERS[tool](Maker(f"{seed}/{tool}"))
    for _ in range(_HOW_MANY.get(tool, _USUALLY)):
        yield ToolCall(name=tool, arguments=next(made))


# --- mutation ---------------------------------------------------------------------------------------------------------

STRANGE: Final[tuple[Any, ...]] = (
    None,
    0,
    True,
    "",
    AWAY,  # as a collection a strange one, as a database one of ours: mutations may drop it
    "$people",
    f"{AWAY}.people",
    [],
    {},
    [AWAY],
    {"$symbol": "people"},
    {"$oid": "0123456789abcdef01234567"},
    {"$numberInt": "1"},
    {"$code": "people"},
    {"$uuid": "00112233-4455-6677-8899-aabbccddeeff"},
    {"$ref": "people", "$id": 1, "$out": "made"},
    {"$date": "2020-01-01T00:00:00Z", "$out": "made"},
    {"db": AWAY, "coll": "people"},
    {"db": AWAY, "coll": {"$symbol": "people"}},
    {"coll": "people"},
    {"$lookup": {"from": "people", **EQUALITY}},
    {"$unionWith": "people"},
    {"$out": "made"},
    {"$merge": {"into": "made"}},
    [{"$unionWith": "people"}],
    [{"$documents": [{"a": 1}]}],
    {"__proto__": {"from": "people"}},
    {"constructor": {"prototype": {"from": "people"}}},
)
"""Values that two readers of JSON could take differently, and whole stages where none belongs."""

KEYS: Final = (
    "db", "coll", "from", "into", "pipeline", "whenMatched", "$out", "$merge", "$unionWith", "$lookup", "collection",
    "database", "newName", "hint", "let", "comment", "toString", "$db", "a.b", "",
)  # fmt: skip


def mutated(call: ToolCall, seed: str) -> ToolCall:
    """The call with one or a few of its nested values or keys changed."""
    maker = Maker(seed)
    arguments = json.loads(json.dumps(call.arguments))  # noqa: TID251 - our own text
    for _ in range(maker.pick(1, 1, 2, 3)):
        _mutate(maker, arguments)
    return ToolCall(name=call.name, arguments={**arguments, **CONNECTION})


def _mutate(maker: Maker, root: Any) -> None:
    places: list[Any] = [node for node in _containers(root) if node]
    node = maker.pick(*places) if places else root
    value = json.loads(json.dumps(maker.pick(*STRANGE)))  # noqa: TID251 - our own text
    if isinstance(node, list):
        index = maker.random.randrange(len(node))
        maker.pick(lambda: node.__setitem__(index, value), lambda: node.insert(index, value), lambda: node.pop(index))()
    else:
        key = maker.pick(*node)
        maker.pick(
            lambda: node.__setitem__(key, value),
            lambda: node.__setitem__(maker.pick(*KEYS), value),
            lambda: node.__setitem__(maker.pick(*KEYS), node.pop(key)),
            lambda: node.__setitem__(key, [node[key]]),
        )()


def _containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        yield value
        for item in value.values() if isinstance(value, dict) else value:
            yield from _containers(item)
