"""Values that a team's modules or the platform's tables spell out and nothing has; the near misses are fine.

Each text is one line of one module, so that one look at the set judges them all.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.policyset.finding import Rule, Severity, Violation
from sidecar.policyset.folder import PolicySet
from sidecar.policyset.slips import Slips, is_slip
from sidecar.policyset.workshop import workshop

real = pytest.mark.real

Write = Callable[[str, str], Path]
HEAD = "package mcp.teams.red\n\nimport data.mcp.grants.red as mine\nimport data.mcp.lib\n\n"
HOURS = '{"days": {"Monday"}, "from": "08:00", "to": "18:00", "timezone": "Europe/Berlin"}'
DATA = {
    "mcp": {
        "grants": {
            "red": {
                "kinds": ["read", "raed"],
                "hours": {"days": ["Mondy"], "from": "8:00", "to": "18:00", "timezone": "Europe/Belrin"},
                "open": {"days": [], "from": "08:00", "to": "24:00", "timezone": "UTC"},
                "unread": {"days": ["Mondy"]},
                "databases": ["red", "rde"],
            }
        }
    }
}

REFUSED = {
    'lib.has_trait("unboundd")': 'input.command.traits never holds "unboundd": did you mean unbounded?',
    'not lib.has_trait("upserts")': 'input.command.traits never holds "upserts": did you mean upsert?',
    '"cross_databse" in input.command.traits': "did you mean cross_database?",
    'input.command.traits[_] == "unboundd"': "did you mean unbounded?",
    'some trait in input.command.traits; trait == "unboundd"': "did you mean unbounded?",
    'some trait in input.command.traits; trait in {"upsert", "unboundd"}': "did you mean unbounded?",
    'every trait in input.command.traits { trait != "unboundd" }': "did you mean unbounded?",
    'f_trait("unboundd")': "did you mean unbounded?",
    'input.access.kind == "raed"': 'input.access.kind is never "raed": did you mean read?',
    '"raed" == input.access.kind': "did you mean read?",
    'input.access.kind != "raed"': "did you mean read?",
    'input.access.kind in {"read", "isnert"}': "did you mean insert?",
    'kind := input.access.kind; kind in ["isnert"]': "did you mean insert?",
    'access := input.access; access.kind == "isnert"': "did you mean insert?",
    "input.access.kind in own_kinds": "did you mean delete?",
    'input.access.target.kind == "clutser"': "did you mean cluster?",
    'input.subject.type == "person"': "it is one of service, user",
    'input.actor.type == "agnet"': "did you mean agent?",
    'glob.match("raed", null, input.access.kind)': "did you mean read?",
    'lib.during({"days": {"Mondey"}, "from": "08:00", "to": "18:00", "timezone": "UTC"})': 'no day "Mondey": did you',
    'lib.during({"days": ["monday"], "from": "08:00", "to": "18:00", "timezone": "UTC"})': "did you mean Monday?",
    'lib.during({"days": "Monday", "from": "08:00", "to": "18:00", "timezone": "UTC"})': "days are a set or a list",
    'lib.during({"days": {"Monday"}, "form": "08:00", "to": "18:00", "timezone": "UTC"})': 'hours have no "form": did',
    'lib.during({"days": {"Monday"}, "from": "08:00", "to": "18:00"})': "hours without timezone contain no moment",
    'lib.during({"days": {"Monday"}, "from": "8:00", "to": "18:00", "timezone": "UTC"})': "from is HH:MM, from 00:00",
    'lib.during({"days": {"Monday"}, "from": "08:00", "to": "24:30", "timezone": "UTC"})': "to is HH:MM, from 00:00",
    'lib.during({"days": {"Monday"}, "from": 8, "to": "18:00", "timezone": "UTC"})': "from is a text",
    'lib.during({"days": {"Monday"}, "from": "22:00", "to": "06:00", "timezone": "UTC"})': "across midnight they are",
    'lib.during({"days": {"Monday"}, "from": "08:00", "to": "18:00", "timezone": "Europe/Berln"})': "Europe/Berlin?",
    'lib.during("always")': "hours are an object of days, from, to, timezone",
    "lib.during(own_hours)": "did you mean Tuesday?",
}
WARNED = {
    'lib.on("rde", ["*"])': 'no database of the team fits "rde": did you mean red?',
    'lib.on("re*", ["*"])': 'no database of the team fits "re*"',  # compared, and no glob
    'lib.on("blue", ["*"])': 'no database of the team fits "blue"',  # another team's
    'lib.on_any(["blu*", "red"], ["*"])': 'fits "blu*"',
    'lib.named({"ship_*"}, input.access.database)': 'fits "ship_*"',
    'input.access.database == "rde"': "did you mean red?",
    'input.access.database in {"red", "shop"}': 'no database of the team fits "shop"',
    'lib.via_agent("nightly-laoder")': "nobody has registered the agent nightly-laoder: did you mean nightly-loader?",
    'input.actor.id == "nigthly-loader"': "did you mean nightly-loader?",
    '"analyst" in input.subject.groups': "no route names the group analyst: did you mean analysts?",
    'input.subject.scopes[_] == "mongodb:raed"': 'there is no scope "mongodb:raed": did you mean mongodb:read?',
    'input.action.tool == "aggregat"': "did you mean aggregate?",
    '"$lookpu" in input.command.stages': "did you mean $lookup?",
    'lib.issued_by("https://idp.exmaple")': "did you mean https://idp.example?",
    'lib.during({"days": {"Monday"}, "from": "08:00", "to": "18:00", "timezone": "UTC", "zone": 1})': 'have no "zone"',
}
FINE = (
    'lib.has_trait("unbounded")',
    "lib.has_trait(input.command.stages[0])",
    'input.access.kind in {"read", lib.weekdays}',
    "some trait in input.command.traits; trait != lib.weekdays",
    'input.command.fields.returned == "all"',
    'input.command.fields.returned[_] == "any.field"',
    'input.subject.claims.kind == "raed"',
    'x := {"kind": "raed"}; x.kind == "raed"',
    'count([x | some x in input.command.traits]) > 0; count([x | x := "unboundd"]) > 0',
    'glob.match("re*", null, input.access.kind)',
    f"lib.during({HOURS})",
    'lib.during({"days": lib.weekdays, "from": "00:00", "to": "24:00", "timezone": "UTC"})',
    "lib.during(mine.open)",
    "lib.during(input.subject.claims.hours)",
    'lib.on("red", ["*"])',
    'lib.on("mail_2026", ["*"])',
    'lib.on_any(["re*", "mail_*", "ma*", "mail_20*", "*"], ["*"])',
    'lib.named({"[qr]ed"}, input.access.database)',
    'input.access.database == ""',
    'input.access.via_view.database == "blue"',
    'lib.via_agent("nightly-loader")',
    'lib.via_agent("another-agent")',
    'lib.via_agent("nightly-loader-2")',
    'lib.in_group("regional-analysts")',
    'lib.in_group("cleared")',
    '"mongodb:everything" in input.subject.scopes',
    'input.action.tool == "a-tool-of-ours"',
    '"$lookup" in input.command.stages',
    'lib.issued_by("https://other.example")',
    'input.context.environment == "prodction"',
    "f_trait(input.command.stages[0])",
)
DEFINED = """
f_trait(trait) if lib.has_trait(trait)

