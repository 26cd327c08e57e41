"""Archives are read as bytes that somebody else chose: what has two readings, or none, is refused by name."""

import asyncio
import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError
from sidecar.policyset import bundle_writer
from sidecar.policyset.bundle_reader import MAX_ARCHIVE_BYTES, MAX_MEMBERS, Archives, read_archives
from sidecar.policyset.manifest import listing
from sidecar.policyset.workshop import examine_set
from tests.opa.outside import tarred
from tests.parts import ROOT
from tests.policyset.test_refused_at_load import REFUSED_FILES, REFUSED_MODULES

MANIFEST = {"revision": "r", "roots": ["mcp/grants/red", "mcp/teams/red"], "rego_version": 1}
MODULE = b'package mcp.teams.red\n\ngrant contains {"id": "x"} if input.access.kind == "read"\n'
HONEST = (
    (".manifest", json.dumps(MANIFEST).encode()),
    ("policy.rego", MODULE),
    ("data.json", b'{"mcp": {"grants": {"red": {}}}}'),
)

Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: object) -> Entry:
    found = tarfile.TarInfo(name)
    found.type = kind
    found.size = len(content)
    for field, value in fields.items():
        setattr(found, field, value)
    return found, content


def honest() -> list[Entry]:
    return [entry(name, content) for name, content in HONEST]


def read(tmp_path: Path, packed: bytes, name: str = "red") -> Archives:
    file = tmp_path / f"{name}.tar.gz"
    file.write_bytes(packed)
    return read_archives([file], ROOT / "policies")


def said(tmp_path: Path, packed: bytes) -> list[str]:
    """What is said of an archive, with the place as it is shown."""
    archives = read(tmp_path, packed)
    return [str(archives.located(finding)).removeprefix(f"{tmp_path}/") for finding in archives.findings]


def patched(change: Callable[[bytearray], object], *entries: Entry) -> bytes:
    """An archive whose first header is changed, under a checksum that is right."""
    plain = bytearray(tarred(entries or honest()))
    change(plain)
    plain[148:156] = b" " * 8
    plain[148:156] = b"%06o\0 " % sum(plain[:512])
    return gzip.compress(bytes(plain))


def put(at: int, text: bytes) -> Callable[[bytearray], object]:
    def change(plain: bytearray) -> None:
        plain[at : at + len(text)] = text

    return change


PLAIN = tarred(honest())
LONG = "x" * 101

