"""Three hundred everyday queries of public manuals, courses and sample applications, as calls of MCP tools.

``everyday/queries.json`` has one call a line with its source: queries on MongoDB's sample datasets, chosen before there
was any rewriting and not edited since, whatever the sidecar makes of them. A query that the source writes for a driver
is here in the words of ``find``, ``count`` or ``aggregate``; ``/x/i`` is written with ``$regex`` and ``$options``.
``everyday/documents.json`` has synthetic documents in the shape of those datasets, ``everyday/policies.json`` what a
company could ask for: for each database a row filter and a masked field.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bson import json_util

_FOLDER = Path(__file__).with_name("everyday")

CONNECTION = {"connectionId": "preconfigured"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EverydayQuery:
    """One query as a call, and where it comes from."""

    id: str
    tool: str
    arguments: dict[str, Any]
    source: str
    """A public address."""

    @property
    def reshapes(self) -> bool:
        """Whether it joins, groups or projects in a pipeline."""
        stages = [name for stage in self.arguments.get("pipeline", ()) for name in stage]
        return not {"$lookup", "$group", "$project"}.isdisjoint(stages)


@cache
def queries() -> tuple[EverydayQuery, ...]:
    """Every query, in the order of the file."""
    rows = _read("queries.json")
    return tuple(
        EverydayQuery(
            id=row["id"], tool=row["name"], arguments={**CONNECTION, **row["arguments"]}, source=row["source"]
        )
        for row in rows
    )


@cache
def policies() -> dict[str, dict[str, Any]]:
    """By database: ``filter`` and ``mask``, by collection, and ``why``."""
    found: dict[str, dict[str, Any]] = _read("policies.json")
    return found


@cache
def documents() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """By database and collection, with BSON values."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = json_util.loads((_FOLDER / "documents.json").read_text("utf-8"))
    return found


def _read(name: str) -> Any:
    return json.loads((_FOLDER / name).read_text("utf-8"))  # noqa: TID251 - our own file
