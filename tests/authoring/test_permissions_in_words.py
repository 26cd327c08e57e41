"""``policy show`` speaks the language of those who write policies: nothing that OPA's compiler makes of them shows."""

import io
import re
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from sidecar.authoring.coverage import without_covered
from sidecar.authoring.engine import engine
from sidecar.authoring.hours import hours_in_words
from sidecar.authoring.obliged import refused
from sidecar.authoring.permissions import show
from sidecar.authoring.question import read_identity
from sidecar.authoring.switched_off import switched_off
from sidecar.authoring.terms import ASKED, EXCLUDED, TermWriter, resolved, unfolded, variables
from sidecar.authoring.wording import print_permissions
from sidecar.commands import ToolGroup
from sidecar.model import JsonObject, RequestContext
from sidecar.policyset import OBLIGATIONS
from tests.parts import ROOT

pytestmark = pytest.mark.real

POLICIES = ROOT / "policies"
CONTEXT = RequestContext(time_ns=0, client_ip="127.0.0.1", protocol="2025-11-25", environment="test")

TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
"""What an author wrote between quotes may say anything."""

INTERNAL = re.compile(r"data\.partial|__|\$_|\binput\b|internal\.")


def internal(shown: JsonObject) -> list[str]:
    """Every name of OPA's own in the table, wherever it is; rows are one line each."""
    out = io.StringIO()
    print_permissions(shown, Console(file=out, width=4000, force_terminal=False))
    return INTERNAL.findall(TEXT.sub('""', out.getvalue()))


async def permissions(
    folder: Path, opa: str, groups: list[str], agent: str = "claude-desktop", *, every_row: bool = True
) -> Any:
    claims: JsonObject = {
        "sub": "mia",
        "client_id": agent,
        "groups": [*groups],
        "region": "EU",
        "branch": "x",
    }
    identity, _ = read_identity({**claims, "scope": "mongodb:read mongodb:write"}, None)
    async with engine(opa, folder) as held:
        return await show(held, identity, CONTEXT, {"demo-ro": ()}, every_row=every_row)


def words_of_teams() -> list[str]:
    """Every text in the shipped teams' policies and data: all groups are among them."""
    texts = [path.read_text() for path in sorted((POLICIES / "teams").glob("*/*")) if path.suffix in {".rego", ".json"}]
    return sorted({word for text in texts for word in re.findall(r'"([a-z][a-z-]{2,60})"', text)})


async def test_the_shipped_teams_are_shown_without_a_name_of_opas_own(opa_binary: str) -> None:
    owners = set()
    for agent in ("claude-desktop", "nightly-loader"):
        shown = await permissions(POLICIES, opa_binary, words_of_teams(), agent)
        owners |= {row["owner"] for row in shown["permissions"]} | {one["owner"] for one in shown["unreached"]}
        assert internal(shown) == []
    assert owners == {team.name for team in (POLICIES / "teams").iterdir()} | {"platform"}


HOSTILE = """package mcp.teams.people

import data.mcp.lib

deny := set()

base if {
	lib.reads
	lib.on("hr", ["*"])
}

all_of(x, y) if {
	startswith(x, y)
	not endswith(x, "secret")
}

pick(x) := "yes" if startswith(x, "y")
else := "no"

default flag := false

flag if input.command.limit > 3

deeper if {
	not flag
	input.action.tool == "find"
}

none_of if {
	every stage in input.command.stages {
		stage != "$out"
	}
}
"""

