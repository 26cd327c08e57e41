"""A period summed up, records for other programs, and records as they come."""

import asyncio
import csv
import io
import json
import os
import signal
import sys

import pytest
from click.testing import CliRunner

from sidecar.audit.record import Facts, refusal
from sidecar.command_line import cli
from sidecar.store.file import FileAuditSink, Rotation
from tests import parts
from tests.patience import HANG_S


def test_the_report_tells_who_is_newly_refused_and_who_stopped_working(evidence):
    words = ["audit", "report", "--file", str(evidence), "--since", "2026-11-23", "--until", "2026-11-30"]
    done = CliRunner().invoke(cli, [*words, "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)  # noqa: TID251 - our own output
    assert (found["allowed"], found["refused"]) == (4, 4)
    assert found["before"] == {"allowed": 2, "refused": 1}
    assert found["most_refused"][0] == {"user": "carol", "agent": "desk", "reason": "not_granted", "refused": 2}
    assert [(row["user"], row["reason"]) for row in found["newly_refused"]] == [
        ("carol", "not_granted"),
        ("", "token_missing"),
    ]
    assert found["stopped_working"] == [
        {"user": "carol", "agent": "desk", "allowed_before": 1, "refused": 2, "reasons": ["not_granted"]}
    ]
    assert {"user": "ann", "agent": "desk", "kind": "read", "place": "hr.salaries", "calls": 2} in found["touched"]
    assert {"team": "sales", "allowed": 2, "refused": 3} in found["teams"]
    table = CliRunner().invoke(cli, words)
    assert "Stopped working" in table.stdout
    assert "hr.salaries" in table.stdout


def test_a_report_of_no_time_is_wrong_usage(evidence):
    words = ["audit", "report", "--file", str(evidence), "--since", "2026-11-23", "--until", "2026-11-23"]
    assert CliRunner().invoke(cli, words).exit_code == 2


def exported(path, form: str, *words: str) -> bytes:
    done = CliRunner().invoke(cli, ["audit", "export", "--file", str(path), "--format", form, *words])
    assert done.exit_code == 0, done.output
    return done.stdout_bytes


def test_json_lines_are_the_stored_bytes(evidence):
    text = exported(evidence, "jsonl", "--user", "bob")
    lines = text.splitlines(keepends=True)
    stored = b"".join(each.read_bytes() for each in sorted(evidence.parent.glob("audit.jsonl*")))
    assert len(lines) == 2
    assert all(line in stored for line in lines)


def test_no_cell_of_csv_is_a_formula(evidence):
    rows = list(csv.DictReader(io.StringIO(exported(evidence, "csv").decode(), newline="")))
    assert len(rows) == 16
    assert {row["user"] for row in rows} >= {"ann", '\'=cmd|"x"'}
    assert {row["agent"] for row in rows} >= {"'-agent"}
    assert not [cell for row in rows for cell in row.values() if cell[:1] in {"=", "+", "-", "@", "\t", "\r"}]


def test_ocsf_names_class_actor_and_resources(evidence):
    events = [json.loads(line) for line in exported(evidence, "ocsf", "--user", "ann").splitlines()]  # noqa: TID251
    event = events[-1]
    assert (event["class_uid"], event["category_uid"], event["type_uid"]) == (6003, 6, 600302)
    assert event["actor"]["user"]["uid"] == "ann"
    assert event["actor"]["app_uid"] == "desk"
    assert event["resources"] == [{"name": "hr.salaries", "type": "collection", "labels": ["read"]}]
    assert event["actor"]["authorizations"][0]["policy"]["name"] == "hr/readers"
    assert (event["status_id"], event["time"]) == (1, 1795770001000)
    refused = json.loads(exported(evidence, "ocsf", "--user", "bob").splitlines()[0])  # noqa: TID251
    assert (refused["status_id"], refused["severity_id"]) == (2, 3)


def test_the_newest_records_are_shown_a_line_each(evidence):
    done = CliRunner().invoke(cli, ["audit", "tail", "--file", str(evidence), "--lines", "2"])
    assert done.exit_code == 0
    first, last = done.stdout.splitlines()
    assert "zoë\\u202e" in first
    assert last.startswith("2026-11-28T10:00:00.000000Z  refusal  -  -  -")
    assert "token_missing" in last


async def test_records_that_come_are_shown_across_rotations(evidence):
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sidecar", "audit", "tail", "--file", str(evidence), "--lines", "1", "-f", "--json"),
        cwd=parts.ROOT,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},  # noqa: TID251 - the tests' own environment
    )
    assert program.stdout is not None
    sink = FileAuditSink(evidence, rotation=Rotation(max_bytes=2_000))
    try:
        async with asyncio.timeout(HANG_S):
            first = json.loads(await program.stdout.readline())  # noqa: TID251
            for number in range(12):
                record = refusal(Facts(request_id=f"new-{number}"), "e", record_id=f"n{number}", time_ns=0)
                await sink.append(record)
                await asyncio.sleep(0.02)
            seen = [json.loads(await program.stdout.readline())["seq"] for _ in range(12)]  # noqa: TID251
        assert seen == list(range(first["seq"] + 1, first["seq"] + 13))
    finally:
        program.send_signal(signal.SIGINT)
        await program.wait()
        await sink.close()


@pytest.mark.parametrize("command", ["query", "report", "tail", "export"])
def test_a_file_that_is_not_there_is_wrong_usage(tmp_path, command):
    words = ["--since", "1d"] if command == "report" else []
    done = CliRunner().invoke(cli, ["audit", command, "--file", str(tmp_path / "absent"), *words])
    assert done.exit_code == 2
