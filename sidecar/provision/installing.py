"""How each outside program is made: with npm, pip or uv from lock files with hashes; OPA with Go or from its release.

The Go module is held against the sum that Go's checksum database records; the release, against the SHA-256 that is
published beside it. npm's install scripts are off (``.npmrc`` of the lock files).
"""

import asyncio
import hashlib
import platform
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from sidecar.errors import ConfigurationError
from sidecar.printing import escaped
from sidecar.provision.parts import OutsideProgram, locks_folder, sources
from sidecar.system import StandardStreams, kill, spawn

OPA_VERSION: Final = "1.22.4"
OPA_GO_SUM: Final = "h1:/sKtqt7GVSvXQn1sML2PSzl8tD/mTHF2pzQC3x1CV8k="
GO_TOOLCHAIN: Final = "1.26.11"
"""What a Go fetches and builds with that is too old or has the fault of CVE-2026-97054 (net/http)."""
GO_FLOOR: Final = "1.21"
NODE_FLOOR: Final = "20.19"
RELEASES: Final = "https://github.com/open-policy-agent/opa/releases/download"

_MODULE: Final = f"github.com/open-policy-agent/opa@v{OPA_VERSION}"
_LIMIT_S: Final = 1200.0
_MOST_BYTES: Final = 256 * 1024 * 1024
"""Of a release: 1.22.4 has 60 MB."""
_CHUNK: Final = 1024 * 1024
_TAIL: Final = 12
"""Lines of an installer's output that are shown when it fails."""
_OK: Final = 200


def at_least(floor: str, version: str) -> bool:
    """Whether a version, read as dotted numbers, is ``floor`` or newer; what is no version is not."""

    def numbers(text: str) -> tuple[int, ...]:
        return tuple(int(part) for part in text.split("."))

    found = re.match(r"\d{1,6}(?:\.\d{1,6}){0,3}", version)
    return found is not None and numbers(found[0]) >= numbers(floor)


