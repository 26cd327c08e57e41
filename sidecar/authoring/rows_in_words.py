"""What the tables of ``policy show`` and ``policy who`` say of one row."""

import json
from collections.abc import Iterator
from typing import Any

from sidecar.printing import escaped


def conditions(row: Any) -> Iterator[str]:
    """Say under what a row stands, besides limits."""
    yield from row["conditions"]
    for part in ("filter", "mask", "no_collection_scan", "approval", "names"):
        if row[part] is not None:
            yield f"{part} {as_json(row[part])}"


def limits(row: Any) -> Iterator[str]:
    """Say the limits of a row, the grant's and the platform's."""
    for part in ("max_documents", "max_time_ms", "max_affected", "max_bytes"):
        if row[part] is not None:
            yield f"{part} {row[part]}"
    for obligation in row["platform_obligations"]:
        parts = [
            f"{key} {as_json(value)}" for key, value in obligation.items() if key not in {"id", "collections", "kinds"}
        ]
        yield f"platform, {', '.join(obligation['kinds'])}: {', '.join(parts)}"


def items(value: Any) -> list[Any]:
    """Return a list, and of anything else an empty one."""
    return value if isinstance(value, list) else []


def as_json(value: Any) -> str:
    """Write a value as JSON, in the letters of any language."""
    return json.dumps(value, ensure_ascii=False)


def cell(text: str) -> str:
    """Escape a cell, except for its own line breaks, so that a caller's name cannot leave the table."""
    return escaped(text, keep="\n")
