"""What an OPA that somebody else runs does not activate: said to the operator, and of no effect on any decision.

A real OPA polls a real file server for archives that it cannot or must not run; a staged one answers what no real one
can be made to say at a given moment.
"""

import asyncio
import json
import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import DecisionUnavailable
from sidecar.faults import PdpFault
from sidecar.opa.client import OpaClient
from sidecar.opa.external import ExternalOpa
from sidecar.opa.external_bundle_status import STATUS, Activation, read_failures
from sidecar.opa.policy_state import Load
from sidecar.policyset import bundle_writer
from sidecar.ports import Question
from tests import parts
from tests.opa.outside import DEADLINE_S, HEAD, HONEST, Outside, by_hand, file_server, later, running_opa, unpacked
from tests.patience import HANG_S

real = pytest.mark.real

PATIENT_S = HANG_S
TEAMS = ("red", "blue")
SAYS = {"console": True, "trigger": "manual"}
"""``status`` of docs/external-opa.md."""
BLUE = 'package mcp.teams.blue\n\ngrant contains {"id": "blue"} if "blues" in input.subject.groups\n'
REFUSAL = "the external opa does not activate a bundle, what it ran keeps serving: "
LOGGER = "sidecar.opa.external_bundle_status"


@dataclass(frozen=True, slots=True, kw_only=True)
class Archives:
    """What ``policy bundle`` writes of one set, by bundle: signed by two, and not at all."""

    right: dict[str, bytes]
    wrong: dict[str, bytes]
    unsigned: dict[str, bytes]
    public_key: str
    """The right one."""


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory, opa_binary: str) -> Archives:
    """The repository's platform with the teams red and blue."""
    root = tmp_path_factory.mktemp("set") / "policies"
    shutil.copytree(parts.ROOT / "policies", root, ignore=shutil.ignore_patterns("teams", "cases", "*_test.rego"))
    for team, text in zip(TEAMS, (HONEST, BLUE), strict=True):
        folder = root / "teams" / team
        folder.mkdir(parents=True)
        roots = [f"mcp/teams/{team}", f"mcp/grants/{team}"]
        (folder / ".manifest").write_text(json.dumps({"roots": roots, "rego_version": 1}))
        (folder / "policy.rego").write_text(text)

    def built(name: str, signing: bundle_writer.SigningKey | None) -> dict[str, bytes]:
        out = root.parent / name
        asyncio.run(bundle_writer.build(root, out, opa_binary, signing=signing))
        return {each: (out / f"{each}.tar.gz").read_bytes() for each in ("platform", "teams/red", "teams/blue")}

    keys = {name: rsa.generate_private_key(public_exponent=65537, key_size=2048) for name in ("right", "wrong")}
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    for name, key in keys.items():
        (root.parent / f"{name}.pem").write_bytes(key.private_bytes(*form))
    public = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Archives(
        right=built("right", bundle_writer.SigningKey(key=root.parent / "right.pem")),
        wrong=built("wrong", bundle_writer.SigningKey(key=root.parent / "wrong.pem")),
        unsigned=built("unsigned", None),
        public_key=keys["right"].public_key().public_bytes(*public).decode(),
    )


@contextmanager
def serving(folder: Path, binary: str, content: dict[str, bytes], **more: Any) -> Iterator[Outside]:
    """An OPA on the bundles of a file server."""
    served = folder / "served"
    (served / "teams").mkdir(parents=True)
    for name, archive in content.items():
        (served / f"{name}.tar.gz").write_bytes(archive)
    with file_server(served) as source, running_opa(binary, source, served, TEAMS, **more) as found:
        yield found


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory, opa_binary: str, archives: Archives) -> Iterator[Outside]:
    """One OPA that takes unsigned bundles and says what it does not activate."""
    with serving(tmp_path_factory.mktemp("unsigned"), opa_binary, archives.unsigned, status=SAYS) as found:
        yield found


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, opa_binary: str, archives: Archives) -> Iterator[Outside]:
    """One that takes those of the right key."""
    folder, key = tmp_path_factory.mktemp("signed"), archives.public_key
    with serving(folder, opa_binary, archives.right, public_key=key, status=SAYS) as found:
        yield found


