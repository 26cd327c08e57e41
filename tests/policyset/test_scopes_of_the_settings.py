"""A scope that the settings ask clients for, and that no table of the platform has, is warned of."""

from pathlib import Path
from typing import Any

import pytest

from sidecar.authoring.checking import check
from sidecar.policyset.finding import Rule, Severity
from sidecar.policyset.folder import PolicySet
from tests.policyset.test_globs_of_the_platform import data_with, write

pytestmark = pytest.mark.real


def data(*routed: str) -> dict[str, Any]:
    platform = data_with("*") | {"scopes": {"api.read": ["read"], "api.write": ["insert"]}}
    platform["routes"][0]["scopes"] = [*routed]
    return platform


async def told(policies: Path, opa_binary: str, platform: dict[str, Any], *scopes: str) -> list[str]:
    write(policies, platform)
    report = await check(PolicySet.read(policies), opa_binary, scopes=scopes)
    assert report.ok
    found = [one for one in report.findings if "setting" in one.message]
    lines = (policies / "platform/data.json").read_text().splitlines()
    for one in found:
        assert (one.file, one.rule, one.severity) == ("platform/data.json", Rule.NAME, Severity.WARNING)
        assert any('"scopes": {' in line for line in lines[one.line - 2 : one.line])
    return [one.message.removeprefix("/mcp/platform/scopes: the setting scopes asks for ") for one in found]


@pytest.mark.parametrize("scopes", [[], ["api.read"], ["api.read", "api.write", "bulk"]])
async def test_a_scope_of_either_table_is_known(policies: Path, opa_binary: str, scopes: list[str]) -> None:
    assert await told(policies, opa_binary, data("bulk"), *scopes) == []


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        ("mongodb:read", '"mongodb:read", which opens nothing here'),
        ("api.rea", '"api.rea", which opens nothing here: did you mean api.read?'),
        ("API.READ", '"API.READ", which opens nothing here'),
        ("*", '"*", which opens nothing here'),
        ("bulk", '"bulk", which opens nothing here'),
        ("read", '"read", which opens nothing here: did you mean api.read?'),
    ],
)
async def test_any_other_is_told(policies: Path, opa_binary: str, scope: str, said: str) -> None:
    assert await told(policies, opa_binary, data("*"), "api.read", scope) == [said]
