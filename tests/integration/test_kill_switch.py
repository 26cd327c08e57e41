"""An operator takes rights away while calls are under way: what still reaches the server, the caller, the evidence."""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from hashlib import sha256

import pytest

from sidecar.audit.chain import verify
from sidecar.audit.record import session_digest
from sidecar.control.client import ControlError, send
from sidecar.demo import database as demo_database
from sidecar.demo.client import DemoClient
from sidecar.demo.identities import ANALYST, LOADER, Person
from sidecar.upstream.environment import mongodb_environment
from tests import parts
from tests.hours import policies_on
from tests.integration.deployment import deployed, search_path, wait_until
from tests.patience import HANG_S
from tests.signer import ISSUER

ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
STAGING = {**ORDERS, "database": "staging"}
PATIENCE_S = HANG_S
FENCE_READER = Person(user="fay", agent="fence-desk", groups=ANALYST.groups, scopes=ANALYST.scopes)
FENCE_WRITER = Person(user="fred", agent=LOADER.agent, groups=LOADER.groups, scopes=LOADER.scopes)


@pytest.fixture(scope="module")
def guarded(folder, database):
    """A deployment with a control socket."""
    extra = f'control_listen = "unix:{folder}/control"\nsuspensions = "file:{folder}/suspensions.json"\n'
    with deployed(folder, database, extra=extra) as running:
        yield running


def address(deployment):
    return f"unix:{deployment.folder}/control"


def command(deployment, name, **parts_of_it):
    return send(address(deployment), name, parts_of_it, None)


@contextlib.contextmanager
def suspended(deployment, **target):
    try:
        yield command(deployment, "suspend", reason="a test", **target)
    finally:
        with contextlib.suppress(ControlError):
            command(deployment, "resume", **target)


