"""The shipped policies with other hours of the loading team, so that no test depends on the day on which it runs."""

import json
from collections.abc import Iterable
from pathlib import Path

from tests.policy_sets import quick_copy

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def policies_on(folder: Path, days: Iterable[str] = DAYS) -> Path:
    """A copy below ``folder`` in which the loader inserts on these days, from midnight to midnight."""
    copy = quick_copy(folder / "policies")
    data = copy / "teams/loading/data.json"
    document = json.loads(data.read_text())  # noqa: TID251 - the repository's own file
    document["mcp"]["grants"]["loading"]["hours"] |= {"days": [*days], "from": "00:00", "to": "24:00"}
    data.write_text(json.dumps(document))
    return copy
