"""``policy show`` and ``decide`` say which limits on use count towards a caller and a call."""

import io
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from sidecar.authoring import inquiry, wording
from tests.changed_policies import platform_data
from tests.policy_sets import quick_copy

ABOUT = inquiry.Circumstances(time_ns=0, environment="test")
LIMIT: dict[str, Any] = {
    "id": "minute",
    "per": ["subject", "tool"],
    "groups": ["analysts"],
    "agents": ["*"],
    "tools": ["count", "find"],
    "teams": ["*"],
    "window_s": 60,
    "calls": 10,
    "bytes": 5000,
}
CLAIMS = {"sub": "mia", "iss": "https://i.example", "client_id": "desk", "scope": "mongodb:read"}
CALL = {"name": "count", "arguments": {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}}


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    copy = tmp_path / "policies"
    quick_copy(copy)
    with platform_data(copy) as platform:
        platform["limits"] = [LIMIT, {**LIMIT, "id": "others", "groups": ["loaders"]}]
    return copy


def in_words(print_it: Any, document: Any) -> str:
    out = io.StringIO()
    print_it(document, Console(file=out, width=4000, force_terminal=False))
    return out.getvalue()


async def test_policy_show_lists_the_limits_of_the_caller(policies: Path, opa_binary: str) -> None:
    claims = msgspec.json.encode({**CLAIMS, "groups": ["analysts"]})
    document = await inquiry.show_permissions(policies, claims, ABOUT, opa_binary, every_row=False)
    assert document["limits"] == [LIMIT]
    expected = "limit minute: 10 calls, 5000 bytes in 60 s for each subject and tool; tools count, find"
    assert expected in in_words(wording.print_permissions, document)


async def test_decide_lists_the_limits_of_the_call(policies: Path, opa_binary: str) -> None:
    call = msgspec.json.encode({"claims": {**CLAIMS, "groups": ["analysts"]}, "call": CALL})
    decided = await inquiry.decide(call, policies, ABOUT, opa_binary, explained=False)
    decision: Any = decided.document["decision"]
    assert [(one["id"], one["calls"]) for one in decision["limits"]] == [("minute", 10)]
    words = in_words(wording.print_decided, decided.document)
    assert "limit minute: 10 calls, 5000 bytes in 60 s for each subject and tool" in words