def run(deployment, *words):
    """The command line, as an operator uses it."""
    return subprocess.run(
        [sys.executable, "-m", "sidecar", *words],
        cwd=parts.ROOT,
        env={"PATH": search_path(), "SIDECAR_CONFIG": str(deployment.folder / "sidecar.toml")},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


async def until(true, what):
    """Wait for a condition without blocking the loop."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)
    assert true(), what


def marked(deployment, mark):
    """How many calls with this mark reached a server."""
    return sum(mark in json.dumps(params) for params in deployment.all_reached())


# --- under load -------------------------------------------------------------------------------------------------------


class Worker:
    """One agent that calls without pause, and begins again with a new session and token when it is refused.

    Every call carries a mark: the person, the agent, and the token and session of the moment.
    """

    def __init__(self, deployment, number, person):
        self.deployment, self.number, self.person = deployment, number, person
        self.marks = {}
        self.attempts = 0
        self.answered = 0
        self.refused: Counter[int] = Counter()
        self.token = self.session = ""

    async def run(self):
        generation = 0
        while True:
            generation += 1
            token = self.deployment.token(self.person)
            self.token = sha256(token.encode()).hexdigest()[:32]
            async with DemoClient(self.deployment.url, token, "load") as client:
                await self.sessions(client, generation)

    async def sessions(self, client, generation):
        """Sessions of one token, until the token is no longer good."""
        for turn in range(10_000):
            client._headers.pop("Mcp-Session-Id", None)
            client._headers.pop("MCP-Protocol-Version", None)
            self.attempts += 1
            opened = await client.initialize()
            if opened.status != 200:
                self.refused[opened.status] += 1
                await asyncio.sleep(0.02)
                if opened.status == 401:
                    return
                continue
            self.session = session_digest(client._headers["Mcp-Session-Id"])
            mark = f"w{self.number}g{generation}s{turn}!"
            self.marks["token"], self.marks["session"] = f"w{self.number}g{generation}s", mark
            while True:
                self.attempts += 1
                answer = await self.call(client, mark)
                if answer.status != 200 or answer.decision:
                    self.refused[answer.status] += 1
                    break
                self.answered += 1

    async def call(self, client, mark):
        if self.person.agent == LOADER.agent:
            return await client.call("insert-many", {**STAGING, "documents": [{"mark": mark}]})
        return await client.call("find", {**ORDERS, "filter": {"status": mark}, "limit": 1})


def team():
    for number in range(4):
        yield Person(user=f"ann{number}", agent=f"desk{number % 2}", groups=ANALYST.groups, scopes=ANALYST.scopes)
    for number in range(2):
        yield Person(user=f"leo{number}", agent=LOADER.agent, groups=LOADER.groups, scopes=LOADER.scopes)


def choose(rng, workers):
    """A target, and the pattern of the marks of what it covers."""
    worker = rng.choice(workers)
    person = worker.person
    match rng.choice(["user", "agent", "pair", "token", "session"]):
        case "user":
            return {"kind": "user", "subject": person.user}, worker, f"w{worker.number}g"
        case "agent":
            covered = "|".join(str(other.number) for other in workers if other.person.agent == person.agent)
            return {"kind": "agent", "agent": person.agent}, worker, f"w(?:{covered})g"
        case "pair":
            return {"kind": "pair", "subject": person.user, "agent": person.agent}, worker, f"w{worker.number}g"
        case "token":
            return {"kind": "token", "digest": worker.token}, worker, worker.marks["token"]
        case _:
            return {"kind": "session", "digest": worker.session}, worker, worker.marks["session"]


class Reached:
    """What the recording pipes wrote down, read on from where the last look ended."""

    def __init__(self, deployment):
        self.files = [deployment.folder / f"{server}.stdin" for server in ("demo-ro", "demo-rw")]
        self.offsets = [0, 0]
        self.marks = []

    def count(self, pattern):
        for index, file in enumerate(self.files):
            with file.open("rb") as stream:
                stream.seek(self.offsets[index])
                text = stream.read()
            whole = text[: text.rfind(b"\n") + 1]
            self.offsets[index] += len(whole)
            self.marks += re.findall(rb"w\d+g\d+s\d+!|fence\d+", whole)
        return sum(re.match(pattern.encode(), mark) is not None for mark in self.marks)


async def fence_reads(client, fence):
    answer = await client.call("count", {**ORDERS, "query": {"status": fence}})
    assert answer.status == 200
    assert not answer.decision
    return True


async def fence_writes(client, fence):
    """The only agent that writes may be what is suspended: then nothing that was written may be left in the pipe."""
    client._headers.pop("Mcp-Session-Id", None)
    client._headers.pop("MCP-Protocol-Version", None)
    opened = await client.initialize()
    if opened.status == 403:
        await asyncio.sleep(0.5)
        return False
    answer = await client.call("insert-many", {**STAGING, "documents": [{"mark": fence}]})
    assert not answer.decision
    return True


async def storm(deployment, times, seed):
    """Suspend at random moments under load; what is covered by the suspension must have stopped when it returns."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    reached = Reached(deployment)
    workers = [Worker(deployment, number, person) for number, person in enumerate(team())]
    late, fences = [], 0
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(worker.run()) for worker in workers]
        await until(lambda: all(worker.answered > 1 for worker in workers), "every worker to get answers")
        async with deployment.plain(FENCE_READER) as reader, deployment.plain(FENCE_WRITER) as loader:
            await reader.initialize()
            fencing = ((reader, fence_reads), (loader, fence_writes))
            done = 0
            while done < times:
                await asyncio.sleep(rng.uniform(0, 0.1))
                target, worker, pattern = choose(rng, workers)
                try:
                    await asyncio.to_thread(command, deployment, "suspend", reason="storm", **target)
                except ControlError as error:
                    if target["kind"] != "session":
                        raise
                    assert "no session" in str(error)  # noqa: PT017 - it ended by itself a moment before
                    continue
                done += 1
                # Whatever was written before the command returned is in the pipe; the fence is written after it.
                fences += 1
                fence = f"fence{fences}"
                passed = [await call(client, fence) for client, call in fencing].count(True)
                await until(lambda: reached.count(f"{fence}$") == passed, "the fences to reach the servers")  # noqa: B023
                before, attempts = reached.count(pattern), worker.attempts
                await until(lambda attempts=attempts, worker=worker: worker.attempts > attempts + 3, "more attempts")
                if reached.count(pattern) != before:
                    late.append((target, before, reached.count(pattern)))
                answered = worker.answered
                await asyncio.to_thread(command, deployment, "resume", **target)
                await until(lambda answered=answered, worker=worker: worker.answered > answered, "answers again")
        for task in tasks:
            task.cancel()
    return late, workers


