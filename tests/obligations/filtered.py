"""A deployment under row filters, and the collections that are behind it.

One caller, who is held to rows of some collections and sees others whole: those of the evasions in ``sales``, and those
of the everyday queries in their own databases.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import bson
from bson import json_util
from pymongo import MongoClient

from sidecar.demo.identities import Person
from sidecar.model import JsonObject, ToolCall
from tests.changed_policies import grant_more, platform_data
from tests.hours import policies_on
from tests.integration.deployment import Deployment, deployed
from tests.obligations import everyday_queries
from tests.obligations.oracle import Client, perform

Rows = list[dict[str, Any]]

SALES: Final = {"connectionId": "preconfigured", "database": "sales"}
PERMITTED: Final = "permitted_"
"""Before the name of a database that holds nothing but the rows of its filters."""

FILTERS: Final[dict[str, JsonObject]] = {
    "shipments": {"region": "EU"},
    "parcels": {"region": "EU"},
    "accounts": {"team.name": "red"},
    "limits": {"level": {"$gte": 2, "$lte": 5}},
    "offers": {"$or": [{"region": "EU"}, {"open": True}]},
}

_PLACED: Final[dict[str, Any]] = {"place": {"type": "Point", "coordinates": [1.0, 1.0]}}

VISIBLE: Final[dict[str, Rows]] = {
    "shipments": [
        {
            "_id": 1,
            "region": "EU",
            "weight": 5,
            "depot": "a",
            "next": 3,
            "mark": "plain 1",
            "code": "12",
            **_PLACED,
        },
        {
            "_id": 2,
            "region": "EU",
            "weight": 7,
            "depot": "b",
            "next": 1,
            "mark": "plain 2",
            "code": "7",
            **_PLACED,
        },
    ],
    "parcels": [
        {"_id": 1, "region": "EU", "shipment": 1, "mark": "plain 1"},
        {"_id": 3, "region": "EU", "shipment": 3, "mark": "plain 3"},
    ],
    "accounts": [{"_id": 1, "team": {"name": "red", "level": 1}, "other": {"name": "blue"}, "mark": "plain 1"}],
    "limits": [{"_id": 1, "level": 3, "count": 0, "mark": "plain 1"}, {"_id": 2, "level": 2.5, "mark": "plain 2"}],
    "offers": [{"_id": 1, "region": "EU", "open": False}, {"_id": 2, "region": "US", "open": True}],
    "depots": [{"_id": "a", "depot": "a", "city": "Oslo"}, {"_id": "b", "depot": "b", "city": "Rome"}],
}

HIDDEN: Final[tuple[dict[str, Rows], ...]] = (
    {
        "shipments": [
            {
                "_id": 3,
                "region": "US",
                "weight": 0,
                "depot": "a",
                "next": 2,
                "mark": "hidden 3",
                "code": "x",
                **_PLACED,
            },
            {"_id": 4, "weight": 13, "depot": "a", "next": 1, "mark": "hidden 4", "code": "y"},
            {"_id": 5, "region": None, "weight": 17, "depot": "b", "next": 1, "mark": "hidden 5"},
            {"_id": 7, "region": {"name": "EU"}, "weight": "heavy", "next": 1, "mark": "hidden 7", "code": 5},
            {"_id": 8, "region": 1, "weight": None, "next": 1, "mark": "hidden 8", "code": "z"},
        ],
        "parcels": [
            {"_id": 2, "region": "US", "shipment": 1, "mark": "hidden 2"},
            {"_id": 4, "shipment": 2, "mark": "hidden 4"},
        ],
        "accounts": [
            {"_id": 3, "team": {"name": "blue", "level": 1}, "mark": "hidden 3"},
            {"_id": 4, "team": None, "mark": "hidden 4"},
            {"_id": 5, "mark": "hidden 5"},
        ],
        "limits": [
            {"_id": 3, "level": 7, "mark": "hidden 3"},
            {"_id": 4, "level": "3", "mark": "hidden 4"},
            {"_id": 5, "level": float("nan"), "mark": "hidden 5"},
            {"_id": 6, "mark": "hidden 6"},
        ],
        "offers": [{"_id": 3, "region": "US", "open": False}, {"_id": 4, "region": "US", "open": 1}],
    },
    {
        "shipments": [
            {"_id": 3, "region": "APAC", "weight": 11, "depot": "b", "next": 9, "mark": "hidden iii", "code": "12"},
            {"_id": 9, "region": "US", "weight": 2, "depot": "b", "next": 3, "mark": "hidden ix", "code": "1"},
        ],
        "parcels": [{"_id": 9, "region": "US", "shipment": 2, "mark": "hidden ix"}],
        "accounts": [{"_id": 9, "team": {"name": "green"}, "mark": "hidden ix"}],
        "limits": [{"_id": 9, "level": 6, "mark": "hidden ix"}],
        "offers": [{"_id": 9, "region": "US", "open": "true"}],
    },
)
"""Two choices of what is hidden: another number of rows, other values, other kinds of them. One key is in both: that a
key is taken is the one thing that can be told of a hidden row."""

_SCOPES: Final = ("mongodb:read", "mongodb:write", "mongodb:export", "mongodb:admin")
EDITOR: Final = Person(user="edda", agent="eu-desk", groups=("eu-editors",), scopes=_SCOPES)

_KINDS: Final = ["read", "metadata", "insert", "update", "delete", "export"]


def _grants() -> str:
    parts = [
        _grant(f"rows-of-{database}-{name}", database, [name], query)
        for database, filters in _filters().items()
        for name, query in filters.items()
    ]
    parts += [_grant("open", "sales", ["depots", "open_shipments"], None)]
    parts += [
        _grant(
            f"whole-{database}", database, sorted(held.keys() - everyday_queries.policies()[database]["filter"]), None
        )
        for database, held in everyday_queries.documents().items()
        if held.keys() - everyday_queries.policies()[database]["filter"]
    ]
    return "\n".join(parts)


def _filters() -> dict[str, dict[str, JsonObject]]:
    found = {database: policy["filter"] for database, policy in everyday_queries.policies().items()}
    return {"sales": FILTERS, **found}


def _grant(name: str, database: str, collections: list[str], query: JsonObject | None) -> str:
    held = f', "filter": {json.dumps(query)}' if query is not None else ""
    return f"""
