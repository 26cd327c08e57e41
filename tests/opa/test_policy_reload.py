"""Reload of the managed OPA: a good set takes over between two questions, a bad one never serves."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from sidecar.errors import DecisionUnavailable
from sidecar.opa.managed import ManagedOpa
from sidecar.opa.policy_state import Load
from sidecar.policyset.folder import PolicySet
from sidecar.policyset.folder_changes import snapshot
from sidecar.ports import Question
from tests.opa.small_policies import MAIN, TEAM
from tests.patience import HANG_S

pytestmark = pytest.mark.real

PATIENT_S = HANG_S
LOOK_S = 0.05
Policies = Callable[..., Path]
Managed = Callable[..., ManagedOpa]


@pytest.fixture
def managed(opa_binary: str, runtime: Path) -> Managed:
    """Makes a managed OPA that is patient with answers and looks at its folder often."""

    def make(policies: Path, **options: Any) -> ManagedOpa:
        defaults: dict[str, Any] = {
            "directory": runtime,
            "timeout_s": PATIENT_S,
            "start_timeout_s": 60.0,
            "reload_s": LOOK_S,
        }
        return ManagedOpa(opa_binary, policies, **(defaults | options))

    return make


async def eventually(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(HANG_S):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


def saying(word: str) -> str:
    return MAIN.replace("visibility := input.echo", f'visibility := "{word}"').replace(
        'default visibility := "small"\n', ""
    )


def put(file: Path, text: str) -> None:
    """Replace a file at once, as ``git`` and most editors do."""
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(text)
    fresh.replace(file)


async def said(opa: ManagedOpa) -> object:
    return (await opa.ask(Question.VISIBILITY, {})).result


def says(opa: ManagedOpa, word: str) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return await said(opa) == word

    return check


def refused(opa: ManagedOpa) -> bool:
    return opa.policy_state.result is Load.REFUSED


def loaded(opa: ManagedOpa) -> bool:
    return opa.policy_state.result is Load.LOADED


def opas(runtime: Path) -> int:
    """How many OPAs run at this moment, checks included."""
    count = 0
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            count += str(runtime) in child.cwd() and child.status() != psutil.STATUS_ZOMBIE
    return count


def has(runtime: Path, pattern: str, least: int) -> bool:
    return len(list(runtime.glob(pattern))) >= least


def left(runtime: Path) -> list[Path]:
    return [*runtime.iterdir()]


async def test_an_edit_is_served_with_its_own_revision(make_policies: Policies, managed: Managed) -> None:
    root = make_policies(main=saying("one"))
    async with managed(root) as opa:
        before = opa.policy_state
        assert (await said(opa), before.revision) == ("one", PolicySet.read(root).revision)
        put(root / "platform" / "main.rego", saying("two"))
        await eventually(says(opa, "two"))
        after = opa.policy_state
        assert after.revision == opa.revision == PolicySet.read(root).revision != before.revision
        assert (after.result, after.error) == (Load.LOADED, "")
        assert after.since >= before.since > 0
        answer = await opa.ask(Question.DECISION, {})
        assert isinstance(answer.result, dict)
        assert answer.result["revision"] == answer.revision == after.revision
        assert await opa.healthy()


BAD = {
    "syntax": ("teams/red/policy.rego", "package mcp.teams.red\n\ngrant contains {\n", r"teams/red/policy.rego:4: "),
    "package": ("teams/red/policy.rego", "package mcp.main\n\nx := 1\n", r"teams/red/policy.rego:1: "),
    "builtin": ("teams/red/policy.rego", "package mcp.teams.red\n\np := opa.runtime()\n", r"teams/red/policy.rego:3: "),
    "data": ("teams/red/data.json", '{"mcp": {"main": {}}}', r"teams/red/data.json:1: "),
    "a failing test": (
        "teams/red/policy_test.rego",
        "package mcp.teams.red.policy_test\n\ntest_x if 1 == 2\n",
        r"teams/red/policy_test.rego:3: ",
    ),
    "self-test": ("platform/main.rego", MAIN.replace('"allow": false', '"allow": true'), "self-test"),
    "unreadable": ("teams/red/.manifest", "{", r"teams/red/.manifest:1: "),
    "a glob": (
        "platform/data.json",
        '{"mcp": {"platform": {"windows": [{}],\n"suspended": {"agents": ["{a"]}}}}',
        "platform/data.json:2: /mcp/platform/suspended/agents/0: ",
    ),
    "a name that is no text": (os.fsdecode(b"teams/red/\xff.rego"), TEAM, "teams/red/?.rego:1: "),
    "a name that does not print": ("teams/red/\u202e\x1b[2J.rego", TEAM, r"teams/red/\u202e\u001b[2J.rego:1: "),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_set_never_serves_and_is_said_and_a_good_one_is_taken_again(
    make_policies: Policies, managed: Managed, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    file, text, expected = BAD[name]
    root = make_policies()
    good = (root / file).read_text() if (root / file).exists() else None
    async with managed(root) as opa:
        serving, process = opa.revision, opa.pid
        put(root / file, text)
        await eventually(lambda: refused(opa))
        assert expected in opa.policy_state.error
        assert (opa.revision, opa.pid) == (serving, process)
        assert (await opa.ask(Question.DECISION, {})).revision == serving
        assert await opa.healthy(), "the last good set serves: no reason to leave the rotation"
        assert "is not loaded" in caplog.text
        if good is None:
            (root / file).unlink()
        else:
            put(root / file, good)
        await eventually(lambda: loaded(opa))
        assert (opa.revision, opa.pid, opa.policy_state.error) == (serving, process, "")


async def test_a_folder_that_is_gone_keeps_the_last_good_set(make_policies: Policies, managed: Managed) -> None:
    root = make_policies()
    async with managed(root) as opa:
        away = root.rename(root.with_name("away"))
        await eventually(lambda: refused(opa))
        assert (await opa.ask(Question.DECISION, {})).revision == opa.revision
        away.rename(root)
        await eventually(lambda: loaded(opa))


async def test_an_edit_of_a_test_is_vetted_and_restarts_nothing(make_policies: Policies, managed: Managed) -> None:
    root = make_policies()
    async with managed(root) as opa:
        process = opa.pid
        test = root / "teams" / "red" / "policy_test.rego"
        put(test, "package mcp.teams.red.policy_test\n\ntest_x if 1 == 2\n")
        await eventually(lambda: refused(opa))
        put(test, "package mcp.teams.red.policy_test\n\ntest_x if 1 == 1\n")
        await eventually(lambda: loaded(opa))
        assert opa.pid == process


async def test_a_mounted_configuration_map_is_followed(make_policies: Policies, managed: Managed) -> None:
    root = make_policies(main=saying("one"))
    platform = root / "platform"
    for version, word in (("..1", "one"), ("..2", "two")):
        (platform / version).mkdir()
        (platform / version / "main.rego").write_text(saying(word))
    (platform / "..data").symlink_to("..1")
    (platform / "main.rego").unlink()
    (platform / "main.rego").symlink_to("..data/main.rego")
    async with managed(root) as opa:
        assert await said(opa) == "one"
        (platform / "..new").symlink_to("..2")
        (platform / "..new").replace(platform / "..data")
        await eventually(says(opa, "two"))


async def test_a_question_in_flight_is_answered_by_the_set_that_it_was_asked_of(
    make_policies: Policies, managed: Managed
) -> None:
    slow = MAIN.replace(
        "visibility := input.echo",
        "visibility := count([1 | some a in input.n; some b in input.n; some c in input.n; a + b + c < 0])",
    )
    root = make_policies(main=slow)
    async with managed(root) as opa:
        first = opa.revision
        question = asyncio.create_task(opa.ask(Question.VISIBILITY, {"n": list(range(120))}))
        assert (await opa.ask(Question.DECISION, {})).revision == first
        put(root / "platform" / "main.rego", saying("two"))
        await eventually(lambda: opa.revision != first)
        overtaken = not question.done()
        answer = await question
        assert overtaken, "the question was to outlive the switch"
        assert (answer.result, answer.revision) == (0, first)
        assert await said(opa) == "two"


async def test_after_a_crash_the_newest_good_set_comes_back(make_policies: Policies, managed: Managed) -> None:
    root = make_policies(main=saying("one"))
    async with managed(root) as opa:
        put(root / "platform" / "main.rego", saying("two"))
        await eventually(says(opa, "two"))
        put(root / "platform" / "main.rego", "package mcp.main\n\nx := ")
        await eventually(lambda: refused(opa))
        assert opa.pid is not None
        lost = psutil.Process(opa.pid)
        lost.kill()
        await eventually(lambda: opa.pid not in {None, lost.pid})
        assert await said(opa) == "two"
        assert refused(opa), "a restart says nothing about the candidate"


async def test_without_an_interval_the_folder_is_not_looked_at_again(make_policies: Policies, managed: Managed) -> None:
    root = make_policies(main=saying("one"))
    async with managed(root, reload_s=0.0) as opa:
        put(root / "platform" / "main.rego", saying("two"))
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "opa-reloader"]
        assert await said(opa) == "one"


async def test_stopping_in_the_middle_of_a_reload_leaves_nothing(
    make_policies: Policies, managed: Managed, runtime: Path
) -> None:
    root = make_policies()
    for phase, least in (("check-*", 1), ("opa-*", 2)):
        opa = managed(root)
        await opa.start()
        put(root / "platform" / "main.rego", saying(phase))
        await eventually(partial(has, runtime, phase, least))
        await opa.stop()
        assert left(runtime) == []
        assert opas(runtime) == 0


@asynccontextmanager
async def askers(opa: ManagedOpa, count: int) -> AsyncIterator[list[tuple[str, object, object]]]:
    """Ask without a pause; yields what was answered: revision, what the set says, and the set's own revision."""
    answers: list[tuple[str, object, object]] = []
    done = asyncio.Event()

    async def ask(number: int) -> None:
        while not done.is_set():
            answer = await opa.ask(Question.VISIBILITY, {"echo": number})
            decision = await opa.ask(Question.DECISION, {})
            assert isinstance(decision.result, dict)
            answers.append((answer.revision, answer.result, None))
            answers.append((decision.revision, None, decision.result["revision"]))
            await asyncio.sleep(0)  # answers from the memo never wait, and would keep everything else from running

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(ask(number))
        yield answers
        done.set()