CONDITIONS: dict[str, tuple[str, list[str]]] = {
    # what a team writes, and every condition that is shown of it
    "not": ('not input.access.collection == "x"', ['not access.collection == "x"']),
    "not of a function": (
        'not all_of(input.access.collection, "q")',
        ['not startswith(access.collection, "q")', 'endswith(access.collection, "secret")'],
    ),
    "not of every": ("not none_of", ['unless every stage in command.stages { stage != "$out" }']),
    "a trait": ('lib.has_trait("upsert")', ['the command has the trait "upsert"']),
    "not of a call of the library": (
        'not lib.has_trait("whole_collection")',
        ['unless the command has the trait "whole_collection"'],
    ),
    "hours": (
        'lib.during({"days": lib.weekdays, "from": "00:00", "to": "24:00", "timezone": "Europe/Berlin"})',
        ["Monday to Friday, 00:00 to 24:00 Europe/Berlin"],
    ),
    "not of hours": (
        'not lib.during({"days": {"Sunday", "Monday"}, "from": "08:00", "to": "09:30", "timezone": "UTC"})',
        ["unless Monday, Sunday, 08:00 to 09:30 UTC"],
    ),
    "a clock that is not of hours": (
        'clock := time.clock([input.context.time_ns, "UTC"]); "08:00" <= sprintf("%02d:%02d", [clock[0], clock[1]])',
        [
            'clock := time.clock([context.time_ns, "UTC"])',
            '"08:00" <= sprintf("%02d:%02d", [clock[0], clock[1]])',
        ],
    ),
    "every": ('every s in input.command.stages { s != "$out" }', ['every s in command.stages { s != "$out" }']),
    "some": ('some s in input.command.stages; s == "$match"', ['"$match" == command.stages[_]']),
    "a list of what fits": (
        'count([s | some s in input.command.stages; s != "$x"]) > 3',
        ['count([command.stages[_] | command.stages[_] != "$x"]) > 3'],
    ),
    "a set of what fits": (
        '{s | some s in input.command.traits} == {"x"}',
        ['{command.traits[_] | true} == {"x"}'],
    ),
    "an object of what fits": (
        "{k: v | some k, v in input.command.fields} != {}",
        ["{k: command.fields[k] | true} != {}"],
    ),
    "an index": ('input.command.stages[0] == "$match"', ['command.stages[0] == "$match"']),
    "any index": ('input.command.stages[_] == "$match"', ['command.stages[_] == "$match"']),
    "a name that is none": ('input.command["odd key"].x == 1', ['command["odd key"].x == 1']),
    "numbers": ("input.command.limit * 2 < 100 + 1", ["command.limit * 2 < 101"]),
    "a large number": ("input.context.time_ns > 1700000000000000000", ["after 2023-11-14 22:13:20 UTC"]),
    "a function's value": (
        'time.weekday(input.context.time_ns) == "Monday"',
        ["on Monday (UTC)"],
    ),
    "null": (
        'object.get(input.access, "via_view", null) == null',
        ['object.get(access, "via_view", null) == null'],
    ),
    "sets": (
        'count({"a"} & {t | some t in input.command.traits}) == 0',
        ['count({"a"} & {command.traits[_] | true}) == 0'],
    ),
    "a text with a value in it": (
        '$"x{input.access.collection}y" == "xay"',
        ['text(["x", {access.collection | true}, "y"]) == "xay"'],
    ),
    "a rule with a default": ("flag", ["flag"]),
    "not a rule with a default": ("not flag", ["not flag"]),
    "not a rule that asks not": ("not deeper", ["flag", 'not action.tool == "find"']),
    "a function with else": ('pick(input.access.collection) == "yes"', ['pick(access.collection, "yes")']),
    "walk": ('walk(input.command, [_, v]); v == "x"', ['walk(command) == [_, "x"]']),
    "the whole access": ("count(input.access) > 2", ["count(access) > 2"]),
    "what only has to be there": ("[1, input.command.limit][0] == 1", ["command.limit is there"]),
    "texts that look like names of OPA's": (
        'input.access.collection != "input.x data.partial.y __local3__"',
        ['access.collection != "input.x data.partial.y __local3__"'],
    ),
}

