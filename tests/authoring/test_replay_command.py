"""``mcp-sidecar replay``: real records, decided anew by a real OPA under edited policies."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sidecar.authoring.replaying import ReplayWanted, replay
from sidecar.enforcement.evidence import without_tool
from sidecar.model import Decision, JsonObject
from sidecar.opa.managed import ManagedOpa
from sidecar.ports import PdpAnswer, Question
from tests import parts
from tests.authoring.traffic import (
    ANALYST,
    HR,
    POLICIES,
    REGIONAL,
    SERVERS,
    STRANGER,
    SUPPORT,
    Book,
    decided,
    path,
    text,
)
from tests.patience import HANG_S
from tests.terminal import ACTS, on_a_terminal

SNOOPER = replace(ANALYST, database="hr", collection="salaries")
CALLS = (ANALYST, STRANGER, HR, REGIONAL, SNOOPER)


def run(*options: str, stdin: bytes | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "replay", *options],
        env={"PATH": path(), "PYTHONPATH": str(parts.ROOT), **environment},
        cwd=parts.ROOT,
        input=stdin,
        capture_output=True,
        timeout=HANG_S,
        check=False,
    )


def answer(done: subprocess.CompletedProcess[bytes]) -> Any:
    assert done.returncode in {0, 1}, done.stderr
    return json.JSONDecoder().decode(done.stdout.decode())


@pytest.fixture(scope="module")
def decisions() -> dict[str, Decision]:
    return asyncio.run(decided((*CALLS, SUPPORT)))


@pytest.fixture(scope="module")
def recorded(decisions: dict[str, Decision], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three calls of the analyst, and one of everybody else, as the shipped policies decide them."""
    book = Book()
    for call in (ANALYST, ANALYST, *CALLS):
        book.call(call, decisions[text(call)])
    file = tmp_path_factory.mktemp("recorded") / "audit.jsonl"
    file.write_bytes(book.content)
    return file


@pytest.fixture
def candidate(tmp_path: Path) -> Iterator[Callable[[str, str, str], Path]]:
    """Make an edited copy of the shipped policies, without the tests that would hold the edit back."""
    folder = tmp_path / "candidate"

    def edit(file: str, old: str, new: str) -> Path:
        shutil.copytree(POLICIES, folder, ignore=shutil.ignore_patterns("policy_test.rego"))
        content = (folder / file).read_text()
        assert old in content, f"{file} was written anew; choose another edit"
        (folder / file).write_text(content.replace(old, new, 1))
        return folder

    yield edit
    shutil.rmtree(folder, ignore_errors=True)


def counts(document: Any) -> dict[str, int]:
    return {name: count for name, count in document["counts"].items() if count}


def test_under_the_same_policies_everything_is_the_same(recorded: Path) -> None:
    done = run("--audit", str(recorded), "--policies", str(POLICIES), "--json")
    document = answer(done)
    assert done.returncode == 0, document
    assert counts(document) == {"same": 7}
    assert document["questions"] == 5
    assert document["differences"] == []
    assert document["audit"]["broken"] is None
    assert document["revision"].startswith("sha256:")


ANALYTICS = "teams/analytics/policy.rego"
GRANT = '{"id": "analysts-read-orders"}'
EVERYBODY_READS_HR = (
    '\n\ngrant contains {"id": "everybody"} if {\n\tlib.reads\n\tlib.on("hr", ["*"])\n}\n\ndeny contains '
)


