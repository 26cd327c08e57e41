"""A pattern in the platform's data that OPA cannot read is refused with the set, at its place; the near miss serves."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.authoring.checking import check
from sidecar.errors import ConfigurationError
from sidecar.policyset import platform_data
from sidecar.policyset.finding import Rule, Severity, Violation
from sidecar.policyset.folder import PolicySet
from sidecar.policyset.workshop import workshop
from tests import parts
from tests.policyset.opa_eval import opa_eval

pytestmark = pytest.mark.real

KINDS = ["read"]
UNREADABLE = ("[", "{a", "a\\", "[]", "[a-]", "[!]", "{a,[b}")
HARMLESS = ("a-b", "*", "?", "\\[", "\\{a", "]", "}", "{}", "{a,b}", "[a-b]", "[!a]", "a.b", "", "größe", "^(a|b)+$")


def data_with(*texts: Any) -> dict[str, Any]:
    """The platform's data with these texts in every list of globs that there is."""
    listed = [*texts]
    obligation = {"id": "o", "kinds": KINDS, "collections": listed, "max_documents": 1}
    holding = {
        "owner": "red",
        "delegated": [{"kinds": KINDS, "collections": listed}],
        "obligations": [obligation],
    }
    named = [text for text in listed if text != ""]  # the schema refuses the empty name of an agent or a server
    ceiling = {"kinds": KINDS, "servers": named, "deployments": named}
    window = {"id": "w", "kinds": ["drop"], "databases": listed, "hours": {"timezone": "UTC"}}
    window["hours"] = {"days": ["Monday"], "from": "00:00", "to": "24:00", "timezone": "UTC"}
    route = {"id": "r", "groups": ["*"], "agents": listed, "scopes": ["*"], "kinds": KINDS, "server": "s"}
    grant = {"id": "g", "groups": ["*"], "kinds": KINDS}
    grant |= dict.fromkeys(("deployments", "databases", "collections", "targets"), listed)
    limit: dict[str, Any] = {"id": "l", "per": [], "groups": ["*"], "agents": named, "tools": ["*"], "teams": ["*"]}
    limit |= {"window_s": 60, "calls": 1}
    approver = {"id": "p", "teams": ["*"], "kinds": KINDS, "groups": ["*"], "agents": named, "scopes": ["*"]}
    holdings = {
        "whole": holding,
        "databases": {"d.x": holding},
        "prefixes": {"p/": holding},
        "targets": {"cluster": holding},
    }
    return {
        "servers": {"s": {"deployment": "one"}},
        "routes": [route],
        "deployments": {"one": holdings},
        "grants": [grant],
        "agents": {"default": ceiling, "registered": {"a~b": ceiling}},
        "scopes": {},
        "traits": {},
        "amplifiers": {},
        "refused_kinds": [],
        "limits": [limit] if named else [],
        "approvers": [approver] if named else [],
        "windows": [window],
        "break_glass": [],
        "suspended": {"subjects": [], "agents": named},
    }


def write(policies: Path, platform: Any) -> None:
    text = json.dumps({"mcp": {"platform": platform}}, indent=1, ensure_ascii=False)
    (policies / "platform" / "data.json").write_text(text)


async def findings(policies: Path, opa_binary: str) -> list[Violation]:
    found = (await check(PolicySet.read(policies), opa_binary)).findings
    return [one for one in found if one.severity is Severity.ERROR]


def expected(place: tuple[str, ...], steps: dict[str, str]) -> str:
    """The pointer to the first member of a list of globs in ``data_with``."""
    below = {"databases": "d.x", "prefixes": "p~1", "targets": "cluster", "deployments": "one", "registered": "a~0b"}
    names = [below.get(place[at - 1], "0") if step == "*" else step for at, step in enumerate(place)]
    return "/".join(("", "mcp", "platform", *names, steps["last"]))


async def test_one_that_opa_cannot_read_is_told_in_every_list_at_its_line(policies: Path, opa_binary: str) -> None:
    write(policies, data_with("*", "[a"))
    found = await findings(policies, opa_binary)
    assert {one.message for one in found} == {
        f'{expected(place, {"last": "1"})}: OPA cannot read "[a" as a glob' for place in platform_data.GLOB_LISTS
    }
    assert {(one.file, one.rule) for one in found} == {("platform/data.json", Rule.DATA)}
    lines = (policies / "platform" / "data.json").read_text().splitlines()
    numbers = [number for number, line in enumerate(lines, 1) if line.strip() == '"[a"']
    assert sorted(one.line for one in found) == numbers
    assert len(numbers) == len(platform_data.GLOB_LISTS)


async def test_whatever_opa_can_read_is_left_alone_in_every_list_and_serves(policies: Path, opa_binary: str) -> None:
    write(policies, data_with(*HARMLESS))
    assert await findings(policies, opa_binary) == []
    async with workshop(opa_binary) as vetting:
        await vetting.vet(PolicySet.read(policies))


@pytest.mark.parametrize("text", [*UNREADABLE, 3, None, ["*"], {"a": "b"}], ids=repr)
async def test_a_set_with_one_is_not_served(policies: Path, opa_binary: str, text: Any) -> None:
    platform = data_with("*")
    platform["suspended"]["agents"] = ["somebody", text]
    write(policies, platform)
    async with workshop(opa_binary) as vetting:
        with pytest.raises(ConfigurationError) as caught:
            await vetting.vet(PolicySet.read(policies))
    said = f"/mcp/platform/suspended/agents/1: OPA cannot read {json.dumps(text)} as a glob"
    assert said in caught.value.detail
    assert "platform/data.json:" in caught.value.detail


