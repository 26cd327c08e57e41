"""What this build would refuse of what a policy grants: the plan that enforcement asks is asked here."""

from typing import Any, Final

from sidecar.errors import ObligationNotSupported
from sidecar.model import JsonObject
from sidecar.obligations import possible
from sidecar.policy import document, read_decision
from sidecar.policyset import OBLIGATIONS

_EXAMPLES: Final[JsonObject] = {"filter": {"a": 1}, "mask": ["a"], "max_documents": 1, "max_time_ms": 1}
_FURTHER: Final[JsonObject] = {"max_affected": 1, "max_bytes": 1, "no_collection_scan": True, "names": "reachable"}
"""What stands for an obligation whose value may be known only when a call is made."""


def _waiting(code: Any) -> JsonObject:
    return {"accesses": [{"access": 0, "codes": [str(code)]}]}


def refused(row: dict[str, Any]) -> str | None:
    """Return why this build would refuse every call of a row: an obligation that it cannot discharge."""
    parts = [{part: row[part] for part in OBLIGATIONS if row[part] is not None}, *row["platform_obligations"]]
    for one in parts:
        known: JsonObject = {"filter": None, "mask": [], "max_documents": None, "max_time_ms": None}
        known |= {part: value for part, value in (_EXAMPLES | _FURTHER).items() if part in one}
        answer: JsonObject = {
            "v": document.VERSION,
            "allow": True,
            "reasons": [],
            "server": "s",
            "accesses": [{"owner": row["owner"], "grants": ["g"], **known}],
            "approval": _waiting(one["approval"]) if "approval" in one else None,
            "revision": "r",
        }
        try:
            # A tool on which the obligation can be met if there is one: what it refuses, every tool does.
            tool = "list-databases" if "names" in one else "find"
            possible(read_decision(answer, accesses=1, servers=["s"]), tool)
        except ObligationNotSupported as error:
            return error.label
    return None
