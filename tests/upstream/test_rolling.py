"""A new program or secret takes effect by a new child, and no call fails of it."""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from sidecar.errors import ConfigurationError, UpstreamUnreachable
from sidecar.upstream.pool import StdioPool
from sidecar.upstream.process import StdioUpstream
from sidecar.upstream.renewal import ChildSource, Renewal
from tests.patience import HANG_S

FAULT_SERVER = Path(__file__).with_name("fault_server.py")
LOOK_S = 0.02


class Rolled:
    """An upstream whose secret is in a file, and whose program can be replaced."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.secret = folder / "secret"
        self.program = folder / "server.py"
        self.write("one")
        self.install(FAULT_SERVER.read_text())
        self.upstream = StdioUpstream(
            "double",
            [sys.executable, str(self.program)],
            self.environment(),
            **{"timeout_s": 10.0, "stop_grace_s": 1.0, **limits},
            renewal=Renewal(environment=self.environment, files=[self.secret], look_s=LOOK_S),
        )

    def environment(self) -> dict[str, str]:
        text = self.secret.read_text()
        if not text:
            raise ConfigurationError("a secret is empty")
        return {"MDB_MCP_API_CLIENT_SECRET": text}

    def write(self, text: str) -> None:
        beside = self.secret.with_name("beside")
        beside.write_text(text)
        beside.replace(self.secret)

    def install(self, text: str) -> None:
        beside = self.program.with_name("beside.py")
        beside.write_text(text)
        beside.replace(self.program)


@pytest.fixture
async def rolled(tmp_path: Path) -> AsyncIterator[Callable[..., object]]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(**limits: Any) -> Rolled:
            one = Rolled(tmp_path, **limits)
            stack.push_async_callback(one.upstream.stop)
            await one.upstream.start()
            return one

        yield start


async def seen(one: Rolled, permit, structured) -> str:
    result = structured(await one.upstream.forward(permit("environment")))
    return str(result["environ"]["MDB_MCP_API_CLIENT_SECRET"])


async def test_a_new_secret_takes_over_under_load_and_no_call_fails(rolled, permit, structured, until):
    one = await rolled()
    failed: list[BaseException] = []
    answered = 0
    going = True

    async def load() -> None:
        nonlocal answered
        while going:
            try:
                await one.upstream.forward(permit("echo"))
                answered += 1
            except Exception as error:  # noqa: BLE001 - each is reported
                failed.append(error)

    workers = [asyncio.create_task(load()) for _ in range(8)]
    pids = {one.upstream.pid}
    for n in range(3):
        one.write(f"secret {n}")
        await until(lambda: one.upstream.pid not in pids)
        pids.add(one.upstream.pid)
        before = answered
        await until(lambda before=before: answered > before + 20)
        assert await seen(one, permit, structured) == f"secret {n}"
    going = False
    await asyncio.gather(*workers)
    assert failed == []
    await until(lambda: sum(psutil.pid_exists(pid) for pid in pids) == 1)


async def test_a_call_under_way_is_answered_by_the_child_that_has_it(rolled, permit, structured, until):
    one = await rolled()
    old = one.upstream.pid
    held = asyncio.create_task(one.upstream.forward(permit("slow", seconds=1.5)))
    await asyncio.sleep(0.1)
    one.write("two")
    await until(lambda: one.upstream.pid != old)
    assert not held.done()
    assert psutil.pid_exists(old), "it has a call under way"
    assert await seen(one, permit, structured) == "two"
    assert structured(await held)["pid"] == old
    await until(lambda: not psutil.pid_exists(old))


async def test_a_call_that_is_never_answered_keeps_no_child_for_ever(rolled, permit, until):
    one = await rolled(timeout_s=1.0)
    old = one.upstream.pid
    held = asyncio.create_task(one.upstream.forward(permit("hold")))
    await asyncio.sleep(0.1)
    one.write("two")
    await until(lambda: one.upstream.pid != old)
    await until(lambda: not psutil.pid_exists(old))
    with pytest.raises(Exception, match="no answer"):
        await held
    assert one.upstream.healthy


async def test_a_new_program_takes_over(rolled, permit, until):
    one = await rolled()
    old = one.upstream.pid
    one.install(FAULT_SERVER.read_text().replace('{"name": "echo",', '{"name": "newer",'))
    await until(lambda: one.upstream.pid != old)
    assert [tool["name"] for tool in await one.upstream.tools()] == ["newer"]


def other_schema() -> str:
    reviewed = '"inputSchema": {"type": "object"}}]'
    text = FAULT_SERVER.read_text()
    assert reviewed in text
    return text.replace(reviewed, '"inputSchema": {"type": "object", "minProperties": 0}}]')


@pytest.mark.parametrize("pooled", [False, True], ids=["alone", "pooled"])
@pytest.mark.parametrize("ends", ["rolled", "crashed"])
async def test_a_call_that_waited_goes_to_no_child_whose_tools_nobody_reviewed(
    rolled, permit, structured, until, tmp_path, ends, pooled
):
    one = await rolled(max_in_flight=1, ready_wait_s=10.0)
    upstream = StdioPool([one.upstream]) if pooled else one.upstream
    old, reviewed = one.upstream.pid, await upstream.tools()
    left: list[str] = []
    release = tmp_path / "release"
    held = asyncio.create_task(upstream.forward(replace(permit("until", file=str(release)), reviewed=reviewed)))
    await until(lambda: one.upstream.calls == 1)
    waiting = replace(permit("echo", marker="unsent"), reviewed=reviewed, leaving=lambda: left.append("echo"))
    second = asyncio.create_task(upstream.forward(waiting))
    one.install(other_schema())
    if ends == "crashed":
        psutil.Process(old).kill()
        with pytest.raises(UpstreamUnreachable):
            await held
    else:
        await until(lambda: one.upstream.pid != old)
        release.touch()
        assert structured(await held)["pid"] == old
    with pytest.raises(UpstreamUnreachable, match="other tools"):
        await second
    assert left == []
    checked = replace(permit("received"), reviewed=await upstream.tools())
    lines = structured(await upstream.forward(checked))["lines"]
    assert not any("unsent" in line for line in lines), "the next call is checked against the tools of today"


@pytest.mark.parametrize("pooled", [False, True], ids=["alone", "pooled"])
@pytest.mark.parametrize("method", ["prompts/get", "completion/complete"])
async def test_a_prompt_that_nobody_reviewed_is_not_used_at_a_new_child(rolled, permit, until, method, pooled):
    one = await rolled()
    upstream = StdioPool([one.upstream]) if pooled else one.upstream
    use = replace(permit("prompt/summary", name="summary"), method="prompts/get", reviewed=await upstream.prompts())
    await upstream.forward(use)
    old, left = one.upstream.pid, list[str]()
    one.write("two")
    await until(lambda: one.upstream.pid != old)
    await upstream.forward(use)
    old = one.upstream.pid
    one.install(FAULT_SERVER.read_text().replace("as reviewed", "another one"))
    await until(lambda: one.upstream.pid != old)
    with pytest.raises(UpstreamUnreachable, match="other prompts"):
        await upstream.forward(replace(use, method=method, leaving=lambda: left.append(method)))
    assert left == []
    await upstream.forward(replace(use, reviewed=await upstream.prompts()))


async def test_a_call_that_waited_goes_to_a_new_child_that_has_the_reviewed_tools(
    rolled, permit, structured, until, tmp_path
):
    one = await rolled(max_in_flight=1)
    old, reviewed = one.upstream.pid, await one.upstream.tools()
    release = tmp_path / "release"
    held = asyncio.create_task(one.upstream.forward(replace(permit("until", file=str(release)), reviewed=reviewed)))
    await until(lambda: one.upstream.calls == 1)
    waiting = [
        asyncio.create_task(one.upstream.forward(replace(permit("environment"), reviewed=reviewed))) for _ in range(3)
    ]
    one.write("two")
    await until(lambda: one.upstream.pid != old)
    release.touch()
    assert structured(await held)["pid"] == old
    for answer in await asyncio.gather(*waiting):
        assert structured(answer)["environ"]["MDB_MCP_API_CLIENT_SECRET"] == "two"
    lines = structured(await one.upstream.forward(permit("received")))["lines"]
    assert sum('"tools/list"' in line for line in lines) == 1, "compared once for all of them"


async def test_a_call_is_not_sent_to_a_child_that_changed_its_tools_since_they_were_looked_at(rolled, permit):
    one = await rolled()
    reviewed = await one.upstream.tools()
    await one.upstream.forward(replace(permit("echo"), reviewed=reviewed))
    await one.upstream.forward(replace(permit("change-tools"), reviewed=reviewed))
    left: list[str] = []
    with pytest.raises(UpstreamUnreachable, match="other tools"):
        await one.upstream.forward(replace(permit("echo"), reviewed=reviewed, leaving=lambda: left.append("echo")))
    assert left == []
    await one.upstream.forward(replace(permit("echo"), reviewed=await one.upstream.tools()))


async def test_tools_and_calls_that_wait_for_one_slot_do_not_wait_for_each_other(rolled, permit, until, tmp_path):
    one = await rolled(max_in_flight=1)
    old, reviewed = one.upstream.pid, await one.upstream.tools()
    release = tmp_path / "release"
    held = asyncio.create_task(one.upstream.forward(permit("until", file=str(release))))
    await until(lambda: one.upstream.calls == 1)
    one.write("two")
    await until(lambda: one.upstream.pid != old)
    calls = [
        asyncio.create_task(work)
        for _ in range(2)
        for work in (one.upstream.forward(replace(permit("echo"), reviewed=reviewed)), one.upstream.tools())
    ]
    release.touch()
    await held
    answers = await asyncio.gather(*calls)
    assert answers[1] is answers[3], "and the list is the same one for both"


@pytest.mark.parametrize("broken", ["program", "secret", "no-secret"])
async def test_what_does_not_start_changes_nothing_and_is_told_once(rolled, permit, structured, until, caplog, broken):
    one = await rolled()
    old = one.upstream.pid
    with caplog.at_level(logging.ERROR, "sidecar.upstream.double"):
        match broken:
            case "program":
                one.install("raise SystemExit(3)")
            case "secret":
                one.write("")
            case _:
                one.secret.write_text("a\0b")
        await until(lambda: caplog.records)
        await asyncio.sleep(40 * LOOK_S)
    assert len(caplog.records) == 1, "tried again, and told once"
    assert "a\0b" not in caplog.text
    assert (one.upstream.pid, one.upstream.healthy) == (old, True)
    assert await seen(one, permit, structured) == "one"
    one.install(FAULT_SERVER.read_text())
    one.write("mended")
    async with asyncio.timeout(HANG_S):
        while await seen(one, permit, structured) != "mended":  # noqa: ASYNC110 - a roll in another process
            await asyncio.sleep(LOOK_S)
    assert one.upstream.pid != old


async def test_a_file_that_says_the_same_starts_nothing(rolled, permit):
    one = await rolled()
    old = one.upstream.pid
    one.write("one")
    await asyncio.sleep(20 * LOOK_S)
    os.utime(one.secret)
    await asyncio.sleep(20 * LOOK_S)
    await one.upstream.forward(permit("echo"))
    assert one.upstream.pid == old


async def test_a_child_that_dies_while_another_starts_is_replaced_by_that_one(rolled, permit, structured, until):
    one = await rolled()
    old = one.upstream.pid
    one.install(f"import time; time.sleep(0.7)\n{FAULT_SERVER.read_text()}")
    await asyncio.sleep(10 * LOOK_S)
    psutil.Process(old).kill()
    await until(lambda: one.upstream.pid not in {old, None})
    assert await seen(one, permit, structured) == "one"
    assert one.upstream.healthy


async def test_a_stop_while_a_child_drains_leaves_nothing(rolled, permit, until):
    one = await rolled()
    old = one.upstream.pid
    held = asyncio.create_task(one.upstream.forward(permit("hold")))
    await asyncio.sleep(0.1)
    one.write("two")
    await until(lambda: one.upstream.pid != old)
    new = one.upstream.pid
    await one.upstream.stop()
    with pytest.raises(Exception, match="ended"):
        await held
    assert not psutil.pid_exists(old)
    assert not psutil.pid_exists(new)


def test_a_change_counts_when_it_has_come_to_rest_and_until_it_is_taken_up(tmp_path):
    file = tmp_path / "file"
    file.write_text("a")
    source = ChildSource(
        ["true"], {"PATH": str(tmp_path)}, Renewal(environment=lambda: {"A": file.read_text()}, files=[file])
    )
    assert not source.changed()
    file.write_text("bb")
    assert not source.changed(), "it may be half written"
    assert source.changed()
    environment, differs = source.read()
    assert (environment, differs) == ({"A": "bb"}, True)
    assert source.changed(), "not taken up yet"
    source.take_up(environment)
    assert not source.changed()
    file.unlink()
    source.changed()
    assert source.changed(), "a file that is gone is a change, which cannot be read"


def test_a_link_that_leads_elsewhere_is_a_change(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "secret").write_text("x")
    link = tmp_path / "data"
    link.symlink_to("one")
    source = ChildSource(["true"], {"PATH": ""}, Renewal(files=[link / "secret"]))
    assert not source.changed()
    (tmp_path / "new").symlink_to("two")
    (tmp_path / "new").rename(link)
    source.changed()
    assert source.changed()
