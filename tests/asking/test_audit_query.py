"""Who read hr.salaries on Friday, through which agent, and which rule allowed it: one command."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.audit import AuditEntry, Selection, Verdict, read_entry, record
from sidecar.command_line import cli
from sidecar.model import JsonObject
from sidecar.policyset import PolicySet
from sidecar.store import KeptPolicySets
from sidecar.store.audit_reader import FileAuditReader, candidates
from sidecar.store.audit_segments import segments
from sidecar.store.file import FileAuditSink
from tests.asking.conftest import decided, facts, moment
from tests.examples import examples


def asked(path: Path, *words: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(cli, ["audit", "query", "--file", str(path), "--json", *words])
    assert done.exit_code in {0, 1}, done.output
    return [json.loads(line) for line in done.stdout.splitlines()]  # noqa: TID251 - our own output


def who(rows: list[dict[str, Any]]) -> list[str]:
    return [row["user"] for row in rows]


def test_who_read_the_salaries_on_friday(evidence):
    assert len(segments(evidence)) > 2
    rows = asked(evidence, "--collection", "hr.salaries", "--since", "2026-11-27", "--until", "2026-11-28")
    assert [
        (row["user"], row["agent"], row["tool"], row["grants"], row["status"], row["documents"]) for row in rows
    ] == [
        ("ann", "desk", "aggregate", ["hr/readers"], "ok", 3),
        ("ann", "desk", "find", ["hr/readers"], "ok", 4),
    ]
    assert rows[0]["accesses"] == [{"kind": "read", "database": "hr", "collection": "salaries"}]


@pytest.mark.parametrize(
    ("words", "users"),
    [
        (["--user", "ann"], ["ann", "ann", "ann"]),
        (["--user", "ann", "--user", "bob", "--decision", "deny"], ["bob", "bob"]),
        (["--user", "an"], []),
        (["--agent", "bot"], ["zoë\\u202e"]),
        (["--user", "zoë\u202e"], ["zoë\\u202e"]),
        (["--user", '=cmd|"x"'], ['=cmd|"x"']),
        (["--tool", "aggregate"], ["ann"]),
        (["--collection", "hr"], ["ann", "ann"]),
        (["--collection", "hr.orders"], []),
        (["--collection", "sales.=orders"], ['=cmd|"x"']),
        (["--issuer", "https://idp.example", "--tool", "aggregate"], ["ann"]),
        (["--issuer", "https://other.example"], []),
        (["--reason", "not_granted"], ["bob", "bob", "carol", "carol"]),
        (["--reason", "token_missing"], [""]),
        (["--decision", "deny", "--since", "2026-11-27T10:00:01Z"], ["carol", "carol", ""]),
        (["--since", "2026-11-27T10:00+01:00", "--until", "2026-11-27T11:00+01:00"], ["ann"]),
        (["--request", "req-0003"], ["ann"]),
        (["--request", f"{3:032x}"], ["ann"]),
        (["--decision", "allow", "--since", "2026-11-28"], ["zoë\\u202e"]),
    ],
)
def test_each_option_selects_what_it_says_and_not_its_near_miss(evidence, words, users):
    assert who(asked(evidence, *words)) == users


def test_a_call_without_outcome_is_said_to_have_none(evidence):
    [row] = asked(evidence, "--agent", "bot")
    assert (row["status"], row["documents"]) == ("no outcome", None)


async def store(path: Path, *records: JsonObject) -> None:
    sink = FileAuditSink(path)
    for each in records:
        await sink.append(each)
    await sink.close()


def test_a_call_over_midnight_belongs_to_its_first_day_and_has_its_outcome(tmp_path):
    late = record.intent(
        facts(1, "ann", "desk", "hr.salaries", "find"),
        decided("hr", allow=True),
        record_id="a",
        time_ns=moment("2026-11-27T23:59:59"),
    )
    ok, after = record.Status.OK, moment("2026-11-28T00:00:01")
    ended = record.outcome(late, record_id="b", time_ns=after, status=ok, documents=4)
    asyncio.run(store(tmp_path / "audit.jsonl", late, ended))
    [friday] = asked(tmp_path / "audit.jsonl", "--since", "2026-11-27", "--until", "2026-11-28")
    assert (friday["status"], friday["documents"]) == ("ok", 4)
    assert asked(tmp_path / "audit.jsonl", "--since", "2026-11-28") == []


def test_people_get_a_table_and_are_told_what_is_not_shown(evidence):
    done = CliRunner().invoke(cli, ["audit", "query", "--file", str(evidence), "--limit", "2", "--user", "ann"])
    assert done.exit_code == 0
    assert "hr/readers" in done.stdout
    assert "read hr.salaries" in done.stdout
    assert "2026-11-17" not in done.stdout
    assert "1 older calls are not shown" in done.stderr


def test_no_such_call_is_status_1(evidence):
    done = CliRunner().invoke(cli, ["audit", "query", "--file", str(evidence), "--user", "nobody"])
    assert (done.exit_code, done.stdout) == (1, "")


@pytest.mark.parametrize("time", ["yesterday", "2026-13-01", "3y", "-1d", "0d"])
def test_what_is_no_time_is_wrong_usage(evidence, time):
    done = CliRunner().invoke(cli, ["audit", "query", "--file", str(evidence), f"--since={time}"])
    assert done.exit_code == 2
    assert "is no time" in done.stderr


def test_a_file_that_is_damaged_is_not_skipped_in_silence(evidence):
    evidence.write_bytes(b"nonsense\n" + evidence.read_bytes())
    done = CliRunner().invoke(cli, ["audit", "query", "--file", str(evidence)], prog_name="mcp-sidecar")
    assert done.exit_code == 78
    assert "audit verify tells which line" in done.stderr


def test_without_a_file_and_settings_one_has_to_be_named():
    done = CliRunner().invoke(cli, ["audit", "query"])
    assert done.exit_code == 78
    assert "--file" in done.stderr


# --- the reader against a plain reading -------------------------------------------------------------------------------

NAMES = st.sampled_from(["ann", "bob", "carol", "zoë\\u202e", "desk", "bot", "find", "not_granted", "token_missing"])
TIMES = st.sampled_from(
    ["", "2026-11-16T09:00:00.000000Z", "2026-11-27T09:00:00.000000Z", "2026-11-27T09:00:00.000001Z", "2026-12-01T"]
)
SELECTIONS = st.builds(
    Selection,
    users=st.frozensets(NAMES, max_size=2),
    agents=st.frozensets(NAMES, max_size=1),
    tools=st.frozensets(NAMES, max_size=1),
    reasons=st.frozensets(NAMES, max_size=2),
    databases=st.frozensets(st.sampled_from(["hr", "sales"]), max_size=1),
    collections=st.frozensets(st.tuples(st.sampled_from(["hr", "sales"]), st.sampled_from(["orders", "salaries"]))),
    verdict=st.sampled_from([None, *Verdict]),
    since=TIMES,
    until=TIMES,
)


_LINES: list[bytes] = []


@pytest.fixture
def lines(evidence) -> list[bytes]:
    return [line for each in segments(evidence) for line in each.read_bytes().splitlines()]


@given(wanted=SELECTIONS)
@settings(max_examples=examples(200, deep=5000))
def test_no_record_that_matches_lacks_a_needle(wanted):
    from sidecar.audit.chain import GENESIS, link  # noqa: PLC0415
    from tests.asking.conftest import entries  # noqa: PLC0415

    if not _LINES:
        prev = GENESIS
        for seq, entry in enumerate(entries(), start=1):
            line, prev = link(entry, seq, prev)
            _LINES.append(line)
    block = b"\n".join(_LINES) + b"\n"
    plainly = [line for line in _LINES if wanted.matches(read_entry(line))]
    found = [line for line in candidates(block, wanted.needles) if wanted.matches(read_entry(line))]
    assert found == plainly


async def read(path: Path, wanted: Selection) -> list[AuditEntry]:
    return [entry async for batch in FileAuditReader(path).read(wanted) for entry, _ in batch]


@pytest.mark.parametrize("since", ["", "2026-11-17T09:00:00.000000Z", "2026-11-27T11:00:00.000000Z", "2027-"])
@pytest.mark.parametrize("until", ["", "2026-11-17T09:00:00.000001Z", "2026-11-27T12:00:00.000000Z"])
async def test_bisection_finds_what_plain_reading_finds(evidence, lines, since, until, monkeypatch):
    monkeypatch.setattr("sidecar.store.audit_reader._STEP", 700)
    monkeypatch.setattr("sidecar.store.audit_reader.BLOCK", 1000)
    if since == "2027-":
        since = "2027-01-01T00:00:00.000000Z"
    wanted = Selection(since=since, until=until)
    plainly = [read_entry(line).seq for line in lines if wanted.matches(read_entry(line))]
    assert [entry.seq for entry in await read(evidence, wanted)] == plainly


async def test_a_line_that_is_still_being_written_is_not_read(evidence, lines):
    with evidence.open("ab") as file:
        file.write(lines[-1][:40])
    assert len(await read(evidence, Selection())) == len(lines)


THEN = PolicySet(
    bundles=("platform", "teams/sales"),
    files=(
        ("platform/verdicts.rego", b'package p\n\nreasons contains {"code": "not_granted", "access": 0} if true\n'),
        ("teams/sales/policy.rego", b'package mcp.teams.sales\n\n\ngrant contains {"id": "readers"} if true\n'),
    ),
)


async def recorded(path: Path, *, allow: bool, revision: str) -> None:
    now, about = moment("2026-11-27T09:00:00"), facts(1, "ann", "desk", "sales.orders", "find")
    decision = replace(decided("sales", allow=allow), revision=revision)
    sink = FileAuditSink(path)
    if allow:
        await sink.append(record.intent(about, decision, record_id="a", time_ns=now))
    else:
        await sink.append(record.refusal(about, "policy_denied", decision, record_id="a", time_ns=now))
    await sink.close()


@pytest.mark.parametrize(
    ("allow", "revision", "kept", "rules"),
    [
        (True, THEN.revision, "kept", [{"grant": "sales/readers", "at": ["teams/sales/policy.rego:4"]}]),
        (
            False,
            THEN.revision,
            "kept",
            [{"code": "not_granted", "source": "platform", "access": 0, "at": ["platform/verdicts.rego:3"]}],
        ),
        (True, "c" * 64, "not kept", [{"grant": "sales/readers", "at": []}]),
    ],
)
def test_a_call_is_explained_by_the_rules_of_its_own_time(tmp_path, allow, revision, kept, rules):
    path = tmp_path / "audit.jsonl"
    asyncio.run(recorded(path, allow=allow, revision=revision))
    assert "rules" not in asked(path)[0], "only where it is asked for"
    KeptPolicySets(tmp_path / "audit.jsonl.policies").keep(THEN)
    [row] = asked(path, "--explain")
    assert (row["policy_set"], row["rules"]) == (kept, rules)
    shown = CliRunner().invoke(cli, ["audit", "query", "--file", str(path), "--explain"])
    assert (rules[0]["at"] or ["the policy set is not kept"])[0] in shown.stdout