own_kinds := {"read", "delte"}

own_hours := {"days": {"Teusday"}, "from": "08:00", "to": "18:00", "timezone": "UTC"}
"""


@pytest.fixture
def held(policies: Path, team_file: Write) -> Path:
    """The set with a prefix of red's, groups with routes, and red's data."""
    team_file("data.json", json.dumps(DATA, indent=1))
    with tables(policies) as platform:
        mail = {"owner": "red", "delegated": [{"kinds": ["read"], "collections": ["*"]}], "obligations": []}
        platform["deployments"]["demo"]["prefixes"]["mail_"] = mail
        platform["routes"][0]["groups"] = ["reds", "blues", "analysts", "regional-analysts"]
        platform["routes"][1]["groups"] = platform["grants"][0]["groups"] = ["reds"]
    return policies


class tables:  # noqa: N801 - reads as a word
    """The platform's tables of a set, written back."""

    def __init__(self, policies: Path) -> None:
        self._file = policies / "platform/data.json"
        self._document = json.loads(self._file.read_text())  # noqa: TID251 - the repository's own file

    def __enter__(self) -> Any:
        return self._document["mcp"]["platform"]

    def __exit__(self, *_: object) -> None:
        self._file.write_text(json.dumps(self._document, indent=1))


async def examined(policies: Path, opa_binary: str) -> list[Violation]:
    async with workshop(opa_binary, ["https://idp.example", "https://sso.example"]) as checker:
        found = await checker.examine(PolicySet.read(policies))
    return [one for one in found if one.rule is not Rule.ISSUER]