GRANTS: dict[str, tuple[str, dict[str, Any]]] = {
    # a grant of which not everything is known, and what is shown of its parts
    "a filter": ('{"id": "g", "filter": {"t": input.context.time_ns}}', {"filter": {"t": "<context.time_ns>"}}),
    "a filter for null": ('{"id": "g", "filter": {"gone": null}}', {"filter": {"gone": None}}),
    "a limit": ('{"id": "g", "max_documents": input.command.limit}', {"max_documents": "<command.limit>"}),
    "a mask": (
        '{"id": "g", "mask": {f | some f in input.command.fields.filtered}}',
        {"mask": "<{command.fields.filtered[_] | true}>"},
    ),
    "a name": ('{"id": sprintf("g-%s", [input.access.kind])}', {"grant": '<sprintf("g-%s", [access.kind])>'}),
    "all of it": (
        'object.union({"id": "g"}, {"max_documents": input.command.limit})',
        {"grant": "(computed)", "conditions": ['object.union({"id": "g"}, {"max_documents": command.limit}) == grant']},
    ),
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's platform, with one team that writes whatever it can."""
    folder = tmp_path_factory.mktemp("hostile") / "policies"
    shutil.copytree(
        POLICIES, folder, ignore=shutil.ignore_patterns("cases", "*_test.rego", "analytics", "support", "loading")
    )
    rules = [
        f'grant contains {{"id": "{name}"}} if {{\n\tbase\n\t{body}\n}}\n' for name, (body, _) in CONDITIONS.items()
    ]
    rules += [
        f"grant contains {grant} if {{\n\tbase\n\tlib.in_group({name!r})\n}}\n" for name, (grant, _) in GRANTS.items()
    ]
    text = "\n".join([HOSTILE, *rules]).replace("; ", "\n\t").replace("in_group('", 'in_group("').replace("')", '")')
    (folder / "teams" / "people" / "policy.rego").write_text(text)
    return folder


async def test_a_hostile_set_of_conditions_is_shown_in_words(hostile: Path, opa_binary: str) -> None:
    shown = await permissions(hostile, opa_binary, ["hr-admins", *GRANTS])
    assert internal(shown) == []
    found: dict[str, list[str]] = {name: [] for name in CONDITIONS}
    for row in shown["permissions"]:
        if row["grant"] in found:
            found[row["grant"]] += row["conditions"]
    assert {name: sorted(said) for name, said in found.items()} == {
        name: sorted(said) for name, (_, said) in CONDITIONS.items()
    }


@pytest.mark.parametrize("name", GRANTS)
async def test_the_parts_of_a_grant_that_are_not_known_yet_are_shown(hostile: Path, opa_binary: str, name: str) -> None:
    shown = await permissions(hostile, opa_binary, ["hr-admins", name])
    expected = GRANTS[name][1]
    rows = [row for row in shown["permissions"] if row["owner"] == "people" and row["grant"] not in CONDITIONS]
    assert [{key: row[key] for key in expected} for row in rows] == [expected]
    assert internal(shown) == []


# --- what could still refuse ------------------------------------------------------------------------------------------

PLAIN = """package mcp.teams.people

import data.mcp.lib

grant contains {"id": "reads"} if {
	lib.reads
	lib.on("hr", ["*"])
}

grant contains {"id": "reads-one"} if {
	lib.reads
	lib.on("hr", ["rooms"])
	lib.in_group("one")
}

"""

DENIES: dict[str, tuple[str, list[str]]] = {
    # a deny, and what stands beside the grant of everything in hr
    "of a collection": (
        'deny contains "frozen" if lib.named(["orders"], input.access.collection)',
        ["unless people denies it (frozen)"],
    ),
    "of the database": (
        'deny contains "closed" if input.access.database in {"hr", "x"}',
        ["unless people denies it (closed)"],
    ),
    "of a call": (
        'deny contains "piped" if count(input.command.stages) > 0',
        ["unless people denies it (piped)"],
    ),
    "of two": (
        'deny contains "b" if input.command.limit > 3\n\ndeny contains "a" if input.command.limit > 4',
        ["unless people denies it (a, b)"],
    ),
    "of this caller": (
        'deny contains "blocked" if input.actor.id == "claude-desktop"',
        ["never: people denies it (blocked)"],
    ),
    "of everything": (
        'deny contains "data-gone" if not data.mcp.grants.people.gone',
        ["never: people denies it (data-gone)"],
    ),
    "of a code that is computed": (
        "deny contains input.command.stages[0]",
        ["unless people denies it (<command.stages[0]>)"],
    ),
    "of another caller": ('deny contains "blocked" if input.actor.id == "other"', []),
    "of another database": ('deny contains "closed" if input.access.database == "sales"', []),
    "of another kind": ('deny contains "closed" if lib.inserts', []),
    "of nothing": ('deny contains "frozen" if lib.named([], input.access.collection)', []),
    "of none": ("", []),
}


def with_team(folder: Path, text: str, platform: dict[str, Any] | None = None) -> Path:
    """A policy folder in which the people team has this policy, and the platform this data."""
    policies = Path(
        shutil.copytree(POLICIES, folder / "policies", ignore=shutil.ignore_patterns("cases", "*_test.rego"))
    )
    (policies / "teams/people/policy.rego").write_text(text)
    path = policies / "platform/data.json"
    data = msgspec.json.decode(path.read_bytes())
    data["mcp"]["platform"] |= platform or {}
    path.write_bytes(msgspec.json.encode(data))
    return policies


def in_words(shown: JsonObject) -> str:
    out = io.StringIO()
    print_permissions(shown, Console(file=out, width=4000, force_terminal=False))
    return out.getvalue()


@pytest.mark.parametrize("name", DENIES)
async def test_a_deny_that_could_hold_for_the_caller_stands_beside_the_grant(
    tmp_path: Path, opa_binary: str, name: str
) -> None:
    deny, expected = DENIES[name]
    shown = await permissions(with_team(tmp_path, f"{PLAIN}{deny}\n"), opa_binary, ["hr-admins"])
    (row,) = [row for row in shown["permissions"] if row["owner"] == "people"]
    assert row["conditions"] == expected
    assert "place" not in row
    assert not [one for one in shown["permissions"] if one["owner"] != "people" and one["conditions"]]
    assert internal(shown) == []


async def test_a_deny_of_another_collection_does_not_stand_beside_a_grant_of_one(
    tmp_path: Path, opa_binary: str
) -> None:
    deny = 'deny contains "frozen" if lib.on("hr", ["salaries"])\n'
    shown = await permissions(with_team(tmp_path, PLAIN + deny), opa_binary, ["hr-admins", "one"])
    said = {row["grant"]: row["conditions"] for row in shown["permissions"] if row["owner"] == "people"}
    assert said == {"reads": ["unless people denies it (frozen)"], "reads-one": []}
    assert shown["denies"] == [
        {
            "owner": "people",
            "code": "frozen",
            "kinds": None,
            "databases": ["hr"],
            "collections": ["salaries"],
            "conditions": [],
        }
    ]
    assert "people denies frozen: databases hr; collections salaries" in in_words(shown)


HOURS = {"days": ["Monday", "Tuesday"], "from": "08:00", "to": "18:00", "timezone": "UTC"}


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ({"kinds": ["read"], "databases": ["hr"]}, ["only Monday, Tuesday, 08:00 to 18:00 UTC (window closed-hours)"]),
        ({"kinds": ["read"], "databases": ["*"]}, ["only Monday, Tuesday, 08:00 to 18:00 UTC (window closed-hours)"]),
        ({"kinds": ["read"], "databases": ["h*"], "hours": "none"}, ["never (window closed-hours)"]),
        ({"kinds": ["insert"], "databases": ["hr"]}, []),
        ({"kinds": ["read"], "databases": ["sales"]}, []),
    ],
)
async def test_a_window_on_a_rows_database_and_kinds_stands_beside_it(
    tmp_path: Path, opa_binary: str, window: dict[str, Any], expected: list[str]
) -> None:
    windows = [{"id": "closed-hours", "hours": HOURS, **window}]
    shown = await permissions(with_team(tmp_path, PLAIN, {"windows": windows}), opa_binary, ["hr-admins"])
    (row,) = [row for row in shown["permissions"] if row["owner"] == "people"]
    assert row["conditions"] == expected


