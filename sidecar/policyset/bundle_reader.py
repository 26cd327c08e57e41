"""Reads bundle archives as one policy set, without unpacking them anywhere and without believing what they say.

Two readers of one archive can see two contents: a name in an extension header, a header that one of them takes for the
end, members behind the end. So this reads the part of the format about which there is nothing to interpret (ustar of
POSIX.1-1988, and what GNU tar writes for short names: plain files and folders, one gzip member, zeros behind the end),
which is what ``policy bundle`` and ``opa build`` write, and refuses everything else by name.
"""

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from sidecar.errors import ConfigurationError
from sidecar.policyset.finding import Rule, Violation
from sidecar.policyset.folder import CAPABILITIES, MANIFEST, SCHEMAS, TEAMS, PolicySet
from sidecar.policyset.manifest import is_team
from sidecar.printing import escaped

SUFFIX: Final = ".tar.gz"
PLATFORM: Final = "platform"
SIGNATURES: Final = ".signatures.json"
"""Left aside: whose key it is, OPA knows, and verifies it when it loads the archive."""

MAX_ARCHIVE_BYTES: Final = 32 * 2**20
"""Of an archive, packed or unpacked: twice the largest file of a set."""
MAX_MEMBERS: Final = 4096

_BLOCK: Final = 512
_GNU: Final = b"ustar  \0"
_USTAR: Final = b"ustar\x0000"
_OCTAL: Final = re.compile(rb" *[0-7]{1,11}[ \0]*")
_NAME: Final = re.compile(r"[A-Za-z0-9._@ +=,-]+(?:/[A-Za-z0-9._@ +=,-]+)*")
_NUMBERS: Final = ((100, 108), (108, 116), (116, 124), (136, 148), (329, 337), (337, 345))
"""Fields that say nothing here; where they are no numbers, other readers take the header for the end."""
_FILE: Final = frozenset({b"0", b"\0"})
_FOLDER: Final = b"5"
_KINDS: Final = {b"1": "a hard link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe"}