def patched_go(version: str) -> bool:
    """Whether a server built with this Go does not end by CVE-2026-97054 (net/http, a race on a header too large)."""
    if re.fullmatch(r"1\.27(?:[a-z].*|\.[0-3])?", version):
        return False
    return at_least(GO_TOOLCHAIN, version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installer:
    """Makes parts with the programs of one search path."""

    path: str
    """Where programs are looked for."""
    environment: Mapping[str, str]
    """Of every installer; without the sidecar's own settings."""
    releases: str = RELEASES

    def which(self, program: str) -> str | None:
        """Return where a program is."""
        return shutil.which(program, path=self.path)

    async def output(self, *command: str, folder: Path | None = None, **more: str) -> tuple[int, str]:
        """Run a command to its end; return its status and what it printed.

        Raises:
            ConfigurationError: it cannot be started, or does not end.
        """
        streams = StandardStreams(stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        process = await spawn(command, streams, cwd=folder, environment={**self.environment, "PATH": self.path, **more})
        try:
            async with asyncio.timeout(_LIMIT_S):
                printed, _ = await process.communicate()
        except TimeoutError:
            raise ConfigurationError(f"{command[0]} took longer than {_LIMIT_S:g} s and was stopped") from None
        finally:
            await kill(process)
        return process.returncode or 0, printed.decode("utf-8", "replace")

    async def run(self, *command: str, folder: Path | None = None, **more: str) -> str:
        """Run a command that has to succeed; return what it printed.

        Raises:
            ConfigurationError: it fails; the last lines of what it printed are in the detail.
        """
        status, printed = await self.output(*command, folder=folder, **more)
        if status:
            tail = " | ".join(escaped(line.strip()) for line in printed.splitlines()[-_TAIL:])
            raise ConfigurationError(f"{Path(command[0]).name} {command[1]} ended with status {status}: {tail}")
        return printed


async def accepted(part: OutsideProgram, program: str, installer: Installer, version: str) -> bool:
    """Whether a program that is there already will do.

    Args:
        part: which one it is to be.
        program: its path.
        installer: runs it.
        version: the MCP server's that is wanted.
    """
    match part:
        case OutsideProgram.OPA:
            status, printed = await installer.output(program, "version")
            said = dict(re.findall(r"^([A-Za-z ]+): (.*)$", printed, re.MULTILINE))
            found, go = said.get("Version", ""), said.get("Go Version", "").removeprefix("go")
            return status == 0 and found.startswith("1.") and at_least(OPA_VERSION, found) and patched_go(go)
        case OutsideProgram.SERVER:
            status, printed = await installer.output(program, "--version")
            return status == 0 and printed.strip() == version
        case OutsideProgram.ISSUER | OutsideProgram.DATABASE:
            return True


async def missing(wanted: Sequence[OutsideProgram], installer: Installer) -> list[str]:
    """Say what has to be there before these parts can be made; all of it at once, and before anything is downloaded."""
    found = []
    if {OutsideProgram.SERVER, OutsideProgram.ISSUER} & set(wanted):
        node = installer.which("node")
        version = (await installer.output(node, "--version"))[1].strip() if node else "none"
        if not at_least(NODE_FLOOR, version.removeprefix("v")):
            found.append(f"Node >= {NODE_FLOOR} with npm, found: {escaped(version)}")
        elif installer.which("npm") is None:
            found.append("npm, beside Node")
    if OutsideProgram.OPA in wanted and _asset() is None and await _go(installer) is None:
        found.append(f"OPA >= {OPA_VERSION} on PATH, or Go >= {GO_FLOOR}: no release for this system is known")
    return found


async def make(part: OutsideProgram, folder: Path, installer: Installer) -> Path:
    """Make a part in an empty folder; return its program.

    Raises:
        ConfigurationError: an installer fails, or what came is not what was pinned.
    """
    match part:
        case OutsideProgram.OPA:
            return await _make_opa(folder, installer)
        case OutsideProgram.SERVER:
            await _npm(part, folder, installer)
            return folder / "node_modules" / ".bin" / part.value
        case OutsideProgram.ISSUER:
            await _npm(part, folder, installer)
            program = folder / "main.js"
            program.chmod(0o755)
            return program
        case OutsideProgram.DATABASE:
            await _python(folder, installer)
            return folder / "bin" / part.value


async def _npm(part: OutsideProgram, folder: Path, installer: Installer) -> None:
    for file in sources(part):
        shutil.copyfile(file, folder / file.name)
    npm = installer.which("npm")
    if npm is None:
        raise ConfigurationError("npm was not found")
    await installer.run(npm, "ci", "--omit=dev", "--no-progress", "--loglevel=error", folder=folder)


async def _python(folder: Path, installer: Installer) -> None:
    lock = str(locks_folder() / "secantusdb.lock")
    python = str(folder / "bin" / "python")
    if (uv := installer.which("uv")) is not None:
        await installer.run(uv, "venv", "--quiet", "--python", sys.executable, str(folder), UV_PYTHON_DOWNLOADS="never")
        await installer.run(uv, "pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", lock)
        return
    await installer.run(sys.executable, "-m", "venv", str(folder))
    pip = ("pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", "--no-deps")
    await installer.run(python, "-m", *pip, "--require-hashes", "-r", lock)


async def _make_opa(folder: Path, installer: Installer) -> Path:
    program = folder / "opa"
    if (go := await _go(installer)) is not None:
        await _build(go, folder, installer)
    else:
        await fetch_release(program, installer.releases)
    if not await accepted(OutsideProgram.OPA, str(program), installer, ""):
        raise ConfigurationError(f"the OPA that was installed does not answer as OPA >= {OPA_VERSION}")
    return program


async def _go(installer: Installer) -> dict[str, str] | None:
    """Return the variables with which this machine's Go builds OPA; None without a Go that can."""
    go = installer.which("go")
    if go is None:
        return None
    _, said = await installer.output(go, "env", "GOVERSION", GOTOOLCHAIN="local")
    version = said.strip().removeprefix("go")
    if not at_least(GO_FLOOR, version):
        return None
    return {"GOTOOLCHAIN": "local" if patched_go(version) else f"go{GO_TOOLCHAIN}"}


class _GoModule(msgspec.Struct, frozen=True):
    Sum: str = ""


async def _build(go: Mapping[str, str], folder: Path, installer: Installer) -> None:
    program = str(installer.which("go"))
    printed = await installer.run(program, "mod", "download", "-json", _MODULE, folder=folder, **go)
    try:
        # What the toolchain says of itself when it is fetched stands before the document.
        module = msgspec.json.decode(printed[max(printed.find("{\n"), 0) :], type=_GoModule)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        module = _GoModule()
    if module.Sum != OPA_GO_SUM:
        raise ConfigurationError(f"Go module {_MODULE} is not the one that this version pins ({OPA_GO_SUM})")
    await installer.run(program, "install", _MODULE, folder=folder, GOBIN=str(folder), GOFLAGS="-trimpath", **go)


def _asset() -> str | None:
    """Return the name of OPA's release for this machine; None where none is known."""
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine())
    match platform.system(), machine:
        case "Linux", str(kind):
            return f"opa_linux_{kind}_static"
        case "Darwin", "arm64":
            return "opa_darwin_arm64_static"
        case "Darwin", "amd64":
            return "opa_darwin_amd64"
        case _:
            return None


async def fetch_release(program: Path, releases: str) -> None:
    """Fetch OPA's official release, and keep it only if its SHA-256 is the published one.

    Args:
        program: where it goes.
        releases: the address of the releases.

    Raises:
        ConfigurationError: it is not to be had, is too large, or differs from its checksum.
    """
    address = f"{releases}/v{OPA_VERSION}/{_asset()}"
    part = program.with_suffix(".part")
    try:
        async with aiohttp.ClientSession(trust_env=True, timeout=aiohttp.ClientTimeout(total=_LIMIT_S)) as http:
            async with http.get(f"{address}.sha256") as answer:
                expected = (await answer.content.read(1024)).decode("ascii", "replace").split()[:1]
            if answer.status != _OK or not expected or not re.fullmatch(r"[0-9a-f]{64}", expected[0]):
                raise ConfigurationError(f"no checksum at {address}.sha256 (status {answer.status})")
            found = await _download(http, address, part)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ConfigurationError(f"{address} cannot be fetched: {str(error) or type(error).__name__}") from None
    if found != expected[0]:
        part.unlink()
        raise ConfigurationError(f"{address} does not match its published checksum; nothing was installed")
    part.chmod(0o755)
    part.replace(program)


async def _download(http: aiohttp.ClientSession, address: str, part: Path) -> str:
    digest, size = hashlib.sha256(), 0
    async with http.get(address) as answer:
        if answer.status != _OK:
            raise ConfigurationError(f"{address} answered with status {answer.status}")
        with part.open("wb") as file:
            async for chunk in answer.content.iter_chunked(_CHUNK):
                size += len(chunk)
                if size > _MOST_BYTES:
                    raise ConfigurationError(f"{address} is larger than {_MOST_BYTES} bytes")
                digest.update(chunk)
                file.write(chunk)
    return digest.hexdigest()
