"""``mcp-sidecar demo --once`` on the real parts: the tour, its exit status, and whose settings count."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil
import pytest
from pymongo import MongoClient

from tests import parts
from tests.authorized.test_log_in import TYPING, counted, outcome
from tests.hours import policies_on
from tests.parts import ROOT
from tests.patience import HANG_S

TOUR = [
    ("alice", "find", "allowed", "analytics/analysts-read-orders"),
    ("alice", "count", "allowed", "analytics/analysts-read-orders"),
    ("alice", "aggregate", "refused", "people"),
    ("larry", "insert-many", "allowed", "loading/loader-inserts-on-weekdays"),
    ("larry", "count", "allowed", "loading/loader-reads-what-it-loaded"),
    ("larry", "insert-many", "refused", "not_delegated · analytics"),
    ("mallory", "tools/list", "no tools", ""),
    ("mallory", "find", "unknown tool", "Unknown tool."),
    ("nobody", "find", "401", "A bearer token is required."),
]
ON_ANOTHER_DAY = [
    (who, tool, "refused", "not_granted · loading") if "on-weekdays" in why else (who, tool, decision, why)
    for who, tool, decision, why in TOUR
]
WRITING = {"insert-many"}


def surroundings(**more: str) -> dict[str, str]:
    return {
        "PATH": f"{parts.BIN}:{os.environ['PATH']}",  # noqa: TID251 - the tests' own environment
        "PYTHONPATH": str(ROOT),
        "SIDECAR_OPA__TIMEOUT_MS": "5000",
        "XDG_DATA_HOME": "/nonexistent",
        **more,
    }


def demo(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Play the tour in a folder of its own, where what it writes lands; on a loader's day unless told otherwise."""
    policies = {} if "SIDECAR_POLICIES" in environment else {"SIDECAR_POLICIES": str(policies_on(folder / "copy"))}
    return subprocess.run(
        [sys.executable, "-m", "sidecar", "demo", "--once", *words],
        cwd=folder,
        env=surroundings(**policies, **environment),
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


def rows(output: str) -> list[list[str]]:
    """The cells of the table's rows, each on one line."""
    found: list[list[str]] = []
    fresh = True
    for line in output.splitlines():
        if not line.startswith("│"):
            fresh = True
            continue
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        if fresh:
            found.append(cells)
        else:
            found[-1] = [f"{above} {cell}".strip() for above, cell in zip(found[-1], cells, strict=True)]
        fresh = False
    return found


def assert_as_announced(output: str, steps: list[tuple[str, str, str, str]]) -> None:
    table = rows(output)
    assert len(table) == len(steps), output
    for cells, (who, tool, decision, why) in zip(table, steps, strict=True):
        assert cells[0].startswith(who)
        assert cells[1] == tool
        assert cells[3] == decision
        assert why.replace(" ", "") in cells[4].replace(" ", "")
        assert re.fullmatch(r"\d+", cells[5])
    assert "(expected: " not in output


def collections(uri: str) -> set[str]:
    with MongoClient[dict[str, object]](uri) as client:
        names = [name for name in client.list_database_names() if name in {"sales", "staging", "hr", "support"}]
        return {f"{name}.{collection}" for name in names for collection in client[name].list_collection_names()}


def test_the_tour_goes_as_announced_and_leaves_its_evidence_where_it_was_told(tmp_path):
    store = tmp_path / "evidence.jsonl"
    done = demo(tmp_path, SIDECAR_AUDIT__STORE=f"file:{store}")
    assert done.returncode == 0, done.stderr
    assert_as_announced(done.stdout, TOUR)
    assert "✗ read hr.salaries" in done.stdout, "the access that failed is named"
    records = [json.loads(line) for line in store.read_bytes().splitlines()]  # noqa: TID251 - our own file
    assert [r["tool"] for r in records if r["event"] == "intent"] == ["find", "count", "insert-many", "count"]
    assert {r["subject"]["id"] for r in records if r["subject"]} == {"alice", "larry", "mallory"}
    left = {"copy", "evidence.jsonl", "evidence.jsonl.checkpoints", "evidence.jsonl.policies"}
    assert {path.name for path in tmp_path.iterdir()} == left, "nothing else is left"
    assert not [line for line in done.stderr.splitlines() if "Traceback" in line or "eyJ" in line]
    assert "eyJ" not in done.stdout, "with --once no token is shown"
    assert f"The evidence of every call is in {store}, and it stays there." in done.stdout
    assert_intact(printed_check(done.stdout), tmp_path, len(records))


def printed_check(output: str) -> str:
    """The command that the tour offers, as it stands there."""
    [line] = [line for line in output.splitlines() if " audit verify " in line]
    return line


def assert_intact(command: str, folder: Path, records: int) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"intact: {records} records" in done.stdout


def test_outside_of_the_loaders_hours_its_insert_is_announced_as_refused(tmp_path):
    done = demo(tmp_path, SIDECAR_POLICIES=str(policies_on(tmp_path / "closed", days=[])))
    assert done.returncode == 0, done.stderr
    assert_as_announced(done.stdout, ON_ANOTHER_DAY)
    assert "outside the loading team's hours" in done.stdout


def without_the_analysts_grants(folder: Path) -> Path:
    policies = policies_on(folder)
    policy = policies / "teams" / "analytics" / "policy.rego"
    text = policy.read_text()
    assert '"analysts"' in text
    (policy.parent / "policy_test.rego").unlink()  # it would refuse such a set, as it should
    policy.write_text(text.replace('"analysts"', '"nobody-at-all"'))
    return policies


def test_a_step_that_goes_otherwise_is_shown_and_ends_with_status_1(tmp_path):
    done = demo(tmp_path, SIDECAR_POLICIES=str(without_the_analysts_grants(tmp_path)))
    assert done.returncode == 1, done.stderr
    first = rows(done.stdout)[0]
    assert "expected: allowed" in first[3]
    assert rows(done.stdout)[3][3] == "allowed", "the others are not affected"


def test_a_database_that_was_named_is_read_and_not_written(tmp_path):
    with parts.running_database() as uri:
        if parts.outside_database():
            pytest.skip("that database is shared; here one is needed that is empty")
        with MongoClient[dict[str, object]](uri) as client:
            client.sales.customers.insert_one({"_id": 1, "name": "yours"})
        done = demo(tmp_path, MDB_MCP_CONNECTION_STRING=uri)
        assert collections(uri) == {"sales.customers"}, "nothing was seeded or inserted"
        with MongoClient[dict[str, object]](uri) as client:
            assert list(client.sales.customers.find()) == [{"_id": 1, "name": "yours"}]
        assert "Steps that write were left out" in done.stdout
        assert not WRITING & {cells[1] for cells in rows(done.stdout)}
        assert done.returncode == 1, "there are no documents to find in an empty database, and the tour says so"

        done = demo(tmp_path, "--write", MDB_MCP_CONNECTION_STRING=uri)
        assert done.returncode == 0, done.stderr
        assert_as_announced(done.stdout, TOUR)
        assert {"sales.orders", "hr.salaries"} <= collections(uri), "told to write, it does"

        done = demo(tmp_path, MDB_MCP_CONNECTION_STRING=uri)
        assert done.returncode == 0, done.stderr
        assert_as_announced(done.stdout, [step for step in TOUR if step[1] not in WRITING])


def text_until(process: subprocess.Popen[str], last: str) -> str:
    """What it prints, up to and with one line."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if last in line:
            return "".join(lines)
    msg = f"it ended without that line: {''.join(lines)}"
    raise AssertionError(msg)


def issuer_is(process: psutil.Process) -> bool:
    return bool(runs(process)) and any("demo-authorization-server" in word for word in process.cmdline())


PAGES = ("http://localhost:6274", "http://127.0.0.1:6274", "http://localhost:6275", "https://evil.test")
"""Those of the MCP Inspector, and two others."""


def may_call(page: str, url: str) -> bool:
    """Whether a browser lets a page of this origin send JSON to an address (CORS)."""
    asked = {"Origin": page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    answer = httpx2.options(url, headers=asked, timeout=HANG_S)
    return answer.is_success and answer.headers.get("Access-Control-Allow-Origin") == page


def test_after_the_tour_a_client_that_knows_the_address_only_logs_in_with_what_was_printed(tmp_path):
    policies = policies_on(tmp_path / "copy")
    with subprocess.Popen(
        [sys.executable, "-m", "sidecar", "demo"],
        cwd=tmp_path,
        env={
            "PATH": f"{parts.BIN}:{os.environ['PATH']}",  # noqa: TID251 - the tests' own environment
            "PYTHONPATH": str(ROOT),
            "SIDECAR_OPA__TIMEOUT_MS": "5000",
            "SIDECAR_POLICIES": str(policies),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            said = text_until(process, "Ctrl-C stops")
            line = r"^claude mcp add --transport http mongodb (http://127.0.0.1:\d+/mcp)$"
            (added,) = re.findall(line, said, re.MULTILINE)
            (password,) = re.findall(r"^alice +(\S+) +analysts$", said, re.MULTILINE)
            issuer = re.findall(r"http://127\.0\.0\.1:\d+$", said, re.MULTILINE)[0]
            started = psutil.Process(process.pid).children(recursive=True)
            assert any(issuer_is(one) for one in started)
            browser = [*TYPING, "alice", password]
            found = outcome("Python 2.3.0", {"url": added, "issuer": issuer, "browser": browser})
            assert counted(found) == [{"count": 12}, {"count": 12}]
            asked = {page: may_call(page, f"{issuer}/reg") for page in PAGES}
            assert asked == dict(zip(PAGES, (True, True, False, False), strict=True))
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(HANG_S) == 0
    assert [one for one in started if one.is_running()] == [], "everything that it started ended with it"


@pytest.mark.parametrize("missing", ["demo-authorization-server", "node"])
def test_without_what_people_log_in_with_there_is_one_line_that_says_so(tmp_path, missing):
    programs = {path.name: path for path in parts.BIN.iterdir()} | {"node": Path(shutil.which("node") or "")}
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, path in programs.items():
        if name != missing:
            (folder / name).symlink_to(path.resolve())
    done = demo(tmp_path, "--no-setup", PATH=str(folder))
    assert (done.returncode, done.stdout) == (78, "")
    assert f"{missing} is not on PATH" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"SIDECAR_LISTNE": "x"}, "SIDECAR_LISTNE"),
        ({"SIDECAR_POLICIES": "/nonexistent"}, "policies"),
        ({"PATH": os.defpath}, "make setup"),
    ],
)
def test_a_part_that_is_missing_is_status_78(tmp_path, environment, named):
    done = demo(tmp_path, "--no-setup", **environment)
    assert (done.returncode, done.stdout) == (78, "")
    assert named in done.stderr
    assert "Traceback" not in done.stderr


# --- what is left -----------------------------------------------------------------------------------------------------

PROGRAM = Path(sys.executable).with_name("mcp-sidecar")
HEARS_CTRL_C = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
)
"""A shell starts what runs in its background, such as these tests, with SIGINT ignored."""


@dataclass(slots=True, kw_only=True)
class Played:
    """A demo that was interrupted, or ended by itself."""

    status: int
    output: str
    cwd: Path
    temporary: list[str]
    running: list[str]


def interrupted(folder: Path, when: Callable[[str, psutil.Process], bool], by: int) -> Played:
    """Start the demo as ``make run`` does, and send a signal, as a terminal does, to everything that it started."""
    cwd = folder / "here"
    cwd.mkdir()
    temporary = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))  # the path of a Unix socket in it must be short
    policies_on(cwd)
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", HEARS_CTRL_C, str(PROGRAM), "demo"],
            cwd=cwd,
            env=surroundings(TMPDIR=str(temporary)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    children: set[psutil.Process] = set()
    demo_process = psutil.Process(process.pid)
    ends = time.monotonic() + HANG_S
    while process.poll() is None and time.monotonic() < ends:
        children.update(demo_process.children(recursive=True))
        if when((folder / "output").read_text(), demo_process):
            os.killpg(process.pid, by)
            break
        time.sleep(0.02)
    status = process.wait(HANG_S)
    ends = time.monotonic() + HANG_S
    while (left := [name for child in children if (name := runs(child))]) and time.monotonic() < ends:
        time.sleep(0.02)
    remains = [path.name for path in temporary.iterdir()]
    shutil.rmtree(temporary)
    return Played(
        status=status,
        output=(folder / "output").read_text(),
        cwd=cwd,
        temporary=remains,
        running=left,
    )


def runs(process: psutil.Process) -> str:
    """What a process is called; empty if it has ended, though perhaps nobody has asked how."""
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else process.name()
    except psutil.NoSuchProcess:
        return ""


def an_opa_runs(_output: str, process: psutil.Process) -> bool:
    return any(runs(child) == "opa" for child in process.children())


def it_serves(output: str, _process: psutil.Process) -> bool:
    return "Ctrl-C stops everything" in output


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_it_comes_up_it_leaves_nothing(tmp_path, by):
    played = interrupted(tmp_path, an_opa_runs, by)
    assert played.status == 128 + by
    assert (played.temporary, played.running) == ([], [])
    assert "Traceback" not in played.output


def test_ctrl_c_while_it_serves_leaves_the_evidence_and_nothing_else(tmp_path):
    played = interrupted(tmp_path, it_serves, signal.SIGINT)
    assert played.status == 0, played.output
    assert (played.temporary, played.running) == ([], [])
    assert "Traceback" not in played.output
    named = re.search(r"The evidence of every call is in (audit\S*\.jsonl), ", played.output)
    assert named is not None
    beside = {f"{named[1]}.{more}" for more in ("checkpoints", "policies")}
    assert {path.name for path in played.cwd.iterdir()} == {"policies", named[1], *beside}
    command = printed_check(played.output)
    assert command.endswith(f"mcp-sidecar audit verify {named[1]}")
    assert_intact(command, played.cwd, len((played.cwd / named[1]).read_bytes().splitlines()))


def test_a_demo_that_fails_on_the_way_leaves_nothing(tmp_path):
    (tmp_path / "tmp").mkdir()
    done = demo(tmp_path, TMPDIR=str(tmp_path / "tmp"), SIDECAR_AUDIT__STORE=f"file:{tmp_path}")
    assert done.returncode == 78
    assert len(done.stderr.splitlines()) == 1
    assert [*(tmp_path / "tmp").iterdir()] == []