@pytest.mark.parametrize(
    ("file", "old", "new", "expected", "subject", "differs"),
    [
        pytest.param(
            ANALYTICS,
            'lib.in_group("analysts")',
            'lib.in_group("nobody")',
            {"would_deny": 3, "same": 4},
            "alice",
            {"allow", "grants", "reasons"},
            id="a-grant-taken-away",
        ),
        pytest.param(
            "teams/people/policy.rego",
            "\n\ndeny contains ",
            EVERYBODY_READS_HR,
            {"would_allow": 1, "changed": 1, "same": 5},
            "alice",
            {"allow", "grants", "reasons"},
            id="a-grant-added",
        ),
        pytest.param(
            ANALYTICS,
            GRANT,
            '{"id": "renamed"}',
            {"changed": 3, "same": 4},
            "alice",
            {"grants"},
            id="a-grant-renamed",
        ),
        pytest.param(
            ANALYTICS,
            GRANT,
            '{"id": "analysts-read-orders", "names": "reachable"}',
            {"would_deny": 3, "same": 4},
            "alice",
            {"allow", "reasons", "names of access 0", "owner of access 0"},
            id="an-obligation-that-cannot-be-discharged",
        ),
        pytest.param(
            ANALYTICS,
            '"filter": {"region": region}',
            '"filter": {"region": region, "status": "open"}',
            {"changed": 1, "same": 6},
            "rita",
            {"filter of access 0"},
            id="another-filter",
        ),
        pytest.param(
            "platform/data.json",
            '"server": "demo-ro"',
            '"server": "demo-rw"',
            {"changed": 6, "same": 1},
            "alice",
            {"server"},
            id="another-server",
        ),
    ],
)
def test_exactly_the_calls_that_an_edit_touches_differ(
    recorded: Path,
    candidate: Callable[[str, str, str], Path],
    file: str,
    old: str,
    new: str,
    expected: dict[str, int],
    subject: str,
    differs: set[str],
) -> None:
    done = run("--audit", str(recorded), "--policies", str(candidate(file, old, new)), "--json")
    document = answer(done)
    assert done.returncode == 1
    assert counts(document) == expected, document["differences"]
    row = document["differences"][0]
    assert row["subject"]["id"] == subject
    assert row["actor"] == {"id": "claude-desktop"}
    assert set(row["differs"]) == differs


def test_the_table_says_who_what_and_why_in_words(recorded: Path, candidate: Callable[[str, str, str], Path]) -> None:
    folder = candidate(ANALYTICS, 'lib.in_group("analysts")', 'lib.in_group("nobody")')
    done = run("--audit", str(recorded), "--policies", str(folder), COLUMNS="200")
    shown = done.stdout.decode()
    assert done.returncode == 1
    for words in (
        "7 decisions compared",
        "3 would_deny",
        "alice via claude-desktop",
        "read sales.orders",
        "allowed on demo-ro",
        "analytics/analysts-read-orders",
        "not_granted",
    ):
        assert words in " ".join(shown.split()), shown
    assert "canary" not in shown


@pytest.mark.parametrize("words", ["[]", '{"reasons": []}', '{"reasons": {"not_granted": 1}}'])
def test_a_set_without_words_for_its_reasons_is_replayed_all_the_same(
    recorded: Path, candidate: Callable[[str, str, str], Path], words: str
) -> None:
    folder = candidate(ANALYTICS, 'lib.in_group("analysts")', 'lib.in_group("nobody")')
    (folder / "schema/reasons.json").write_text(words)
    done = run("--audit", str(recorded), "--policies", str(folder), COLUMNS="250")
    assert done.returncode == 1, done.stderr
    assert b"not_granted (analytics, access 0)" in done.stdout


def test_standard_input_is_a_file_too(recorded: Path) -> None:
    done = run("--audit", "-", "--policies", str(POLICIES), stdin=recorded.read_bytes())
    assert done.returncode == 0, done.stderr
    assert b"no differences" in done.stdout


def test_a_broken_chain_is_said_and_status_one(recorded: Path) -> None:
    edited = recorded.read_bytes().replace(b'"mallory"', b'"Mallory"', 1)
    done = run("--audit", "-", "--policies", str(POLICIES), stdin=edited)
    assert done.returncode == 1
    assert b"broken at line 7: the hash does not match the record; nothing after it was compared" in done.stdout


