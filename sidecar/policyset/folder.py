"""A policy folder as one immutable value: what OPA will load, read once, with the digest that names it.

Reading once is what makes a decision and its revision belong together. OPA is started on a private copy of exactly the
bytes that were digested, so an edit between digest and load, or before a restart after a crash, changes nothing: the
set that was checked keeps serving. The layout is that of ``policies/README.md``: bundles ``platform``, ``system`` and
``teams/*``, each with a manifest, which OPA checks and tests by; a managed OPA serves what is ``loaded`` of them.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from sidecar.errors import ConfigurationError

_LOADED_NAMES = frozenset({".manifest", ".signatures.json", "data.json", "data.yaml", "data.yml"})
"""What OPA's bundle loader reads besides modules (``v1/bundle/bundle.go``, 1.22.2)."""

MANIFEST = ".manifest"
CAPABILITIES = "capabilities.json"
SCHEMAS = "schema"
TEAMS = "teams/"
PLATFORM_DATA = "platform/data.json"

MAX_FILE_BYTES = 16 * 2**20
"""Of any file of a set, the platform's included; a team's have lower limits (``sidecar.policyset.containment``)."""

MAX_TEAM_READ_BYTES = 4 * 2**20
"""Of a team's folder: more than it may hold, so that what is over those limits is named, and little enough that no team
takes the memory of the process that reads it."""

_ENTRY_BYTES = 4096
"""What a file counts as beside its content, so that the number of files is bounded too."""

_TOLD = frozenset({".md"})
"""Endings of files that are for people: neither read nor loaded."""

_REVISION_DIGITS = 32
"""128 bits of SHA-256. An author could make two sets that share 64 bits in 2^32 tries."""


class _Route(msgspec.Struct):
    server: str


class _Platform(msgspec.Struct):
    routes: list[_Route]


class _Mcp(msgspec.Struct):
    platform: _Platform


class _Data(msgspec.Struct):
    mcp: _Mcp


_PlatformFile = msgspec.json.Decoder(_Data)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """The files of one policy set.

    ``bundles`` are folders relative to the root, in loading order; ``files`` are (POSIX path, content), sorted. Beside
    what the bundles hold there is ``capabilities.json``, the builtin functions that modules may use: ``opa check``
    reads it, and it is part of what the revision names.

    ``aside`` is what a set is checked with and OPA never serves, in the same form: tests and schemas. ``strays`` are
    the names in team folders that are no part of any set, each with what it is instead.
    """

    bundles: tuple[str, ...]
    files: tuple[tuple[str, bytes], ...]
    aside: tuple[tuple[str, bytes], ...] = ()
    strays: tuple[tuple[str, str], ...] = ()

    @property
    def teams(self) -> tuple[str, ...]:
        """The names of the team folders."""
        return tuple(bundle.removeprefix(TEAMS) for bundle in self.bundles if bundle.startswith(TEAMS))

    @property
    def loaded(self) -> "PolicySet":
        """The modules and data alone, without manifests, signatures and other files that say how a bundle is loaded."""
        files = tuple((path, content) for path, content in self.files if not Path(path).name.startswith("."))
        return replace(self, files=files)

    @property
    def revision(self) -> str:
        """``sha256:`` and 32 hexadecimal digits over the path and content of every file."""
        digest = hashlib.sha256()
        for path, content in self.files:
            for part in (path.encode(), content):
                # Lengths first, so that no two sets of files are one sequence of bytes.
                digest.update(len(part).to_bytes(8, "big"))
                digest.update(part)
        return f"sha256:{digest.hexdigest()[:_REVISION_DIGITS]}"

    @property
    def routed(self) -> frozenset[str]:
        """The MCP servers that the platform's routes lead to; none where its data cannot be read."""
        try:
            data = _PlatformFile.decode(dict(self.files)[PLATFORM_DATA])
        except (KeyError, msgspec.DecodeError):
            return frozenset()
        return frozenset(route.server for route in data.mcp.platform.routes)

    @classmethod
    def read(cls, root: Path) -> "PolicySet":
        """Read the set below ``root``. Blocking file access.

        Hidden entries are left out, so a mounted ConfigMap (``..data``) loads once; tests are read aside. Links to
        files are followed within their bundle; a linked folder inside a bundle is refused, because leaving it out could
        lose a ``deny``.

        Raises:
            ConfigurationError: not a policy folder, no list of capabilities, or a file cannot be read.
        """
        files: list[tuple[str, bytes]] = []
        aside: list[tuple[str, bytes]] = []
        strays: list[tuple[str, str]] = []
        try:
            bundles = tuple(_bundles(root))
            for bundle in bundles:
                found = _BundleFiles(root, bundle)
                files += found.files
                aside += found.aside
                strays += found.strays
            files.append((CAPABILITIES, _content(root / CAPABILITIES)))
            schemas = sorted((root / SCHEMAS).glob("*.json"))
            aside += [(f"{SCHEMAS}/{schema.name}", _content(schema)) for schema in schemas]
        except OSError as error:
            raise ConfigurationError(f"the policy folder is not readable: {error}") from error
        return cls(
            bundles=bundles, files=tuple(sorted(files)), aside=tuple(sorted(aside)), strays=tuple(sorted(strays))
        )

    def write(self, directory: Path, *, aside: bool = False) -> None:
        """Write the set below ``directory``, readable by this user only. Blocking file access.

        Args:
            directory: a folder that exists.
            aside: write the tests and schemas too.
        """
        for bundle in self.bundles:
            # Also of a team that has nothing yet: OPA does not start on a folder that is not there.
            _make_folders(directory, Path(bundle))
        for path, content in (*self.files, *(self.aside if aside else ())):
            target = directory / path
            _make_folders(directory, Path(path).parent)
            target.touch(mode=0o600)
            target.write_bytes(content)