@pytest.mark.parametrize(
    ("databases", "bound"),
    [(["tmp_*"], True), (["tmp_a"], True), (["*"], True), (["?m*"], True), (["other", "tmp"], False)],
)
async def test_a_window_that_could_meet_a_prefix_stands_beside_it(
    tmp_path: Path, opa_binary: str, databases: list[str], bound: bool
) -> None:
    delegated = [{"kinds": ["read"], "collections": ["*"]}]
    demo = {"prefixes": {"tmp_": {"owner": "people", "delegated": delegated, "obligations": []}}}
    nothing = {"databases": {}, "targets": {}, "whole": {"owner": "platform", "delegated": [], "obligations": []}}
    windows = [{"id": "w", "hours": HOURS, "kinds": ["read"], "databases": databases}]
    grant = 'package mcp.teams.people\n\ngrant contains {"id": "g"} if startswith(input.access.database, "tmp_")\n'
    platform = {"windows": windows, "deployments": {"demo": demo | nothing}}
    shown = await permissions(with_team(tmp_path, grant, platform), opa_binary, ["hr-admins"])
    (row,) = shown["permissions"]
    assert any("(window w)" in one for one in row["conditions"]) is bound


@pytest.mark.parametrize(
    ("days", "words"),
    [
        ([], "on no day"),
        (["nothing"], "on no day"),
        (["Sunday", "Monday"], "Monday, Sunday"),
        (["Saturday", "Sunday", "Friday", "Monday"], "Monday, Friday to Sunday"),
        (["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"], "every day"),
    ],
)
def test_days_are_said_in_the_order_of_the_week(days: list[str], words: str) -> None:
    assert hours_in_words(days, "08:00", "24:00", "UTC") == f"{words}, 08:00 to 24:00 UTC"


