"""What vetting lets through is what a managed OPA starts on and decides by."""

import contextlib
import json
from pathlib import Path

import aiohttp
import pytest

from sidecar.authoring.checking import check
from sidecar.errors import ConfigurationError
from sidecar.opa.managed import ManagedOpa
from sidecar.policyset.folder import PolicySet
from tests.patience import HANG_S
from tests.policyset.questions import ALLOWED_BLUE, allows


def add_team(policies: Path, name: str, text: str | None) -> None:
    folder = policies / "teams" / name
    folder.mkdir()
    roots = [f"mcp/teams/{name}", f"mcp/grants/{name}"]
    (folder / ".manifest").write_text(json.dumps({"roots": roots, "rego_version": 1}))
    if text is not None:
        (folder / "policy.rego").write_text(text)


def sockets(runtime: Path) -> list[Path]:
    found = [folder / "s" for folder in runtime.glob("opa-*")]
    assert found
    return found


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.json", "x.rego", "x.tar.gz.x"])
async def test_a_folder_whose_name_ends_like_a_file_empties_nobodys_data(
    policies: Path, opa_binary: str, runtime: Path, name: str
) -> None:
    add_team(policies, name, f'package mcp.teams["{name}"]\n\ngrant contains {{"id": "x"}} if false\n')
    with contextlib.suppress(ConfigurationError):  # refused is fine; what is served decides
        async with ManagedOpa(opa_binary, policies, directory=runtime, timeout_s=2.0, start_timeout_s=HANG_S) as opa:
            assert await allows(opa, ALLOWED_BLUE)


async def test_a_team_that_has_nothing_yet_stops_nobody(policies: Path, opa_binary: str, runtime: Path) -> None:
    add_team(policies, "green", None)
    async with ManagedOpa(opa_binary, policies, directory=runtime, timeout_s=2.0, start_timeout_s=HANG_S) as opa:
        assert await allows(opa, ALLOWED_BLUE)


async def test_opa_has_no_bundles_whose_manifests_it_would_read_for_every_question(
    policies: Path, opa_binary: str, runtime: Path
) -> None:
    async with ManagedOpa(opa_binary, policies, directory=runtime, timeout_s=2.0, start_timeout_s=HANG_S) as opa:
        assert await allows(opa, ALLOWED_BLUE)
        for socket in sockets(runtime):
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session,
                session.get("http://opa/v1/data/system/bundles") as response,
            ):
                assert (response.status, (await response.json()).get("result")) == (200, None)


async def test_a_set_without_data_of_the_platform_starts_allows_nothing_and_is_warned_of(
    policies: Path, opa_binary: str, runtime: Path
) -> None:
    report = await check(PolicySet.read(policies), opa_binary)
    assert report.findings == ()
    (policies / "platform" / "data.json").unlink()
    report = await check(PolicySet.read(policies), opa_binary)
    assert report.ok
    assert [str(one) for one in report.findings] == ["platform/data.json:1: there is none, so every call is refused"]
    async with ManagedOpa(opa_binary, policies, directory=runtime, timeout_s=2.0, start_timeout_s=HANG_S) as opa:
        assert not await allows(opa, ALLOWED_BLUE)
