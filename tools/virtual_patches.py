"""Writes docs/virtual-patches.md: advisories of MongoDB's aggregation, and what the sidecar does about each.

``python tools/virtual_patches.py`` writes the page; with ``--check`` it only says whether the page is up to date (exit
status 1 if it is not). ``tests/commands/test_virtual_patches.py`` derives the example of every row.

Sources: cve.org and osv.dev records of the named advisories, as of 2026-11.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

from tools.generated_page import write_or_check

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "virtual-patches.md"


class How(StrEnum):
    """What happens to a call that has the construct."""

    REFUSED = "refused"
    """By name or by form, under every policy."""
    BOUNDED = "bounded"
    """It has the trait `amplifying` where it is over the platform's bound, and is closed by default."""
    CLOSED = "closed"
    """It needs a trait or a kind that is closed by default."""
    ADMINISTRATIVE = "administrative"
    """It needs the kind `admin` on the whole deployment."""
    NARROWED = "narrowed"
    """The advisory does not name the construct; what it can stand on is bounded. Only the upgrade closes it."""


class Patch(NamedTuple):
    """One advisory."""

    number: str
    construct: str
    fixed: str
    how: How
    example: list[dict[str, Any]]


_JULY: Final = "7.0.39, 8.0.28, 8.2.12, 8.3.7"
_JUNE: Final = "7.0.35, 8.0.24, 8.2.10, 8.3.3"
_ALSO: Final = "8.3.7; others see the record"
_MAY: Final = "7.0.34, 8.0.23, 8.2.9, 8.3.2"
_LONG: Final = {"$range": [0, 1_000_000]}
_SCRIPT: Final = {"$function": {"body": "function() { return 1 }", "args": [], "lang": "js"}}
_DOUBLES: Final = {"$reduce": {"input": "$a", "initialValue": [1], "in": {"$concatArrays": ["$$value", "$$value"]}}}


def _set(value: Any) -> list[dict[str, Any]]:
    return [{"$set": {"x": value}}]


def _inside(depth: int) -> list[dict[str, Any]]:
    pipeline: list[dict[str, Any]] = [{"$limit": 1}]
    for _ in range(depth):
        pipeline = [{"$unionWith": {"coll": "c", "pipeline": pipeline}}]
    return pipeline


def _schema(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"not": schema}
    return schema


