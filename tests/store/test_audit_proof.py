"""`audit verify` over all files: given the last published head any tampering is found, with its line and the reason."""

import asyncio
import shutil
from dataclasses import replace
from itertools import chain as joined
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.audit import (
    BadCheckpoint,
    BadKey,
    Checkpoint,
    CheckpointSignatures,
    CheckpointSigner,
    CheckpointVerifier,
)
from sidecar.audit.record import Facts, refusal
from sidecar.command_line import cli
from sidecar.errors import ConfigurationError
from sidecar.model import JsonObject
from sidecar.store import audit_proof
from sidecar.store.audit_proof import verify_chain
from sidecar.store.audit_segments import checkpoints_of, segments
from sidecar.store.checkpoints import LONGEST, Checkpoints, SigningKeyFile, read_checkpoints
from sidecar.store.file import FileAuditSink, Rotation
from tests.examples import examples

RECORDS = 14


def a_record(name: str) -> JsonObject:
    return refusal(Facts(request_id=name), "policy_denied", record_id=f"id-{name}", time_ns=0)


def a_key() -> tuple[bytes, bytes]:
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private, public


@pytest.fixture(scope="module")
def keys() -> tuple[bytes, bytes]:
    return a_key()


@pytest.fixture
async def written(tmp_path: Path, keys) -> Path:
    """A closed chain of several files, its head published and signed."""
    path = tmp_path / "original" / "audit.jsonl"
    path.parent.mkdir()
    sink = FileAuditSink(path, rotation=Rotation(max_bytes=2_500), signer=CheckpointSigner(keys[0]))
    for number in range(RECORDS):
        await sink.append(a_record(f"{number}"))
    await sink.close()
    assert len(segments(path)) > 2
    return path


def lines_of(path: Path) -> list[list[bytes]]:
    return [each.read_bytes().splitlines(keepends=True) for each in segments(path)]


