"""What happens between an edit of a policy folder and its taking effect: in which order, beside what, and how often."""

import asyncio
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.opa.follower import Content, follow
from sidecar.opa.managed import ManagedOpa
from sidecar.opa.policy_state import Load
from sidecar.policyset import folder_changes
from sidecar.policyset.folder import PolicySet
from sidecar.policyset.folder_changes import FolderWatch, Snapshot, snapshot
from tests.hours import policies_on
from tests.opa.test_policy_reload import eventually, left, put, saying, says
from tests.patience import HANG_S

REST_S = 0.5
LONG_S = 3600.0
Wrapped = Callable[[str], str]


@pytest.fixture
def wrapped(tmp_path: Path, opa_binary: str) -> Wrapped:
    """Makes an OPA that runs some lines of shell first; ``$1`` is the command, ``$notes`` a folder."""

    def make(lines: str) -> str:
        notes = tmp_path / "notes"
        notes.mkdir()
        program = tmp_path / "opa"
        program.write_text(
            f'#!/bin/sh\nnotes={shlex.quote(str(notes))}\n{lines}\nexec {shlex.quote(opa_binary)} "$@"\n'
        )
        program.chmod(0o700)
        return str(program)

    return make


def opa(binary: str, policies: Path, runtime: Path) -> ManagedOpa:
    return ManagedOpa(
        binary, policies, directory=runtime, timeout_s=20.0, start_timeout_s=HANG_S, probe_interval_s=60.0, reload_s=0.1
    )


def suspend(policies: Path, user: str) -> None:
    data = policies / "platform/data.json"
    document = json.loads(data.read_text())  # noqa: TID251 - the repository's own file
    document["mcp"]["platform"]["suspended"]["subjects"] = [{"issuer": "https://issuer.example", "id": user}]
    put(data, json.dumps(document))


@pytest.mark.real
async def test_an_edit_of_data_starts_each_check_once_and_parses_no_module(
    tmp_path: Path, wrapped: Wrapped, runtime: Path
) -> None:
    policies = policies_on(tmp_path)
    managed = opa(wrapped('echo "$1" >> "$notes/commands"'), policies, runtime)
    commands = tmp_path / "notes/commands"
    await managed.start(standby=True)
    try:
        commands.unlink()
        before = managed.revision
        suspend(policies, "mallory")
        await eventually(lambda: managed.revision != before)
        started = sorted(commands.read_text().split())
    finally:
        await managed.stop()  # while the old ones are being ended
    assert left(runtime) == []
    assert started == ["check", "eval", "run", "run", "test"], "the one evaluation is of the platform's data"


MEETING = """
meet() { : > "$notes/$1.$$"; until [ "$(/bin/ls "$notes" | /bin/grep -c "^[$2]")" -ge 2 ]; do /bin/sleep 0.05; done; }
case "$1" in
  check) meet c ct ;;
  test) meet t ct ;;
  run) meet r r ;;
esac
"""
"""``check`` waits until ``test`` has begun and the other way round, and each ``run`` until another has."""


@pytest.mark.real
async def test_compilation_and_tests_run_side_by_side_and_so_do_the_two_that_will_serve(
    tmp_path: Path, wrapped: Wrapped, runtime: Path
) -> None:
    """One after the other, the first would wait until its time is over, and nothing would serve."""
    managed = opa(wrapped(MEETING), policies_on(tmp_path), runtime)
    await managed.start(standby=True)
    state = managed.policy_state
    await managed.stop()
    assert state.result is Load.LOADED


class Loads:
    """Stands where a load begins: notes what it is given, does something to the folder, and waits for the rest."""

    def __init__(self, *meddling: Callable[[], object]) -> None:
        self.contents: list[Content] = []
        self.broken_off = 0
        self.served: list[Content] = []
        self._meddling = list(meddling)

    async def __call__(self, content: Content, at_rest: asyncio.Event) -> bool:
        self.contents.append(content)
        assert not at_rest.is_set(), "the load begins while the folder comes to rest"
        if self._meddling:
            self._meddling.pop(0)()
        try:
            await at_rest.wait()
        except asyncio.CancelledError:
            self.broken_off += 1
            raise
        self.served.append(content)
        return True


async def followed(policies: Path, loads: Loads) -> None:
    task = asyncio.create_task(follow(policies, snapshot(policies), rest_s=REST_S, load=loads))
    try:
        put(policies / "platform/main.rego", saying("two"))
        await eventually(lambda: bool(loads.served))
    finally:
        task.cancel()
        await asyncio.wait({task})
    assert task.cancelled()


