"""``policy who``: the reverse of ``policy show``, from the same rules and the platform's routes, agents and scopes."""

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from sidecar.authoring.engine import engine
from sidecar.authoring.reaching import AskedPlace, who
from sidecar.authoring.who_in_words import print_who
from sidecar.commands import ToolGroup
from sidecar.errors import ConfigurationError
from tests.parts import BIN, ROOT
from tests.patience import HANG_S

pytestmark = pytest.mark.real

POLICIES = ROOT / "policies"


async def reached(
    folder: Path, opa: str, place: str, servers: Mapping[str, Collection[ToolGroup]] | None = None, *issuers: str
) -> Any:
    async with engine(opa, folder) as held:
        return await who(held, AskedPlace.read(place), servers or {}, issuers)


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
    assert rows["support-reads-tickets", "demo-ro"]["refused"] is None
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


COUNTING = """package mcp.teams.people

import data.mcp.lib

grant contains {"id": "counting"} if {
	lib.reads
	lib.looks_only_at(["status"])
	lib.on_any(["hr_*"], ["*"])
	some stage in input.command.stages
	stage != "$out"
}
"""


async def test_variables_have_their_authors_names(tmp_path: Path, opa_binary: str) -> None:
    folder = folder_with(tmp_path)
    (folder / "teams/people/policy.rego").write_text(COUNTING)
    row = by_grant(await reached(folder, opa_binary, "hr_new.rooms"))["counting", "demo-ro"]
    assert row["conditions"] == [
        'every path in command.fields.filtered { lib.inside(path, ["status"]) }',
        'command.stages[_] != "$out"',
    ]


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
        timeout=HANG_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "nothing.there has no owner: every call on it is refused\n")


HOME, AWAY = "https://home.example", "https://away.example"


def changed(tmp_path: Path, change: Callable[[Any], None]) -> Path:
    """A copy of the policies with other tables of the platform."""
    ignored = shutil.ignore_patterns("cases", "*_test.rego")
    folder = Path(shutil.copytree(POLICIES, tmp_path / "policies", ignore=ignored))
    path = folder / "platform/data.json"
    document = msgspec.json.decode(path.read_bytes())
    change(document["mcp"]["platform"])
    path.write_bytes(msgspec.json.encode(document))
    return folder


def told(found: Any) -> str:
    out = io.StringIO()
    print_who(found, Console(file=out, width=200))
    return out.getvalue()


def limited(tables: Any) -> None:
    hours = {"days": ["Monday"], "from": "08:00", "to": "18:00", "timezone": "UTC"}
    tables["windows"] = [
        {"id": "w1", "kinds": ["insert"], "databases": ["stag*"], "hours": hours},
        {"id": "w2", "kinds": ["read"], "databases": ["sales"], "hours": hours},
    ]
    tables["suspended"] = {"subjects": [{"issuer": HOME, "id": "eve"}], "agents": ["nightly-*"]}


async def test_windows_and_suspensions_stand_beside_what_they_close(tmp_path: Path, opa_binary: str) -> None:
    folder = changed(tmp_path, limited)
    found = await reached(folder, opa_binary, "staging.orders")
    rows = by_grant(found)
    insert, read = rows["loader-inserts-on-weekdays", "demo-rw"], rows["loader-reads-what-it-loaded", "demo-ro"]
    assert "only Monday, 08:00 to 18:00 UTC (window w1)" in insert["conditions"]
    assert not any("window" in one for one in read["conditions"]), "w1 bounds inserts, and w2 another database"
    assert (read["refused"], read["suspended"]) == ("suspended", ["nightly-loader"])
    text = told(found)
    assert "REFUSED: suspended" in text
    assert f"suspended by the platform: agent nightly-*, person eve of {HOME}; each of their calls is refused" in text
    support = by_grant(await reached(folder, opa_binary, "support.tickets"))["support-updates-tickets", "demo-rw"]
    assert (support["refused"], support["suspended"]) == (None, []), "another agent's"


def exporting(tables: Any) -> None:
    tables["routes"][0]["kinds"].append("export")
    tables["agents"]["default"]["kinds"].append("export")
    tables["deployments"]["demo"]["databases"]["sales"] = {
        "owner": "platform",
        "delegated": [{"kinds": ["read", "export"], "collections": ["*"]}],
        "obligations": [],
    }
    grant = {"id": "exports", "groups": ["analysts"], "deployments": ["demo"], "databases": ["sales"]}
    tables["grants"] += [
        {**grant, "kinds": ["export"], "collections": ["*"]},
        {**grant, "id": "names", "kinds": ["read"], "collections": ["*"], "names": "reachable"},
    ]


async def test_a_group_of_tools_that_is_off_is_marked_with_its_server(tmp_path: Path, opa_binary: str) -> None:
    folder = changed(tmp_path, exporting)
    off = await reached(folder, opa_binary, "sales.orders", {"demo-ro": (), "demo-rw": [*ToolGroup]})
    row = by_grant(off)["exports", "demo-ro"]
    assert row["off"] == ["export: tool group export is off on server demo-ro"]
    assert "OFF: export: tool group export is off on server demo-ro" in told(off)
    on = await reached(folder, opa_binary, "sales.orders", {"demo-ro": [ToolGroup.EXPORT]})
    assert by_grant(on)["exports", "demo-ro"]["off"] == []
    unknown = await reached(folder, opa_binary, "sales.orders")
    assert by_grant(unknown)["exports", "demo-ro"]["off"] == [], "without settings nothing is known of it"