async def test_data_in_several_files_is_one_to_opa_and_told_where_it_stands(policies: Path, opa_binary: str) -> None:
    platform = data_with("*")
    windows = platform.pop("windows")
    windows[0]["databases"] = ["a", "{b"]
    platform["routes"][0]["agents"] = ["[\u202e\x1b[2J" + "x" * 1000]
    write(policies, platform)
    beside = policies / "platform" / "mcp" / "platform"
    beside.mkdir(parents=True)
    (beside / "data.json").write_text(json.dumps({"windows": windows}, indent=1))
    found = await findings(policies, opa_binary)
    assert len(found[0].message) < 200
    assert (found[1].file, found[1].line) == ("platform/mcp/platform/data.json", 10)


async def test_a_pattern_in_a_teams_data_is_the_teams(policies: Path, opa_binary: str) -> None:
    data = {"mcp": {"grants": {"red": {"agents": ["["], "suspended": {"agents": ["{a"]}}}}}
    (policies / "teams" / "red" / "data.json").write_text(json.dumps(data))
    assert await findings(policies, opa_binary) == []


async def test_data_of_another_form_is_no_reason_to_look_away(policies: Path, opa_binary: str) -> None:
    platform = data_with("*")
    platform |= {"routes": {"first": {"agents": {"x": "["}}}, "windows": "[", "grants": None, "suspended": 1}
    write(policies, platform)
    async with workshop(opa_binary) as vetting:
        with pytest.raises(ConfigurationError, match="/mcp/platform/routes/first/agents/x: OPA cannot read"):
            await vetting.vet(PolicySet.read(policies))


def test_the_lists_are_those_that_the_schema_calls_globs() -> None:
    schema = json.loads((parts.ROOT / "policies/schema/platform.json").read_text())  # noqa: TID251 - our own file

    def lists(node: dict[str, Any], place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if reference := node.get("$ref"):
            node = schema["$defs"][reference.rpartition("/")[2]]
        if node.get("type") == "array" and node.get("description", "").startswith("Globs"):
            yield place
        for name, below in node.get("properties", {}).items():
            yield from lists(below, (*place, name))
        for below in (node.get("items"), node.get("additionalProperties")):
            if isinstance(below, dict):
                yield from lists(below, (*place, "*"))

    described = json.dumps(schema).lower()
    assert sorted(platform_data.GLOB_LISTS) == sorted(lists(schema, ())), "and each of them once"
    assert described.count('"description": "globs') == described.count("glob")


def test_whether_opa_can_read_one_does_not_depend_on_the_name(opa_binary: str) -> None:
    """The measurement on which trying the empty name stands."""
    texts = ["".join(each) for length in (1, 2, 3, 4) for each in itertools.product("a*?[]{}!-,\\", repeat=length)]
    names = ["", "a", "a.b", "[", "{a", "a-b", "\\", "aaaa"]
    query = "{text: read | some text in input.texts; read := {name | some name in input.names; _ = %s}}"
    matches = query % "glob.match(text, null, name)"
    answers = opa_eval(opa_binary, matches, {"texts": texts, "names": names})
    counts = {len(answers[text]) for text in texts}
    assert counts == {0, len(names)}
    assert [text for text in UNREADABLE[:6] if answers.get(text)] == []


@pytest.mark.parametrize(
    ("status", "output"),
    [(2, b'{"errors": []}'), (0, b""), (-9, b"[]"), (0, b"fatal error: out of memory"), (0, b"[]"), (0, b"{}")],
    ids=repr,
)
def test_no_answer_is_no_acquittal(status: int, output: bytes) -> None:
    with pytest.raises(ConfigurationError, match="cannot be looked at"):
        platform_data.findings(status, output, PolicySet(bundles=(), files=()), ())


@pytest.mark.parametrize("answer", [None, {}, [["x"]], [[["a"], 1, 2]], [[[None], "["]], "["], ids=repr)
def test_an_answer_of_another_form_is_no_acquittal(answer: Any) -> None:
    with pytest.raises(ConfigurationError, match="were not tried"):
        platform_data.unreadable_globs(answer, PolicySet(bundles=(), files=()))


@pytest.mark.parametrize(
    ("timezone", "until", "expected"),
    [
        ("Europe/Berlin", "2027-01-01T00:00:00Z", []),
        (
            "Europe/Berlim",
            "2027-01-01T00:00:00+01:00",
            ['/windows/0/hours/timezone: OPA\'s clock cannot read "Europe/Berlim": did you mean Europe/Berlin?'],
        ),
        ("UTC", "2027-01-01", ['/break_glass/0/until: OPA\'s clock cannot read "2027-01-01"']),
        (
            3,
            None,
            [
                "/windows/0/hours/timezone: OPA's clock cannot read 3",
                "/break_glass/0/until: OPA's clock cannot read null",
            ],
        ),
    ],
    ids=["as they should be", "a zone that is not there", "a day", "no text"],
)
async def test_zones_and_moments_are_tried_too(
    policies: Path, opa_binary: str, timezone: Any, until: Any, expected: list[str]
) -> None:
    platform = data_with("*")
    hours = {"days": ["Monday"], "from": "08:00", "to": "18:00", "timezone": timezone}
    platform["windows"] = [{"id": "w", "kinds": ["read"], "databases": ["*"], "hours": hours}]
    platform["break_glass"] = [{"issuer": "https://i", "subject": "s", "until": until, "windows": ["w"]}]
    write(policies, platform)
    found = [one.message for one in await findings(policies, opa_binary) if "clock" in one.message]
    assert sorted(found) == sorted(f"/mcp/platform{one}" for one in expected)
