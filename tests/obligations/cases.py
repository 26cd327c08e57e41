"""Random collections, row filters and read commands, for the oracle.

Plain ``random`` with a seed and no strategies: a case costs microseconds, and thousands are run against a database. A
case is one call of a tool that reads documents, with pipelines nested in every form in which a stage can name another
collection.
"""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from bson import Decimal128, Int64

from sidecar.model import JsonObject

Document = dict[str, Any]
Stage = dict[str, Any]

DATABASE: Final = "shop"
"""What generated calls name; the harness puts the world's own database in its place."""

COLLECTIONS: Final = ("orders", "customers", "staff")

ROWS: Final = 6
"""Half of the documents of each collection before they are divided into rows of the filter and hidden ones."""

DEEPEST: Final = 3

JOINS: Final = 3
"""Pipelines inside of one call's pipeline; a join inside of a join runs once for each pair of documents."""

REGIONS: Final = ("EU", "US", "APAC")


class Generator:
    """Everything random about one world and its cases; the same for the same seed."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)  # noqa: S311 - test data
        self._joins = 0
        self._inside_facet = False

    def pick(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    # --- collections --------------------------------------------------------------------------------------------------

    def document(self, collection: str, number: int) -> Document:
        """One document; every type that could be taken for another, and fields that are missing, null or lists."""
        some: Document = {"_id": number, "note": self.pick("a", "b", "7", "x y", "")}
        if self.chance(0.9):
            some["region"] = self.pick(*REGIONS, *REGIONS, *REGIONS, None, ["EU", "US"], [], 1, {"name": "EU"})
        if self.chance(0.8):
            some["team"] = {"name": self.pick("red", "blue", ["red", "blue"]), "level": self.number()}
        if self.chance(0.2):
            some["team.name"] = "red"
        if self.chance(0.8):
            some["card"] = self.card()
        some |= {
            "orders": self._order,
            "customers": self._customer,
            "staff": self._staff,
        }[collection]()
        return some

    def card(self) -> Any:
        text = self.pick("4111111111111111", "4000-0000-1234", "4111-1111", "12", "ÄÖÜß€")
        return self.pick(
            text, text, text, 4111111111111111, Int64(4000), -4321, -54321, True, [text, 7], [], {"no": text}, None, 2.5
        )

    def number(self) -> Any:
        return self.pick(0, 1, 2, 3, 1.0, 2.5, -1, Int64(2), Decimal128("1"), Decimal128("2.50"), float("nan"))

    def _order(self) -> Document:
        return {
            "customer": self.random.randrange(2 * ROWS),
            "amount": self.number(),
            "tags": self.random.sample(("new", "old", "rush", "gift"), self.random.randrange(4)),
            "lines": [{"sku": self.pick("p", "q"), "qty": self.random.randrange(4)} for _ in range(self.pick(0, 1, 2))],
            "at": datetime(2026, self.pick(1, 2, 3), self.pick(1, 15), tzinfo=UTC),
            "status": self.pick("open", "done"),
        }

    def _customer(self) -> Document:
        return {
            "vip": self.pick(True, False, 1, "true"),
            "score": self.number(),
            "friends": [self.random.randrange(2 * ROWS) for _ in range(self.pick(0, 1, 2))],
            "name": self.pick("Ann", "Bob", "ann"),
        }

    def _staff(self) -> Document:
        return {"boss": self.random.randrange(2 * ROWS), "level": self.number(), "name": self.pick("Ann", "Cid")}

    # --- row filters --------------------------------------------------------------------------------------------------

    def policy(self) -> dict[str, JsonObject]:
        """A row filter for at least one of the collections."""
        chosen = [name for name in COLLECTIONS if self.chance(0.7)] or [self.pick(*COLLECTIONS)]
        return {name: self.row_filter() for name in chosen}

    def row_filter(self, depth: int = 0) -> JsonObject:
        plain: Callable[[], JsonObject] = self.pick(
            lambda: {"region": self.pick(*REGIONS)},
            lambda: {"region": self.pick(*REGIONS)},
            lambda: {"region": {"$in": self.random.sample(REGIONS, 2)}},
            lambda: {"region": {"$eq": "EU"}, "status": "open"},
            lambda: {"team.name": self.pick("red", "blue")},
            lambda: {"team.level": {"$gte": self.pick(1, 2), "$lt": 3}},
            lambda: {"vip": True},
            lambda: {"level": self.pick(1, 2.5)},
            lambda: {"note": {"$gt": "a"}},
            lambda: {"at": {self.pick("$lt", "$gte"): {"$date": f"2026-02-{self.pick('01', '15')}T00:00:00Z"}}},
        )
        if depth or self.chance(0.7):
            return plain()
        joined: list[Any] = [self.row_filter(1), self.row_filter(1)]
        return {self.pick("$or", "$or", "$and"): joined}

    def masks(self) -> dict[str, list[Any]]:
        """A mask for at least one of the collections."""
        chosen = [name for name in COLLECTIONS if self.chance(0.6)] or [self.pick(*COLLECTIONS)]
        return {name: self.mask(name) for name in chosen}

    def mask(self, collection: str) -> list[Any]:
        card, level = {"field": "card", "as": "last4"}, {"field": "team.level", "as": "bucket:2"}
        made: list[Any] = ["card", card, card, "note", "team.name", level, "team", "region"]
        made += {
            "orders": [
                "lines.sku",
                {"field": "lines.qty", "as": "bucket:3"},
                "customer",
                {"field": "amount", "as": "bucket:2"},
                "tags",
                "status",
            ],
            "customers": ["name", "friends", {"field": "score", "as": "bucket:10"}, "vip"],
            "staff": ["name", "boss", {"field": "level", "as": "bucket:2"}],
        }[collection]
        found: dict[str, Any] = {}
        for one in self.random.sample(made, self.pick(1, 2, 3, 4)):
            field = one if isinstance(one, str) else one["field"]
            if not any(f"{field}.".startswith(f"{other}.") or f"{other}.".startswith(f"{field}.") for other in found):
                found[field] = one
        return [*found.values()]

    # --- calls --------------------------------------------------------------------------------------------------------

    def call(self) -> tuple[str, JsonObject]:
        """One call of a tool that reads documents."""
        self._joins = 0
        collection = self.pick(*COLLECTIONS)
        on: JsonObject = {"connectionId": "preconfigured", "database": DATABASE, "collection": collection}
        match self.random.randrange(10):
            case 0 | 1:
                return "find", on | self._find()
            case 2:
                return "count", on | ({"query": self.query()} if self.chance(0.9) else {})
            case 3:
                target = self.pick(
                    lambda: {"name": "find", "arguments": self._find()},
                    lambda: {"name": "aggregate", "arguments": {"pipeline": self.pipeline(1)}},
                )()
                more: JsonObject = {"exportTarget": [target], "exportTitle": "all", "jsonExportFormat": "canonical"}
                return "export", on | more
            case _:
                return "aggregate", on | {"pipeline": self.pipeline(0)}

    def _find(self) -> JsonObject:
        wanted: JsonObject = {"filter": self.query()} if self.chance(0.9) else {}
        if self.chance(0.5):
            wanted["projection"] = self._projection()
        if self.chance(0.6):
            wanted["sort"] = {self._field(): self.pick(1, -1), "_id": 1}
        if self.chance(0.4):
            wanted["limit"] = self.pick(1, 2, 5, 50)
        return wanted

    def _projection(self) -> JsonObject:
        made: JsonObject = self.pick(
            lambda: {self._field(): 1, "_id": 1},
            lambda: {self._field(): 0},
            lambda: {"_id": 0, "note": 1, "made": self.expression(1)},
            lambda: {"tags": {"$slice": 1}},
            lambda: {"lines": {"$elemMatch": {"sku": "p"}}},
        )()
        return made

    def _field(self) -> str:
        names = (
            "region card team team.name team.level note amount tags lines.qty status customer score name level boss vip"
        )
        return str(self.random.choice(names.split()))

    def scalar(self) -> Any:
        plain = (*REGIONS, "red", "blue", "a", "b", "open", 0, 1, 2, 2.5, True, None, "Ann", "new", "p")
        return self.random.choice(plain)

    def query(self, depth: int = 0) -> JsonObject:
        """A filter of a caller, some of which try to take the policy's back."""
        field = self._field()
        forms: list[Callable[[], JsonObject]] = [
            dict,
            lambda: {field: self.scalar()},
            lambda: {field: self.scalar(), self._field(): self.scalar()},
            lambda: {field: {self.pick("$gt", "$gte", "$lt", "$lte", "$ne"): self.scalar()}},
            lambda: {field: {self.pick("$in", "$nin"): [self.scalar(), self.scalar()]}},
            lambda: {field: {"$exists": self.pick(True, False)}},
            lambda: {field: {"$type": self.pick("string", "number", "array", "null", "object")}},
            lambda: {field: {"$regex": self.pick("^E", "a", "."), "$options": self.pick("", "i")}},
            lambda: {field: {"$not": {"$eq": self.scalar()}}},
            lambda: {"tags": {"$all": ["new"]}},
            lambda: {"tags": {"$size": self.pick(0, 1, 2)}},
            lambda: {"lines": {"$elemMatch": {"sku": "p", "qty": {"$gt": 1}}}},
            lambda: {"$expr": self._comparison()},
            lambda: {"$expr": {self.pick("$gt", "$eq"): [self._failing(), 1]}},
            lambda: {"region": {"$ne": "EU"}, "$comment": "region"},
        ]
        if depth < 2:
            forms += [
                lambda: {"$or": [self.query(depth + 1), self.pick({}, {"_id": {"$gte": 0}}, self.query(depth + 1))]},
                lambda: {"$nor": [self.query(depth + 1)]},
                lambda: {"$and": [self.query(depth + 1), self.query(depth + 1)]},
                lambda: {"$or": [{"region": region} for region in REGIONS]},
            ]
        return self.random.choice(forms)()

    def _comparison(self) -> JsonObject:
        return {self.pick("$eq", "$gt", "$lt", "$ne"): [f"${self._field()}", self.pick(self.scalar(), "$amount")]}

    def _failing(self) -> JsonObject:
        """An expression that ends the command on documents of some kinds."""
        made: JsonObject = self.pick(
            lambda: {"$toInt": "$note"},
            lambda: {"$divide": [1, {"$ifNull": ["$customer", 1]}]},
            lambda: {"$size": "$region"},
            lambda: {"$arrayElemAt": ["$region", 0]},
            lambda: {"$strLenCP": "$region"},
        )()
        return made

    def expression(self, depth: int) -> Any:
        field = f"${self._field()}"
        forms: list[Callable[[], Any]] = [
            lambda: field,
            lambda: {"$literal": self.scalar()},
            lambda: {"$ifNull": [field, "none"]},
            lambda: {"$type": field},
            lambda: {"$cond": [{"$eq": [field, self.scalar()]}, "yes", field]},
            lambda: {"$isArray": field},
            lambda: {"$toString": "$_id"},
            lambda: {"$size": {"$ifNull": ["$tags", []]}},
            lambda: {"$map": {"input": {"$ifNull": ["$tags", []]}, "as": "t", "in": {"$toUpper": "$$t"}}},
            lambda: {"$filter": {"input": {"$ifNull": ["$lines", []]}, "cond": {"$gt": ["$$this.qty", 1]}}},
            lambda: {"$mergeObjects": ["$team", {"seen": field}]},
            lambda: {"$objectToArray": "$team"},
            lambda: {"$let": {"vars": {"v": field}, "in": ["$$v", "$_id"]}},
            lambda: {"$getField": "region"},
            lambda: {"$concat": ["<", {"$toString": "$_id"}, ">"]},
            lambda: "$$ROOT",
        ]
        if depth:
            forms += [self._failing]
        return self.random.choice(forms)()

    # --- pipelines ----------------------------------------------------------------------------------------------------

    def pipeline(self, depth: int) -> list[Any]:
        length = self.random.choices((1, 2, 3, 4, 5), (2, 4, 4, 2, 1))[0] if depth else self.random.randrange(1, 6)
        return [stage for _ in range(length) for stage in self._stages(depth)]

    def _stages(self, depth: int) -> list[Stage]:
        makers: list[Callable[[int], list[Stage]]] = [self._plain, self._plain, self._grouping]
        if depth < DEEPEST and self._joins < JOINS:
            makers += [self._lookup, self._lookup, self._union, self._graph]
            makers += [] if self._inside_facet else [self._facet]
        return self.random.choice(makers)(depth)

    def _plain(self, _depth: int) -> list[Stage]:
        made: list[Stage] = self.pick(
            lambda: [{"$match": self.query()}],
            lambda: [{"$match": self.query()}],
            lambda: [{"$project": self.pick({self._field(): 1}, {self._field(): 0}, {"made": self.expression(1)})}],
            lambda: [{self.pick("$addFields", "$set"): {self.pick("made", "region"): self.expression(1)}}],
            lambda: [{"$unset": self._field()}],
            lambda: [{"$sort": {self._field(): self.pick(1, -1), "_id": 1}}],
            lambda: [{"$sort": {"_id": 1}}, {"$limit": self.pick(1, 3, 7)}],
            lambda: [{"$skip": self.pick(1, 2)}],
            lambda: [{"$limit": self.pick(1, 4)}],
            lambda: [{"$unwind": self.pick("$tags", {"path": "$lines", "preserveNullAndEmptyArrays": True})}],
            lambda: [{"$replaceRoot": {"newRoot": {"$mergeObjects": ["$team", "$$ROOT"]}}}],
            lambda: [{"$replaceWith": {"of": "$_id", "all": "$$ROOT"}}],
            lambda: [{"$redact": {"$cond": [{"$eq": ["$region", "US"]}, "$$PRUNE", "$$KEEP"]}}],
            lambda: [{"$setWindowFields": {"sortBy": {"_id": 1}, "output": {"row": {"$documentNumber": {}}}}}],
        )()
        return made

    def _grouping(self, depth: int) -> list[Stage]:
        key = self.pick(None, "$region", "$status", "$team.name", "$note", {"a": "$region", "b": "$name"})
        taken = self.pick(
            {"$sum": 1}, {"$push": "$_id"}, {"$addToSet": "$region"}, {"$first": "$$ROOT"}, {"$max": "$note"}
        )
        made: list[Stage] = self.pick(
            lambda: [{"$group": {"_id": key, "n": taken}}],
            lambda: [{"$group": {"_id": key, "n": {"$sum": 1}, "m": taken}}, {"$sort": {"_id": 1}}],
            lambda: [{"$group": {"_id": None, "n": {"$sum": 1}}} if depth else {"$count": "n"}],
            lambda: [{"$sortByCount": "$note"}],
            lambda: [{"$bucket": {"groupBy": "$_id", "boundaries": [0, 4, 8], "default": "more"}}],
        )()
        return made

    def _foreign(self) -> str:
        return str(self.random.choice(COLLECTIONS))

    def _equality(self) -> JsonObject:
        local, foreign = self.pick(
            ("customer", "_id"),
            ("_id", "customer"),
            ("_id", "_id"),
            ("region", "region"),
            ("friends", "_id"),
            ("boss", "_id"),
        )
        return {"localField": local, "foreignField": foreign}

    def _lookup(self, depth: int) -> list[Stage]:
        self._joins += 1
        options: dict[str, Any] = {"from": self._foreign(), "as": self.pick("joined", "region", "team")}
        form = self.random.randrange(5)
        if form in (0, 1, 2):
            options |= self._equality()
        if form in (1, 3, 4):
            options["pipeline"] = self.pipeline(depth + 1)
        if form == 4:
            options["let"] = {"mine": self.pick("$_id", "$region", "$$ROOT")}
            of = self.pick("$customer", "$_id", "$region")
            options["pipeline"].insert(0, {"$match": {"$expr": {self.pick("$eq", "$ne", "$gt"): [of, "$$mine"]}}})
        stages: list[Stage] = [{"$lookup": options}]
        if self.chance(0.3):
            stages.append({"$unwind": {"path": f"${options['as']}", "preserveNullAndEmptyArrays": self.chance(0.5)}})
        return stages

    def _union(self, depth: int) -> list[Stage]:
        self._joins += 1
        coll = self._foreign()
        spec = self.pick(
            lambda: coll,
            lambda: {"coll": coll},
            lambda: {"coll": coll, "pipeline": []},
            lambda: {"coll": coll, "pipeline": self.pipeline(depth + 1)},
        )()
        return [{"$unionWith": spec}]

    def _facet(self, depth: int) -> list[Stage]:
        self._joins += 1
        self._inside_facet = True  # where another one may not be
        facets: JsonObject = {name: [*self.pipeline(depth + 1)] for name in ("one", "two")[: self.pick(1, 2)]}
        self._inside_facet = False
        return [{"$facet": facets}]

    def _graph(self, _depth: int) -> list[Stage]:
        options: JsonObject = {
            "from": "staff",
            "startWith": self.pick("$boss", "$_id", "$customer"),
            "connectFromField": "boss",
            "connectToField": "_id",
            "as": "chain",
            "maxDepth": self.pick(0, 2),
        }
        if self.chance(0.4):
            options["restrictSearchWithMatch"] = self.query(1)
        return [{"$graphLookup": options}] if self.chance(0.4) else self._plain(_depth)

    # --- writes -------------------------------------------------------------------------------------------------------

    def write(self) -> tuple[str, JsonObject]:
        """One call of a tool that changes documents."""
        on: JsonObject = {
            "connectionId": "preconfigured",
            "database": DATABASE,
            "collection": self.pick(*COLLECTIONS),
        }
        match self.random.randrange(6):
            case 0 | 1:
                return "insert-many", on | {"documents": [self._inserted() for _ in range(self.pick(1, 1, 2))]}
            case 2:
                return "delete-many", on | {"filter": self.query()}
            case _:
                wanted = on | {"filter": self.pick(self.query, self._chosen)(), "update": self._update()}
                return "update-many", wanted | ({"upsert": True} if self.chance(0.3) else {})

    def _chosen(self) -> JsonObject:
        """A query with the values that a row of some filter would have."""
        made: JsonObject = {"region": "EU", "status": "open", "team.name": "red", "vip": True, "level": 1, "note": "b"}
        kept = self.random.sample([*made], self.random.randrange(1, 7))
        return {"_id": self.random.randrange(1000), **{key: made[key] for key in kept}}

    def _inserted(self) -> JsonObject:
        made: JsonObject = {"note": self.pick("b", "a", "x", None), "status": self.pick("open", "done")}
        made["region"] = self.pick("EU", "EU", "US", "APAC", None, ["EU"], {"name": "EU"}, {"$symbol": "EU"}, 1)
        made["team"] = self.pick({"name": "red", "level": 2}, {"name": ["red"]}, [{"name": "red"}], {"name": "blue"})
        made["level"] = self.pick(1, 2.5, 1.0, "1", {"$numberDecimal": "1"}, {"$numberLong": "1"}, [1], True)
        made["vip"] = self.pick(True, True, 1, "true", [True])
        for gone in self.random.sample([*made], self.pick(0, 0, 1, 2)):
            del made[gone]
        if self.chance(0.1):
            made["team.name"] = "red"
        return made

    def _update(self) -> JsonObject:
        field = self.pick(self._field(), "seen", "seen.by", "lines.$[].qty", "tags.0")
        value = self.pick("US", 9, None, True, ["EU", "US"], {"name": "blue"})
        operators: list[JsonObject] = [
            {"$set": {field: value}},
            {"$set": {"seen": 1, field: value}},
            {"$unset": {field: ""}},
            {"$inc": {self.pick(field, "amount", "customer"): 1}},
            {"$mul": {field: 3}},
            {"$min": {field: value}},
            {"$max": {field: value}},
            {"$rename": {field: self.pick("old", "region", "team.name", "level")}},
            {"$push": {field: value}},
            {"$addToSet": {self.pick("tags", field): "new"}},
            {"$pull": {self.pick("tags", field): "new"}},
            {"$pop": {field: 1}},
            {"$currentDate": {field: True}},
            {"$setOnInsert": {field: value}},
            {"$set": {"seen": 2}, "$setOnInsert": {"region": "EU", "status": "open"}},
            {"$bit": {field: {"or": 1}}},
        ]
        return self.random.choice(operators)
