"""``policy who``: the reverse of ``policy show``, from the same rules and the platform's routes, agents and scopes."""

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from sidecar.authoring.engine import engine
from sidecar.authoring.reaching import AskedPlace, who
from sidecar.authoring.wording import print_who
from sidecar.errors import ConfigurationError
from tests.parts import BIN, ROOT

pytestmark = pytest.mark.real

POLICIES = ROOT / "policies"


async def reached(folder: Path, opa: str, place: str) -> Any:
    async with engine(opa, folder) as held:
        return await who(held, AskedPlace.read(place))


def by_grant(found: Any) -> dict[tuple[str, str], Any]:
    return {(row["grant"], row["server"]): row for row in found["reach"]}


async def test_a_collection_names_its_groups_agents_scopes_lines_and_servers(opa_binary: str) -> None:
    found = await reached(POLICIES, opa_binary, "staging.orders")
    assert found["held"] == [{"deployment": "demo", "owner": "loading"}]
    rows = by_grant(found)
    insert = rows["loader-inserts-on-weekdays", "demo-rw"]
    (at,) = insert["at"]
    file, _, line = at.rpartition(":")
    assert '"loader-inserts-on-weekdays"' in (POLICIES / file).read_text().splitlines()[int(line) - 1]
    assert (insert["groups"], insert["agents"], insert["scopes"]) == (
        [["loaders"]],
        ["nightly-loader"],
        ["mongodb:write"],
    )
    assert (insert["kinds"], insert["route"], insert["refused"]) == (["insert"], "writers", None)
    assert ("loader-inserts-on-weekdays", "demo-ro") not in rows
    assert {grant for grant, _ in rows} == {"loader-inserts-on-weekdays", "loader-reads-what-it-loaded"}


async def test_another_collection_and_another_database_are_not_reached(opa_binary: str) -> None:
    assert (await reached(POLICIES, opa_binary, "staging.salaries"))["reach"] == []
    nobody = await reached(POLICIES, opa_binary, "stagings")
    assert (nobody["held"], nobody["reach"]) == ([], [])


async def test_of_a_database_every_collection_is_told(opa_binary: str) -> None:
    rows = by_grant(await reached(POLICIES, opa_binary, "staging"))
    assert rows["loader-reads-what-it-loaded", "demo-ro"]["collections"] == ["orders", "returns"]
    rows = by_grant(await reached(POLICIES, opa_binary, "support"))
    assert rows["support-reads-tickets", "demo-ro"]["refused"] == "obligation_unsupported"
    assert rows["support-sees-the-catalogue", "demo-ro"]["groups"] == [["support"], ["support-leads"]]
    assert rows["support-updates-tickets", "demo-rw"]["agents"] == ["support-console"]


TEAM = """package mcp.teams.people

import data.mcp.lib

grant contains {"id": "both"} if {
	lib.reads
	lib.on_any(["hr_*"], ["*"])
	lib.in_group_of("https://a.example", "staff")
	lib.in_group("leads")
	lib.has_role("auditor")
}

grant contains {"id": "strange-agent"} if {
	lib.writes
	lib.on_any(["hr_*"], ["*"])
	lib.via_agent("unknown")
}

grant contains {"id": "elsewhere"} if {
	lib.reads
	lib.on("other", ["*"])
}

deny contains "closed" if lib.on_any(["hr_old*"], ["*"])
"""


def folder_with(tmp_path: Path) -> Path:
    ignored = shutil.ignore_patterns("cases", "*_test.rego")
    folder = Path(shutil.copytree(POLICIES, tmp_path / "policies", ignore=ignored))
    (folder / "teams/people/policy.rego").write_text(TEAM)
    path = folder / "platform/data.json"
    data = msgspec.json.decode(path.read_bytes())
    delegated = [{"kinds": ["read", "insert"], "collections": ["*"]}]
    holding = {"owner": "people", "delegated": delegated, "obligations": []}
    data["mcp"]["platform"]["deployments"]["demo"]["prefixes"] = {"hr_": holding, "h": {**holding, "owner": "support"}}
    path.write_bytes(msgspec.json.encode(data))
    return folder


async def test_what_a_grant_asks_of_the_caller_is_told_and_what_its_agent_may_not_is_left_out(
    tmp_path: Path, opa_binary: str
) -> None:
    found = await reached(folder_with(tmp_path), opa_binary, "hr_new.rooms")
    rows = by_grant(found)
    assert {grant for grant, _ in rows} == {"both"}
    row = rows["both", "demo-ro"]
    assert ({*row["groups"][0]}, row["roles"], row["issuers"]) == (
        {"staff", "leads"},
        ["auditor"],
        ["https://a.example"],
    )
    assert row["conditions"] == []
    assert found["denies"] == {}
    old = await reached(folder_with(tmp_path / "again"), opa_binary, "hr_old")
    assert old["denies"] == {"people": ["closed"]}


@pytest.mark.parametrize("text", ["", ".", ".orders", "sales."])
def test_what_is_no_place_is_said(text: str) -> None:
    with pytest.raises(ConfigurationError):
        AskedPlace.read(text)


def test_a_name_may_have_dots_in_its_collection() -> None:
    assert (AskedPlace.read("a.b.c").database, AskedPlace.read("a.b.c").collection) == ("a", "b.c")


async def test_it_fits_80_columns(opa_binary: str) -> None:
    out = io.StringIO()
    print_who(await reached(POLICIES, opa_binary, "sales.orders"), Console(file=out, width=80))
    lines = out.getvalue().splitlines()
    assert lines[0] == "sales.orders belongs to analytics in the deployment demo"
    assert max(map(len, lines)) <= 80
    assert any(re.search(r"teams/analytics/policy\.rego:\d+", line) for line in lines)


def test_the_command_says_so_where_nobody_owns_the_place() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "policy", "who", "nothing.there", str(POLICIES)],
        env={"PATH": str(BIN), "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "nothing.there has no owner: every call on it is refused\n")