async def test_a_grant_of_the_platforms_data_has_a_line_and_its_condition(tmp_path: Path, opa_binary: str) -> None:
    folder = changed(tmp_path, exporting)
    text = (folder / "platform/data.json").read_text()
    pretty = msgspec.json.format(text.encode(), indent=1).decode()
    (folder / "platform/data.json").write_text(pretty)
    found = await reached(folder, opa_binary, "sales.orders")
    row = by_grant(found)["names", "demo-ro"]
    file, _, line = row["at"][0].rpartition(":")
    assert file == "platform/data.json"
    lines = pretty.splitlines()[int(line) - 1 :]
    assert (lines[0].strip(), '"id": "names"' in lines[1]) == ("{", True)
    assert row["names"] == "reachable"
    assert 'names "reachable"' in told(found)


def of_issuers(tables: Any) -> None:
    for route in tables["routes"]:
        route["issuers"] = [HOME, AWAY]
    for holding in tables["deployments"]["demo"]["databases"].values():
        for entry in holding["delegated"]:
            entry["issuers"] = [HOME]
    tables["agents"]["default"]["issuers"] = ["*"]
    tables["agents"]["registered"]["nightly-loader"]["issuers"] = [AWAY]
    tables["scope_issuers"] = {"mongodb:read": [HOME, AWAY], "mongodb:write": ["*"]}
    tables["deployments"]["demo"]["databases"]["hr"]["delegated"][0]["issuers"] = ["https://third.example"]


async def test_the_issuers_are_those_that_all_tables_list(tmp_path: Path, opa_binary: str) -> None:
    folder = changed(tmp_path, of_issuers)
    orders = by_grant(await reached(folder, opa_binary, "sales.orders", None, HOME, AWAY))
    row = orders["analysts-read-orders", "demo-ro"]
    assert row["issuers"] == [HOME], "the route lists two, what is delegated one"
    assert "nightly-loader" not in row["agents"], "it counts for the other issuer only"
    assert "*" in row["agents"]
    loaded = await reached(folder, opa_binary, "staging.orders", None, HOME, AWAY)
    assert loaded["reach"] == [], "its one agent counts for nobody here"
    people = await reached(folder, opa_binary, "hr.teams", None, HOME, AWAY)
    assert people["reach"] == []
    assert any(one.startswith("people/hr-admins-read by ") for one in people["closed"])
    assert "so it counts for nobody" in told(people)


async def test_what_lists_no_issuer_counts_for_nobody_where_several_are_trusted(opa_binary: str) -> None:
    several = await reached(POLICIES, opa_binary, "sales.orders", None, HOME, AWAY)
    assert several["reach"] == []
    assert several["closed"]
    one = await reached(POLICIES, opa_binary, "sales.orders", None, HOME)
    granted = by_grant(one)["analysts-read-orders", "demo-ro"]
    assert (one["closed"], granted["issuers"]) == ([], [])


def owning_mongodbs(tables: Any) -> None:
    databases = tables["deployments"]["demo"]["databases"]
    databases["admin"] = databases["hr"]
    view = {"sources": [{"database": "sales", "collection": "orders"}], "alone": True}
    tables["deployments"]["demo"]["views"] = {"hr": {"pay": view, "not-alone": {**view, "alone": False}}}


async def test_mongodbs_own_names_are_marked_and_views_that_are_enough_named(tmp_path: Path, opa_binary: str) -> None:
    folder = changed(tmp_path, owning_mongodbs)
    (folder / "teams/people/more.rego").write_text(
        'package mcp.teams.people\n\ngrant contains {"id": "all"} if {\n\tinput.access.kind == "read"\n'
        '\tinput.access.database == "admin"\n}\n'
        '\ngrant contains {"id": concat("-", ["made", input.access.collection])} if {\n\tinput.access.kind == "read"\n'
        '\tinput.access.database == "admin"\n}\n'
    )
    found = await reached(folder, opa_binary, "admin.users")
    rows = by_grant(found)
    assert rows["all", "demo-ro"]["refused"] == "system_namespace"
    made = rows["made-users", "demo-ro"]
    assert made["at"] == ["teams/people/more.rego:8"], "an id that is computed has the line of its rule"
    orders = await reached(folder, opa_binary, "sales.orders")
    assert orders["views"] == ["hr.pay"]
    assert "also read through the view hr.pay" in told(orders)
    assert (await reached(folder, opa_binary, "sales.returns"))["views"] == []


def one_route_more(tables: Any) -> None:
    tables["routes"].append({**tables["routes"][0], "id": "others", "groups": ["others"]})
    tables["routes"].append({**tables["routes"][0], "id": "elsewhere", "groups": ["others"], "server": "demo-rw"})


async def test_a_route_that_asks_for_more_is_told_only_where_it_leads_elsewhere(
    tmp_path: Path, opa_binary: str
) -> None:
    found = await reached(changed(tmp_path, one_route_more), opa_binary, "hr.teams")
    rows = [
        (row["grant"], row["route"], row["asks_more"]) for row in found["reach"] if row["grant"] == "hr-admins-read"
    ]
    assert ("hr-admins-read", "people-read-where-nothing-can-be-written", False) in rows
    assert ("hr-admins-read", "elsewhere", True) in rows
    assert "others" not in {route for _, route, _ in rows}
    assert "also in others" in told(found)
