"""Hostile policies that load, because no lint can tell them from honest ones: whom they harm while they serve.

Each is asked about red's database, and while it works and right after, blue is asked: red's policy must widen nothing,
and blue must be answered within the deadline of one question.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.errors import ConfigurationError
from sidecar.opa.managed import ManagedOpa
from tests import parts
from tests.patience import HANG_S
from tests.policyset.questions import ALLOWED_BLUE, BOTH, FORBIDDEN, allows, question
from tests.starting import start_and_stop

pytestmark = pytest.mark.real

HEAD = "package mcp.teams.red\n\n"
DEADLINE_S = 2.0
"""Of one decision: four times the default, for a busy machine with two cores."""

FINDS_RED = question(("red", "orders", "read"))

PRODUCT = """some a in data.mcp.grants.red.many
	some b in data.mcp.grants.red.many
	some c in data.mcp.grants.red.many
	some d in data.mcp.grants.red.many"""

HOSTILE: dict[str, tuple[str, bool]] = {
    "everything is granted": ('grant contains {"id": "all"}', True),
    "a million grants": (
        f'grant contains {{"id": sprintf("%d-%d-%d-%d", [a, b, c, d])}} if {{\n\t{PRODUCT}\n}}',
        False,
    ),
    "a million denies": (f'deny contains sprintf("%d-%d-%d-%d", [a, b, c, d]) if {{\n\t{PRODUCT}\n}}', False),
    "work without end": (f'grant contains {{"id": "x"}} if {{\n\t{PRODUCT}\n\ta + b + c + d < 0\n}}', False),
    "a deep comprehension": (
        f'grant contains {{"id": "x"}} if count([1 | {PRODUCT.replace(chr(10), ";")}; a + b + c < d]) == -1',
        False,
    ),
    "a huge text": ('grant contains {"id": concat("", [x | some x in data.mcp.grants.red.texts])}', False),
    "a builtin error": ('grant contains {"id": "x"} if to_number(input.actor.id) == 1', False),
    "conflicting values": (
        'grant contains {"id": v.a}\n\nv := {"a": "x"} if input.access\n\nv := {"a": "y"} if input.subject',
        False,
    ),
    "a conflict in a function": (
        'grant contains {"id": f(1)}\n\nf(_) := "x" if input.access\n\nf(_) := "y" if input.subject',
        False,
    ),
    "a grant that is no object": ('grant contains "all"', False),
    "a truth for a grant": ("grant contains true", False),
    "denies that are texts": ('deny contains {"code": "x", "allow": true}', False),
    "a decision of its own": ('decision := {"v": 1, "allow": true}\n\nallow := true', True),
    "a regular expression that backtracks elsewhere": (
        'grant contains {"id": "x"} if regex.match("^(a+)+$", concat("", [t | some t in data.mcp.grants.red.texts]))',
        True,
    ),
}
"""Rules that are added to red's, and whether red's own reading is then still allowed."""


async def harm(opa: ManagedOpa) -> list[str]:
    """Which forbidden questions are allowed."""
    return [name for name, document in FORBIDDEN.items() if await allows(opa, document)]


REFUSED = {
    "grants for other owners": (
        'grant contains {"id": "all", "owner": "blue", "database": "blue", "server": "demo-rw", "allow": true}'
    ),
    "the empty mask of missing data": 'grant contains {"id": "x", "mask": {m | some m in data.mcp.grants.red.none}}',
}
"""What names a part that a grant does not have, or data that is not there: it does not come to serve."""


@pytest.mark.parametrize("name", REFUSED)
async def test_what_names_nothing_that_there_is_does_not_serve(
    policies: Path, team_file: Callable[[str, str], Path], opa_binary: str, runtime: Path, name: str
) -> None:
    team_file("data.json", json.dumps({"mcp": {"grants": {"red": {"many": []}}}}))
    team_file("more.rego", f"{HEAD}{REFUSED[name]}\n")
    opa = ManagedOpa(opa_binary, policies, directory=runtime, timeout_s=DEADLINE_S, start_timeout_s=HANG_S)
    with pytest.raises(ConfigurationError, match=r"teams/red/more\.rego:\d+: "):
        async with opa:
            pass


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_team_widens_nothing_and_keeps_nobody_waiting(
    policies: Path, team_file: Callable[[str, str], Path], opa_binary: str, runtime: Path, name: str
) -> None:
    text, own = HOSTILE[name]
    data = {"many": list(range(100)), "texts": ["aaaaaaaaaa" * 100] * 500}
    team_file("data.json", json.dumps({"mcp": {"grants": {"red": data}}}))
    team_file("more.rego", f"{HEAD}{text}\n")
    opa = ManagedOpa(opa_binary, policies, directory=runtime, timeout_s=DEADLINE_S, start_timeout_s=HANG_S)
    async with opa:
        process = opa.pid
        assert await allows(opa, ALLOWED_BLUE)
        asked = asyncio.create_task(allows(opa, FINDS_RED))
        during = [await allows(opa, ALLOWED_BLUE) for _ in range(5)]
        assert await asked is own
        assert during == [True] * 5, "blue is answered while red works"
        assert await allows(opa, ALLOWED_BLUE), "and right after"
        assert await harm(opa) == []
        assert opa.pid == process, "nobody's OPA had to be restarted"


async def test_four_endless_questions_at_once_do_not_keep_the_others_waiting(
    policies: Path, team_file: Callable[[str, str], Path], opa_binary: str, runtime: Path
) -> None:
    """As many as there are threads for evaluation: what ends them is the deadline of their own askers."""
    team_file("data.json", json.dumps({"mcp": {"grants": {"red": {"many": list(range(100))}}}}))
    team_file("more.rego", HEAD + HOSTILE["work without end"][0] + "\n")
    async with ManagedOpa(opa_binary, policies, directory=runtime, timeout_s=DEADLINE_S, start_timeout_s=HANG_S) as opa:
        endless = [asyncio.create_task(allows(opa, FINDS_RED)) for _ in range(4)]
        assert await allows(opa, ALLOWED_BLUE)
        assert await asyncio.gather(*endless) == [False] * 4
        assert await allows(opa, ALLOWED_BLUE)


async def test_the_near_miss_an_honest_team_is_allowed_what_it_grants(
    policies: Path, opa_binary: str, runtime: Path
) -> None:
    async with ManagedOpa(opa_binary, policies, directory=runtime, timeout_s=DEADLINE_S, start_timeout_s=HANG_S) as opa:
        assert await allows(opa, FINDS_RED)
        assert await allows(opa, question(("red", "orders", "read"), ("blue", "orders", "read")))
        assert not await allows(opa, question(("red", "orders", "read"), ("blue", "orders", "read"), groups=BOTH[:1]))
        assert await harm(opa) == []


TAKEOVERS: dict[str, dict[str, Any]] = {
    "main": {"more.rego": "package mcp.main\n\nallow := true\n"},
    "platform": {"more.rego": 'package mcp.platform.guardrails\n\nreasons contains "x" if false\n'},
    "authz": {"more.rego": "package system.authz\n\nallow := true\n"},
    "blue": {"more.rego": 'package mcp.teams.blue\n\ngrant contains {"id": "mine"}\n'},
    "data": {"data.json": '{"mcp": {"platform": {"refused_kinds": []}}}'},
    "shadow": {"data.json": '{"mcp": {"teams": {"blue": {"deny": []}}}}'},
    "with": {"more.rego": HEAD + 'grant contains {"id": "x"} if input.x with input as {"x": 1}\n'},
    "send": {"more.rego": HEAD + 'deny contains "x" if http.send({"url": "http://127.0.0.1", "method": "get"})\n'},
    "recursion": {"more.rego": HEAD + "p if q\n\nq if p\n"},
    "unsafe": {"more.rego": HEAD + "p := x\n"},
    "syntax": {"more.rego": HEAD + "grant contains {\n"},
}


@pytest.mark.parametrize("name", TAKEOVERS)
async def test_a_takeover_refuses_to_start_with_file_and_line(
    policies: Path, team_file: Callable[[str, str], Path], opa_binary: str, runtime: Path, name: str
) -> None:
    for file, text in TAKEOVERS[name].items():
        team_file(file, text)
        with pytest.raises(ConfigurationError, match=rf"teams/red/{file}:\d+: "):
            await start_and_stop(ManagedOpa(opa_binary, policies, directory=runtime))


@pytest.mark.parametrize("alone", [True, False])
async def test_where_a_view_is_enough_the_broken_grants_of_its_source_are_not_looked_at(
    policies: Path, team_file: Callable[[str, str], Path], runtime: Path, *, alone: bool
):
    """The view is blue's and its source is red's; red's own word is not asked for where the platform's is enough."""
    team_file("more.rego", HEAD + 'grant contains {"id": "x"} if to_number(input.actor.id) == 1')
    file = policies / "platform" / "data.json"
    data = json.loads(file.read_text())  # noqa: TID251 - a copy of the repository's own file
    views = {"blue": {"orders": {"sources": [{"database": "red", "collection": "stock"}], "alone": alone}}}
    data["mcp"]["platform"]["deployments"]["demo"]["views"] = views
    file.write_text(json.dumps(data))
    asked = question(("blue", "orders", "read"), ("red", "stock", "read"))
    asked["accesses"][1]["via_view"] = {"database": "blue", "collection": "orders"}
    async with ManagedOpa(
        str(parts.installed("opa")), policies, directory=runtime, timeout_s=DEADLINE_S, start_timeout_s=HANG_S
    ) as opa:
        assert await allows(opa, asked) is alone
