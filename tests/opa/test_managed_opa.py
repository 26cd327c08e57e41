"""The managed OPA on the real binary: how it is confined, what it refuses, and how it dies and comes back."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.opa import engine_version
from sidecar.opa.managed import MIN_MEMORY_BYTES, ManagedOpa
from sidecar.ports import DecisionPoint, PdpAnswer, Question
from tests.opa.small_policies import MAIN
from tests.parts import ROOT
from tests.patience import HANG_S
from tests.policy_sets import quick_copy
from tests.starting import start_and_stop

pytestmark = pytest.mark.real

PATIENT_S = HANG_S
SECRET = "alice@corp.example"

Policies = Callable[..., Path]
Managed = Callable[..., ManagedOpa]


@pytest.fixture
def managed(opa_binary: str, runtime: Path) -> Managed:
    """Makes a managed OPA that is patient, so that a busy machine is not taken for a fault."""

    def make(policies: Path, **options: Any) -> ManagedOpa:
        settings: dict[str, Any] = {"directory": runtime, "timeout_s": PATIENT_S, "start_timeout_s": 60.0} | options
        return ManagedOpa(opa_binary, policies, **settings)

    return make


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(HANG_S):
        while not await condition():  # noqa: ASYNC110 - the condition is another process's, there is no event
            await asyncio.sleep(0.02)


async def answers(pdp: DecisionPoint) -> bool:
    with contextlib.suppress(DecisionUnavailable):
        return (await pdp.ask(Question.DECISION, {})).result is not None
    return False


async def refuses(pdp: DecisionPoint) -> bool:
    return not await answers(pdp)


def process_of(opa: ManagedOpa) -> psutil.Process:
    assert opa.pid is not None
    return psutil.Process(opa.pid)


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sockets(runtime: Path) -> list[Path]:
    return list(runtime.glob("opa-*/s"))


def socket_of(runtime: Path) -> Path:
    [socket] = sockets(runtime)
    return socket


@asynccontextmanager
async def raw_session(runtime: Path) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession("http://opa", connector=aiohttp.UnixConnector(str(socket_of(runtime)))) as session:
        yield session


# --- in service -------------------------------------------------------------------------------------------------------


async def test_a_decision_comes_with_its_revision_and_id(make_policies: Policies, managed: Managed) -> None:
    async with managed(make_policies()) as opa:
        answer: PdpAnswer = await opa.ask(Question.DECISION, {})
        assert isinstance(answer.result, dict)
        assert answer.result["allow"] is False
        assert answer.result["revision"] == answer.revision == opa.revision
        assert answer.decision_id
        assert await opa.healthy()
    assert opa.pid is None
    assert not await opa.healthy()
    with pytest.raises(DecisionUnavailable):
        await opa.ask(Question.DECISION, {})


@pytest.mark.parametrize("floor", [(1, 999, 0), (2, 0, 0)])
async def test_an_opa_that_is_too_old_does_not_serve(
    make_policies: Policies, managed: Managed, runtime: Path, monkeypatch: pytest.MonkeyPatch, floor: tuple[int, ...]
) -> None:
    monkeypatch.setattr(engine_version, "FLOOR", floor)
    with pytest.raises(ConfigurationError, match=r"OPA 1\.\d+\.\d+ is too old"):
        async with managed(make_policies()):
            pass
    assert sockets(runtime) == []


async def test_the_repositorys_policies_serve(managed: Managed) -> None:
    async with managed(ROOT / "policies") as opa:
        answer = await opa.ask(Question.DECISION, {})
        assert isinstance(answer.result, dict)
        assert answer.result["allow"] is False
        assert answer.revision == opa.revision


async def test_fifty_questions_at_once_are_each_answered_with_their_own_answer(
    make_policies: Policies, managed: Managed
) -> None:
    async with managed(make_policies()) as opa:
        results = await asyncio.gather(*(opa.ask(Question.VISIBILITY, {"echo": n}) for n in range(50)))
    assert [answer.result for answer in results] == list(range(50))


@pytest.mark.parametrize("standby", [False, True])
async def test_what_is_to_be_forgotten_is_asked_again(
    make_policies: Policies, opa_binary: str, runtime: Path, standby: bool
) -> None:
    opa = ManagedOpa(opa_binary, make_policies(), directory=runtime, timeout_s=PATIENT_S, memo_s=HANG_S)
    await opa.start(standby=standby)
    try:
        ids = [(await opa.ask(Question.DECISION, {})).decision_id for _ in range(2)]
        assert ids[0] == ids[1], "the second answer is the remembered one"
        opa.forget()
        assert (await opa.ask(Question.DECISION, {})).decision_id != ids[0]
    finally:
        await opa.stop()


async def test_socket_and_folder_are_this_users_alone(make_policies: Policies, managed: Managed, runtime: Path) -> None:
    async with managed(make_policies(), directory=runtime / "made"):
        socket = socket_of(runtime / "made")
        assert socket.is_socket()
        assert socket.stat().st_mode & 0o777 == 0o600
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        assert (runtime / "made").stat().st_mode & 0o777 == 0o700
        written = [path for path in socket.parent.rglob("*") if not path.is_socket()]
        assert {path.stat().st_mode & 0o077 for path in written} == {0}
    assert entries(runtime / "made") == [], "nothing is left behind"


async def test_opa_has_nothing_of_ours_in_its_environment(
    make_policies: Policies, managed: Managed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", SECRET)
    async with managed(make_policies()) as opa:
        environment = process_of(opa).environ()
    assert set(environment) <= {"HOME", "TMPDIR", "GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GOTRACEBACK", "LC_CTYPE"}


async def test_nothing_of_a_question_is_logged(
    make_policies: Policies, managed: Managed, caplog: pytest.LogCaptureFixture, opa_binary: str, runtime: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    policies = make_policies(main=MAIN + '\nvisibility := to_number(input.text) if print("seen", input)\n')
    # The repository's own list of capabilities has no print; another deployment's may have everything.
    everything = await asyncio.create_subprocess_exec(
        opa_binary, "capabilities", "--current", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await everything.communicate()
    (policies / "capabilities.json").write_bytes(output)
    async with managed(policies) as opa:
        await opa.ask(Question.DECISION, {"subject": SECRET})
        with pytest.raises(DecisionUnavailable) as caught:
            await opa.ask(Question.VISIBILITY, {"text": SECRET})
        async with raw_session(runtime) as session:
            await session.post(f"/v1/data/{SECRET}", data=SECRET)
    assert "eval_builtin_error at platform/main.rego:" in caught.value.detail
    assert SECRET not in caught.value.detail
    assert SECRET not in caplog.text


async def test_only_the_questions_the_probes_and_the_lists_are_open(
    make_policies: Policies, managed: Managed, runtime: Path
) -> None:
    async with managed(make_policies()) as opa, raw_session(runtime) as session:
        closed = [
            ("POST", "/v1/policies"),
            ("GET", "/v1/policies?pretty=true"),
            ("GET", "/v1/policies/platform/platform/main.rego"),
            ("PUT", "/v1/policies/x"),
            ("PUT", "/v1/policies/platform/main.rego"),
            ("GET", "/v1/data/system"),
            ("GET", "/v1/data/system/bundles?explain=full"),
            ("GET", "/v1/data/system/bundles/platform"),
            ("POST", "/v1/data/system/bundles"),
            ("PUT", "/v1/data/system/bundles"),
            ("GET", "/v0/data/system/bundles"),
            ("DELETE", "/v1/policies/platform/main.rego"),
            ("GET", "/v1/data"),
            ("GET", "/v1/data/mcp/main/decision"),
            ("PUT", "/v1/data/mcp/revision"),
            ("PATCH", "/v1/data"),
            ("DELETE", "/v1/data/mcp"),
            ("POST", "/v1/data"),
            ("POST", "/v1/data/mcp"),
            ("POST", "/v1/data/mcp/main"),
            ("POST", "/v1/data/mcp/main/allow"),
            ("POST", "/v1/data/mcp/main/decision/allow"),
            ("POST", "/v1/data/system"),
            ("POST", "/v0/data/mcp/main/decision"),
            ("POST", "/v1/query"),
            ("GET", "/v1/query?q=data"),
            ("POST", "/v1/compile"),
            ("POST", "/v1/compile/mcp/main/decision"),
            ("GET", "/v1/config"),
            ("GET", "/v1/status"),
            ("GET", "/debug/pprof/"),
            ("POST", "/"),
        ]
        open_answers = []
        for method, path in closed:
            async with session.request(method, path, json={}) as response:
                open_answers += [(method, path)] if response.status < 400 else []
        assert open_answers == []
        for path in ("/v1/policies", "/v1/data/system/bundles"):
            async with session.get(path) as response:
                assert response.status == 200
        async with session.post("/v1/data/mcp/main/decision", json={"input": {}}) as response:
            assert response.status == 200
        assert await answers(opa)


async def test_a_question_beyond_the_limit_is_no_decision(make_policies: Policies, managed: Managed) -> None:
    async with managed(make_policies()) as opa:
        assert (await opa.ask(Question.VISIBILITY, {"echo": 1, "pad": "x" * 999_900})).result == 1
        with pytest.raises(DecisionUnavailable):
            await opa.ask(Question.VISIBILITY, {"echo": "x" * 1_100_000})
        assert await answers(opa)


async def test_an_edit_of_the_folder_changes_nothing_that_serves(make_policies: Policies, managed: Managed) -> None:
    root = make_policies()
    async with managed(root) as opa:
        before = opa.revision
        (root / "platform" / "main.rego").write_text("package mcp.main\n\ndecision := broken(")
        process_of(opa).kill()
        await eventually(lambda: answers(opa))
        assert (await opa.ask(Question.DECISION, {})).revision == before


# --- refusing to start ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("team", "said"),
    [
        ("package mcp.teams.red\n\ngrant contains {\n", r"teams/red/policy\.rego:\d+: rego_parse_error"),
        ("package mcp.teams.red\n\ngrant contains x if nothing(1)\n", r"teams/red/policy\.rego:3: nothing is not open"),
        (
            'package mcp.teams.red\n\ndeny contains "x" if http.send({"url": "http://127.0.0.1", "method": "get"})\n',
            r"teams/red/policy\.rego:3: .*http\.send",
        ),
        ("package mcp.teams.red\n\ndeny contains opa.runtime()\n", r"teams/red/policy\.rego:3: .*opa\.runtime"),
        ("package mcp.main\n\ndecision := 1\n", r"teams/red/policy\.rego:1: package mcp\.main"),
        ("package system.authz\n\nallow := true\n", r"teams/red/policy\.rego:1: package system\.authz"),
        ("package sidecar.managed\n\ndrop := false\n", r"teams/red/policy\.rego:1: package sidecar\.managed"),
    ],
    ids=["syntax", "unknown function", "http.send", "opa.runtime", "platform package", "system package", "our package"],
)
async def test_a_bad_policy_refuses_to_start_and_names_the_place(
    make_policies: Policies, managed: Managed, runtime: Path, team: str, said: str
) -> None:
    opa = managed(make_policies(team=team))
    with pytest.raises(ConfigurationError, match=said):
        await start_and_stop(opa)
    assert opa.pid is None
    assert entries(runtime) == []


@pytest.mark.parametrize("roots", ['{"roots": [""]}', '{"roots": ["mcp"]}', '{"roots": ["mcp/revision"]}', "{}", "[]"])
async def test_a_team_that_claims_more_than_its_roots_refuses_to_start(
    make_policies: Policies, managed: Managed, roots: str
) -> None:
    root = make_policies(team="package mcp.teams.red\n")
    (root / "teams" / "red" / ".manifest").write_text(roots)
    (root / "teams" / "red" / "policy.rego").unlink()
    with pytest.raises(ConfigurationError):
        await start_and_stop(managed(root))


WRONG_SELF_TESTS = {
    "no self-test": MAIN.replace("selftest :=", "other :="),
    "another nonce": MAIN.replace("selftest := facts.answer", 'selftest := object.union(facts.answer, {"echo": "x"})'),
    "a constant": MAIN.replace("selftest := facts.answer", "selftest := true if facts.answer"),
    "builtin errors do not fail": MAIN.replace(
        "selftest := facts.answer",
        'selftest := answer if {\n\tanswer := facts.answer with input as object.remove(input, ["fail"])\n}',
    ),
    "the empty question is allowed": MAIN.replace('"allow": false', '"allow": true'),
    "no decision": MAIN.replace("decision :=", "other :="),
    "no question is understood": MAIN.replace("no_route", "invalid_input"),
    "a decision of another form": MAIN.replace('"v": 1', '"v": 2'),
}


@pytest.mark.parametrize("main", WRONG_SELF_TESTS.values(), ids=WRONG_SELF_TESTS.keys())
async def test_a_healthy_opa_that_fails_the_self_test_does_not_serve(
    make_policies: Policies, managed: Managed, main: str
) -> None:
    opa = managed(make_policies(main=main))
    with pytest.raises(ConfigurationError, match="self-test"):
        await start_and_stop(opa)
    assert opa.pid is None


OLDER = {
    "a kind": ('"external",\n\t"execute",\n}', '"external",\n}'),
    "a trait": (', "amplifying",\n}', ",\n}"),
    "a part of a command": ('object.remove(bare_command, ["amplifiers"]) if {', "bare_command if {"),
}


@pytest.mark.parametrize("without", OLDER)
async def test_a_set_of_another_version_does_not_take_the_place(tmp_path: Path, managed: Managed, without: str) -> None:
    """Its lists would be empty and its calls refused, by a sidecar that says it is ready."""
    root = tmp_path / "policies"
    quick_copy(root)
    rules = root / "platform" / "input_check.rego"
    text, (now, before) = rules.read_text(), OLDER[without]
    assert now in text
    rules.write_text(text.replace(now, before))
    with pytest.raises(ConfigurationError, match="of another version"):
        await start_and_stop(managed(root))


async def test_a_closed_health_probe_is_not_ready(make_policies: Policies, managed: Managed) -> None:
    root = make_policies()
    (root / "system" / "authz.rego").write_text("package system.authz\n\ndefault allow := false\n")
    with pytest.raises(ConfigurationError, match="not healthy"):
        await start_and_stop(managed(root, start_timeout_s=3.0))


async def test_unusable_settings_refuse_to_start(make_policies: Policies, managed: Managed, runtime: Path) -> None:
    root = make_policies()
    (runtime / "open").mkdir(mode=0o755)
    (runtime / "own").mkdir(mode=0o700)
    (runtime / "link").symlink_to("own")
    (runtime / "file").touch()
    for options in (
        {"directory": runtime / "open"},
        {"directory": runtime / "link"},
        {"directory": runtime / "file"},
        {"directory": runtime / ("x" * 100)},
        {"memory_limit_bytes": MIN_MEMORY_BYTES - 1},
    ):
        with pytest.raises(ConfigurationError):
            await start_and_stop(managed(root, **options))


@pytest.mark.parametrize("binary", ["no-such-opa", "/nonexistent/opa"])
async def test_without_a_binary_there_is_no_start(make_policies: Policies, runtime: Path, binary: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^the OPA program {binary} was not found"):
        await start_and_stop(ManagedOpa(binary, make_policies(), directory=runtime))


async def test_a_binary_that_is_no_program_refuses_to_start(make_policies: Policies, runtime: Path) -> None:
    binary = runtime / "opa"
    binary.write_text("no program")
    binary.chmod(0o700)
    with pytest.raises(ConfigurationError, match=f"^{binary} cannot be executed: Exec format error$"):
        await start_and_stop(ManagedOpa(str(binary), make_policies(), directory=runtime))
    assert entries(runtime) == ["opa"]


async def test_a_binary_that_is_not_opa_refuses_to_start(make_policies: Policies, runtime: Path) -> None:
    for binary in ("true", "false"):
        with pytest.raises(ConfigurationError):
            await start_and_stop(ManagedOpa(binary, make_policies(), directory=runtime))
    assert entries(runtime) == []


# --- dying and coming back --------------------------------------------------------------------------------------------

HOG = """
visibility := count([[a, b, c, "memory"] |
	some a in input.hog
	some b in input.hog
	some c in input.hog
])
"""

ENDLESS = """
visibility := count([1 |
	some a in input.n
	some b in input.n
	some c in input.n
	some d in input.n
	some e in input.n
	a + b + c + d + e < 0
])
"""


async def test_a_killed_opa_is_unavailable_and_then_back_by_itself(
    make_policies: Policies, managed: Managed, runtime: Path
) -> None:
    async with managed(make_policies()) as opa:
        for _ in range(2):
            first = process_of(opa)
            first.kill()
            await eventually(lambda: refuses(opa))
            await eventually(lambda: answers(opa))
            assert process_of(opa).pid != first.pid
        assert len(entries(runtime)) == 1, "the dead instance's folder is gone"


async def test_an_opa_that_cannot_come_back_is_tried_again_until_it_can(
    make_policies: Policies, opa_binary: str, runtime: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    binary = tmp_path / "bin" / "opa"
    binary.parent.mkdir()
    shutil.copy(opa_binary, binary)

    async def has_failed() -> bool:
        return "opa does not start again" in caplog.text

    async with ManagedOpa(str(binary), make_policies(), directory=runtime, timeout_s=PATIENT_S) as opa:
        away = binary.rename(tmp_path / "away")
        process_of(opa).kill()
        await eventually(has_failed)
        await asyncio.sleep(1)
        with pytest.raises(DecisionUnavailable, match="not running"):
            await opa.ask(Question.DECISION, {})
        assert not await opa.healthy()
        assert opa.revision, "the set in force is known all along"
        away.rename(binary)
        await eventually(lambda: answers(opa))
    for line in ("calls are refused until it is started again", "opa does not start again", "opa is back"):
        assert caplog.text.count(line) == 1, "however often it was tried"


async def test_a_question_in_flight_when_opa_dies_is_no_decision(make_policies: Policies, managed: Managed) -> None:
    async with managed(make_policies(main=MAIN + ENDLESS)) as opa:
        question = asyncio.create_task(opa.ask(Question.VISIBILITY, {"n": list(range(1000))}))
        assert await answers(opa), "sent after it, so it is being evaluated by now"
        process_of(opa).kill()
        with pytest.raises(DecisionUnavailable):
            await question
        await eventually(lambda: answers(opa))


async def test_a_hung_opa_is_replaced(make_policies: Policies, managed: Managed) -> None:
    async with managed(make_policies(), timeout_s=1.0, probe_interval_s=0.1) as opa:
        await eventually(lambda: answers(opa))
        hung = process_of(opa)
        hung.suspend()
        await eventually(lambda: refuses(opa))
        await eventually(lambda: answers(opa))
        assert process_of(opa).pid != hung.pid
        assert not hung.is_running()


async def test_a_policy_that_eats_memory_meets_the_limit_and_opa_comes_back(
    make_policies: Policies, managed: Managed
) -> None:
    limit = MIN_MEMORY_BYTES
    async with managed(make_policies(main=MAIN + HOG), memory_limit_bytes=limit) as opa:
        assert (await opa.ask(Question.VISIBILITY, {"hog": [1, 2]})).result == 8
        hog = process_of(opa)
        question = asyncio.create_task(opa.ask(Question.VISIBILITY, {"hog": list(range(1000))}))
        most = 0
        while not question.done():
            with contextlib.suppress(psutil.Error):
                most = max(most, hog.memory_info().rss)
            await asyncio.sleep(0.005)
        with pytest.raises(DecisionUnavailable):
            await question
        assert 0 < most < limit
        await eventually(lambda: answers(opa))
        assert process_of(opa).pid != hog.pid


async def test_an_endless_evaluation_ends_with_its_deadline_and_stops_nobody_else(
    make_policies: Policies, managed: Managed
) -> None:
    async with managed(make_policies(main=MAIN + ENDLESS), timeout_s=2.0) as opa:
        question = asyncio.create_task(opa.ask(Question.VISIBILITY, {"n": list(range(1000))}))
        assert await answers(opa)
        with pytest.raises(DecisionUnavailable, match="within"):
            await question

        async def is_idle() -> bool:
            return await asyncio.to_thread(process_of(opa).cpu_percent, 0.2) < 20

        await eventually(is_idle)
        assert await answers(opa)


async def test_stopping_while_it_is_down_leaves_nothing(
    make_policies: Policies, managed: Managed, runtime: Path
) -> None:
    opa = managed(make_policies())
    await opa.start()
    process = process_of(opa)
    process.kill()
    await opa.stop()
    await opa.stop()
    assert not process.is_running()
    assert entries(runtime) == []


async def test_cancelling_the_start_leaves_nothing(make_policies: Policies, managed: Managed, runtime: Path) -> None:
    root = make_policies()
    (root / "system" / "authz.rego").write_text("package system.authz\n\ndefault allow := false\n")
    starting = asyncio.create_task(managed(root).start())

    async def listens() -> bool:
        return bool(sockets(runtime))

    await eventually(listens)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert entries(runtime) == []


OWNER = """
import asyncio, sys
from pathlib import Path
from sidecar.opa.managed import ManagedOpa

async def main():
    opa = ManagedOpa(sys.argv[1], Path(sys.argv[2]), directory=Path(sys.argv[3]), timeout_s=20.0, start_timeout_s=300.0)
    await opa.start()
    print(opa.pid, flush=True)
    await asyncio.Event().wait()

if sys.argv[4] == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("fatal", [signal.SIGKILL, signal.SIGTERM])
async def test_opa_goes_with_a_sidecar_that_dies_without_a_word(
    make_policies: Policies, opa_binary: str, runtime: Path, loop: str, fatal: signal.Signals
) -> None:
    arguments = [sys.executable, "-c", OWNER, opa_binary, str(make_policies()), str(runtime), loop]
    owner = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    try:
        assert owner.stdout is not None
        opa = psutil.Process(int(await owner.stdout.readline()))
        assert opa.is_running()
        assert os.getsid(opa.pid) == opa.pid
    finally:
        owner.send_signal(fatal)
        await owner.wait()
    await asyncio.to_thread(psutil.wait_procs, [opa], HANG_S)
    assert not opa.is_running()