class _ArchiveRefused(Exception):
    """An archive that has more than one reading, or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archives:
    """Archives read as a set."""

    policies: PolicySet
    findings: tuple[Violation, ...]
    """What keeps members from being read at all."""
    places: Mapping[str, str]
    """Bundle → the archive that it came from, as it was named."""

    @property
    def whole(self) -> bool:
        """Whether the platform's archive is among them, without which a team's does not compile."""
        return PLATFORM in self.policies.bundles

    def located(self, finding: Violation) -> Violation:
        """Name the archive and the member in it, instead of the file of a set."""
        for bundle, place in self.places.items():
            if finding.file.startswith(f"{bundle}/"):
                member = finding.file.removeprefix(f"{bundle}/")
                return replace(finding, file=f"{place}/{member}" if member else place)
        return finding


def read_archives(paths: Sequence[Path], beside: Path) -> Archives:
    """Read ``platform.tar.gz`` and ``<team>.tar.gz`` files, or folders of them as ``policy bundle`` writes. Blocking.

    Args:
        paths: archives, and folders with ``platform.tar.gz`` and ``teams/*.tar.gz``.
        beside: a policy folder for what no archive holds: the list of capabilities and the schemas.

    Raises:
        ConfigurationError: there is no archive, one is there twice, or a file cannot be read.
    """
    bundles: dict[str, Path] = {}
    for path in (file for given in paths for file in _archives(given)):
        stem = path.name.removesuffix(SUFFIX)
        bundle = PLATFORM if stem == PLATFORM else f"{TEAMS}{stem}"
        if path.name == stem or bundle in bundles or not (bundle == PLATFORM or is_team(stem)):
            raise ConfigurationError(f"{path} is not the one archive of a bundle: {PLATFORM}{SUFFIX} or <team>{SUFFIX}")
        bundles[bundle] = path
    files: list[tuple[str, bytes]] = []
    findings: list[Violation] = []
    try:
        for bundle, path in bundles.items():
            read, found = _read(bundle, path)
            files += read
            findings += found
        files.append((CAPABILITIES, (beside / CAPABILITIES).read_bytes()))
        schemas = [(f"{SCHEMAS}/{file.name}", file.read_bytes()) for file in (beside / SCHEMAS).glob("*.json")]
    except OSError as error:
        raise ConfigurationError(f"the archive is not readable: {error}") from error
    policies = PolicySet(
        bundles=tuple(sorted(bundles, key=lambda bundle: (bundle != PLATFORM, bundle))),
        files=tuple(sorted(files)),
        aside=tuple(sorted(schemas)),
    )
    return Archives(
        policies=policies, findings=tuple(findings), places={bundle: str(path) for bundle, path in bundles.items()}
    )


def _archives(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    if found := archives_in(path):
        return found
    raise ConfigurationError(f"{path} is no folder of archives: it has no {PLATFORM}{SUFFIX} and no {TEAMS}*{SUFFIX}")


def archives_in(folder: Path) -> list[Path]:
    """Return the archives that ``policy bundle`` has written to a folder. Blocking file access."""
    return [*folder.glob(f"{PLATFORM}{SUFFIX}"), *sorted((folder / TEAMS).glob(f"*{SUFFIX}"))]


def _read(bundle: str, path: Path) -> tuple[list[tuple[str, bytes]], list[Violation]]:
    """Return the files of one archive below its bundle's name, and what is wrong with its members."""
    if not path.is_file():  # a pipe could keep the reader forever
        raise ConfigurationError(f"{path} is not a regular file")
    with path.open("rb") as stream:
        packed = stream.read(MAX_ARCHIVE_BYTES + 1)
    files: dict[str, bytes] = {}
    found: list[Violation] = []
    try:
        for name, content, fault in members(packed):
            if wrong := fault or _clash(name, files):
                message = f"{name} {wrong}"
                found.append(Violation(file=f"{bundle}/{name}", line=1, rule=Rule.FILE, message=message))
            elif name.rpartition("/")[2].endswith(".md") or name == SIGNATURES:
                continue
            else:
                files[name] = content
    except _ArchiveRefused as error:
        return [], [Violation(file=f"{bundle}/", line=1, rule=Rule.FILE, message=f"the archive {error}")]
    if MANIFEST not in files and not found:
        message = "the archive has no .manifest: OPA takes it for the owner of everything"
        found.append(Violation(file=f"{bundle}/{MANIFEST}", line=1, rule=Rule.MANIFEST, message=message))
    return [(f"{bundle}/{name}", content) for name, content in files.items()], found


def _clash(name: str, files: Mapping[str, bytes]) -> str:
    """Return how a file stands in the way of those before it; of two members of a name, each reader takes another."""
    if name in files:
        return "is there twice"
    above = any(f"{parent}" in files for parent in Path(name).parents)
    return "is a file and a folder" if above or any(other.startswith(f"{name}/") for other in files) else ""


def members(packed: bytes) -> Iterator[tuple[str, bytes, str]]:
    """Yield name, content and fault of each file in a gzipped tar archive; an empty fault is none.

    Raises:
        _ArchiveRefused: it has no reading, more than one, or is too large.
    """
    plain = _unzip(packed)
    count, at = 0, 0
    while (header := plain[at : at + _BLOCK]).strip(b"\0"):
        count += 1
        if count > MAX_MEMBERS:
            raise _ArchiveRefused(f"has more than {MAX_MEMBERS} members")
        name, kind, size = _header(header)
        content = plain[at + _BLOCK : at + _BLOCK + size]
        if len(content) != size:
            raise _ArchiveRefused("ends within a member")
        if kind != _FOLDER:
            yield name, content, _fault(name, kind)
        elif size:
            raise _ArchiveRefused("has a folder with content")
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
    if len(header) < _BLOCK or plain[at:].strip(b"\0"):
        raise _ArchiveRefused("does not end with zeros")


def _unzip(packed: bytes) -> bytes:
    if len(packed) > MAX_ARCHIVE_BYTES:
        raise _ArchiveRefused(f"is larger than {MAX_ARCHIVE_BYTES} bytes")
    unzip = zlib.decompressobj(wbits=31)
    try:
        plain = unzip.decompress(packed, MAX_ARCHIVE_BYTES + 1)
    except zlib.error:
        raise _ArchiveRefused("is not gzipped") from None
    if len(plain) > MAX_ARCHIVE_BYTES:
        raise _ArchiveRefused(f"is larger than {MAX_ARCHIVE_BYTES} bytes when it is unpacked")
    if not unzip.eof or unzip.unused_data:
        raise _ArchiveRefused("is cut off, or has something behind its end")
    return plain


def _header(header: bytes) -> tuple[str, bytes, int]:
    """Return name, kind and size of a member; only of a header that every reader of tar reads alike."""
    prefix, magic = header[345:500], header[257:265]
    if len(header) != _BLOCK or not (magic == _USTAR or (magic == _GNU and not prefix.strip(b"\0"))):
        raise _ArchiveRefused(
            "is not a plain tar archive: make it with policy bundle, opa build, or tar --format=ustar"
        )
    if sum(header[:148]) + sum(header[156:]) + 8 * 32 != _number(header[148:156]):
        raise _ArchiveRefused("has a header with a wrong checksum")
    kind = header[156:157]
    if kind not in _FILE | {_FOLDER} | _KINDS.keys():
        raise _ArchiveRefused("has extended headers: make it with policy bundle, opa build, or tar --format=ustar")
    for begin, end in _NUMBERS:
        if header[begin:end].strip(b"\0 "):
            _number(header[begin:end])
    if header[500:].strip(b"\0"):
        # With ``tar`` at its end it is one of STAR, and Go (so OPA) ends the prefix after 131 characters.
        raise _ArchiveRefused("has a header with something behind its end")
    parts = [part.partition(b"\0") for part in (prefix, header[:100])]
    if any(rest.strip(b"\0") for _, _, rest in parts):
        raise _ArchiveRefused("has a name with something behind its end")
    raw = b"/".join(part for part, _, _ in parts if part)
    name = escaped(raw.decode("ascii", "backslashreplace")).removeprefix("./").removeprefix("/")
    # The size of a link says nothing about what follows it (POSIX), and readers differ.
    size = _number(header[124:136])
    if kind in _KINDS and size:
        raise _ArchiveRefused("has a link or a device with content")
    return name, kind, size


def _number(field: bytes) -> int:
    if not _OCTAL.fullmatch(field):
        raise _ArchiveRefused("has a header with a number that is not octal")
    return int(field.strip(b" \0"), 8)


def _fault(name: str, kind: bytes) -> str:
    if kind in _KINDS:
        return f"is {_KINDS[kind]}"
    if not _NAME.fullmatch(name) or any(part in {".", ".."} for part in name.split("/")):
        # OPA resolves such a name, and then it is another bundle's (1.22.2).
        return "is no name of a file in a bundle"
    return ""