PATCHES: Final = (
    Patch("CVE-2025-6713", "`$mergeCursors`", "6.0.22, 7.0.19, 8.0.7", How.REFUSED, [{"$mergeCursors": {}}]),
    Patch(
        "CVE-2025-10061",
        "further parameters of accumulators in `$group`",
        "6.0.25, 7.0.22, 8.0.12, 8.1.2",
        How.REFUSED,
        [{"$group": {"_id": 1, "x": {"$topN": {"n": 1, "sortBy": {"a": 1}, "output": "$a", "more": 1}}}}],
    ),
    Patch("CVE-2026-1849", "expressions that nest documents", "7.0.29, 8.0.18, 8.2.2", How.BOUNDED, _set(_DOUBLES)),
    Patch(
        "CVE-2026-1850",
        "alternatives that are combined",
        "8.0.18, 8.2.4",
        How.BOUNDED,
        [{"$match": {"$and": [{"$or": [{"a": 1}, {"b": 1}]}] * 20}}],
    ),
    Patch(
        "CVE-2026-8063",
        "an empty pipeline in `$rankFusion`, `$scoreFusion`",
        "8.2.7",
        How.REFUSED,
        [{"$rankFusion": {"input": {"pipelines": {"a": []}}}}],
    ),
    Patch(
        "CVE-2026-8199",
        "bit positions of `$bitsAllSet` and its kin",
        _MAY,
        How.BOUNDED,
        [{"$match": {"a": {"$bitsAllSet": list(range(2000))}}}],
    ),
    Patch(
        "CVE-2026-8202", "`chars` of `$trim`", _MAY, How.BOUNDED, _set({"$trim": {"input": "$a", "chars": "x" * 999}})
    ),
    Patch("CVE-2026-8336", "`$_internalJsEmit`", "8.2.9, 8.3.2", How.REFUSED, _set({"$_internalJsEmit": {}})),
    Patch("CVE-2026-9743", "a sub-pipeline, unnamed", "8.0.24", How.NARROWED, _inside(7)),
    Patch(
        "CVE-2026-9746",
        "`$_requestReshardingResumeToken`",
        _JUNE,
        How.REFUSED,
        [{"$_requestReshardingResumeToken": {}}],
    ),
    Patch(
        "CVE-2026-9748",
        "`$_internalConvertBucketIndexStats`",
        "7.0.35, 8.0.10, 8.2.10, 8.3.3",
        How.REFUSED,
        [{"$_internalConvertBucketIndexStats": {}}],
    ),
    Patch("CVE-2026-9749", "`$exchange`", _JUNE, How.REFUSED, [{"$exchange": {}}]),
    Patch("CVE-2026-9753", "`$_internalApplyOplogUpdate`", _JUNE, How.REFUSED, [{"$_internalApplyOplogUpdate": {}}]),
    Patch("CVE-2026-11933", "server-side JavaScript", "7.0.37, 8.0.26, 8.2.11, 8.3.4", How.CLOSED, _set(_SCRIPT)),
    Patch("CVE-2026-13055", "`$_internalIndexKey`", _JULY, How.REFUSED, _set({"$_internalIndexKey": {}})),
    Patch("CVE-2026-13056", "expressions that make large arrays", "8.0.28, 8.3.7", How.BOUNDED, _set(_LONG)),
    Patch(
        "CVE-2026-13064",
        "levels of `$jsonSchema`",
        _JULY,
        How.BOUNDED,
        [{"$match": {"$jsonSchema": _schema(40)}}],
    ),
    Patch(
        "CVE-2026-13065",
        "`sortBy` of `$linearFill` with `$meta`",
        _JULY,
        How.REFUSED,
        [{"$setWindowFields": {"sortBy": {"a": {"$meta": "randVal"}}, "output": {"x": {"$linearFill": "$a"}}}}],
    ),
    Patch("CVE-2026-13061", "`$listSessions` of others", _ALSO, How.ADMINISTRATIVE, [{"$listSessions": {}}]),
    Patch("CVE-2026-13066", "server-side JavaScript", _ALSO, How.CLOSED, _set(_SCRIPT)),
    Patch("CVE-2026-13071", "server-side JavaScript", _JULY, How.CLOSED, _set(_SCRIPT)),
    Patch(
        "CVE-2026-13075",
        "weights of pipelines that are not there",
        "8.2.12, 8.3.7",
        How.REFUSED,
        [{"$rankFusion": {"input": {"pipelines": {"a": [{"$limit": 1}]}}, "combination": {"weights": {"b": 1}}}}],
    ),
    Patch("CVE-2026-13077", "`$_internalUnpackBucket`", _ALSO, How.REFUSED, [{"$_internalUnpackBucket": {}}]),
    Patch("CVE-2026-13078", "modules of server-side JavaScript", _JULY, How.CLOSED, _set(_SCRIPT)),
    Patch(
        "CVE-2026-18688",
        "a number in a stage, unnamed",
        "7.0.40, 8.0.29, 8.3.8, 9.0.2",
        How.NARROWED,
        [{"$bucketAuto": {"groupBy": "$a", "buckets": 1e300}}],
    ),
    Patch(
        "CVE-2026-25610",
        "`$geoNear` with a hint",
        "7.0.29, 8.0.13",
        How.REFUSED,
        [{"$geoNear": {"near": [0, 0], "distanceField": "d", "hint": {"a": 1}}}],
    ),
    Patch(
        "CVE-2026-104005",
        "an internal stage on mongos, unnamed",
        "see the record",
        How.REFUSED,
        [{"$_internalAny": {}}],
    ),
    Patch(
        "CVE-2026-120810",
        "an internal expression, unnamed",
        "7.0.48, 8.0.37, 8.3.16, 9.0.7",
        How.REFUSED,
        _set({"$_internalAny": {}}),
    ),
    Patch("CVE-2026-120818", "server-side JavaScript", "7.0.48, 8.0.37, 8.3.16", How.CLOSED, _set(_SCRIPT)),
    Patch("CVE-2026-120821", "an expression in a sub-pipeline, unnamed", "9.0.7", How.NARROWED, _inside(7)),
)
"""A closed table; an advisory that is not here has not been looked at."""

INTRODUCTION: Final = """\
# Virtual patches

*Generated by `tools/virtual_patches.py`; do not edit.*

Advisories of 2025 and 2026 about MongoDB's aggregation for which read rights suffice, and what the sidecar does about
each. This is no replacement for an upgrade: it covers calls through the sidecar, and nothing else that reaches the
database.

- **refused**: by name or by form, under every policy. No stage or operator whose name begins
  with `$_internal` is known.
- **bounded**: above the platform's bound it has the trait `amplifying`, which is closed by default.
- **closed**: it needs the trait `server_side_js`, which is closed by default.
- **administrative**: it needs the kind `admin` on the whole deployment, which no grant of reading gives.
- **narrowed**: the advisory does not name the construct; what it can stand on is bounded. Only the upgrade closes it.

| advisory | construct | fixed in | here | tried with |
|---|---|---|---|---|
{rows}

Out of reach, because no tool passes on the option of the command that each needs: CVE-2026-9747 (`fromRouter`),
CVE-2026-13059, CVE-2026-13063 and CVE-2026-13069 (Queryable Encryption), CVE-2026-13072. CVE-2026-13060 lets
`$graphLookup` read more through a view than its caller may; the sidecar asks policy about all that is behind a view.

Not covered, because the construct is one that everybody needs: CVE-2025-6706, CVE-2026-4148 (`$lookup` and
`$graphLookup` on sharded clusters), CVE-2026-13073. Upgrade.
"""


def main() -> int:
    """Write the page, or check it."""
    return write_or_check(PAGE, render, described=__doc__, script="tools/virtual_patches.py")


def render() -> str:
    """Return the page."""
    rows = (
        f"| {patch.number} | {patch.construct} | {patch.fixed} | {patch.how.value} | `{next(iter(patch.example[0]))}` |"
        for patch in PATCHES
    )
    return INTRODUCTION.format(rows="\n".join(rows))


if __name__ == "__main__":
    sys.exit(main())