async def test_a_window_that_is_lifted_for_the_person_says_so(tmp_path: Path, opa_binary: str) -> None:
    identity, _ = read_identity({"sub": "mia", "client_id": "x", "groups": ["hr-admins"]}, None)
    glass = {"issuer": identity.principal.issuer, "subject": "mia", "windows": ["w"], "until": "1970-01-02T00:00:00Z"}
    windows = [{"id": "w", "hours": HOURS, "kinds": ["read"], "databases": ["hr"]}]
    platform = {"windows": windows, "break_glass": [{**glass, "reason": "x"}]}
    shown = await permissions(with_team(tmp_path, PLAIN, platform), opa_binary, ["hr-admins"])
    (row,) = [row for row in shown["permissions"] if row["owner"] == "people"]
    assert row["conditions"] == ["only Monday, Tuesday, 08:00 to 18:00 UTC (window w, lifted for this person now)"]


@pytest.mark.parametrize("who", ["person mia", "agent claude-desktop"])
async def test_who_is_suspended_is_told_so(tmp_path: Path, opa_binary: str, who: str) -> None:
    identity, _ = read_identity({"sub": "mia", "client_id": "x"}, None)
    person = {"issuer": identity.principal.issuer, "id": "mia"}
    agents = {"subjects": [], "agents": ["claude-*"]}
    suspended = {"subjects": [person], "agents": []} if who.startswith("person") else agents
    shown = await permissions(with_team(tmp_path, PLAIN, {"suspended": suspended}), opa_binary, ["hr-admins"])
    assert (shown["permissions"], shown["suspended"]) == ([], [who])
    words = in_words(shown)
    assert f"suspended by the platform: {who}; every call is refused" in words
    assert "people/reads matches, but gives nothing: the caller is suspended" in words
    assert "no route, delegation" not in words


async def test_who_is_not_suspended_is_not_told_so(tmp_path: Path, opa_binary: str) -> None:
    suspended = {"subjects": [{"issuer": "https://other.example", "id": "mia"}], "agents": ["other"]}
    shown = await permissions(with_team(tmp_path, PLAIN, {"suspended": suspended}), opa_binary, ["hr-admins"])
    assert shown["suspended"] == []
    assert shown["permissions"]


# --- what adds nothing, and what this build would refuse --------------------------------------------------------------


def a_row(**parts: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"owner": "t", "grant": "g", "deployment": "d", "database": "db", "collections": ["a"]}
    row |= {"kinds": ["read"], "servers": ["s"], "conditions": [], **dict.fromkeys(OBLIGATIONS)}
    return row | {"platform_obligations": [], **parts}


