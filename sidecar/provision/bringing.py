"""Brings the programs that are missing into a folder of this user.

```
~/.local/share/mcp-sidecar/          mode 0700
  bin/opa -> ../parts/opa-1f2e…/opa   what every command of the sidecar looks at after PATH
  parts/opa-1f2e…/                    one folder for each version: another lock file makes another folder
```

A program on ``PATH`` that will do is used as it is. A part counts as there once the file ``.complete`` is in its
folder, so what an interruption left half made is made again.
"""

import asyncio
import fcntl
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidecar.errors import ConfigurationError
from sidecar.provision.brought import is_own
from sidecar.provision.installing import OPA_VERSION, Installer, accepted, make, missing
from sidecar.provision.parts import OutsideProgram, key_of, server_version

_COMPLETE: Final = ".complete"
_KEPT: Final = 2
"""Versions of a part that stay: a running sidecar may still read the files of the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallPlace:
    """What parts are brought with."""

    data: Path
    """The folder of this user that they go to."""
    path: str
    """Where programs are looked for."""
    environment: Mapping[str, str]
    """Of the installers."""
    tell: Callable[[str], None]
    """Told of what takes long."""
    may_install: bool = True
    """Without it, what is not there is an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A program that is there now."""

    part: OutsideProgram
    path: Path
    how: str
    """On ``PATH``, brought earlier, or now."""
    note: str = ""
    """What the reader has to know of it; empty for nothing."""


async def bring(wanted: Sequence[OutsideProgram], place: InstallPlace) -> list[Arrival]:
    """See that programs are there, and bring those that are missing.

    Args:
        wanted: which ones.
        place: where they go, and what they are brought with.

    Raises:
        ConfigurationError: the machine lacks what they are made with, or an installer fails.
    """
    installer = Installer(path=place.path, environment=place.environment)
    data = place.data
    if not place.may_install and installer.which("node") is None:
        raise ConfigurationError("node is not on PATH, and the MongoDB MCP server needs it")
    there = {part: await _found(part, data, installer) for part in wanted}
    absent = [part for part in wanted if there[part] is None]
    if not absent:
        return [arrival for arrival in there.values() if arrival is not None]
    if not place.may_install:
        raise ConfigurationError(f"{absent[0].value} is not on PATH: run `mcp-sidecar setup --demo`, or `make setup`")
    if needs := await missing(absent, installer):
        raise ConfigurationError("setup needs " + "; ".join(needs))
    _prepare(data)
    async with _alone(data):
        for part in absent:
            there[part] = await _found(part, data, installer) or await _brought(part, place, installer)
    return [arrival for arrival in there.values() if arrival is not None]


async def _found(part: OutsideProgram, data: Path, installer: Installer) -> Arrival | None:
    on_path = installer.which(part.value)
    if on_path is not None and not _is_below(Path(on_path), data):
        if await accepted(part, on_path, installer, server_version()):
            return Arrival(part=part, path=Path(on_path), how="on PATH")
        note = f"another version is on PATH and comes first ({on_path}): name the program's path in the settings"
    else:
        note = ""
    link = data / "bin" / part.value
    folder = _folder(part, data)
    if (folder / _COMPLETE).is_file() and link.exists() and _is_below(link, folder):
        return Arrival(part=part, path=link, how="brought earlier", note=note)
    return None


def _is_below(path: Path, folder: Path) -> bool:
    """Whether a path leads into a folder."""
    return path.resolve().is_relative_to(folder.resolve())


def _folder(part: OutsideProgram, data: Path) -> Path:
    facts = {OutsideProgram.OPA: (OPA_VERSION,), OutsideProgram.DATABASE: (sys.executable, sys.version)}.get(part, ())
    return data / "parts" / f"{part.value}-{key_of(part, *facts)}"


def _prepare(data: Path) -> None:
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("bin", "parts"):
            (data / name).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{data} cannot be made: {error.strerror or error}") from None
    for folder in (data, data / "bin", data / "parts"):
        if not is_own(folder):
            raise ConfigurationError(f"{folder} must be yours, and nobody else may write to it: chmod 700 {folder}")


@asynccontextmanager
async def _alone(data: Path) -> AsyncIterator[None]:
    """Hold the folder against another setup of this user."""
    with (data / ".lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(0.2)
            else:
                break
        yield


async def _brought(part: OutsideProgram, place: InstallPlace, installer: Installer) -> Arrival:
    data = place.data
    place.tell(
        f"bringing {part.value} into {data}" + (", which may take two minutes" if part is OutsideProgram.OPA else "")
    )
    folder = _folder(part, data)
    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    program = await make(part, folder, installer)
    if not os.access(program, os.X_OK):
        raise ConfigurationError(f"{program} was not made")
    (folder / _COMPLETE).touch()
    link = data / "bin" / part.value
    fresh = link.with_name(f".{part.value}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(Path("..") / program.relative_to(data))
    fresh.replace(link)
    await asyncio.to_thread(_forget_old, part, folder)
    found = await _found(part, data, installer)
    return Arrival(part=part, path=link, how="brought now", note=found.note if found is not None else "")


def _forget_old(part: OutsideProgram, kept: Path) -> None:
    others = [one for one in kept.parent.glob(f"{part.value}-*") if one != kept]
    others.sort(key=lambda one: one.stat().st_mtime, reverse=True)
    for old in others[_KEPT - 1 :]:
        shutil.rmtree(old, ignore_errors=True)
