"""Copies of the shipped policies in which a team grants more, or the platform's data is different."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec


def grant_more(policies: Path, team: str, rules: str) -> None:
    """Add rules to a team's policy."""
    policy = policies / "teams" / team / "policy.rego"
    policy.write_text(policy.read_text() + rules)


@contextmanager
def platform_data(policies: Path) -> Iterator[Any]:
    """The platform's tables, to be changed in place."""
    file = policies / "platform/data.json"
    document = msgspec.json.decode(file.read_bytes())
    yield document["mcp"]["platform"]
    file.write_bytes(msgspec.json.encode(document))