REFUSED: dict[str, tuple[bytes, str]] = {
    # names
    "a name above": (
        gzip.compress(tarred([*honest(), entry("../../platform/main.rego", MODULE)])),
        "../../platform/main.rego is no name",
    ),
    "a name above, hidden": (
        gzip.compress(tarred([*honest(), entry("a/../../x.rego", MODULE)])),
        "a/../../x.rego is no name",
    ),
    "a name in two spellings": (
        gzip.compress(tarred([*honest(), entry("a/./x.rego", MODULE)])),
        "a/./x.rego is no name",
    ),
    "a name with a backslash": (
        gzip.compress(tarred([*honest(), entry("..\\x.rego", MODULE)])),
        "..\\x.rego is no name",
    ),
    "a name that acts on a terminal": (
        gzip.compress(tarred([*honest(), entry("\x1b[2Jx.rego", MODULE)])),
        r"\u001b[2Jx.rego is no name",
    ),
    "a name in another script": (
        gzip.compress(tarred([*honest(), entry("p\N{LATIN SMALL LETTER E WITH ACUTE}.rego", MODULE)])),
        "is no name",
    ),
    "no name": (gzip.compress(tarred([*honest(), entry("", MODULE)])), " is no name"),
    "a file that ends like a folder": (patched(put(0, b"policy.rego/"), entry("x", MODULE)), "policy.rego/ is no name"),
    "twice the same": (gzip.compress(tarred([*honest(), entry("policy.rego", MODULE)])), "policy.rego is there twice"),
    "twice the same, spelled otherwise": (
        gzip.compress(tarred([*honest(), entry("./policy.rego", MODULE)])),
        "policy.rego is there twice",
    ),
    "twice the same, absolute": (
        gzip.compress(tarred([*honest(), entry("/policy.rego", MODULE)])),
        "policy.rego is there twice",
    ),
    "a file below a file": (
        gzip.compress(tarred([*honest(), entry("policy.rego/x.rego", MODULE)])),
        "is a file and a folder",
    ),
    "a file above a file": (
        gzip.compress(tarred([entry("a/x.rego", MODULE), *honest(), entry("a", MODULE)])),
        "a is a file and a folder",
    ),
    # kinds
    "a link": (
        gzip.compress(tarred([*honest(), entry("x.rego", kind=tarfile.SYMTYPE, linkname="/etc/passwd")])),
        "x.rego is a link",
    ),
    "a hard link": (
        gzip.compress(tarred([*honest(), entry("x.rego", kind=tarfile.LNKTYPE, linkname="policy.rego")])),
        "x.rego is a hard link",
    ),
    "a device": (gzip.compress(tarred([*honest(), entry("x.rego", kind=tarfile.CHRTYPE)])), "x.rego is a device"),
    "a disk": (gzip.compress(tarred([*honest(), entry("x.rego", kind=tarfile.BLKTYPE)])), "x.rego is a device"),
    "a pipe": (gzip.compress(tarred([*honest(), entry("x.rego", kind=tarfile.FIFOTYPE)])), "x.rego is a pipe"),
    "a kind of its own": (patched(put(156, b"Z")), "has extended headers"),
    "a sparse file": (patched(put(156, b"S")), "has extended headers"),
    "a contiguous file": (patched(put(156, b"7")), "has extended headers"),
    # two readings
    "a long name of GNU": (gzip.compress(tarred([entry(LONG, MODULE)], tarfile.GNU_FORMAT)), "has extended headers"),
    "a long name of PAX": (gzip.compress(tarred([entry(LONG, MODULE)], tarfile.PAX_FORMAT)), "has extended headers"),
    "another name in PAX": (
        gzip.compress(tarred([entry("x.rego", MODULE, pax_headers={"path": "policy.rego"})], tarfile.PAX_FORMAT)),
        "has extended headers",
    ),
    "a prefix under GNU's magic": (
        patched(lambda plain: (put(257, b"ustar  \0")(plain), put(345, b"below")(plain))),
        "is not a plain tar",
    ),
    "no magic": (patched(put(257, b"\0" * 8)), "is not a plain tar"),
    "a name behind the name": (patched(put(11, b"\0policy.rego")), "with something behind its end"),
    "a prefix of STAR": (
        patched(lambda plain: (put(345, b"a" * 65 + b"/" + b"b" * 65 + b"0" * 24)(plain), put(508, b"tar\0")(plain))),
        "with something behind its end",
    ),
    "something behind the prefix": (patched(put(500, b"x")), "with something behind its end"),
    "a size in binary": (patched(put(124, b"\x80" + b"\0" * 10 + b"\x05")), "not octal"),
    "a negative size": (patched(put(124, b"-0000000001\0")), "not octal"),
    "no size": (patched(put(124, b"\0" * 12)), "not octal"),
    "a size with a sign": (patched(put(124, b"+0000000001\0")), "not octal"),
    "a mode that is none": (patched(put(100, b"x")), "not octal"),
    "a time in binary": (patched(put(136, b"\x80")), "not octal"),
    "a link with content": (patched(put(156, b"2")), "a link or a device with content"),
    "a folder with content": (patched(put(156, b"5")), "a folder with content"),
    "a wrong checksum": (gzip.compress(PLAIN.replace(b"policy.rego", b"policy.reg0", 1)), "wrong checksum"),
    "members behind the end": (gzip.compress(PLAIN + PLAIN), "does not end with zeros"),
    "a member behind one empty block": (gzip.compress(PLAIN.rstrip(b"\0") + b"\0" * 512 * 2 + PLAIN), "the archive "),
    "a second stream": (gzip.compress(PLAIN) + gzip.compress(PLAIN), "something behind its end"),
    "something behind the stream": (gzip.compress(PLAIN) + b"x", "something behind its end"),
    # none
    "no gzip": (PLAIN, "is not gzipped"),
    "nothing": (b"", "is cut off"),
    "a gzip of nothing": (gzip.compress(b""), "does not end with zeros"),
    "cut off": (gzip.compress(PLAIN)[:-20], "is cut off"),
    "cut off within": (gzip.compress(PLAIN[: 512 + 20]), "ends within a member"),
    "no end": (gzip.compress(PLAIN[: -(-len(PLAIN.rstrip(b"\0")) // 512) * 512]), "does not end with zeros"),
    "noise": (gzip.compress(b"\x01" * 2048), "is not a plain tar"),
    "a member larger than the archive": (patched(put(124, b"77777777777\0")), "ends within a member"),
    "a bomb": (gzip.compress(b"\0" * (MAX_ARCHIVE_BYTES + 1)), "when it is unpacked"),
    "a large archive": (b"\x1f\x8b" + b"\0" * MAX_ARCHIVE_BYTES, "is larger than"),
    "too many members": (
        gzip.compress(tarred([entry(f"{number}.rego") for number in range(MAX_MEMBERS + 1)])),
        "has more than",
    ),
    # what OPA would take for more than it is
    "no manifest": (gzip.compress(tarred(honest()[1:])), "the archive has no .manifest"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_archive_with_another_reading_is_refused(tmp_path: Path, name: str) -> None:
    packed, message = REFUSED[name]
    found = said(tmp_path, packed)
    assert any(message in finding for finding in found), found
    assert all(finding.startswith("red.tar.gz") and ":1: " in finding and finding.isprintable() for finding in found)


FINE: dict[str, bytes] = {
    "as it is built": bundle_writer.archive(HONEST),
    "of GNU tar": gzip.compress(tarred(honest(), tarfile.GNU_FORMAT)),
    "with a prefix": gzip.compress(tarred([*honest(), entry(f"{'a' * 90}/{'b' * 60}.rego", MODULE)])),
    "with a prefix of full length": gzip.compress(
        tarred([*honest(), entry(f"{'a' * 77}/{'b' * 77}/{'c' * 60}.rego", MODULE)])
    ),
    "with names from a folder": gzip.compress(tarred([entry(f"./{name}", content) for name, content in HONEST])),
    "with names of opa build": gzip.compress(tarred([entry(f"/{name}", content) for name, content in HONEST])),
    "with folders": gzip.compress(
        tarred([entry("./", kind=tarfile.DIRTYPE), entry("a/", kind=tarfile.DIRTYPE), *honest()])
    ),
    "with a signature": bundle_writer.archive([*HONEST, (".signatures.json", b'{"signatures": []}')]),
    "with a text for people": bundle_writer.archive([*HONEST, ("README.md", b"#")]),
    "with more zeros": gzip.compress(PLAIN + b"\0" * 10240),
}


@pytest.mark.parametrize("name", FINE)
def test_the_near_miss_is_read(tmp_path: Path, name: str) -> None:
    archives = read(tmp_path, FINE[name])
    assert archives.findings == ()
    files = dict(archives.policies.files)
    assert {f"teams/red/{path}": content for path, content in HONEST}.items() <= files.items()
    assert not any(path.endswith((".md", ".signatures.json")) for path in files)
    assert (archives.policies.bundles, archives.whole) == (("teams/red",), False)


def test_every_archive_that_is_read_has_one_reading(tmp_path: Path) -> None:
    """Python's own reader sees the same."""
    for packed in FINE.values():
        with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
            seen = {
                f"teams/red/{member.name.removeprefix('./').removeprefix('/')}": stream.read()
                for member in tar
                if (stream := tar.extractfile(member)) is not None
            }
        mine = {path: text for path, text in read(tmp_path, packed).policies.files if path.startswith("teams/")}
        assert mine.items() <= seen.items()
        assert {name for name in seen.keys() - mine.keys() if not name.endswith((".md", ".signatures.json"))} == set()


@given(st.lists(st.tuples(st.integers(0, 1535), st.integers(0, 255)), min_size=1, max_size=6))
def test_any_changed_archive_is_read_as_python_reads_it_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("fuzz", numbered=True)

    def change(plain: bytearray) -> None:
        for at, value in changes:
            plain[at] = value

    packed = patched(change)
    archives = read(folder, packed)
    if archives.findings:
        return
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        seen = {member.name.removeprefix("./").removeprefix("/") for member in tar if member.isfile()}
    mine = {path.removeprefix("teams/red/") for path, _ in archives.policies.files if path.startswith("teams/")}
    assert {name for name in seen if not name.endswith((".md", ".signatures.json"))} == mine


@given(st.binary(max_size=300))
def test_any_bytes_are_refused(tmp_path_factory: pytest.TempPathFactory, packed: bytes) -> None:
    folder = tmp_path_factory.mktemp("fuzz", numbered=True)
    assert read(folder, packed).findings
    assert read(folder, gzip.compress(packed + b"x")).findings


# --- containment, as for a folder -------------------------------------------------------------------------------------


def examined(tmp_path: Path, opa: str, files: dict[str, bytes], manifest: dict[str, object] | None = None) -> list[str]:
    listed = {".manifest": json.dumps(MANIFEST | (manifest or {})).encode(), **files}
    archives = read(tmp_path, bundle_writer.archive(list(listed.items())))
    assert archives.findings == ()
    found = asyncio.run(examine_set(archives.policies, opa))
    return [str(archives.located(finding)).removeprefix(f"{tmp_path}/") for finding in found]


@pytest.mark.real
@pytest.mark.parametrize(
    "name", ["with input", "the platform's data", "http.send", "no end", "a package of the platform", "deep nesting"]
)
def test_a_module_is_held_to_what_a_folders_is(tmp_path: Path, opa_binary: str, name: str) -> None:
    text, line, _ = REFUSED_MODULES[name]
    found = examined(tmp_path, opa_binary, {"more.rego": text.encode()})
    assert any(finding.startswith(f"red.tar.gz/more.rego:{line}: ") for finding in found), found


@pytest.mark.real
def test_no_name_makes_a_module_a_test(tmp_path: Path, opa_binary: str) -> None:
    """An OPA that loads an archive serves ``x_test.rego`` as any other module; in a folder it stays behind."""
    text = b"package mcp.teams.red\n\np if data.mcp.platform.routes with input as {}\n"
    found = examined(tmp_path, opa_binary, {"x_test.rego": text})
    assert {finding.partition(": ")[0] for finding in found} == {"red.tar.gz/x_test.rego:3"}
    assert len(found) == 2


@pytest.mark.real
@pytest.mark.parametrize(
    "name", [name for name, (file, _, _) in REFUSED_FILES.items() if file not in {".manifest", ".signatures.json"}]
)
def test_a_file_is_held_to_what_a_folders_is(tmp_path: Path, opa_binary: str, name: str) -> None:
    file, text, _ = REFUSED_FILES[name]
    found = examined(tmp_path, opa_binary, {file: text.encode()})
    assert any(finding.startswith("red.tar.gz/") for finding in found), found


@pytest.mark.real
@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"roots": ["mcp/teams/red"]}, "the team's roots must be"),
        ({"roots": ["mcp/grants/red", "mcp/teams/red", "system/bundles"]}, "the team's roots must be"),
        ({"roots": ["mcp/grants/blue", "mcp/teams/blue"]}, "the team's roots must be"),
        ({"rego_version": 0}, "Rego v1"),
        ({"file_rego_versions": {"*.rego": 0}}, "and no others"),
        ({"wasm": []}, "and no others"),
        ({"metadata": {"x": 1}}, "the metadata of a team's manifest"),
        ({"metadata": {"modules": {}}}, "other modules than its manifest lists"),
        ({"metadata": {"modules": listing([("policy.rego", b"x")])}}, "other modules than its manifest lists"),
    ],
)
def test_a_manifest_is_held_to_its_team(
    tmp_path: Path, opa_binary: str, manifest: dict[str, object], message: str
) -> None:
    found = examined(tmp_path, opa_binary, {"policy.rego": MODULE}, manifest)
    assert any(finding.startswith("red.tar.gz/.manifest:1: ") and message in finding for finding in found), found
    right: dict[str, object] = {"metadata": {"modules": listing([("policy.rego", MODULE)])}}
    assert examined(tmp_path, opa_binary, {"policy.rego": MODULE}, right) == []


@pytest.mark.parametrize("name", ["platform.tgz", "Red.tar.gz", ".tar.gz", "red.tar", "...tar.gz", "red team.tar.gz"])
def test_a_file_that_cannot_be_a_bundles_archive_is_no_input(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(FINE["as it is built"])
    with pytest.raises(ConfigurationError, match="is not the one archive of a bundle"):
        read_archives([file], ROOT / "policies")


def test_one_bundle_twice_and_a_folder_without_archives_are_no_input(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "red.tar.gz").write_bytes(FINE["as it is built"])
    with pytest.raises(ConfigurationError, match="is not the one archive"):
        read_archives([tmp_path / "a" / "red.tar.gz", tmp_path / "b" / "red.tar.gz"], ROOT / "policies")
    with pytest.raises(ConfigurationError, match="is no folder of archives"):
        read_archives([tmp_path / "a"], ROOT / "policies")
    unreadable = tmp_path / "blue.tar.gz"
    unreadable.mkdir()
    pipe = tmp_path / "green.tar.gz"
    os.mkfifo(pipe)
    for path, message in ((unreadable, "is no folder of archives"), (pipe, "is not a regular file")):
        with pytest.raises(ConfigurationError, match=message):
            read_archives([path], ROOT / "policies")