def store(policies: PolicySet, directory: Path, *, aside: bool = False) -> None:
    """Write a set below a private folder. Blocking file access.

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        policies.write(directory, aside=aside)
    except OSError as error:
        raise ConfigurationError(f"the private copy of the policies cannot be written: {error}") from error


def _make_folders(directory: Path, folder: Path) -> None:
    """Make a folder below ``directory`` and those between, each for this user only."""
    for each in (*reversed(folder.parents), folder):
        (directory / each).mkdir(mode=0o700, exist_ok=True)


def _bundles(root: Path) -> Iterator[str]:
    teams = root / "teams"
    folders = sorted(entry.name for entry in teams.iterdir() if _is_visible_folder(entry)) if teams.is_dir() else []
    for bundle in ("platform", "system", *(f"teams/{name}" for name in folders)):
        if not (root / bundle / MANIFEST).is_file():
            # OPA takes a bundle without a manifest as the owner of everything.
            raise ConfigurationError(f"the policy folder has no {bundle}/{MANIFEST}")
        yield bundle


def _is_visible_folder(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


class _BundleFiles:
    """The files of one bundle by what they are; of a team's no more than may be read.

    Raises:
        ConfigurationError: a file is not one that can be read, or the team's folder is too large.
    """

    def __init__(self, root: Path, bundle: str) -> None:
        self.files: list[tuple[str, bytes]] = []
        self.aside: list[tuple[str, bytes]] = []
        self.strays: list[tuple[str, str]] = []
        self._team = bundle if bundle.startswith(TEAMS) else ""
        self._left = MAX_TEAM_READ_BYTES
        for file in _names(root, bundle):
            path = file.relative_to(root).as_posix()
            if fault := _stray(root / bundle, file):
                self._take(0)
                self.strays += [(path, fault)] if self._team else []
            else:
                content = _content(file, longest=self._left if self._team else MAX_FILE_BYTES)
                self._take(len(content))
                (self.aside if _is_test(file.name) else self.files).append((path, content))

    def _take(self, size: int) -> None:
        self._left -= size + _ENTRY_BYTES
        if self._team and self._left < 0:
            raise ConfigurationError(f"{self._team} is larger than {MAX_TEAM_READ_BYTES} bytes")


def _names(root: Path, bundle: str) -> Iterator[Path]:
    """Walk the visible files of a bundle, and the hidden ones that OPA loads."""
    for folder, folders, names in os.walk(root / bundle, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = Path(folder)
        for name in folders:
            if (here / name).is_symlink():
                raise ConfigurationError(f"the policy folder has a linked folder: {(here / name).relative_to(root)}")
        for name in names:
            if name in _LOADED_NAMES or not (name.startswith(".") or Path(name).suffix in _TOLD):
                yield here / name


def _stray(bundle: Path, file: Path) -> str:
    """Return what a file is instead of a part of its bundle; empty for a part of it."""
    if not (file.name in _LOADED_NAMES or file.name.endswith(".rego")):
        return "is not a file that OPA loads from a bundle (*.rego, data.json, .manifest)"
    if bundle.parent.name == TEAMS.rstrip("/") and not file.resolve().is_relative_to(bundle.resolve()):
        # Neither read nor quoted: an author of a team's folder could otherwise show any file of this machine.
        return "is a link that leads out of the team's folder"
    return ""


def _content(file: Path, longest: int = MAX_FILE_BYTES) -> bytes:
    """Read one regular file; a pipe or a device, even one that takes its place now, could keep the reader forever."""
    fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as stream:  # noqa: PTH123 - of a descriptor
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ConfigurationError(f"{file} is not a regular file")
        content = stream.read(longest + 1)
    if len(content) > longest:
        raise ConfigurationError(f"{file} is larger than {longest} bytes")
    return content


def _is_test(name: str) -> bool:
    return name.endswith("_test.rego")


def _raise(error: OSError) -> None:
    """Fail on an unreadable folder, which ``os.walk`` would leave out."""
    raise error