def intents_after_suspension(records):
    """Calls that were permitted for somebody who was suspended at that point of the chain."""
    names: set[tuple[str | None, ...]] = set()
    found = []
    for entry in records:
        if entry["event"] == "control":
            about = entry["control"]["about"]
            name = (about["kind"], about.get("subject"), about.get("agent"), about.get("digest"))
            (names.add if entry["control"]["action"] == "suspend" else names.discard)(name)
        elif entry["event"] == "intent":
            user, agent = entry["subject"]["id"], entry["actor"]["id"]
            answers_to = {
                ("user", user, None, None),
                ("agent", None, agent, None),
                ("pair", user, agent, None),
                ("token", None, None, entry["token"]),
                ("session", None, None, entry["session"]),
            }
            if names & answers_to:
                found.append(entry["id"])
    return found


async def check_storm(deployment, times, seed):
    late, workers = await storm(deployment, times, seed)
    assert late == []
    records = deployment.records()
    assert intents_after_suspension(records) == []
    suspensions = [r for r in records if r["event"] == "control" and r["control"]["action"] == "suspend"]
    assert len(suspensions) >= times
    assert {r["control"]["about"]["kind"] for r in suspensions} == {"user", "agent", "pair", "token", "session"}
    assert sum((worker.refused for worker in workers), Counter()).keys() >= {403, 401}
    with deployment.audit_file.open("rb") as lines:
        assert verify(lines).holds


async def test_nothing_of_the_suspended_is_forwarded_after_the_command_returned(guarded, samples_of):
    await check_storm(guarded, 20, seed=7)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
async def test_nothing_of_the_suspended_is_forwarded_in_two_hundred_suspensions(guarded, samples_of):
    await check_storm(guarded, 200, seed=time.time_ns())


@pytest.fixture
async def samples_of(guarded):
    await demo_database.seed(guarded.uri)


# --- what is under way ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def frozen(deployment):
    """The MCP servers stand still; what is written to them waits."""
    servers = deployment.children("mongodb-mcp-server")
    assert servers
    for server in servers:
        server.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for server in servers:
            server.send_signal(signal.SIGCONT)


async def test_the_answer_of_a_write_that_was_sent_is_withheld_and_its_outcome_recorded(guarded, samples_of):
    mark = f"withheld-{time.time_ns()}"
    async with guarded.plain(LOADER) as client:
        await client.initialize()
        with suspended_after(guarded, "user", subject=LOADER.user):
            with frozen(guarded):
                calling = asyncio.create_task(client.call("insert-many", {**STAGING, "documents": [{"mark": mark}]}))
                await until(lambda: marked(guarded, mark) == 1, "the call to reach the server")
                done = await asyncio.to_thread(
                    command, guarded, "suspend", kind="user", subject=LOADER.user, reason="x"
                )
                assert (done["writes"], done["calls"]) == (1, 0)
                assert not calling.done()
            answer = await calling
    assert answer.decision["reasons"][0]["code"] == "suspended"
    assert "inserted" not in answer.text.lower()
    with guarded.database() as client:
        assert client.staging.orders.count_documents({"mark": mark}) == 1
    outcome = [r for r in guarded.records() if r["event"] == "outcome" and r["tool"] == "insert-many"][-1]["outcome"]
    assert (outcome["status"], outcome["error"]) == ("ok", "suspended")