WIDE = a_row(grant="wide", collections=["*"])


@pytest.mark.parametrize(
    ("other", "row", "left"),
    [
        # in the place of "wide", another row, and what is left of the row's collections
        (WIDE, a_row(), []),
        (WIDE, a_row(filter={"x": 1}, conditions=["c"], max_documents=3), []),
        (WIDE, a_row(collections=["", "a"]), [""]),
        (a_row(grant="wide", collections=["inv_*"]), a_row(collections=["b", "inv_1"]), ["b"]),
        (WIDE | {"filter": {"x": 1}}, a_row(filter={"x": 1}), []),
        (WIDE | {"filter": {"x": 1}}, a_row(filter={"x": 2}), ["a"]),
        (WIDE | {"mask": ["x"]}, a_row(), ["a"]),
        (WIDE | {"max_documents": 5}, a_row(filter={"x": 1}), ["a"]),
        (WIDE | {"approval": "x"}, a_row(), ["a"]),
        (WIDE | {"conditions": ["c"]}, a_row(), ["a"]),
        (WIDE | {"owner": "other"}, a_row(), ["a"]),
        (WIDE | {"database": "other"}, a_row(), ["a"]),
        (WIDE | {"kinds": ["metadata"]}, a_row(), ["a"]),
        (WIDE | {"servers": ["other"]}, a_row(), ["a"]),
        (a_row(grant="wide", collections=["in*_*"]), a_row(collections=["inv_1"]), ["inv_1"]),
        (a_row(grant="wide", collections=["inv_1*"]), a_row(collections=["inv_*"]), ["inv_*"]),
    ],
)
def test_a_row_that_another_row_covers_is_dropped(other: Any, row: Any, left: list[str]) -> None:
    for rows in ([other, row], [row, other]):
        kept, covered = without_covered(rows)
        assert [one["collections"] for one in kept if one["grant"] == "g"] == ([left] if left else [])
        assert [one["collections"] for one in kept if one["grant"] == "wide"] == [other["collections"]]
        taken = [one for one in row["collections"] if one not in left]
        assert [(one["by"], one["collections"]) for one in covered] == ([(["wide"], taken)] if taken else [])


def test_of_two_rows_that_say_the_same_one_stays() -> None:
    """Also where each has something of its own: nothing is lost between the two."""
    kept, _ = without_covered([a_row(grant="one", collections=["a", "b"]), a_row(grant="two", collections=["a", "c"])])
    assert [row["collections"] for row in kept] == [["a", "b"], ["c"]]
    kept, covered = without_covered([a_row(grant="one"), a_row(grant="two")])
    assert [row["grant"] for row in kept] == ["one"]
    assert [(row["grant"], row["by"]) for row in covered] == [("two", ["one"])]


@pytest.mark.parametrize(
    ("parts", "label"),
    [
        ({}, None),
        ({"filter": "<command.x>"}, None),
        ({"filter": "<command.x>", "mask": ["x"]}, None),
        ({"filter": "<command.x>", "names": "reachable"}, "obligation_unsupported"),
        ({"max_affected": 3, "max_bytes": 5, "no_collection_scan": True}, None),
        ({"mask": ["x"]}, None),
        ({"max_documents": 3}, None),
        ({"approval": "x"}, "obligation_unsupported"),
        ({"approval": "confirm"}, None),
        ({"approval": "second_person"}, None),
        ({"platform_obligations": [{"id": "o", "kinds": ["read"], "max_time_ms": 5}]}, None),
        ({"platform_obligations": [{"id": "o", "kinds": ["read"], "approval": "x"}]}, "obligation_unsupported"),
        ({"platform_obligations": [{"id": "o", "kinds": ["read"], "mask": ["x"]}]}, None),
    ],
)
def test_a_row_that_this_build_would_refuse_is_marked(parts: dict[str, Any], label: str | None) -> None:
    assert refused(a_row(**parts)) == label