def module(lines: list[str]) -> str:
    """One rule a line, from line 6."""
    return HEAD + "".join(f"p{number} if {{ {line} }}\n" for number, line in enumerate(lines)) + DEFINED


@real
async def test_each_value_that_cannot_be_is_told_at_its_line(held: Path, team_file: Write, opa_binary: str) -> None:
    wrong = [*REFUSED, *WARNED]
    team_file("more.rego", module(wrong))
    found = [one for one in await examined(held, opa_binary) if one.file == "teams/red/more.rego"]
    defined = DEFINED.count("\n", 0, DEFINED.index("own_kinds")) + 6 + len(wrong)
    by_line = {one.line: one for one in found if one.line < defined}
    apart = {"input.access.kind in own_kinds", "lib.during(own_hours)"}
    for number, text in enumerate(wrong):
        if text not in apart:
            one = by_line.pop(number + 6, None)
            assert one is not None, text
            assert (REFUSED | WARNED)[text] in one.message
            assert (one.severity is Severity.ERROR) is (text in REFUSED), text
    assert by_line == {}
    assert {one.line: one.message.partition(": ")[2] for one in found if one.line >= defined} == {
        defined: "did you mean delete?",
        defined + 2: "did you mean Tuesday?",
    }


@real
async def test_what_can_be_is_fine(held: Path, team_file: Write, opa_binary: str) -> None:
    team_file("more.rego", module(list(FINE)).replace("delte", "delete").replace("Teusday", "Tuesday"))
    assert await examined(held, opa_binary) == []


@real
async def test_values_in_the_teams_data_are_judged_by_what_a_module_does_with_them(
    held: Path, team_file: Write, opa_binary: str
) -> None:
    lines = ["input.access.kind in mine.kinds", "lib.during(mine.hours)", 'lib.on_any(mine.databases, ["*"])']
    team_file("more.rego", module(lines).replace("delte", "delete").replace("Teusday", "Tuesday"))
    found = await examined(held, opa_binary)
    assert {one.file for one in found} == {"teams/red/data.json"}
    text = (held / "teams/red/data.json").read_text().splitlines()
    assert [(text[one.line - 1].strip(), one.severity is Severity.ERROR) for one in found] == [
        ('"raed"', False),
        ('"Mondy"', True),
        ('"from": "8:00",', True),
        ('"timezone": "Europe/Belrin"', True),
        ('"rde"', False),
    ]


PLATFORM = {
    "a group of a route": (("routes", 0, "groups", 2), "analists", "no team's rule names the group analists"),
    "a group of a grant": (("grants", 0, "groups", 0), "regional-analyst", "no route names the group regional-analyst"),
    "a registered agent": (("agents", "registered", "nightly-laoder"), None, "no team's rule names the agent nightly-"),
    "an agent of a route": (("routes", 0, "agents", 0), "suport-console", "did you mean support-console?"),
    "a suspended agent": (
        ("suspended", "agents"),
        ["support-consle"],
        "nobody has registered the agent support-consle",
    ),
    "a database of a window": (("windows",), "shop", 'no deployment has a database "shop"'),
    "a glob of a window": (("windows",), "bleu*", 'no deployment has a database "bleu*"'),
    "a database of a grant": (("grants", 0, "databases"), ["", "reed"], "did you mean red?"),
    "a group of a limit": (("limits",), "blue", "no team's rule names the group blue: did you mean blues?"),
}


