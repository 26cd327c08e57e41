"""What ``mcp-sidecar setup`` brings, from where, and what it refuses to install."""

import asyncio
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web

from sidecar.errors import ConfigurationError
from sidecar.provision import InstallPlace, OutsideProgram, bring, programs_folder
from sidecar.provision.installing import (
    GO_FLOOR,
    GO_TOOLCHAIN,
    NODE_FLOOR,
    OPA_GO_SUM,
    OPA_VERSION,
    Installer,
    accepted,
    at_least,
    fetch_release,
    patched_go,
)
from sidecar.provision.parts import key_of, server_version
from tests import parts
from tests.parts import ROOT

NPM = """#!/bin/sh
echo "$PWD" >>"{calls}"
{fault}
mkdir -p node_modules/.bin
printf '#!/bin/sh\\necho {version}\\n' >node_modules/.bin/mongodb-mcp-server
chmod +x node_modules/.bin/mongodb-mcp-server
"""
"""Stands for npm, which needs a registry; the real one brings everything in the nightly test of the wheel."""


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(script)
    path.chmod(0o755)
    return path


def said(text: str) -> str:
    return f"#!/bin/sh\nprintf '%s\\n' '{text}'\n"


class Machine:
    """A search path of a test's own."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.data = folder / "data"
        self.told: list[str] = []
        self._calls = folder / "calls"
        program(self.bin, "node", said("v22.0.0"))
        self.npm()

    def npm(self, fault: str = "", version: str = server_version()) -> None:
        program(self.bin, "npm", NPM.format(calls=self._calls, fault=fault, version=version))

    def place(self, *, path: str = "", may_install: bool = True) -> InstallPlace:
        return InstallPlace(
            data=self.data,
            path=path or f"{self.bin}:/usr/bin:/bin",
            environment={"HOME": str(self.bin)},
            tell=self.told.append,
            may_install=may_install,
        )

    @property
    def calls(self) -> int:
        return len(self._calls.read_text().splitlines()) if self._calls.exists() else 0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


async def test_programs_on_the_path_that_will_do_are_used_and_nothing_is_made(machine):
    path = f"{parts.BIN}:{os.environ['PATH']}"  # noqa: TID251 - the tests' own environment
    found = await bring(tuple(OutsideProgram), machine.place(path=path))
    assert [(one.part, one.how, one.note) for one in found] == [(part, "on PATH", "") for part in OutsideProgram]
    assert not machine.data.exists()
    assert machine.told == []


async def test_what_is_missing_is_brought_once(machine):
    (first,) = await bring((OutsideProgram.SERVER,), machine.place())
    (second,) = await bring((OutsideProgram.SERVER,), machine.place())
    assert (first.how, second.how) == ("brought now", "brought earlier")
    assert first.path == second.path == machine.data / "bin" / "mongodb-mcp-server"
    assert machine.calls == 1
    assert len(machine.told) == 1
    assert f"echo {server_version()}" in first.path.read_text()
    assert programs_folder(machine.data) == machine.data / "bin"


async def test_two_setups_at_once_install_once(machine):
    machine.npm(fault="sleep 0.3")
    both = await asyncio.gather(*(bring((OutsideProgram.SERVER,), machine.place()) for _ in range(2)))
    assert sorted(one.how for (one,) in both) == ["brought earlier", "brought now"]
    assert machine.calls == 1


async def test_an_installer_that_fails_is_said_with_its_last_words_and_its_leavings_do_not_count(machine):
    machine.npm(fault="echo out of space; exit 3")
    with pytest.raises(ConfigurationError, match="status 3: out of space"):
        await bring((OutsideProgram.SERVER,), machine.place())
    machine.npm()
    (found,) = await bring((OutsideProgram.SERVER,), machine.place())
    assert found.how == "brought now"


async def test_a_part_whose_program_is_gone_is_made_again(machine):
    (first,) = await bring((OutsideProgram.SERVER,), machine.place())
    first.path.resolve().unlink()
    (second,) = await bring((OutsideProgram.SERVER,), machine.place())
    assert second.how == "brought now"


async def test_another_version_on_the_path_is_named_because_it_comes_first(machine):
    other = program(machine.bin, "mongodb-mcp-server", said("3.0.3"))
    (found,) = await bring((OutsideProgram.SERVER,), machine.place())
    assert found.how == "brought now"
    assert str(other) in found.note


async def test_what_is_brought_is_not_taken_for_a_program_on_the_path(machine):
    await bring((OutsideProgram.SERVER,), machine.place())
    path = f"{machine.data / 'bin'}:{machine.bin}:/usr/bin:/bin"
    (found,) = await bring((OutsideProgram.SERVER,), machine.place(path=path))
    assert (found.how, found.note) == ("brought earlier", "")


async def test_of_earlier_versions_one_stays(machine):
    folder = machine.data / "parts"
    folder.mkdir(parents=True, mode=0o700)
    machine.data.chmod(0o700)
    for age in range(4):
        old = folder / f"mongodb-mcp-server-{age:012}"
        old.mkdir()
        os.utime(old, (age, age))
    await bring((OutsideProgram.SERVER,), machine.place())
    now = f"mongodb-mcp-server-{key_of(OutsideProgram.SERVER)}"
    assert {path.name for path in folder.iterdir()} == {now, "mongodb-mcp-server-000000000003"}


async def test_without_leave_to_install_what_is_missing_is_an_error(machine):
    with pytest.raises(ConfigurationError, match=r"mongodb-mcp-server is not on PATH: run `mcp-sidecar setup"):
        await bring((OutsideProgram.SERVER,), machine.place(may_install=False))
    assert not machine.data.exists()


@pytest.mark.parametrize(("version", "enough"), [("v20.18.3", False), ("v20.19.0", True), ("nonsense", False)])
async def test_a_node_that_is_too_old_is_said_before_anything_is_made(machine, version, enough):
    program(machine.bin, "node", said(version))
    if enough:
        await bring((OutsideProgram.SERVER,), machine.place())
        return
    with pytest.raises(ConfigurationError, match=rf"Node >= 20\.19 with npm, found: {version}"):
        await bring((OutsideProgram.SERVER,), machine.place())
    assert not machine.data.exists()


@pytest.mark.parametrize(("mode", "own"), [(0o700, True), (0o755, True), (0o770, False), (0o707, False)])
async def test_a_folder_that_others_can_write_to_is_neither_used_nor_filled(machine, mode, own):
    (machine.data / "bin").mkdir(parents=True)
    machine.data.chmod(mode)
    assert (programs_folder(machine.data) is not None) is own
    if own:
        await bring((OutsideProgram.SERVER,), machine.place())
    else:
        with pytest.raises(ConfigurationError, match="chmod 700"):
            await bring((OutsideProgram.SERVER,), machine.place())
        assert machine.calls == 0


def test_installers_are_given_no_settings_of_the_sidecar(tmp_path):
    code = "from sidecar import os_environment; print(sorted(os_environment.installer_environment()))"
    environment = {
        "PATH": os.defpath,
        "SIDECAR_SERVERS": "secret",
        "MDB_MCP_CONNECTION_STRING": "secret",
        "OTEL_EXPORTER_OTLP_HEADERS": "secret",
        "NPM_CONFIG_CACHE": "kept",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "NPM_CONFIG_CACHE" in done.stdout
    assert not re.search("SIDECAR_|MDB_|OTEL_", done.stdout)


# --- OPA --------------------------------------------------------------------------------------------------------------


def opa(version: str, go: str) -> str:
    return f"Version: {version}\nBuild Commit: \nGo Version: {go}\nPlatform: linux/amd64"


@pytest.mark.parametrize(
    ("version", "go", "will_do"),
    [
        ("1.22.4", "go1.26.11", True),
        ("1.23.0", "go1.28.0", True),
        ("1.22.3", "go1.26.11", False),
        ("2.0.0", "go1.28.0", False),
        ("1.22.4", "go1.26.10", False),
        ("1.22.4", "go1.27.3", False),
        ("1.22.4", "go1.27.4", True),
        ("1.22.4", "", False),
    ],
)
async def test_an_opa_will_do_from_the_pinned_version_on_and_with_a_go_that_has_its_fixes(
    machine, version, go, will_do
):
    path = program(machine.bin, "opa", said(opa(version, go)))
    installer = Installer(path=str(machine.bin), environment={})
    assert await accepted(OutsideProgram.OPA, str(path), installer, "") is will_do


async def served(body: bytes, checksum: str, status: int = 200) -> tuple[web.AppRunner, str]:
    """OPA's page of releases, with what is to be answered."""

    async def release(request: web.Request) -> web.Response:
        asked = request.match_info["asset"]
        return web.Response(body=f"{checksum}  opa\n".encode() if asked.endswith(".sha256") else body, status=status)

    application = web.Application()
    application.router.add_get(f"/v{OPA_VERSION}/{{asset}}", release)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


