"""Questions about the databases of ``red`` and ``blue``, and what is said of them."""

from typing import Any

from sidecar.errors import DecisionUnavailable
from sidecar.ports import DecisionPoint, Question

BOTH = ("reds", "blues")


def question(*accesses: tuple[str, str, str], groups: tuple[str, ...] = BOTH) -> dict[str, Any]:
    """A well-formed question about (database, collection, kind)."""
    return {
        "v": 1,
        "subject": {
            "type": "user",
            "id": "eve",
            "issuer": "https://idp.example",
            "groups": [*groups],
            "roles": [],
            "scopes": ["mongodb:read", "mongodb:write", "mongodb:admin"],
            "claims": {},
        },
        "actor": {"type": "agent", "id": "agent", "chain": []},
        "action": {"method": "tools/call", "tool": "find"},
        "accesses": [
            {"kind": kind, "database": database, "collection": collection, "via": "/arguments/collection"}
            for database, collection, kind in accesses
        ],
        "command": {"traits": [], "stages": [], "fields": {"filtered": [], "returned": "all"}, "limit": 10},
        "context": {
            "time_ns": 1_704_888_000_000_000_000,
            "client_ip": "",
            "protocol": "2026-07-28",
            "environment": "test",
            "approval": None,
        },
    }


ALLOWED_BLUE = question(("blue", "orders", "read"))
FORBIDDEN = {
    "another collection of blue": question(("blue", "secrets", "read")),
    "blue without its group": question(("blue", "orders", "read"), groups=("reds",)),
    "writing blue": question(("blue", "orders", "insert")),
    "nobody's database": question(("admin", "system.users", "read")),
    "the system's collections of red": question(("red", "system.users", "read")),
    "writing red, which the platform never delegated": question(("red", "orders", "insert")),
    "dropping red": question(("red", "orders", "drop")),
    "red and forbidden blue together": question(("red", "orders", "read"), ("blue", "secrets", "read")),
}


async def allows(pdp: DecisionPoint, document: dict[str, Any]) -> bool:
    """Whether a question is answered with an allow; no answer is a no."""
    try:
        result = (await pdp.ask(Question.DECISION, document)).result
    except DecisionUnavailable:
        return False
    return isinstance(result, dict) and result.get("allow") is True
