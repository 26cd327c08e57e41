"""Every row of the ledger against the sidecar's core: decoding, classification, derivation."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.ledger import rows as ledger

ROWS = ledger.rows()
IDS = [row["id"] for row in ROWS]

FEWEST_ROWS = 320

TOOLS = [
    "aggregate",
    "aggregate-db",
    "atlas-connect-cluster",
    "atlas-create-access-list",
    "atlas-create-cluster",
    "atlas-create-db-user",
    "atlas-create-free-cluster",
    "atlas-create-project",
    "atlas-get-performance-advisor",
    "atlas-get-regions",
    "atlas-inspect-access-list",
    "atlas-inspect-cluster",
    "atlas-list-alerts",
    "atlas-list-clusters",
    "atlas-list-db-users",
    "atlas-list-orgs",
    "atlas-list-projects",
    "atlas-load-sample-dataset",
    "atlas-local-connect-deployment",
    "atlas-local-create-deployment",
    "atlas-local-delete-deployment",
    "atlas-local-list-deployments",
    "atlas-pause-resume-cluster",
    "atlas-streams-build",
    "atlas-streams-discover",
    "atlas-streams-manage",
    "atlas-streams-teardown",
    "atlas-upgrade-cluster",
    "collection-indexes",
    "collection-schema",
    "collection-storage-size",
    "connect",
    "count",
    "create-collection",
    "create-index",
    "db-stats",
    "delete-many",
    "disconnect",
    "drop-collection",
    "drop-database",
    "drop-index",
    "explain",
    "export",
    "find",
    "insert-many",
    "list-collections",
    "list-connections",
    "list-databases",
    "list-knowledge-sources",
    "mongodb-logs",
    "rename-collection",
    "search-knowledge",
    "update-many",
]
"""The 53 tools of MongoDB MCP server 3.0.4, copied from the reference and not from the catalog."""

STAGES = [
    "$lookup",
    "$graphLookup",
    "$unionWith",
    "$facet",
    "$rankFusion",
    "$scoreFusion",
    "$out",
    "$merge",
    "$documents",
    "$search",
    "$searchMeta",
    "$vectorSearch",
    "$listSearchIndexes",
    "$rerank",
    "$collStats",
    "$indexStats",
    "$planCacheStats",
    "$changeStream",
    "$currentOp",
    "$listLocalSessions",
    "$listSessions",
    "$queryStats",
    "$listSampledQueries",
    "$shardedDataDistribution",
    "$listCatalog",
    "$listClusterCatalog",
    "$querySettings",
    "$backupCursor",
    "$_internalInhibitOptimization",
    "$mergeCursors",
    "$match",
    "$project",
    "$addFields",
    "$set",
    "$unset",
    "$group",
    "$sort",
    "$limit",
    "$skip",
    "$unwind",
    "$count",
    "$sortByCount",
    "$bucket",
    "$bucketAuto",
    "$replaceRoot",
    "$replaceWith",
    "$redact",
    "$sample",
    "$geoNear",
    "$setWindowFields",
    "$fill",
    "$densify",
]
"""Every stage that the reference names in section 2.2."""

GUARDED = ["$function", "$accumulator", "$where", "$$ROOT", "$$CURRENT", "$objectToArray", "$getField", "$$USER_ROLES"]
"""Keys and variables that the same table names."""


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_an_attack_is_refused_or_seen_for_what_it_touches(row) -> None:
    assert ledger.faults(row["expect"], ledger.outcome_of_attack(row), exact=False) == []


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_a_near_miss_is_understood_as_exactly_what_it_is(row) -> None:
    assert ledger.faults(row["near_miss_expect"], ledger.outcome_of_near_miss(row), exact=True) == []


def test_the_ledger_is_large_enough_and_its_rows_are_named_apart() -> None:
    assert len(ROWS) >= FEWEST_ROWS
    assert [name for name, count in Counter(IDS).items() if count > 1] == []


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_a_row_is_complete_and_its_near_miss_is_another_case(row) -> None:
    keys = row.keys() - {"id", "source", "expect", "near_miss_expect"}
    assert keys in ({"call", "near_miss"}, {"body", "near_miss_body"}, {"body_hex", "near_miss_body"})
    assert re.search(r"server §\d|threats §\d", row["source"])
    attack, near_miss = row.get("call"), row.get("near_miss")
    if attack is not None:
        assert attack != near_miss
    assert "accesses" in row["near_miss_expect"]
    assert ("accesses" in row["expect"]) + ("refused" in row["expect"]) + ("members" in row["expect"]) == 1


def test_an_attack_is_told_from_its_near_miss_by_what_is_expected() -> None:
    assert [row["id"] for row in ROWS if row["expect"] == row["near_miss_expect"]] == []


def test_no_row_repeats_another() -> None:
    attacks = Counter(json.dumps(row.get("call") or row.get("body") or row["body_hex"], sort_keys=True) for row in ROWS)
    assert [attack for attack, count in attacks.items() if count > 1] == []


def test_all_53_tools_are_in_the_ledger() -> None:
    attacked = {row["call"]["name"] for row in ROWS if "call" in row}
    assert len(TOOLS) == 53
    assert [tool for tool in TOOLS if tool not in attacked] == []


def test_every_stage_of_the_reference_is_in_the_ledger() -> None:
    attacks = json.dumps([row["call"] for row in ROWS if "call" in row])
    assert [name for name in (*STAGES, *GUARDED) if f'"{name}' not in attacks] == []


@pytest.mark.parametrize(
    "section",
    [
        *("server §1.1", "server §1.2", "server §2.1", "server §2.2", "server §2.3", "server §2.4", "server §2.5"),
        *("server §2.6", "§10.1", "§10.2", "§10.3", "§10.4", "§10.5", "§10.6", "§10.7", "§10.8", "§10.9", "threats §1"),
        *("threats §2", "threats §7"),
    ],
)
def test_every_section_of_the_references_has_rows(section) -> None:
    assert any(section in row["source"] for row in ROWS)


def test_the_file_has_one_row_a_line() -> None:
    lines = Path(ledger.__file__).with_name("attacks.json").read_text("utf-8").splitlines()
    assert len(lines) == len(ROWS) + 2