async def test_a_read_under_way_is_cancelled(guarded, samples_of):
    mark = f"cancelled-{time.time_ns()}"
    async with guarded.plain(ANALYST) as client:
        await client.initialize()
        with suspended_after(guarded, "user", subject=ANALYST.user), frozen(guarded):
            calling = asyncio.create_task(client.call("find", {**ORDERS, "filter": {"status": mark}, "limit": 1}))
            await until(lambda: marked(guarded, mark) == 1, "the call to reach the server")
            done = await asyncio.to_thread(command, guarded, "suspend", kind="user", subject=ANALYST.user, reason="x")
            assert (done["writes"], done["calls"], done["sessions"]) == (0, 1, 1)
            answer = await asyncio.wait_for(calling, PATIENCE_S)
    assert answer.decision["reasons"][0]["code"] == "suspended"
    outcome = [r for r in guarded.records() if r["event"] == "outcome" and r["tool"] == "find"][-1]["outcome"]
    assert (outcome["status"], outcome["error"]) == ("cancelled", "suspended")


@contextlib.contextmanager
def suspended_after(deployment, kind, **parts_of_it):
    """Give back at the end what the body takes away."""
    try:
        yield
    finally:
        command(deployment, "resume", kind=kind, **parts_of_it)


async def test_a_stream_of_the_suspended_ends_and_no_other(guarded):
    async with guarded.plain(ANALYST) as client, guarded.plain(LOADER) as other:
        await client.initialize()
        await other.initialize()
        streams = [asyncio.create_task(read_stream(one)) for one in (client, other)]
        await asyncio.sleep(0.3)
        with suspended(guarded, kind="agent", agent=ANALYST.agent) as done:
            assert done["streams"] == 1
            assert await asyncio.wait_for(streams[0], PATIENCE_S)
            assert not streams[1].done()
            assert (await client.tools()).status == 403
            assert (await other.tools()).status == 200
        assert (await client.tools()).status == 404
        streams[1].cancel()


async def read_stream(client):
    headers = {**client._headers, "Accept": "text/event-stream"}
    async with client._http.get(client._url, headers=headers) as response:
        assert response.status == 200
        await response.read()
    return True


# --- who is told what -------------------------------------------------------------------------------------------------


async def test_the_caller_reads_that_access_is_suspended_and_not_why(guarded):
    with suspended(guarded, kind="user", subject=ANALYST.user):
        async with guarded.plain(ANALYST) as client:
            answer = await client.initialize()
    assert answer.status == 403
    assert "suspended" in answer.text
    assert "a test" not in json.dumps(answer.body)
    refusal = [r for r in guarded.records() if r["event"] == "refusal"][-1]
    assert (refusal["outcome"]["error"], refusal["subject"]["id"]) == ("suspended", ANALYST.user)


async def test_a_suspended_token_is_named_by_its_digest_and_another_one_is_good(guarded):
    async with guarded.plain(ANALYST) as client:
        await client.initialize()
        await client.call("count", {**ORDERS, "query": {}})
        digest = [r for r in guarded.records() if r["event"] == "intent"][-1]["token"]
        with suspended(guarded, kind="token", digest=digest) as done:
            assert done["sessions"] == 1
            assert (await client.initialize()).status == 401
            async with guarded.plain(ANALYST) as another:
                assert (await another.initialize()).status == 200