def test_what_has_no_question_is_counted_with_the_setting_that_is_missing(decisions: dict[str, Decision]) -> None:
    book = Book()
    book.call(ANALYST, decisions[text(ANALYST)], question=False)
    done = run("--audit", "-", "--policies", str(POLICIES), stdin=book.content)
    assert done.returncode == 1
    assert b"SIDECAR_AUDIT__QUESTION=true" in done.stdout
    assert b"nothing was compared" in done.stdout
    book.call(ANALYST, decisions[text(ANALYST)])
    assert run("--audit", "-", "--policies", str(POLICIES), stdin=book.content).returncode == 0


def test_what_failed_after_an_allow_is_still_an_allow(decisions: dict[str, Decision]) -> None:
    """Of the refusals that follow an allow, only that for an obligation comes from policy."""
    book = Book()
    for error in ("upstream_unreachable", "audit_unavailable", "cancelled", "unknown_tool"):
        book.call(ANALYST, decisions[text(ANALYST)], error=error)
    book.call(SUPPORT, decisions[text(SUPPORT)])
    assert b"obligation_unsupported" in book.lines[-1]
    # What settings deny of an allow is nothing that a policy could differ about.
    book.call(ANALYST, without_tool(decisions[text(ANALYST)]), error="tool_group_off")
    assert b'"allow":false' in book.lines[-1]
    done = run("--audit", "-", "--policies", str(POLICIES), "--json", stdin=book.content)
    assert counts(answer(done)) == {"same": 6}


def test_configured_servers_are_the_ones_that_an_allow_may_go_to(recorded: Path, tmp_path: Path) -> None:
    config = tmp_path / "sidecar.toml"
    config.write_text(
        'resource_url = "http://127.0.0.1:1/mcp"\n[[issuers]]\nissuer = "https://idp.example"\n'
        '[[servers]]\nname = "demo-rw"\nurl = "http://127.0.0.1:1/mcp"\n'
    )
    options = ("--audit", str(recorded), "--policies", str(POLICIES), "--json")
    document = answer(run(*options, SIDECAR_CONFIG=str(config)))
    assert counts(document) == {"unavailable": 6, "same": 1}
    assert "server" in document["differences"][0]["after"]["unavailable"]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ((), 2),
        (("--audit", "no-such-file", "--policies", "policies"), 2),
        (("--audit", ".", "--policies", "policies"), 2),
        (("--audit", "pyproject.toml"), 2),
        (("--audit", "pyproject.toml", "--policies", "no-such-folder"), 2),
        (("--audit", "pyproject.toml", "--policies", "policies", "--limit", "-1"), 2),
        (("--audit", "pyproject.toml", "--policies", "docs"), 78),
        (("--audit", "pyproject.toml", "--policies", "policies", "--opa", "no-such-program"), 78),
        (("--audit", "pyproject.toml", "--policies", "policies"), 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_every_end_has_its_status(options: tuple[str, ...], status: int) -> None:
    done = run(*options)
    assert done.returncode == status, done.stderr
    assert b"Traceback" not in done.stderr


def test_a_folder_that_would_not_be_served_decides_nothing(
    recorded: Path, candidate: Callable[[str, str, str], Path]
) -> None:
    folder = candidate(ANALYTICS, "package mcp.teams.analytics", "package mcp.teams.people")
    done = run("--audit", str(recorded), "--policies", str(folder))
    assert done.returncode == 78
    assert b"teams/analytics/policy.rego" in done.stderr
    assert done.stdout == b""


# --- hostile files ----------------------------------------------------------------------------------------------------

HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u2028[red]x[/red]\r\n"


def hostile() -> Book:
    """A chain that holds, whose every name is made to be shown, and whose calls seem to have been allowed."""
    question: Any = replace(STRANGER, subject=HOSTILE).question
    question["accesses"][0] |= {"database": "../../v1/data", "collection": HOSTILE}
    question["action"]["tool"] = f"../../../data/system{HOSTILE}"
    question["actor"]["id"] = HOSTILE
    said: JsonObject = {
        "allow": True,
        "reasons": [],
        "grants": [HOSTILE],
        "revision": HOSTILE,
        "opa_decision_id": HOSTILE,
    }
    book = Book()
    asked = json.dumps(question, separators=(",", ":"), ensure_ascii=False)
    refused = Decision(allow=False, reasons=(), server="", accesses=(), revision="")
    for number in range(2):
        names: JsonObject = {"server": HOSTILE, "time": HOSTILE, "tool": HOSTILE, "request_id": f"{HOSTILE}{number}"}
        book.call(STRANGER, refused, edit={"question": asked, "decision": said, **names})
    return book


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["table", "json"])
def test_names_of_a_hostile_file_do_nothing_to_a_terminal(tmp_path: Path, options: tuple[str, ...]) -> None:
    file = tmp_path / "audit.jsonl"
    file.write_bytes(hostile().content)
    status, shown = on_a_terminal("replay", "--audit", str(file), "--policies", str(POLICIES), *options)
    printed = shown.rpartition("\x1b[2K")[2]  # the bar, which has no names, takes itself away before
    assert (status, "owned" in printed) == (1, True), "the names are there"
    assert [sequence for sequence in ACTS if sequence in printed] == []
    assert "would_deny" in printed