SEVERAL = """package mcp.teams.people

import data.mcp.lib

grant contains {"id": "books"} if {
	lib.counts
	lib.looks_only_at(["status"])
	lib.on_any(["hr", "books_*"], ["*"])
}

grant contains {"id": "others"} if {
	lib.reads
	not input.access.database in {"hr"}
	startswith(input.access.database, "s")
}

deny contains "old" if lib.on_any(["books_19*"], ["*"])
"""


async def test_the_database_is_put_into_the_conditions(tmp_path: Path, opa_binary: str) -> None:
    holding = {"owner": "people", "delegated": [{"kinds": ["read"], "collections": ["*"]}], "obligations": []}
    names = ("hr", "books_1999", "books_2025", "shop")
    whole = {"owner": "platform", "delegated": [], "obligations": []}
    demo = {"databases": dict.fromkeys(names, holding), "prefixes": {"books_2": holding}, "targets": {}, "whole": whole}
    folder = with_team(tmp_path, SEVERAL, {"deployments": {"demo": demo}})
    shown = await permissions(folder, opa_binary, ["hr-admins"], every_row=False)
    counts = [
        "nothing of a document comes back",
        'every path in command.fields.filtered { lib.inside(path, ["status"]) }',
    ]
    said = {(row["grant"], row["database"]): row["conditions"] for row in shown["permissions"]}
    assert {grant: [database for one, database in said if one == grant] for grant, _ in said} == {
        "books": ["books_1999", "books_2*", "books_2025", "hr"],
        "others": ["books_2*", "shop"],
    }
    assert said["books", "hr"] == counts
    assert said["books", "books_1999"] == [*counts, "unless people denies it (old)"]
    assert said["books", "books_2025"] == counts
    assert said["others", "shop"] == []


GOLDEN = """\
mia via agent; groups a
 where               may    granted by, and under what
 ──────────────────────────────────────────────────────
 db (the database)   read   t/g
 db.*
 db.a                read   t/g
                            - filter {"x": 1}
                            - REFUSED by this build: no
server: s
"""


def test_it_fits_80_columns() -> None:
    rows = [
        {**a_row(collections=["", "*"]), "refused": None, "off": []},
        {**a_row(filter={"x": 1}), "refused": "no", "off": []},
    ]
    subject: JsonObject = {"id": "mia", "groups": ["a"]}
    document: JsonObject = {"subject": subject, "actor": {"id": "agent"}, "permissions": [*rows], "covered": []}
    out = io.StringIO()
    print_permissions(
        document | {"denies": [], "unreached": [], "suspended": [], "limits": []}, Console(file=out, width=80)
    )
    assert [line.rstrip() for line in out.getvalue().splitlines() if line.strip()] == GOLDEN.splitlines()


# --- any tree at all --------------------------------------------------------------------------------------------------

names = st.sampled_from(["input", "data", "x", "__local1__2", "$_term_0", "glob", "owner", "grant"])
variable = names.map(lambda name: {"type": "var", "value": name})
plain = st.sampled_from(["mcp", "teams", "x", "a b", ""]).map(lambda text: {"type": "string", "value": text})
constant = st.one_of(
    plain,
    st.integers(-5, 5).map(lambda number: {"type": "number", "value": number}),
    st.booleans().map(lambda truth: {"type": "boolean", "value": truth}),
    st.just({"type": "null", "value": {}}),
)


PARTIAL = [{"type": "var", "value": "data"}, {"type": "string", "value": "partial"}]