async def test_the_near_misses_of_a_name_are_not_suspended(guarded):
    with (
        suspended(guarded, kind="user", subject=ANALYST.user + "x"),
        suspended(guarded, kind="user", subject=ANALYST.user.upper()),
        suspended(guarded, kind="agent", agent="claude"),
        suspended(guarded, kind="agent", agent="claude-*"),
        suspended(guarded, kind="pair", subject=ANALYST.user, agent=LOADER.agent),
        suspended(guarded, kind="pair", subject=LOADER.user, agent=ANALYST.agent),
    ):
        async with guarded.plain(ANALYST) as client:
            assert (await client.initialize()).status == 200
            assert not (await client.call("count", {**ORDERS, "query": {}})).decision


# --- the operator -----------------------------------------------------------------------------------------------------


def test_the_command_line_suspends_lists_and_resumes(guarded):
    done = run(guarded, "suspend", "user", "carla", "--until", "2h", "--reason", "left the company")
    assert done.returncode == 0, done.stderr
    assert "check the spelling" in done.stdout
    listed = run(guarded, "suspended", "--json")
    entry = json.loads(listed.stdout)["suspended"][0]  # noqa: TID251 - our own output
    assert (entry["subject"], entry["reason"]) == ("carla", "left the company")
    assert entry["operator"].startswith(f"uid {os.geteuid()}")
    assert "carla" in run(guarded, "suspended").stdout
    again = run(guarded, "suspend", "user", "carla", "--until", "1h", "--reason", "another operator")
    assert again.returncode == 1
    assert "already suspended by uid" in again.stderr
    longer = run(guarded, "suspend", "user", "carla", "--reason", "for good")
    assert longer.returncode == 0
    assert run(guarded, "resume", "user", "carla").returncode == 0
    gone = run(guarded, "resume", "user", "carla")
    assert gone.returncode == 1
    assert "not suspended" in gone.stderr
    recorded = [r["control"] for r in guarded.records() if r["event"] == "control"][-3:]
    assert [r["action"] for r in recorded] == ["suspend", "suspend", "resume"]
    assert all(r["operator"].startswith(f"uid {os.geteuid()}") for r in recorded)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("user", "carla", "--until", "2020-01-01T00:00", "--reason", "r"), 2, "in the past"),
        (("user", "carla", "--until", "soon", "--reason", "r"), 2, "--until"),
        (("pair", "carla", "--reason", "r"), 2, "takes 2"),
        (("user", "carla", "--issuer", "https://other.invalid", "--reason", "r"), 1, "unknown issuer"),
        (("session", "0123456789abcdef", "--reason", "r"), 1, "no session"),
        (("token", "nonsense", "--reason", "r"), 1, "hexadecimal"),
        (("team", "carla", "--reason", "r"), 2, "team"),
    ],
)
def test_a_command_that_cannot_be_meant_is_answered_clearly(guarded, words, status, said):
    done = run(guarded, "suspend", *words)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr


