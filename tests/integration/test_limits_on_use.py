"""Limits on use in a real deployment: OPA says which count, the sidecar counts, and nothing beyond is forwarded."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST, LOADER, Person
from tests.changed_policies import platform_data
from tests.hours import policies_on
from tests.integration.deployment import HR_ADMIN, Deployment, deployed, wait_until

ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
SALARIES = {"connectionId": "preconfigured", "database": "hr", "collection": "salaries"}
EVERYBODY: dict[str, Any] = {"groups": ["*"], "agents": ["*"], "tools": ["*"], "teams": ["*"], "window_s": 86_400}
"""A day, so that no window ends while a test runs, but at midnight UTC; what then fails says so by itself."""

LIMITS = [
    {**EVERYBODY, "id": "counts", "per": ["subject", "tool"], "tools": ["count"], "calls": 2},
    {**EVERYBODY, "id": "documents", "per": ["subject"], "tools": ["find"], "documents": 3},
    {**EVERYBODY, "id": "hr-bytes", "per": ["team"], "teams": ["people"], "tools": ["aggregate"], "bytes": 10},
]


def with_limits(folder: Path, limits: list[dict[str, Any]]) -> Path:
    copy = policies_on(folder)
    with platform_data(copy) as platform:
        platform["limits"] = limits
    return copy


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("limits")
    with deployed(folder, database, policies=with_limits(folder, LIMITS)) as running:
        asyncio.run(demo_database.seed(running.uri))
        yield running


async def call(running: Deployment, person: Person, tool: str, arguments: dict[str, Any]) -> Any:
    async with running.client(person) as client:
        return await client.call_tool(tool, arguments)


async def test_a_used_up_limit_refuses_with_what_a_model_can_act_on(limited: Deployment) -> None:
    answers = [await call(limited, ANALYST, "count", ORDERS) for _ in range(3)]
    assert [answer.is_error for answer in answers] == [False, False, True]
    text = answers[2].content[0].text
    assert text.startswith(
        "Refused: the limit counts is used up (2 calls in 86400 seconds for each user and each tool)"
    )
    assert "free again in" in text
    said = answers[2].meta["mcp-sidecar/decision"]
    assert said["reasons"] == [{"code": "limit_reached", "source": "sidecar", "access": None}]
    assert {key: said["limit"][key] for key in ("id", "unit", "most")} == {"id": "counts", "unit": "calls", "most": 2}
    assert said["limit"]["free_at"] % 86_400 == 0
    forwarded = [one for one in limited.reached("demo-ro") if one["name"] == "count"]
    assert len(forwarded) == 2, "what is over a limit is not forwarded"
    other_tool = await call(limited, ANALYST, "collection-schema", ORDERS)
    assert not other_tool.is_error, "another tool has a budget of its own"


async def test_another_user_has_a_budget_of_its_own(limited: Deployment) -> None:
    answer = await call(limited, HR_ADMIN, "count", SALARIES)
    assert not answer.is_error


async def test_the_refusal_is_evidence_and_a_metric(limited: Deployment) -> None:
    await call(limited, ANALYST, "count", ORDERS)
    await call(limited, ANALYST, "count", ORDERS)
    await call(limited, ANALYST, "count", ORDERS)
    records = [one for one in limited.records() if one["tool"] == "count" and one["subject"]["id"] == ANALYST.user]
    refused = [one for one in records if one["event"] == "refusal"]
    assert {one["outcome"]["error"] for one in refused} == {"limit_reached"}
    assert refused[-1]["limit"]["id"] == "counts"
    assert refused[-1]["decision"]["allow"] is True, "policy allowed it; the limit refused"
    assert [one["decision"]["limits"] for one in records if one["event"] == "intent"] == [["counts"], ["counts"]]
    _, metrics = limited.admin("/metrics")
    assert 'mcp_sidecar_limits_reached_total{limit="counts",unit="calls"}' in metrics
    assert 'mcp_sidecar_refusals_total{error="limit_reached",stage="limit"}' in metrics


async def test_documents_count_as_the_result_carries_them(limited: Deployment) -> None:
    first = await call(limited, ANALYST, "find", {**ORDERS, "limit": 2})
    second = await call(limited, ANALYST, "find", {**ORDERS, "limit": 2})
    third = await call(limited, ANALYST, "find", {**ORDERS, "limit": 1})
    assert [first.is_error, second.is_error, third.is_error] == [False, False, True]
    assert "the limit documents is used up (3 documents" in third.content[0].text


async def test_bytes_of_a_teams_data_are_counted_for_all_its_users(limited: Deployment) -> None:
    pipeline = {**SALARIES, "pipeline": [{"$count": "n"}]}
    first = await call(limited, HR_ADMIN, "aggregate", pipeline)
    other = Person(user="hugo", agent="claude-desktop", groups=("hr-admins",), scopes=("mongodb:read",))
    second = await call(limited, other, "aggregate", pipeline)
    assert [first.is_error, second.is_error] == [False, True]
    assert "for the data of team people" in second.content[0].text
    elsewhere = await call(limited, ANALYST, "aggregate", {**ORDERS, "pipeline": [{"$count": "n"}]})
    assert not elsewhere.is_error, "it counts towards the data of another team"


async def test_what_is_denied_uses_nothing(limited: Deployment) -> None:
    loader = [await call(limited, LOADER, "count", ORDERS) for _ in range(4)]
    assert all("limit" not in answer.content[0].text for answer in loader)


async def test_calls_at_once_do_not_get_more_than_there_is(tmp_path: Path, database: str) -> None:
    limit = {**EVERYBODY, "id": "five", "per": ["subject"], "calls": 5}
    with deployed(tmp_path, database, policies=with_limits(tmp_path, [limit])) as running:
        await demo_database.seed(running.uri)
        async with running.client(ANALYST) as client:
            answers = await asyncio.gather(*(client.call_tool("count", ORDERS) for _ in range(20)))
        assert sum(not answer.is_error for answer in answers) == 5
        assert len(running.reached("demo-ro")) == 5


async def test_an_operator_raises_a_limit_while_the_sidecar_serves(tmp_path: Path, database: str) -> None:
    limit = {**EVERYBODY, "id": "few", "per": ["subject"], "calls": 1}
    policies = with_limits(tmp_path, [limit])
    with deployed(tmp_path, database, policies=policies) as running:
        await demo_database.seed(running.uri)
        assert [(await call(running, ANALYST, "count", ORDERS)).is_error for _ in range(2)] == [False, True]
        before = running.records()[-1]["decision"]["revision"]
        with platform_data(policies) as platform:
            platform["limits"] = [{**limit, "calls": 2}]

        def serves_another() -> bool:
            asyncio.run(call(running, LOADER, "count", ORDERS))
            return bool(running.records()[-1]["decision"]["revision"] != before)

        await asyncio.to_thread(wait_until, serves_another, "the changed policies to serve")
        assert [(await call(running, ANALYST, "count", ORDERS)).is_error for _ in range(2)] == [False, True], (
            "the call that was counted before still counts"
        )