def external(outside: Outside) -> ExternalOpa:
    return ExternalOpa(OpaClient(outside.url, timeout_s=PATIENT_S), binary="no-such-opa", timeout_s=PATIENT_S)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 - the condition is another process's, there is no event
            await asyncio.sleep(0.05)


async def until_it_is(opa: ExternalOpa, result: Load) -> None:
    async def reached() -> bool:
        assert await opa.healthy(), "it stays in rotation"
        return opa.policy_state.result is result

    await until(reached)


async def until_it_says(opa: ExternalOpa, what: str) -> None:
    async def said() -> bool:
        assert await opa.healthy(), "it stays in rotation"
        return what in opa.policy_state.error

    await until(said)


def replace(outside: Outside, content: bytes | None) -> None:
    """Have the file server hand out this as red's bundle."""
    if content is None:
        (outside.folder / "teams/red.tar.gz").unlink()
    else:
        outside.serve("teams/red", content)


NAME = "a\x1b[31m\u202e\nERROR b.rego"

FAILURES: dict[str, tuple[bytes | None, str]] = {
    "a syntax error": (
        by_hand("x", {"policy.rego": f"{HEAD}p if {{\n x := \n"}),
        "teams/red: policy.rego:5: rego_parse_error: unexpected eof token",
    ),
    "an undefined function": (
        by_hand("x", {"below/policy.rego": f"{HEAD}p := nosuch(1)\n"}),
        "teams/red: below/policy.rego:3: rego_type_error: undefined function nosuch",
    ),
    "the package of another": (
        by_hand("x", {"policy.rego": BLUE}),
        "do not permit 'package mcp.teams.blue' in module 'policy.rego'",
    ),
    "the roots of another": (
        by_hand("x", {"policy.rego": BLUE}, roots=["mcp/teams/blue"]),
        "root mcp/teams/blue is in multiple bundles",
    ),
    "a name that acts on terminals": (
        by_hand("x", {NAME: f"{HEAD}p if {{\n"}),
        "teams/red: a\\u001b[31m\\u202e ERROR b.rego:4: rego_parse_error: unexpected eof token",
    ),
    "no archive": (b"nothing", "teams/red: bundle read failed: archive read failed"),
    "nothing": (None, "teams/red: server replied with Not Found"),
}


@real
async def test_what_opa_does_not_activate_is_said_and_touches_no_decision(
    outside: Outside, archives: Archives, caplog: pytest.LogCaptureFixture
) -> None:
    """One after the other: each is said, by one line, and decisions are those of the set that ran before."""
    caplog.set_level(logging.INFO, LOGGER)
    expected_lines = []
    async with external(outside) as opa:
        before = opa.policy_state
        for name, (content, expected) in FAILURES.items():
            replace(outside, content)
            await until_it_says(opa, expected)
            state = opa.policy_state
            assert (state.result, state.revision, state.since) == (Load.REFUSED, before.revision, before.since), name
            assert state.error.isprintable()
            assert (await opa.ask(Question.DECISION, {})).revision == before.revision, name
            await opa.ask(Question.RESIDUAL, {})
            expected_lines.append(REFUSAL + state.error)
        replace(outside, archives.unsigned["teams/red"])
        await until_it_is(opa, Load.LOADED)
        assert opa.policy_state == before
        assert (await opa.ask(Question.DECISION, {})).revision == before.revision
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert lines == [*expected_lines, "the external opa activates these bundles again: teams/red"]