class Copy:
    """A copy of the chain that is tampered with."""

    def __init__(self, original: Path, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(original.parent, folder)
        self.path = folder / original.name
        self.files = segments(self.path)

    def bytes(self) -> list[bytes]:
        return [each.read_bytes() for each in self.files]


@given(st.data())
@settings(max_examples=examples(120, deep=2000))
def test_any_flipped_bit_is_found(tmp_path_factory, data):
    original, folder = made_once(tmp_path_factory), tmp_path_factory.getbasetemp() / "bits"
    copy = Copy(original, folder)
    number = data.draw(st.integers(0, len(copy.files) - 1))
    text = bytearray(copy.files[number].read_bytes())
    place, bit = data.draw(st.integers(0, len(text) - 1)), data.draw(st.integers(0, 7))
    text[place] ^= 1 << bit
    copy.files[number].write_bytes(text)
    report = verify_chain(copy.path)
    assert not report.holds
    line = original_line(original, number, place)
    assert (report.findings[0].file, report.findings[0].line) == (copy.files[number].name, line)


def test_a_first_record_that_is_no_text_any_more_is_found(tmp_path_factory):
    copy = Copy(made_once(tmp_path_factory), tmp_path_factory.getbasetemp() / "bits")
    first = copy.files[0]
    text = bytearray(first.read_bytes())
    text[text.index(b'"prev":"') + len(b'"prev":"')] |= 0x80
    first.write_bytes(text)
    report = verify_chain(copy.path)
    assert (report.findings[0].file, report.findings[0].line) == (first.name, 1)


_MADE: list[Path] = []


def made_once(factory: pytest.TempPathFactory) -> Path:
    """One chain for all examples of the properties; only copies are touched."""
    if not _MADE:

        async def make() -> Path:
            path = factory.mktemp("chain") / "audit.jsonl"
            sink = FileAuditSink(path, rotation=Rotation(max_bytes=2_500))
            for number in range(RECORDS):
                await sink.append(a_record(f"{number}"))
            await sink.close()
            return path

        _MADE.append(asyncio.run(make()))
    return _MADE[0]


def original_line(original: Path, number: int, place: int) -> int:
    return segments(original)[number].read_bytes()[:place].count(b"\n") + 1


@given(st.data())
@settings(max_examples=examples(120, deep=2000))
def test_records_removed_doubled_swapped_or_cut_are_found(tmp_path_factory, data):
    original, folder = made_once(tmp_path_factory), tmp_path_factory.getbasetemp() / "records"
    copy = Copy(original, folder)
    lines = lines_of(copy.path)
    flat = [(number, row) for number, each in enumerate(lines) for row in range(len(each))]
    number, row = data.draw(st.sampled_from(flat))
    match data.draw(st.sampled_from(["remove", "double", "swap", "cut", "drop file", "move"])):
        case "remove":
            del lines[number][row]
        case "double":
            to = data.draw(st.sampled_from(flat))
            lines[to[0]].insert(to[1], lines[number][row])
        case "swap":
            to = data.draw(st.sampled_from([each for each in flat if each != (number, row)]))
            lines[number][row], lines[to[0]][to[1]] = lines[to[0]][to[1]], lines[number][row]
        case "cut":
            lines = [*lines[:number], lines[number][:row]]
        case "drop file":
            del lines[number]
            copy.files[number].unlink()
            del copy.files[number]
        case _:
            moved = lines[number].pop(row)
            to = data.draw(st.sampled_from([each for each in flat if each != (number, row)]))
            lines[to[0]].insert(to[1], moved)
    for file, each in zip(copy.files, [*lines, *([[]] * len(copy.files))], strict=False):
        file.write_bytes(b"".join(each))
    # A record that moves over the border of two files is where it was: the chain does not know files.
    same = list(joined.from_iterable(lines)) == list(joined.from_iterable(lines_of(original)))
    assert verify_chain(copy.path).holds == same


def test_what_is_missing_is_named(written, tmp_path):
    copy = Copy(written, tmp_path / "copy")
    lines = lines_of(copy.path)
    gone = lines[1].pop(0)
    number = int(gone.partition(b'"seq":')[2].partition(b",")[0])
    copy.files[1].write_bytes(b"".join(lines[1]))
    [finding] = verify_chain(copy.path).findings
    assert (finding.file, finding.line) == (copy.files[1].name, 1)
    assert finding.what.startswith(f"sequence gap: record {number} missing")


def test_every_place_is_told_and_what_holds_is_still_counted(written, tmp_path):
    copy = Copy(written, tmp_path / "copy")
    lines = lines_of(copy.path)
    lines[0][0] = lines[0][0].replace(b"policy_denied", b"policy_dented")
    lines[2].append(lines[2][-1])
    for file, each in zip(copy.files, lines, strict=True):
        file.write_bytes(b"".join(each))
    report = verify_chain(copy.path)
    assert [(finding.file, finding.what) for finding in report.findings] == [
        (copy.files[0].name, "the hash does not match the record"),
        (copy.files[2].name, f"record {len(lines[0]) + len(lines[1]) + len(lines[2]) - 1} is there twice"),
    ]
    assert (report.records, report.last) == (RECORDS - 1, RECORDS)


def test_a_forger_who_recomputes_every_later_hash_meets_the_published_heads(written, tmp_path, keys):
    forged = tmp_path / "forged" / written.name
    forged.parent.mkdir()
    shutil.copy(checkpoints_of(written), checkpoints_of(forged))

    async def forge() -> None:
        sink = FileAuditSink(forged)
        for number in range(RECORDS):
            await sink.append(a_record("nobody" if number == 3 else f"{number}"))
        checkpoints = checkpoints_of(written).read_bytes()
        await sink.close()
        checkpoints_of(forged).write_bytes(checkpoints)

    asyncio.run(forge())
    report = verify_chain(forged)
    assert "rewritten" in report.findings[0].what


def test_a_cut_shows_against_a_checkpoint_that_was_kept_elsewhere(written, tmp_path):
    kept = tmp_path / "kept"
    shutil.copy(checkpoints_of(written), kept)
    copy = Copy(written, tmp_path / "copy")
    checkpoints_of(copy.path).unlink()
    copy.files[-1].write_bytes(b"")
    copy.files[-2].unlink()
    assert verify_chain(copy.path).holds, "on its own, what is left is a chain"
    [finding] = verify_chain(copy.path, checkpoints=(kept,)).findings
    assert "are missing: the end was cut off" in finding.what
    assert f"to {RECORDS}" in finding.what


def test_archived_files_are_not_missed_where_a_signed_checkpoint_stands_for_them(written, tmp_path, keys):
    copy = Copy(written, tmp_path / "copy")
    first = len(lines_of(copy.path)[0])
    copy.files[0].unlink()
    assert not verify_chain(copy.path).holds, "anyone can write an unsigned checkpoint"
    report = verify_chain(copy.path, verifier=CheckpointVerifier(keys[1]))
    assert report.findings == ()
    assert (report.first, report.records) == (first + 1, RECORDS - first)


def test_a_signature_that_does_not_hold_is_a_finding(written, tmp_path, keys):
    other = CheckpointVerifier(a_key()[1])
    assert {finding.what for finding in verify_chain(written, verifier=other).findings} == {
        "the checkpoint is signed with another key"
    }
    copy = Copy(written, tmp_path / "copy")
    beside = checkpoints_of(copy.path)
    beside.write_bytes(beside.read_bytes().replace(b'"why":"end"', b'"why":"rotation"'))
    findings = verify_chain(copy.path, verifier=CheckpointVerifier(keys[1])).findings
    assert [finding.what for finding in findings] == ["the signature of the checkpoint does not hold"]


def test_an_unsigned_checkpoint_is_a_finding_where_signatures_are_asked_for(written, keys):
    Checkpoints(written).publish(Checkpoint(seq=1, head="0" * 64, time="", why="periodic"))
    verifier = CheckpointVerifier(keys[1])
    assert [each.what for each in verify_chain(written, verifier=verifier).findings] == ["the checkpoint is not signed"]


@pytest.mark.parametrize("line", [b"{}", b"[]", b"nonsense", b'{"v":2,"seq":1,"head":"","time":"","why":""}'])
def test_a_line_that_is_no_checkpoint_is_a_finding(written, line):
    with checkpoints_of(written).open("ab") as file:
        file.write(line + b"\n")
    assert [each.what for each in verify_chain(written).findings] == ["1 lines are no checkpoints"]


def test_files_are_proven_in_several_processes_as_they_are_in_one(written, monkeypatch):
    monkeypatch.setattr(audit_proof, "STRETCH", 1500)
    monkeypatch.setattr(audit_proof, "_WORTH_IT", 1)
    told: list[tuple[int, int]] = []
    report = verify_chain(written, workers=2, progress=lambda done, total: told.append((done, total)))
    assert report == verify_chain(written, workers=1)
    assert told[-1][0] == told[-1][1] == sum(each.stat().st_size for each in segments(written))
    last = segments(written)[-1]
    last.write_bytes(last.read_bytes().replace(b"policy_denied", b"policy_dented", 1))
    assert verify_chain(written, workers=2) == verify_chain(written, workers=1)
    assert not verify_chain(written, workers=2).holds


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN PRIVATE KEY-----\n", a_key()[1]])
def test_a_key_that_is_none_is_refused(tmp_path, pem):
    with pytest.raises(BadKey):
        CheckpointSigner(pem)
    file = tmp_path / "key"
    file.write_bytes(pem)
    with pytest.raises(ConfigurationError, match=r"audit\.signing_key_file"):
        SigningKeyFile(file)


async def signed_with_each(path: Path, file: Path, pems: list[bytes]) -> None:
    """Write a record under each content of the file of the key."""
    await asyncio.to_thread(file.write_bytes, pems[0])
    key = SigningKeyFile(file)
    sink = FileAuditSink(path, signer=key.signer, checkpoint_s=0.0)
    for number, pem in enumerate(pems):
        await asyncio.to_thread(file.write_bytes, pem)
        key.refresh()
        await sink.append(a_record(f"{number}"))
        await sink.look()
    await sink.close()


def test_a_new_key_signs_from_then_on_and_all_verify_with_both(tmp_path, caplog):
    caplog.set_level("INFO")
    path, pairs = tmp_path / "audit.jsonl", [a_key(), a_key()]
    asyncio.run(signed_with_each(path, tmp_path / "key.pem", [pairs[0][0], b"none", b"", pairs[1][0], pairs[1][1]]))
    found, _ = read_checkpoints(checkpoints_of(path))
    assert len({each.key for each in found[:3]}) == len({each.key for each in found[3:]}) == 1
    assert found[2].key != found[3].key
    told = [record.levelname for record in caplog.records if "signing_key_file" in record.getMessage()]
    assert told[-4:] == ["ERROR", "ERROR", "INFO", "ERROR"]
    old, new = tmp_path / "old.pub", tmp_path / "new.pub"
    old.write_bytes(pairs[0][1])
    new.write_bytes(pairs[1][1])

    def verified(*keys):
        return CliRunner().invoke(cli, ["audit", "verify", str(path), *(f"--key={key}" for key in keys)])

    assert verified(old, new).exit_code == 0, verified(old, new).output
    for wrong in ([new], [old], [new, old]):
        assert verified(*wrong).exit_code == 1, wrong


def test_a_key_that_was_replaced_signs_nothing_behind_its_successor():
    pairs = [a_key() for _ in range(3)]
    signers = [CheckpointSigner(pair[0]) for pair in pairs]
    verifier = CheckpointVerifier(*(pair[1] for pair in pairs))

    def signed(number, seq):
        return signers[number].sign(Checkpoint(seq=seq, head="b" * 64, time="t", why="periodic"))

    good = [signed(0, 3), signed(0, 5), signed(2, 5), signed(2, 9)]
    forged = signed(0, 6)
    never = signed(1, 6)
    damaged = replace(signed(1, 1), signature=forged.signature)
    signatures = CheckpointSignatures([*good, forged, never, damaged], verifier)
    assert [signatures.fault(each) for each in good] == [""] * 4
    assert "replaced at record 5" in signatures.fault(forged)
    assert "replaced at record 5" in signatures.fault(never)
    assert signatures.fault(damaged), "and one that does not hold replaces no key"
    assert CheckpointSignatures([forged], verifier).fault(forged) == ""
    assert CheckpointSignatures([forged], None).fault(forged) == ""


def test_a_private_key_is_no_public_one():
    with pytest.raises(BadKey):
        CheckpointVerifier(a_key()[0])


def test_the_file_of_checkpoints_stays_small_and_keeps_the_ends_of_files(tmp_path, monkeypatch):
    monkeypatch.setattr("sidecar.store.checkpoints.LONGEST", 4000)
    assert LONGEST > 4000
    kept = Checkpoints(tmp_path / "audit.jsonl")
    for seq in range(1, 200):
        kept.publish(Checkpoint(seq=seq, head="a" * 64, time="t", why="rotation" if seq == 7 else "periodic"))
    found, foreign = read_checkpoints(checkpoints_of(tmp_path / "audit.jsonl"))
    assert checkpoints_of(tmp_path / "audit.jsonl").stat().st_size < 8000
    assert foreign == 0
    assert {7, 199} <= {each.seq for each in found}


async def test_the_next_start_says_that_published_records_are_missing(written, caplog):
    segments(written)[-1].write_bytes(b"")
    sink = FileAuditSink(written)
    await sink.close()
    assert "are missing at the end" in caplog.text


async def test_a_look_publishes_the_head_and_an_unchanged_one_only_once(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "audit.jsonl"
    sink = FileAuditSink(path, checkpoint_s=0.0)
    await sink.look()
    receipt = await sink.append(a_record("a"))
    await sink.look()
    await sink.look()
    await sink.close()
    found, _ = read_checkpoints(checkpoints_of(path))
    assert [(each.seq, each.head, each.why) for each in found] == [(1, receipt.hash, "periodic")]
    assert [
        record.__dict__["checkpoint"]["head"] for record in caplog.records if record.message == "audit checkpoint"
    ] == [receipt.hash]


def test_the_command_takes_the_key_and_the_checkpoints_that_were_kept(written, tmp_path, keys):
    key = tmp_path / "public.pem"
    key.write_bytes(keys[1])
    kept = tmp_path / "kept"
    shutil.copy(checkpoints_of(written), kept)
    done = CliRunner().invoke(cli, ["audit", "verify", str(written), "--key", str(key), "--checkpoints", str(kept)])
    assert (done.exit_code, done.stderr) == (0, "")
    assert f"intact: {RECORDS} records in {len(segments(written))} files" in done.stdout
    assert "published heads are among them" in done.stdout
    key.write_bytes(b"none")
    assert CliRunner().invoke(cli, ["audit", "verify", str(written), "--key", str(key)]).exit_code == 78


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 5},
        {"head": "c" * 64},
        {"time": "u"},
        {"why": "start"},
        {"key": "0" * 16},
        {"signature": ""},
        {"signature": "!!"},
        {"signature": "AAAA"},
    ],
    ids=str,
)
def test_a_changed_checkpoint_is_refused_by_its_signature(keys, change):
    signer, verifier = CheckpointSigner(keys[0]), CheckpointVerifier(keys[1])
    signed = signer.sign(Checkpoint(seq=4, head="b" * 64, time="t", why="end"))
    verifier.require(signed)
    with pytest.raises(BadCheckpoint):
        verifier.require(replace(signed, **change))