# --- a large file, and an OPA that goes away --------------------------------------------------------------------------

RECORDS = 20_000
DISTINCT = 25
MEASURED = """
import resource, sys
from pathlib import Path
from sidecar.command_line import cli

def most() -> int:
    status = Path("/proc/self/status")  # Linux counts the memory before exec, that of this test, in ru_maxrss
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))

try:
    cli(sys.argv[1:])
finally:
    print(most(), file=sys.stderr)
"""


def measured(file: Path) -> tuple[Any, int]:
    """Replay a file; return what was found and the most memory that it took, in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, "replay", "--audit", str(file), "--policies", str(POLICIES), "--json"],
        env={"PATH": path(), "PYTHONPATH": str(parts.ROOT)},
        cwd=parts.ROOT,
        capture_output=True,
        timeout=HANG_S,
        check=False,
    )
    return answer(done), int(done.stderr.split()[-1])


def test_a_large_file_is_not_held_in_memory_and_each_question_is_asked_once(
    decisions: dict[str, Decision], tmp_path: Path
) -> None:
    deny = decisions[text(STRANGER)]
    sizes = []
    for name, records in (("small", 100), ("large", RECORDS)):
        book, step = Book(), -(-records // DISTINCT)
        for number in range(records):
            book.call(replace(STRANGER, second=STRANGER.second + number // step), deny)
        (tmp_path / name).write_bytes(book.content)
        document, most = measured(tmp_path / name)
        assert counts(document) == {"same": records}
        assert document["questions"] == DISTINCT
        sizes.append(most)
    grown = sizes[1] - sizes[0]
    assert grown < (tmp_path / "large").stat().st_size / 3, f"{grown} bytes more for {RECORDS} records"


class Killed:
    """A real OPA that is killed before the third question; counts the questions that reach it."""

    def __init__(self, managed: ManagedOpa) -> None:
        self._managed = managed
        self.asked = 0

    @property
    def revision(self) -> str:
        return self._managed.revision

    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        self.asked += 1
        if self.asked == 3 and self._managed.pid is not None:
            os.kill(self._managed.pid, signal.SIGKILL)
        return await self._managed.ask(question, document)

    async def healthy(self) -> bool:
        return await self._managed.healthy()


async def test_an_opa_that_is_killed_on_the_way_costs_no_decision(recorded: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        managed = ManagedOpa(str(parts.installed("opa")), POLICIES, directory=Path(directory) / "opa", timeout_s=20)
        async with managed:
            killed = Killed(managed)
            with recorded.open("rb") as file:
                found = await replay(file, killed, servers=SERVERS, titles={}, wanted=ReplayWanted(limit=10))
    assert found.ok, found.document()
    assert found.questions == 5
    assert 5 < killed.asked <= 10