@real
async def test_a_bundle_of_another_key_is_said(strict: Outside, archives: Archives) -> None:
    """The near miss is the same content signed by the right one."""
    good = archives.right["teams/red"]
    edited = bundle_writer.archive(
        [(name, text + b"\n# edited" if name.endswith(".rego") else text) for name, text in unpacked(good)]
    )
    async with external(strict) as opa:
        before = opa.policy_state
        assert before.result is Load.LOADED
        for content, expected in (
            (archives.wrong["teams/red"], "teams/red: failed to verify JWT signature"),
            (archives.unsigned["teams/red"], "teams/red: bundle missing .signatures.json file"),
            (edited, "teams/red: policy.rego: digest mismatch"),
        ):
            replace(strict, content)
            await until_it_says(opa, expected)
            assert (await opa.ask(Question.DECISION, {})).revision == before.revision
        replace(strict, good)
        await until_it_is(opa, Load.LOADED)
        assert opa.policy_state == before


@real
async def test_a_refused_set_decides_nothing_whatever_opa_activates_beside_it(
    outside: Outside, archives: Archives
) -> None:
    """Red's is activated and refused here, blue's is not activated: the first is what counts, the second goes on."""
    async with external(outside) as opa:
        outside.serve("teams/blue", b"nothing")
        await until_it_is(opa, Load.REFUSED)
        assert (await opa.ask(Question.DECISION, {})).revision
        await asyncio.to_thread(outside.switch, "bad", {"policy.rego": HEAD + "p := time.now_ns()\n"})
        with pytest.raises(DecisionUnavailable, match=r"time\.now_ns"):
            await opa.ask(Question.DECISION, {})
        assert not await opa.healthy()
        assert "time.now_ns" in opa.policy_state.error
        outside.serve("teams/red", archives.unsigned["teams/red"])

        async def answers() -> bool:
            return await opa.healthy()

        await until(answers)
        assert opa.policy_state.result is Load.REFUSED
        assert opa.policy_state.error.startswith("teams/blue: bundle read failed")
        outside.serve("teams/blue", archives.unsigned["teams/blue"])
        await until_it_is(opa, Load.LOADED)


@real
async def test_a_file_server_that_is_gone_takes_no_decision_with_it(
    tmp_path: Path, opa_binary: str, archives: Archives
) -> None:
    served = tmp_path / "served"
    (served / "teams").mkdir(parents=True)
    for name, content in archives.unsigned.items():
        (served / f"{name}.tar.gz").write_bytes(content)
    with ExitStack() as files:
        source = files.enter_context(file_server(served))
        with running_opa(opa_binary, source, served, TEAMS, status=SAYS) as outside:
            async with external(outside) as opa:
                await asyncio.to_thread(files.close)
                await until_it_is(opa, Load.REFUSED)
                assert "request failed" in opa.policy_state.error
                assert (await opa.ask(Question.DECISION, {})).revision == opa.policy_state.revision


@real
async def test_a_bundle_that_was_never_activated_is_said_where_health_only_says_no(
    tmp_path: Path, opa_binary: str, archives: Archives
) -> None:
    """OPA itself is not healthy until each bundle was there once (``/health?bundles=true``)."""
    with serving(tmp_path, opa_binary, archives.right, public_key=archives.public_key, status=SAYS) as outside:
        outside.serve("teams/red", archives.wrong["teams/red"])
        more: dict[str, Any] = {
            "public_key": archives.public_key,
            "status": SAYS,
            "awaited": ("platform", "teams/blue"),
        }
        with (
            file_server(outside.folder) as source,
            running_opa(opa_binary, source, outside.folder, TEAMS, **more) as late,
        ):
            async with external(late) as opa:

                async def said() -> bool:
                    assert not await opa.healthy()
                    return "teams/red: failed to verify" in opa.policy_state.error

                await until(said)
                outside.serve("teams/red", archives.right["teams/red"])
                await until(opa.healthy)