RELEASE = b"#!/bin/sh\nexit 0\n"
RIGHT = hashlib.sha256(RELEASE).hexdigest()


@pytest.mark.parametrize(
    ("body", "checksum", "status", "kept"),
    [
        (RELEASE, RIGHT, 200, True),
        (RELEASE + b"#", RIGHT, 200, False),
        (RELEASE, RIGHT[:-1], 200, False),
        (RELEASE, "", 200, False),
        (RELEASE, RIGHT, 404, False),
    ],
    ids=["as published", "other bytes", "short checksum", "no checksum", "not found"],
)
async def test_a_release_is_kept_only_if_it_is_the_published_one(tmp_path, body, checksum, status, kept):
    runner, address = await served(body, checksum, status)
    try:
        if kept:
            await fetch_release(tmp_path / "opa", address)
        else:
            with pytest.raises(ConfigurationError):
                await fetch_release(tmp_path / "opa", address)
    finally:
        await runner.cleanup()
    assert [path.name for path in tmp_path.iterdir()] == (["opa"] if kept else [])


async def test_a_release_page_that_is_away_is_said(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be fetched"):
        await fetch_release(tmp_path / "opa", f"http://127.0.0.1:{parts.free_port()}")


def test_the_pins_are_those_of_the_scripts():
    script = (ROOT / "scripts/lib.sh").read_text()
    pinned = dict(re.findall(r"\b([A-Z_]+)='?([^\s']+)", script))
    ours = {
        "OPA_VERSION": OPA_VERSION,
        "OPA_GO_SUM": OPA_GO_SUM,
        "GO_TOOLCHAIN": GO_TOOLCHAIN,
        "GO_FLOOR": GO_FLOOR,
        "NODE_FLOOR": NODE_FLOOR,
    }
    assert {name: pinned.get(name) for name in ours} == ours


@pytest.mark.parametrize(
    ("floor", "version", "enough"),
    [("20.19", "20.19.0", True), ("20.19", "20.9.0", False), ("1.22.4", "1.22.10", True), ("1.21", "", False)],
)
def test_versions_are_compared_as_numbers(floor, version, enough):
    assert at_least(floor, version) is enough


@pytest.mark.parametrize(("go", "patched"), [("1.26.11", True), ("1.27", False), ("1.27rc1", False), ("1.27.4", True)])
def test_which_go_has_the_fix(go, patched):
    assert patched_go(go) is patched