@real
async def test_names_in_the_platforms_tables_are_held_against_each_other_and_the_rules(
    held: Path, team_file: Write, opa_binary: str
) -> None:
    team_file(
        "more.rego", HEAD + 'p if lib.in_group("analysts")\n\nq if lib.via_agent("nightly-loader")\n\nr if mine.open\n'
    )
    assert await examined(held, opa_binary) == []
    hours = {"days": ["Monday"], "from": "08:00", "to": "18:00", "timezone": "Europe/Berlin"}
    limit = {"id": "l", "per": [], "agents": ["*"], "tools": ["*"], "teams": ["*"], "window_s": 60, "calls": 5}
    for place, value, _ in PLATFORM.values():
        with tables(held) as platform:
            table = platform
            for step in place[:-1]:
                table = table[step]
            match place[-1]:
                case "windows":
                    table["windows"].append(
                        {"id": f"w{len(table['windows'])}", "kinds": ["read"], "databases": [value], "hours": hours}
                    )
                case "limits":
                    table["limits"] = [{**limit, "groups": [value]}]
                case "nightly-laoder":
                    table["nightly-laoder"] = table.pop("nightly-loader")
                case last:
                    table[last] = value
    found = await examined(held, opa_binary)
    said = [one.message for one in found if one.file == "platform/data.json"]
    for _, _, message in PLATFORM.values():
        assert [one for one in said if message in one], (message, said)
    assert {one.severity for one in found} == {Severity.WARNING}
    assert min(one.line for one in found) > 1


# --- what is a slip ---------------------------------------------------------------------------------------------------

SLIPS = (
    ("analyst", "analysts"),
    ("analyts", "analysts"),
    ("anaylsts", "analysts"),
    ("analists", "analysts"),
    ("Analysts", "analysts"),
    ("support_leads", "support-leads"),
    ("supportleads", "support-leads"),
    ("suport-leeds", "support-leads"),
    ("nigthly-laoder", "nightly-loader"),
    ("red", "reds"),
    ("bleus", "blues"),
    ("https://idp.exmaple", "https://idp.example"),
)
OTHERS = (
    ("team-a", "team-b"),
    ("shop1-readers", "shop2-readers"),
    ("ward_1", "ward_11"),
    ("v1", "v2"),
    ("eu-readers", "us-readers"),
    ("east", "west"),
    ("reader", "leader"),
    ("support", "support-leads"),
    ("north", "south"),
    ("dev", "dep"),
    ("analysts", "analysts"),
    ("", "a"),
    ("loader", "loaders-eu"),
)


@pytest.mark.parametrize(("one", "other"), SLIPS)
def test_a_slip_is_one_both_ways(one: str, other: str) -> None:
    assert is_slip(one, other)
    assert is_slip(other, one)
    assert Slips([other, "zzz"]).meant(one) == other
    assert Slips([other, one]).meant(one) == ""


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_another_name_is_no_slip(one: str, other: str) -> None:
    assert not is_slip(one, other)
    assert not is_slip(other, one)


@given(st.lists(st.text("ab1-_", max_size=6), max_size=8), st.text("ab1-_", max_size=6))
def test_a_slip_is_of_another_name_that_is_known(known: list[str], name: str) -> None:
    meant = Slips(known).meant(name)
    assert not meant or (meant in known and meant != name and is_slip(name, meant))
    assert not (name in known and meant)


def test_many_names_are_not_compared_without_end() -> None:
    names = [f"a{number:05}" for number in range(60_000)]
    slips = Slips(names)
    assert [slips.meant(f"b{name}") for name in names[:50]] == [""] * 50
    assert [slips.meant(f"a{name}") for name in names[:50]] == [""] * 50