@real
async def test_an_opa_that_does_not_say_is_served_with_as_it_was(
    tmp_path: Path, opa_binary: str, archives: Archives, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    with serving(tmp_path, opa_binary, archives.unsigned) as outside:
        async with external(outside) as opa:
            outside.serve("teams/red", b"nothing")
            for ahead in (0.0, 2.5, 5.0):
                with later(ahead):
                    assert await opa.healthy()
            assert opa.policy_state.result is Load.LOADED
            assert (await opa.ask(Question.DECISION, {})).revision
    (record,) = (record for record in caplog.records if record.name == LOGGER)
    assert record.levelno == logging.INFO
    assert "is not known (docs/external-opa.md): OPA answered 500 to GET /v1/status" in record.getMessage()


# --- what no real one can be made to say ------------------------------------------------------------------------------


@dataclass(slots=True)
class Staged:
    """Answers ``GET /v1/status`` with whatever a test likes."""

    url: str = ""
    status: int = 200
    body: bytes = b""
    late: bool = False

    async def answer(self, request: web.Request) -> web.Response:
        assert request.path_qs == f"/{STATUS}"
        if self.late:
            await asyncio.Event().wait()
        return web.Response(status=self.status, body=self.body, content_type="application/json")

    def says(self, **bundles: object) -> None:
        self.status, self.body = 200, report(**bundles)


def report(**bundles: object) -> bytes:
    return json.dumps({"result": {"labels": {"id": "x"}, "bundles": bundles, "metrics": {}}}).encode()


def failing(message: str, **more: object) -> dict[str, object]:
    return {"name": "x", "code": "bundle_error", "message": message, **more}


@asynccontextmanager
async def staged(timeout_s: float = PATIENT_S) -> AsyncIterator[tuple[Staged, Activation]]:
    found = Staged()
    application = web.Application()
    application.router.add_get("/{path:.*}", found.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with OpaClient(found.url, timeout_s=PATIENT_S) as client:
            yield found, Activation(client, timeout_s=timeout_s)
    finally:
        await runner.cleanup()


NOT_KNOWN = {
    "closed": (401, b"{}"),
    "not configured": (500, b'{"code": "internal_error", "message": "status plugin not enabled"}'),
    "gone": (404, b""),
    "moved": (302, b""),
    "empty": (200, b""),
    "without a result": (200, b"{}"),
    "of another form": (200, b'{"result": {"bundles": [1]}}'),
    "a number for a code": (200, b'{"result": {"bundles": {"platform": {"code": 1}}}}'),
    "too deep": (200, b'{"result": ' + b"[" * 100_000),
}


@pytest.mark.parametrize("name", NOT_KNOWN)
async def test_what_cannot_be_read_is_not_known_and_logged_once(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    async with staged() as (opa, activation):
        opa.says(platform=failing("x"))
        await activation.look()
        assert activation.failure == "platform: x"
        opa.status, opa.body = NOT_KNOWN[name]
        await activation.look()
        await activation.look()
        assert activation.failure == ""
    assert [record.levelname for record in caplog.records if record.name == LOGGER] == ["ERROR", "INFO"]


async def test_what_an_opa_said_last_stands_while_it_is_late_or_away(caplog: pytest.LogCaptureFixture) -> None:
    async with staged(timeout_s=0.3) as (opa, activation):
        opa.says(platform=failing("x"))
        await activation.look()
        opa.late = True
        await activation.look()
        assert activation.failure == "platform: x"
    await activation.look()
    assert activation.failure == "platform: x"
    assert len([record for record in caplog.records if record.name == LOGGER]) == 1


async def test_a_status_that_a_team_makes_too_long_is_a_failure_and_not_silence() -> None:
    async with staged() as (opa, activation):
        opa.says(**{"teams/red": failing("x", errors=[{"details": {"line": "x" * 5_000_000}}])})
        await activation.look()
        assert activation.failure == "GET /v1/status: the answer is larger than 4194304 bytes"
        opa.says()
        await activation.look()
        assert activation.failure == ""


async def test_one_line_says_what_changed(caplog: pytest.LogCaptureFixture) -> None:
    """A file server that is gone is one line, however many teams there are; what is as it was is not said again."""
    caplog.set_level(logging.INFO, LOGGER)
    async with staged() as (opa, activation):
        teams = {f"teams/t{each:02}": failing("gone") for each in range(30)}
        opa.says(**teams)
        await activation.look()
        await activation.look()
        assert activation.failure.endswith("teams/t04: gone; and 25 more")
        opa.says(**{**teams, "teams/t29": failing("unsigned")})
        await activation.look()
        opa.says()
        await activation.look()
    assert [record.getMessage() for record in caplog.records if record.name == LOGGER] == [
        f"{REFUSAL}{'; '.join(f'teams/t{each:02}: gone' for each in range(5))}; and 25 more",
        f"{REFUSAL}teams/t29: unsigned",
        f"the external opa activates these bundles again: {'; '.join(list(teams)[:5])}; and 25 more",
    ]


def test_only_bundles_of_ours_count() -> None:
    names = (
        "platform",
        "system",
        "revision",
        "opt/x/platform.tar.gz",
        "teams/red",
        "a/teams/red",
        "./teams/red.tar.gz",
    )
    others = ("shop", "teams", "teams/red/more", "platform/x", "other-platform", "redteams/red", "")
    body = report(**{name: failing("x") for name in (*names, *others)})
    assert sorted(read_failures(body)) == sorted(names)
    assert read_failures(report(platform={"name": "platform", "code": ""})) == {}
    assert read_failures(b'{"result": {}}') == {}


def test_what_opens_a_file_server_is_not_repeated() -> None:
    said = 'request failed: Get "https://files.example/teams/red.tar.gz?sig=SECRET&x=1": dial tcp: refused'
    (why,) = read_failures(report(platform=failing(said))).values()
    assert why == 'request failed: Get "https://files.example/teams/red.tar.gz?…": dial tcp: refused'


texts = st.text(st.characters(codec="utf-8"), max_size=2000)
errors = st.fixed_dictionaries(
    {},
    optional={
        "code": texts,
        "message": texts,
        "location": st.fixed_dictionaries({"file": texts, "row": st.integers(0)}),
    },
)


@given(st.dictionaries(st.sampled_from(["platform", "teams/red", "teams/\x1b"]), st.tuples(texts, st.lists(errors))))
def test_whatever_opa_quotes_is_one_short_line_that_prints(said: dict[str, tuple[str, list[object]]]) -> None:
    body = report(**{name: failing(message, errors=found) for name, (message, found) in said.items()})
    failures = read_failures(body)
    assert len(failures) == len(said)
    for name, why in failures.items():
        assert name.isprintable()
        assert why.isprintable()
        assert 0 < len(why) < 5000


@given(st.binary() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(str).map(str.encode))
def test_bytes_that_are_no_status_are_said_to_be_none(body: bytes) -> None:
    with pytest.raises(DecisionUnavailable) as caught:
        read_failures(body)
    assert caught.value.fault is PdpFault.MALFORMED


def test_many_errors_and_long_ones_are_cut() -> None:
    location = {"file": "policy.rego", "row": 3, "col": 6}
    found = [
        {"code": "rego_type_error", "message": f"undefined function f{each}", "location": location} for each in range(9)
    ]
    long = "\u202e" * 1_000_000
    body = report(**{"teams/red": failing("x", errors=found), "teams/blue": failing(long), "platform": failing("")})
    first = "; ".join(f"policy.rego:3: rego_type_error: undefined function f{each}" for each in range(5))
    assert read_failures(body) == {
        "teams/red": f"{first}; and 4 more",
        "teams/blue": ("\\u202e" * 400)[:400],
        "platform": "bundle_error",
    }
