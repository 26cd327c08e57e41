"""The table of limits is vetted before it serves: its form, its globs, and names that nothing has."""

from pathlib import Path
from typing import Any

import pytest

from sidecar.authoring import kit
from tests.changed_policies import platform_data
from tests.policy_sets import quick_copy

LIMIT: dict[str, Any] = {
    "id": "minute",
    "per": ["subject"],
    "groups": ["*"],
    "agents": ["*"],
    "tools": ["find"],
    "teams": ["analytics"],
    "window_s": 60,
    "calls": 10,
}


async def checked(folder: Path, limits: Any, opa_binary: str) -> Any:
    policies = folder / "policies"
    quick_copy(policies)
    with platform_data(policies) as platform:
        platform["limits"] = limits
    return (await kit.check_paths((policies,), opa_binary, ())).document()


REFUSED: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no amount": ([{key: value for key, value in LIMIT.items() if key != "calls"}], "limits.0"),
    "a part that is not known": ([{**LIMIT, "per": ["group"]}], "limits.0.per.0"),
    "a key that is not known": ([{**LIMIT, "call": 1}], "limits.0"),
    "no calls": ([{**LIMIT, "calls": 0}], "limits.0.calls"),
    "two days": ([{**LIMIT, "window_s": 172_800}], "limits.0.window_s"),
    "a glob that cannot be read": ([{**LIMIT, "agents": ["[a"]}], "/limits/0/agents/0"),
    "one name twice": ([LIMIT, {**LIMIT, "calls": 20}], "/limits/1/id: there is a limit minute already"),
    "seventeen": ([{**LIMIT, "id": f"n{number}"} for number in range(17)], "limits"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_table_that_cannot_be_counted_by_is_refused_at_its_line(
    tmp_path: Path, opa_binary: str, name: str
) -> None:
    limits, place = REFUSED[name]
    document = await checked(tmp_path, limits, opa_binary)
    assert document["ok"] is False
    found = [one for one in document["findings"] if place in one["message"]]
    assert found, document
    assert all(one["file"] == "platform/data.json" and one["line"] > 0 for one in found)


async def test_a_limit_that_would_never_count_is_warned_of(tmp_path: Path, opa_binary: str) -> None:
    document = await checked(
        tmp_path, [{**LIMIT, "tools": ["finds", "*"], "teams": ["analytic", "platform"]}], opa_binary
    )
    assert document["ok"] is True
    messages = " ".join(one["message"] for one in document["findings"])
    assert "there is no tool finds" in messages
    assert "there is no team analytic" in messages
    assert "platform:" not in messages


async def test_a_limit_as_it_should_be_is_fine(tmp_path: Path, opa_binary: str) -> None:
    document = await checked(tmp_path, [LIMIT], opa_binary)
    assert (document["ok"], document["findings"]) == (True, [])