async def test_reloads_under_load_lose_no_question_and_mix_no_answer(
    make_policies: Policies, managed: Managed, runtime: Path
) -> None:
    """Revision and answer always match; a failed question would end the task group, and with it the test."""
    root = make_policies(main=saying("word 0"))
    words: dict[str, str] = {}
    most = 0
    async with managed(root, memo_s=1.0) as opa, askers(opa, 8) as answers:
        words[opa.revision] = "word 0"
        for turn in range(1, 9):
            before = opa.revision
            put(root / "platform" / "main.rego", saying(f"word {turn % 3}"))
            words[PolicySet.read(root).revision] = f"word {turn % 3}"
            while opa.revision == before:
                most = max(most, opas(runtime))
                await asyncio.sleep(0.01)
        seen = len(answers)
        await eventually(lambda: len(answers) > seen + 16)
    assert {word for _, word, _ in answers if word is not None} == {"word 0", "word 1", "word 2"}
    for revision, word, own in answers:
        assert word in {None, words[revision]}
        assert own in {None, revision}
    assert most <= 2, "at most two OPAs at once"


async def test_a_torn_write_is_not_read_before_it_is_at_rest(
    make_policies: Policies, managed: Managed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    root = make_policies(main=saying("one"))
    file = root / "platform" / "main.rego"
    text = saying("two")
    async with managed(root, reload_s=0.3) as opa:
        for end in range(1, len(text) + 1, 20):
            file.write_text(text[:end])
            await asyncio.sleep(0.01)  # a slow writer; the look between two of these finds it still writing
        file.write_text(text)
        await eventually(says(opa, "two"))
    assert "is not loaded" not in caplog.text


def test_a_snapshot_differs_for_every_kind_of_change(tmp_path: Path) -> None:
    file = tmp_path / "a.rego"
    file.write_text("one")
    status = file.stat()
    seen = {snapshot(tmp_path)}
    file.write_text("two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    seen.add(snapshot(tmp_path))
    file.write_text("longer")
    seen.add(snapshot(tmp_path))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_text("")
    seen.add(snapshot(tmp_path))
    file.unlink()
    seen.add(snapshot(tmp_path))
    assert len(seen) == 5
    assert snapshot(tmp_path) in seen
    (tmp_path / "dangling").symlink_to("nowhere")
    assert snapshot(tmp_path) in seen


async def test_a_question_while_nothing_serves_is_refused(make_policies: Policies, managed: Managed) -> None:
    opa = managed(make_policies(team=TEAM))
    with pytest.raises(DecisionUnavailable):
        await opa.ask(Question.DECISION, {})
    assert opa.policy_state.result is Load.REFUSED