grant contains {{"id": "{name.lower().replace("_", "-")}"{held}}} if {{
	input.access.kind in {{"read", "insert", "update", "delete", "export"}}
	lib.on("{database}", {json.dumps(collections)})
	lib.in_group("eu-editors")
}}
"""


def policies(folder: Path) -> Path:
    """The shipped policies, in which the editors may do all of this and no more."""
    copy = policies_on(folder)
    grant_more(copy, "analytics", _grants())
    with platform_data(copy) as platform:
        [*_, writers] = platform["routes"]
        writers["groups"].append("eu-editors")
        writers["scopes"] = ["*"]
        writers["kinds"].append("export")
        databases = platform["deployments"]["demo"]["databases"]
        databases["sales"]["delegated"][0]["kinds"] = _KINDS
        for name in everyday_queries.documents():
            databases[name] = databases["sales"]
        platform["agents"]["registered"]["eu-desk"] = {"kinds": _KINDS, "servers": ["*"], "deployments": ["*"]}
        for trait in ("writes_via_pipeline", "exports_file", "whole_collection", "unbounded", "upsert"):
            platform["traits"][trait] = {"groups": ["*"]}
    return copy


@contextmanager
def filtering(folder: Path, database: str) -> Iterator[Deployment]:
    """A running sidecar under these policies, which can learn of views."""
    more = f'tool_groups = ["export"]\nviews_connection_string_file = "{folder / "mongodb"}"'
    with deployed(folder, database, policies=policies(folder), of_servers=more) as running:
        yield running


def store_sales(client: Client, which: int) -> None:
    """Put the rows of the evasions in place with one choice of what is hidden, and the permitted ones beside them."""
    sales = {name: [*rows, *HIDDEN[which].get(name, ())] for name, rows in VISIBLE.items()}
    _store(client, {"sales": sales})
    client.sales.command("create", "open_shipments", viewOn="shipments", pipeline=[])


def store_samples(client: Client, which: int) -> None:
    """Put the documents of the everyday queries in place, all of them or with most of the hidden ones left away."""
    documents = everyday_queries.documents()
    if which:
        documents = {
            database: {name: _without_hidden(rows, _filters()[database].get(name)) for name, rows in held.items()}
            for database, held in documents.items()
        }
    _store(client, documents)


def _store(client: Client, held: dict[str, dict[str, Rows]]) -> None:
    for database, collections in held.items():
        filters = _filters()[database]
        client.drop_database(database)
        client.drop_database(PERMITTED + database)
        for name, rows in collections.items():
            client[database][name].insert_many(rows)
            permitted = [*client[database][name].find(filters.get(name, {}))]
            if permitted:
                client[PERMITTED + database][name].insert_many(permitted)


def _without_hidden(rows: Rows, query: JsonObject | None) -> Rows:
    """All rows of a collection without a filter, else most of those that it hides left away, by their own word."""
    if query is None:
        return rows
    [(path, wanted)] = query.items()
    admitted: Any = wanted["$in"] if isinstance(wanted, dict) else [wanted]
    hidden = [row for row in rows if _at(row, path) not in admitted]
    gone = {str(row["_id"]) for row in hidden[1:]}
    return [row for row in rows if str(row["_id"]) not in gone]


def _at(row: Any, path: str) -> Any:
    for part in path.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row


def hidden_rows(client: Client) -> dict[str, tuple[bytes, ...]]:
    """Every document of ``sales`` that its filter does not admit, by what the database makes of the filter."""
    found = {}
    for name, query in FILTERS.items():
        admitted = [row["_id"] for row in client.sales[name].find(query)]
        others = client.sales[name].find({"_id": {"$nin": admitted}}).sort("_id", 1)
        found[name] = tuple(map(bson.encode, others))
    return found


def snapshot(client: Client) -> str:
    """Everything in ``sales``."""
    names = sorted(client.sales.list_collection_names())
    return json_util.dumps({name: [*client.sales[name].find().sort("_id", 1)] for name in names})


FIND_LIMIT: Final = 10
"""What the MongoDB MCP server gives back of a find that says no limit."""


def expected(client: Client, call: ToolCall) -> tuple[bool, Any]:
    """Whether the call as it is works on the permitted rows alone, and the documents or the count that it gives."""
    outcome = perform(client, PERMITTED + str(call.arguments["database"]), call)
    if outcome.failed:
        return False, None
    documents = [_plain(document) for document in outcome.documents]
    if call.name == "count":
        return True, documents[0]["n"] if documents else 0
    limit = call.arguments.get("limit", FIND_LIMIT) if call.name == "find" else None
    return True, documents[:limit] if isinstance(limit, int) and limit > 0 else documents


def _plain(document: bytes) -> Any:
    text = json_util.dumps(bson.decode(document), json_options=json_util.RELAXED_JSON_OPTIONS)
    return json.loads(text)  # noqa: TID251 - our own text


def given(result: JsonObject) -> Any:
    """The documents or the count of an answer."""
    structured = result["structuredContent"]
    assert isinstance(structured, dict)
    return structured["documents"] if "documents" in structured else structured["count"]


def refused(result: JsonObject) -> bool:
    """Whether the sidecar itself has refused the call, or does not know the tool where the caller is concerned."""
    meta = result.get("_meta")
    return not result or (isinstance(meta, dict) and "mcp-sidecar/decision" in meta)


_CHANGING: Final = re.compile(
    r"untrusted-user-data-[0-9a-f-]{36}|\"(?:request_id|trace_id)\": \"[^\"]*\"|[0-9a-f]{24}\.json"
    r"|\"?\\*\"\$timestamp\\*\": ?\\*\"\d+"
)


def comparable(result: JsonObject) -> str:
    """An answer without what is new in each: names of tags and exports, identifiers of requests, cluster times."""
    return _CHANGING.sub("…", json.dumps(result, sort_keys=True, ensure_ascii=False))


def connect(uri: str) -> Client:
    return MongoClient(uri)
