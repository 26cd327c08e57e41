"""What the platform's data says of no issuer, or of one that is not trusted, is warned of at its place."""

import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.authoring.checking import check
from sidecar.policyset.finding import Rule, Severity
from sidecar.policyset.folder import PolicySet
from tests.policyset.test_globs_of_the_platform import data_with, write

pytestmark = pytest.mark.real

HOME = "https://idp.example"
OTHER = "https://partner.example"
ENTRIES = {
    "/routes/0",
    "/grants/0",
    "/approvers/0",
    "/agents/default",
    "/agents/registered/a~0b",
    "/traits/upsert",
    "/deployments/one/whole/delegated/0",
    "/deployments/one/databases/d.x/delegated/0",
    "/deployments/one/prefixes/p~1/delegated/0",
    "/deployments/one/targets/cluster/delegated/0",
    "/scopes/read",
}


def data() -> dict[str, Any]:
    return data_with("*") | {"traits": {"upsert": {"groups": ["*"]}}, "scopes": {"read": ["read"]}}


def said(names: list[str]) -> dict[str, Any]:
    """The same with issuers in every entry."""
    platform = data()
    entries = [
        platform["routes"][0],
        platform["grants"][0],
        platform["approvers"][0],
        platform["agents"]["default"],
        platform["traits"]["upsert"],
    ]
    entries.append(platform["agents"]["registered"]["a~b"])
    held = platform["deployments"]["one"]
    holdings = [held["whole"], held["databases"]["d.x"], held["prefixes"]["p/"], held["targets"]["cluster"]]
    for entry in (*entries, *(holding["delegated"][0] for holding in holdings)):
        entry["issuers"] = names
    platform["scope_issuers"] = {"read": names}
    return platform


async def found(policies: Path, opa_binary: str, platform: Any, *issuers: str) -> dict[str, tuple[int, str]]:
    """The findings, by place: line and message."""
    write(policies, platform)
    report = await check(PolicySet.read(policies), opa_binary, issuers)
    assert report.ok
    assert {(one.file, one.rule, one.severity) for one in report.findings} <= {
        ("platform/data.json", Rule.ISSUER, Severity.WARNING)
    }
    told = {}
    for one in report.findings:
        place, message = one.message.split(": ", 1)
        told[place.removeprefix("/mcp/platform")] = (one.line, message)
    return told


async def test_with_several_issuers_each_silent_entry_is_told_at_its_line(policies: Path, opa_binary: str) -> None:
    told = await found(policies, opa_binary, data(), HOME, OTHER)
    assert told.keys() == ENTRIES
    assert {message.split(",")[0] for _, message in told.values()} == {"counts for no caller"}
    lines = (policies / "platform" / "data.json").read_text().splitlines()
    assert lines[told["/routes/0"][0]].strip() == '"id": "r",'
    assert '"read": [' in lines[told["/scopes/read"][0] - 1]


@pytest.mark.parametrize("issuers", [(), (HOME,)], ids=["not known", "one"])
async def test_with_one_issuer_nothing_has_to_be_said(
    policies: Path, opa_binary: str, issuers: tuple[str, ...]
) -> None:
    assert await found(policies, opa_binary, data(), *issuers) == {}


@pytest.mark.parametrize("names", [[HOME], ["*"], [OTHER, HOME], []], ids=repr)
async def test_what_is_said_is_no_finding(policies: Path, opa_binary: str, names: list[str]) -> None:
    assert await found(policies, opa_binary, said(names), HOME, OTHER) == {}


@pytest.mark.parametrize("issuers", [(HOME,), (HOME, OTHER)], ids=["one", "several"])
@pytest.mark.parametrize("name", [f"{HOME}/", "https://IDP.example", "https://\u0456dp.example", "https://*"], ids=repr)
async def test_an_issuer_that_is_not_configured_is_told_wherever_it_is_named(
    policies: Path, opa_binary: str, name: str, issuers: tuple[str, ...]
) -> None:
    platform = said([HOME, name])
    platform["suspended"]["subjects"] = [{"issuer": name, "id": "x"}, {"issuer": HOME, "id": "x"}]
    glass = {"subject": "s", "until": "2030-01-01T00:00:00Z", "windows": ["w"]}
    platform["break_glass"] = [{"issuer": HOME, **glass}, {"issuer": name, **glass}]
    told = await found(policies, opa_binary, platform, *issuers)
    places = {place.replace("/scopes", "/scope_issuers") for place in ENTRIES}
    expected = {f"{place}/1" if "scope_issuers" in place else f"{place}/issuers/1" for place in places}
    assert set(told) == expected | {"/suspended/subjects/0/issuer", "/break_glass/1/issuer"}
    assert {message for _, message in told.values()} == {f"{json.dumps(name)} is not a configured issuer"}


async def test_very_many_are_told_in_part(policies: Path, opa_binary: str) -> None:
    platform = data()
    platform["routes"] = platform["routes"] * 300
    assert len(await found(policies, opa_binary, platform, HOME, OTHER)) == 100