def larger(term: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(term, max_size=3)
    body = st.lists(several.filter(bool).map(lambda terms: {"index": 0, "terms": terms}), max_size=2)
    return st.one_of(
        st.tuples(variable, several).map(lambda parts: {"type": "ref", "value": [parts[0], *parts[1]]}),
        st.lists(plain, min_size=1, max_size=5).map(lambda path: {"type": "ref", "value": [*PARTIAL, *path]}),
        st.tuples(st.sampled_from(["array", "set", "call"]), several).map(
            lambda parts: {"type": parts[0], "value": parts[1]}
        ),
        st.lists(st.tuples(term, term).map(list), max_size=2).map(lambda pairs: {"type": "object", "value": pairs}),
        st.tuples(term, body).map(
            lambda parts: {"type": "setcomprehension", "value": {"term": parts[0], "body": parts[1]}}
        ),
    )


terms = st.recursive(variable | constant, larger, max_leaves=8)
expressions = st.one_of(
    terms.map(lambda one: {"index": 0, "terms": one}),
    st.lists(terms, min_size=1, max_size=4).map(lambda several: {"index": 0, "terms": several}),
    st.lists(terms, min_size=1, max_size=3).map(lambda several: {"index": 0, "negated": True, "terms": several}),
    st.tuples(terms, terms).map(
        lambda both: {"terms": [{"type": "ref", "value": [{"type": "var", "value": "eq"}]}, *both]}
    ),
)


@given(st.lists(expressions, max_size=4))
def test_no_tree_makes_a_name_of_opas_own_appear(conditions: list[Any]) -> None:
    rest, known = unfolded(conditions)
    writing = TermWriter({"glob": 1})
    for one in [*rest, *({"terms": meaning} for meaning in resolved([*known.values()], known))]:
        said = writing.expression(one)
        assert not re.search(r"__|\$_|data\.partial", TEXT.sub('""', said)), said
    assert len(rest) + len(known) == len(conditions)
    assert all(isinstance(name, str) for name in variables(conditions))


@pytest.mark.parametrize(
    ("negated", "words"), [(True, EXCLUDED), (False, ASKED)], ids=["what is excluded", "what is asked"]
)
def test_a_rule_that_partial_evaluation_made_up_is_said_in_words(negated: bool, words: str) -> None:
    path = [{"type": "string", "value": name} for name in ("partial", "__not1_2_3__")]
    rule = {"type": "ref", "value": [{"type": "var", "value": "data"}, *path]}
    for asked in (rule, [rule, {"type": "var", "value": "__local1__"}]):
        assert TermWriter({}).expression({"index": 0, "negated": negated, "terms": asked}) == words


def test_the_capabilities_name_every_builtin_with_its_arguments() -> None:
    """What ``TermWriter`` is told; one argument more in an expression is then the result."""
    builtins = msgspec.json.decode((POLICIES / "capabilities.json").read_bytes())["builtins"]
    arities = {one["name"]: len(one["decl"].get("args", [])) for one in builtins}
    assert (arities["concat"], arities["glob.match"], arities["time.weekday"]) == (2, 3, 1)


@pytest.mark.parametrize(
    ("kinds", "on", "said"),
    [
        (["read", "export"], (), ["export: tool group export is off on server a"]),
        (["read", "export"], (ToolGroup.EXPORT,), []),
        (["connect"], (ToolGroup.ATLAS, ToolGroup.EXPORT), ["connect: tool group connect is off on server a"]),
        (["connect"], (ToolGroup.CONNECT,), []),
        (["read", "metadata", "insert", "external"], (), []),
    ],
)
def test_a_kind_that_only_tools_of_a_group_have_is_off_with_it(kinds, on, said) -> None:
    assert [*switched_off(kinds, ["a", "unknown"], {"a": on, "other": ()})] == said
    assert [*switched_off(kinds, ["a"], {})] == [], "without settings nothing is known"
    row = {**a_row(), "kinds": kinds, "refused": None, "off": said}
    subject: JsonObject = {"id": "u", "groups": []}
    document: JsonObject = {
        "subject": subject,
        "actor": {"id": "a"},
        "permissions": [row],
        "denies": [],
        "suspended": [],
        "limits": [],
    }
    out = io.StringIO()
    print_permissions({**document, "unreached": [], "covered": []}, Console(file=out, width=200))
    assert [line for line in said if f"OFF: {line}" not in out.getvalue()] == []
    assert ("OFF" in out.getvalue()) is bool(said)


async def test_the_rows_of_a_real_set_say_what_is_off_and_nothing_else(opa_binary: str) -> None:
    shown = await permissions(POLICIES, opa_binary, ["analysts"])
    assert shown["permissions"]
    assert {tuple(row["off"]) for row in shown["permissions"]} == {()}