async def test_a_change_before_the_rest_breaks_a_load_off_and_the_next_one_has_it(
    make_policies: Callable[..., Path],
) -> None:
    policies = make_policies(main=saying("one"))
    loads = Loads(lambda: put(policies / "platform/main.rego", saying("three")))
    await followed(policies, loads)
    assert (len(loads.contents), loads.broken_off) == (2, 1)
    assert loads.served == [Content.read(policies)]
    assert loads.contents[0] != loads.contents[1]


async def test_a_folder_that_is_left_alone_is_loaded_once(make_policies: Callable[..., Path]) -> None:
    policies = make_policies(main=saying("one"))
    loads = Loads()
    await followed(policies, loads)
    assert (len(loads.contents), loads.broken_off, loads.served) == (1, 0, [Content.read(policies)])


async def test_a_change_that_no_look_shows_is_found_by_reading_again(
    make_policies: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system whose times are whole seconds: the second write has the size and time of the first."""
    policies = make_policies(main=saying("one"))
    file = policies / "platform/main.rego"
    seen = snapshot(policies)

    def coarse(root: Path) -> Snapshot:
        return seen if "one" in file.read_text() else ((str(root), 1, 1, 1, 1),)

    monkeypatch.setattr(folder_changes, "snapshot", coarse)
    loads = Loads(lambda: put(file, saying("six")))
    task = asyncio.create_task(follow(policies, seen, rest_s=REST_S, load=loads))
    put(file, saying("two"))
    await eventually(lambda: bool(loads.served))
    task.cancel()
    await asyncio.wait({task})
    assert loads.served == [Content.read(policies)]
    assert (len(loads.contents), loads.broken_off) == (2, 1)


async def test_a_folder_that_something_writes_to_without_end_is_said_once(
    make_policies: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    policies = make_policies()
    loads = Loads()
    task = asyncio.create_task(follow(policies, snapshot(policies), rest_s=REST_S, load=loads))
    number = 0
    while not caplog.records:
        number += 1
        put(policies / "teams/red/policy.rego", f"package mcp.teams.red\n\np := {number}\n")
        await asyncio.sleep(0.01)
        assert number < 5_000
    for _ in range(30):
        number += 1
        put(policies / "teams/red/policy.rego", f"package mcp.teams.red\n\np := {number}\n")
        await asyncio.sleep(0.01)
    await eventually(lambda: bool(loads.served))
    task.cancel()
    await asyncio.wait({task})
    assert ["never at rest" in record.message for record in caplog.records] == [True]


async def test_what_is_wrong_with_a_folder_waits_for_the_rest_too(make_policies: Callable[..., Path]) -> None:
    policies = make_policies()
    manifest = policies / "teams/red/.manifest"
    away = manifest.with_name("away")
    loads = Loads(lambda: away.rename(manifest))
    task = asyncio.create_task(follow(policies, snapshot(policies), rest_s=REST_S, load=loads))
    manifest.rename(away)
    await eventually(lambda: bool(loads.served))
    task.cancel()
    await asyncio.wait({task})
    assert [content.policies is None for content in loads.contents] == [True, False]


async def test_looking_takes_a_small_part_of_the_time_and_is_done_at_least_once_a_period(tmp_path: Path) -> None:
    """A pause grows with what the last look took, up to one period."""
    watch = FolderWatch(tmp_path, rest_s=LONG_S, seen=())
    assert watch.pause_s() == LONG_S / 4
    watch.look_s = LONG_S / 100
    assert watch.pause_s() == LONG_S / 2
    watch.look_s = LONG_S
    assert watch.pause_s() == LONG_S
    short = FolderWatch(tmp_path, rest_s=0.06, seen=())
    assert short.pause_s() == 0.02


@pytest.mark.real
async def test_edits_in_quick_succession_end_in_the_last_one_and_leave_nothing_behind(
    make_policies: Callable[..., Path], opa_binary: str, runtime: Path
) -> None:
    """Some find a set that is being checked, some an OPA that has just been started and waits for the rest."""
    policies = make_policies(main=saying("word 0"))
    managed = opa(opa_binary, policies, runtime)
    await managed.start()
    try:
        for number in range(1, 40):
            put(policies / "platform/main.rego", saying(f"word {number}"))
            await asyncio.sleep(0.01 * number)
        await eventually(says(managed, "word 39"))
        assert managed.revision == PolicySet.read(policies).revision
        await eventually(lambda: len(list(runtime.glob("opa-*"))) == 1)
        await eventually(lambda: not list(runtime.glob("check-*")))
    finally:
        await managed.stop()
    assert left(runtime) == []