def test_two_operators_at_once_both_get_an_answer(guarded):
    words = [sys.executable, "-m", "sidecar", "suspend", "user", "dora", "--reason", "both"]
    environment = {"PATH": search_path(), "SIDECAR_CONFIG": str(guarded.folder / "sidecar.toml")}
    both = [
        subprocess.Popen(words, cwd=parts.ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=PATIENCE_S)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    assert sum(b"already suspended by" in text for text in said) == 1
    command(guarded, "resume", kind="user", subject="dora")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_is_refused_by_the_file_and_by_the_kernels_word(guarded):
    socket_file = guarded.folder / "control"
    assert socket_file.stat().st_mode & 0o777 == 0o600
    attempt = (
        "import os, sys; sys.path.insert(0, sys.argv[2]);"
        "from sidecar.control.client import send;"
        "os.setgid(65534); os.setuid(65534);"
        "send(sys.argv[1], 'suspend', {'kind': 'user', 'subject': 'eve', 'reason': 'r'}, None)"
    )
    words = [sys.executable, "-c", attempt, f"unix:{socket_file}", str(parts.ROOT)]
    refused = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/")
    assert refused.returncode != 0
    assert "ermission denied" in refused.stderr
    folders = [folder for folder in socket_file.parents if not folder.stat().st_mode & 0o001]
    modes = [(folder, folder.stat().st_mode & 0o7777) for folder in folders]
    try:
        for folder, mode in modes:
            folder.chmod(mode | 0o001)
        socket_file.chmod(0o666)
        refused = subprocess.run(words, capture_output=True, text=True, check=False, cwd="/")
    finally:
        socket_file.chmod(0o600)
        for folder, mode in modes:
            folder.chmod(mode)
    assert "not an operator" in refused.stderr
    assert command(guarded, "suspended")["suspended"] == []


def test_the_listeners_of_clients_and_probes_know_no_command(guarded):
    assert guarded.admin("/suspend")[0] == 404
    assert guarded.admin("/suspended")[0] == 404


# --- restart and damage -----------------------------------------------------------------------------------------------


async def test_a_restart_keeps_suspensions_and_a_damaged_file_refuses_everybody(tmp_path, database):
    kept = tmp_path / "suspensions.json"
    extra = f'control_listen = "unix:{tmp_path}/control"\nsuspensions = "file:{kept}"\n'
    with deployed(tmp_path, database, extra=extra) as deployment:
        command(deployment, "suspend", kind="user", subject=ANALYST.user, reason="kept")
        assert kept.stat().st_mode & 0o777 == 0o600
        deployment.stop()
        deployment.start()
        assert await status_of(deployment, ANALYST) == 403
        assert await status_of(deployment, LOADER) == 200
        deployment.stop()
        kept.write_bytes(kept.read_bytes().replace(ANALYST.user.encode(), b"nobody"))
        start_without_waiting(deployment)
        assert "suspensions" in deployment.admin("/readyz")[1]
        assert await status_of(deployment, LOADER) == 503
        with pytest.raises(ControlError, match="damaged"):
            command(deployment, "resume", kind="user", subject=ANALYST.user)


async def test_a_file_that_is_damaged_while_it_runs_refuses_everybody_until_it_is_put_back(tmp_path, database):
    kept = tmp_path / "suspensions.json"
    extra = f'control_listen = "unix:{tmp_path}/control"\nsuspensions = "file:{kept}"\n'
    with deployed(tmp_path, database, extra=extra) as deployment:
        command(deployment, "suspend", kind="user", subject=ANALYST.user, reason="kept")
        whole = kept.read_bytes()
        async with deployment.plain(LOADER) as client:
            await client.initialize()
            kept.write_bytes(whole.replace(ANALYST.user.encode(), b"nobody"))
            await until(lambda: deployment.admin("/readyz")[0] == 503, "readiness to fail")
            assert "suspensions" in deployment.admin("/readyz")[1]
            before = len(deployment.all_reached())
            refused = await client.call("insert-many", {**STAGING, "documents": [{"mark": "damaged"}]})
            assert refused.status == 503
            assert len(deployment.all_reached()) == before
            assert deployment.records()[-1]["outcome"]["error"] == "suspensions_unavailable"
            with pytest.raises(ControlError, match="damaged"):
                command(deployment, "resume", kind="user", subject=ANALYST.user)
            kept.write_bytes(whole)
            await until(deployment.ready, "readiness to return")
            assert (await client.tools()).status == 200
        assert await status_of(deployment, ANALYST) == 403
        assert re.search(r"^mcp_sidecar_suspensions(\{\})? 1(\.0)?$", deployment.admin("/metrics")[1], re.MULTILINE)
        assert deployment.log_file.read_text().count("what is kept is no longer what was saved") == 1


@contextlib.contextmanager
def served_over_http(folder, uri):
    """The real MongoDB MCP server over Streamable HTTP; yields its URL and its process."""
    port = parts.free_port()
    process = subprocess.Popen(
        [str(parts.installed("mongodb-mcp-server"))],
        env=mongodb_environment(uri, read_only=False)
        | {
            "PATH": search_path(),
            "HOME": str(folder),
            "MDB_MCP_TELEMETRY": "disabled",
            "MDB_MCP_TRANSPORT": "http",
            "MDB_MCP_HTTP_PORT": str(port),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: listens(port), "the MCP server to listen", process)
        yield f"http://127.0.0.1:{port}/mcp", process
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(HANG_S)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_an_answer_that_a_server_behind_a_url_gives_later_is_withheld_too(tmp_path, database):
    extra = f'control_listen = "unix:{tmp_path}/control"\nsuspensions = "file:{tmp_path}/kept"\n'
    mark = f"by-http-{time.time_ns()}"
    with (
        served_over_http(tmp_path, database) as (url, server),
        deployed(tmp_path, database, extra=extra, urls={"demo-rw": url}) as deployment,
    ):
        async with deployment.plain(LOADER) as client:
            await client.initialize()
            await client.call("insert-many", {**STAGING, "documents": [{"mark": "before"}]})
            server.send_signal(signal.SIGSTOP)
            calling = asyncio.create_task(client.call("insert-many", {**STAGING, "documents": [{"mark": mark}]}))
            await until(lambda: len(events(deployment, "intent")) == 2, "the intent to be recorded")
            await asyncio.sleep(0.5)  # it is written to the connection, and waits there for the server
            done = await asyncio.to_thread(command, deployment, "suspend", kind="user", subject=LOADER.user, reason="x")
            assert (done["writes"], done["calls"]) == (1, 0)
            server.send_signal(signal.SIGCONT)
            answer = await asyncio.wait_for(calling, PATIENCE_S)
        assert answer.decision["reasons"][0]["code"] == "suspended"
        with deployment.database() as client:
            assert client.staging.orders.count_documents({"mark": mark}) == 1
        outcome = events(deployment, "outcome")[-1]["outcome"]
        assert (outcome["status"], outcome["error"]) == ("ok", "suspended")


def events(deployment, kind):
    return [record for record in deployment.records() if record["event"] == kind]


async def test_what_policy_suspends_is_not_lifted_by_resume(tmp_path, database):
    policies = policies_on(tmp_path)
    file = policies / "platform/data.json"
    document = json.loads(file.read_text())  # noqa: TID251 - the repository's own file
    document["mcp"]["platform"]["suspended"]["subjects"] = [{"issuer": ISSUER, "id": ANALYST.user}]
    file.write_text(json.dumps(document))
    extra = f'control_listen = "unix:{tmp_path}/control"\nsuspensions = "file:{tmp_path}/kept"\n'
    with deployed(tmp_path, database, extra=extra, policies=policies) as deployment:
        with pytest.raises(ControlError, match="not suspended"):
            command(deployment, "resume", kind="user", subject=ANALYST.user)
        command(deployment, "suspend", kind="user", subject=ANALYST.user, reason="twice")
        command(deployment, "resume", kind="user", subject=ANALYST.user)
        async with deployment.plain(ANALYST) as client:
            await client.initialize()
            answer = await client.call("find", {**ORDERS, "limit": 1})
            assert answer.result.get("structuredContent") is None
        assert deployment.all_reached() == []
        reasons = deployment.records()[-1]["decision"]["reasons"]
        assert "suspended" in {reason["code"] for reason in reasons}


def start_without_waiting(deployment):
    """Start it, and wait only until it answers that it is not ready."""
    deployment.process = subprocess.Popen(
        [sys.executable, "-m", "sidecar", "serve"],
        cwd=parts.ROOT,
        env={"PATH": search_path(), "SIDECAR_CONFIG": str(deployment.folder / "sidecar.toml")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers():
        try:
            return deployment.admin("/readyz")[0] == 503
        except OSError:
            return False

    wait_until(answers, "the sidecar to say that it is not ready", deployment.process)


async def status_of(deployment, person):
    async with deployment.plain(person) as client:
        return (await client.initialize()).status
