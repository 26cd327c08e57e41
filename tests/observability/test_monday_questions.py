"""Monday morning's questions about Friday, asked of every place that can answer them, which must all say the same.

Real clients in both eras, a real OPA of the operator's own with its decision log, the real MongoDB MCP server, and a
proxy that reads what reaches the database. The spans are asked for at an OTLP receiver, and at a real Jaeger where one
is installed; the records in the file store and in the MongoDB store, with the commands of docs/monday-questions.md.
"""

import asyncio
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2
import pytest
from click.testing import CliRunner
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from pymongo import MongoClient
from pymongo.uri_parser import parse_uri

from sidecar.command_line import cli
from sidecar.demo import database as demo_database
from sidecar.demo.identities import ANALYST, STRANGER, Person
from sidecar.opa.client import OpaClient
from sidecar.policyset import bundle_writer
from sidecar.store import AuditSpool, MongoAuditSink, MongoHeads, MongoStore
from sidecar.system import SystemClock
from tests import parts
from tests.integration.deployment import HR_ADMIN, Deployment, deployed, wait_until
from tests.observability.test_jaeger import JAEGER, RunningJaeger
from tests.observability.test_jaeger import jaeger as running_jaeger
from tests.observability.test_one_trace import SERVER, Collector, attributes
from tests.observability.test_one_trace import collector as running_collector
from tests.opa.test_external_opa import PATIENT_S, joined, revision_of, served
from tests.opa.test_request_ids import entries
from tests.patience import HANG_S
from tests.soundness.wire import Recorder

pytestmark = pytest.mark.real

collector, jaeger = running_collector, running_jaeger

ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
SALARIES = {"connectionId": "preconfigured", "database": "hr", "collection": "salaries"}
ERAS = ("legacy", "2026-07-28")
OWN = "monday"
QUESTIONS = (
    ("audit", "query", "--limit", "1000"),
    ("audit", "query", "--user", STRANGER.user, "--decision", "deny"),
    ("audit", "query", "--collection", "hr.salaries"),
    ("audit", "report", "--since", "2000-01-01", "--until", "2100-01-01"),
)
"""What every store has to answer alike, word for word."""

OF_STORE = f"""[mongodb]
uri_file = "{{folder}}/store"
database = "{OWN}"
timeout_ms = 10000
"""


class Answered(NamedTuple):
    """One tool call, as each place tells of it."""

    trace: str
    user: str
    agent: str
    tool: str
    decision: str
    accesses: tuple[str, ...]
    grants: tuple[str, ...]
    revision: str
    opa: str


@dataclass(kw_only=True)
class Friday:
    """What happened, and where it can be asked."""

    folder: Path
    environment: dict[str, str]
    today: Path
    """The policies as they are now: the people team no longer lets its administrators read."""
    changed: datetime
    """When they changed."""
    spans: list[Answered]
    opa: list[dict[str, Any]]
    seen: list[dict[str, Any]] = field(default_factory=list)
    """Commands on ``orders`` and ``salaries`` that reached the database."""

    def run(self, *words: str) -> str:
        """What a command prints."""
        done = CliRunner(env=self.environment).invoke(cli, words)
        assert done.exit_code in {0, 1}, (words, done.output)
        return done.stdout

    def ask(self, *words: str) -> list[Any]:
        """A command's answer, one JSON object after the other."""
        found, at, text = [], 0, self.run(*words, "--json").strip()
        while at < len(text):
            one, at = json.JSONDecoder().raw_decode(text, at)
            found.append(one)
            at += len(text[at:]) - len(text[at:].lstrip())
        return found


def calls_of(rows: list[Any]) -> list[Answered]:
    return [
        Answered(
            trace=row["trace_id"],
            user=row["user"],
            agent=row["agent"],
            tool=row["tool"],
            decision=row["decision"],
            accesses=tuple(f"{each['kind']}:{each['database']}.{each['collection']}" for each in row["accesses"]),
            grants=tuple(row["grants"]),
            revision=row["revision"],
            opa=row["opa_decision_id"],
        )
        for row in rows
        if row["method"] == "tools/call"
    ]


def call_of(trace: str, tags: Callable[[str], Any]) -> Answered:
    return Answered(
        trace=trace,
        user=tags("user.id"),
        agent=tags("gen_ai.agent.id"),
        tool=tags("gen_ai.tool.name"),
        decision=tags("mcp_sidecar.decision"),
        accesses=tuple(tags("mcp_sidecar.accesses")),
        grants=tuple(tags("mcp_sidecar.grants")),
        revision=tags("mcp_sidecar.policy.revision"),
        opa=tags("mcp_sidecar.opa.decision_id"),
    )


class AtReceiver:
    """Spans as an OTLP receiver got them."""

    def __init__(self, got: Collector) -> None:
        self._got = got
        self.url = got.url
        self.everything = got.everything

    def calls(self) -> list[Answered]:
        spans = [span for service, span in self._got.spans() if service == "mcp-sidecar" and span.kind == SERVER]
        told = [(span.trace_id.hex(), attributes(span)) for span in spans]
        return [call_of(trace, tags.__getitem__) for trace, tags in told if tags["mcp.method.name"] == "tools/call"]


class AtJaeger:
    """Spans as Jaeger's query API tells them."""

    def __init__(self, got: RunningJaeger) -> None:
        self._got = got
        self.url = got.otlp
        self.everything = got.everything

    def calls(self) -> list[Answered]:
        found = []
        for trace in self._got.get("/api/traces", service="mcp-sidecar", limit="500"):
            for span in trace["spans"]:
                tags = {tag["key"]: tag["value"] for tag in span["tags"]}
                if tags.get("mcp.method.name") == "tools/call":
                    found.append(call_of(trace["traceID"], lambda key, tags=tags: _value(tags[key])))  # type: ignore[misc]
        return found


def _value(tag: Any) -> Any:
    """A list is a text of JSON in Jaeger."""
    return json.loads(tag) if isinstance(tag, str) and tag.startswith("[") else tag  # noqa: TID251


@pytest.fixture(scope="module")
def opa(tmp_path_factory: pytest.TempPathFactory, opa_binary: str) -> Iterator["Opa"]:
    running = Opa(tmp_path_factory.mktemp("opa"), opa_binary)
    yield running
    running.stop()


class Opa:
    """An OPA of the operator's own that polls a file server, and logs its decisions."""

    def __init__(self, folder: Path, binary: str) -> None:
        self.folder = folder
        self.binary = binary
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, source: str) -> str:
        polling = {"min_delay_seconds": 1, "max_delay_seconds": 1}
        names = ["platform", *(f"teams/{team.name}" for team in sorted((parts.ROOT / "policies/teams").iterdir()))]
        entry = {"service": "files", "polling": polling}
        config = {
            "services": {"files": {"url": source}},
            "bundles": {name: {**entry, "resource": f"{name}.tar.gz"} for name in names},
            "decision_logs": {"console": True},
        }
        file, port = self.folder / "config.json", parts.free_port()
        file.write_text(json.dumps(config))
        # With --authorization=basic OPA 1.22.4 reads the body before, and logs none of its metadata.
        flags = ["--skip-version-check", "--log-level=info"]
        command = [self.binary, "run", "--server", f"--addr=127.0.0.1:{port}", f"--config-file={file}", *flags]
        with self.log.open("wb") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, cwd=self.folder)
        return f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        if self._process is not None:
            parts.stop(self._process)
            self._process = None


async def say(deployment: Deployment, person: Person, era: str, *calls: tuple[str, dict[str, Any]]) -> None:
    """Calls of the official Python client; a tool that is hidden from its caller is an error there."""
    headers = {"Authorization": f"Bearer {deployment.token(person)}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=HANG_S) as http,
        Client(streamable_http_client(deployment.url, http_client=http), mode=era) as client,
    ):
        for tool, arguments in calls:
            with suppress(Exception):
                await client.call_tool(tool, arguments)


async def play(folder: Path, uri: str, store: dict[str, str], sent_to: AtReceiver | AtJaeger, opa: Opa) -> Friday:
    policies = Path(shutil.copytree(parts.ROOT / "policies", folder / "policies"))
    out = folder / "out"
    built = await bundle_writer.build(policies, out, opa.binary)
    parsed = parse_uri(uri)
    user, at, _ = urlsplit(uri).netloc.rpartition("@")
    await demo_database.seed(uri)
    async with AsyncExitStack() as stack:
        recorder = await stack.enter_async_context(Recorder(*parsed["nodelist"][0]))
        source = await stack.enter_async_context(served(out))
        url = opa.start(source)
        client = await stack.enter_async_context(OpaClient(url, timeout_s=PATIENT_S))
        await _serves(client, joined(built))
        options = "directConnection=true&compressors=none" + ("&authSource=admin" if at else "")
        environment = {
            **store,
            "SIDECAR_OPA__URL": url,
            "SIDECAR_OPA__TIMEOUT_MS": "30000",
            "SIDECAR_AUDIT__QUESTION": "true",
            "SIDECAR_AUDIT__COMMENTS": "true",
            "OTEL_EXPORTER_OTLP_ENDPOINT": sent_to.url,
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        (folder / "store").write_text(uri)
        starting = deployed(
            folder,
            f"mongodb://{user}{at}{recorder.address}/?{options}",
            environment=environment,
            extra=OF_STORE.format(folder=folder) if "mongodb:" in store["SIDECAR_AUDIT__STORE"] else "",
            spans=sent_to.everything(),
        )
        running = await asyncio.to_thread(starting.__enter__)
        try:
            for era in ERAS:
                await say(running, HR_ADMIN, era, ("find", SALARIES), ("count", SALARIES))
                await say(running, ANALYST, era, ("find", ORDERS), ("find", SALARIES))
                await say(running, STRANGER, era, *[("find", ORDERS)] * 3)
            changed = datetime.now(UTC)
            rules = policies / "teams/people/policy.rego"
            rules.write_text(rules.read_text().replace('lib.in_group("hr-admins")', 'lib.in_group("nobody")'))
            (policies / "teams/people/policy_test.rego").unlink()
            after = await bundle_writer.build(policies, folder / "again", opa.binary)
            shutil.copytree(folder / "again", out, dirs_exist_ok=True)
            await _serves(client, joined(after))
            for era in ERAS:
                await say(running, HR_ADMIN, era, ("find", SALARIES))
                await say(running, ANALYST, era, ("find", ORDERS))
            environment |= {"SIDECAR_CONFIG": str(folder / "sidecar.toml")}
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)
        seen = [
            dict(command.body)
            for command in recorder.commands
            if command.name in {"find", "aggregate", "count"} and command.collection in {"orders", "salaries"}
        ]
    wanted = 2 * (2 + 2 + 3 + 1 + 1)
    await asyncio.to_thread(wait_until, lambda: len(sent_to.calls()) >= wanted, "the spans of all calls")
    told = [entry for entry in entries(opa.log) if "custom" in entry]
    opa.stop()
    return Friday(
        folder=folder,
        environment=environment,
        today=policies,
        changed=changed,
        spans=sent_to.calls(),
        opa=told,
        seen=seen,
    )


async def _serves(client: OpaClient, revision: str) -> None:
    async with asyncio.timeout(HANG_S):
        while await revision_of(client) != revision:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


def _file(folder: Path) -> dict[str, str]:
    return {"SIDECAR_AUDIT__STORE": f"file:{folder}/audit.jsonl"}


def _mongodb(folder: Path) -> dict[str, str]:
    return {"SIDECAR_AUDIT__STORE": "mongodb:evidence", "SIDECAR_AUDIT__INSTANCE": folder.name}


@pytest.mark.parametrize("spans", ["receiver", pytest.param("jaeger", marks=pytest.mark.needs(JAEGER))])
@pytest.mark.parametrize("store", [_file, pytest.param(_mongodb, marks=pytest.mark.nightly)], ids=["file", "mongodb"])
def test_every_question_has_one_answer(store, spans, request, tmp_path, database, opa):
    at = AtReceiver(request.getfixturevalue("collector")) if spans == "receiver" else None
    sent_to = at or AtJaeger(request.getfixturevalue("jaeger"))
    try:
        friday = asyncio.run(play(tmp_path, database, store(tmp_path), sent_to, opa))
        _ask_everything(friday)
        _ask_everything(in_the_other_store(friday, database))
    finally:
        with MongoClient[dict[str, Any]](database) as client:
            client.drop_database(OWN)
    if at is not None:
        at._got.raw.clear()


def _ask_everything(friday: Friday) -> None:
    _all_places_tell_of_the_same_calls(friday)
    _who_read_the_salaries_through_which_agent_and_which_rule_allowed_it(friday)
    _would_todays_policy_still_allow_it(friday)
    _who_was_refused_most_and_who_stopped_working(friday)


def in_the_other_store(friday: Friday, uri: str) -> Friday:
    """The same records in the other kind of store, brought there by the product; each says what the first says."""
    there = friday.folder / "other.toml"
    settings, of_store = (friday.folder / "sidecar.toml").read_text(), OF_STORE.format(folder=friday.folder)
    if friday.environment["SIDECAR_AUDIT__STORE"].startswith("file:"):
        asyncio.run(shipped(friday.folder, uri))
        there.write_text(settings + of_store)
        place = _mongodb(friday.folder)
    else:
        exported = friday.folder / "exported.jsonl"
        exported.write_text(friday.run("audit", "export", "--format", "jsonl"))
        there.write_text(settings.replace(of_store, ""))
        place = {"SIDECAR_AUDIT__STORE": f"file:{exported}"}
    other = replace(friday, environment={**friday.environment, **place, "SIDECAR_CONFIG": str(there)})
    assert {words: other.ask(*words) for words in QUESTIONS} == {words: friday.ask(*words) for words in QUESTIONS}
    [here], [proof] = friday.ask("audit", "verify"), other.ask("audit", "verify")
    assert (proof["findings"], proof["records"], proof["head"]) == ([], here["records"], here["head"])
    return other


async def shipped(folder: Path, uri: str) -> None:
    """Bring the records of the file to the MongoDB store, as a sidecar brings what waited in its spool."""
    spool = AuditSpool(folder / "spool.jsonl", most=1 << 30)
    await spool.append((folder / "audit.jsonl").read_bytes().splitlines())
    store = MongoStore(uri, OWN, timeout_s=HANG_S)
    heads = MongoHeads(store, "evidence", folder.name, None, None)
    sink = MongoAuditSink(store, "evidence", instance=folder.name, clock=SystemClock(), heads=heads, spool=spool)
    await sink.start()
    assert not spool.holds
    await sink.close()
    await store.close()


def _all_places_tell_of_the_same_calls(friday: Friday) -> None:
    rows = friday.ask("audit", "query", "--limit", "1000")
    calls = calls_of(rows)
    assert len(calls) == 18
    known = {one.trace for one in calls}
    assert sorted(one for one in friday.spans if one.trace in known) == sorted(calls)
    by_request = {row["request_id"]: call for row, call in zip(rows, calls, strict=True)}
    told = {entry["decision_id"]: entry for entry in friday.opa}
    for request_id, call in by_request.items():
        entry = told[call.opa]
        assert entry["custom"]["request_metadata"]["mcp-sidecar"] == {"request_id": request_id}
        assert entry["result"]["allow"] == (call.decision == "allow")
        assert entry["input"]["subject"]["id"] == call.user
        assert entry["input"]["actor"]["id"] == call.agent
    allowed = {call.trace for call in calls if call.decision == "allow"}
    commented = [_trace_in(body) for body in friday.seen]
    assert set(commented) == allowed, "the database saw each call that was let through, and no other"
    place = {call.trace: call.accesses[0].partition(":")[2] for call in calls}
    for body, trace in zip(friday.seen, commented, strict=True):
        assert place[trace] == f"{body['$db']}.{body.get('find') or body.get('aggregate') or body.get('count')}"


def _trace_in(body: dict[str, Any]) -> str:
    query = body.get("filter") or body.get("query") or body["pipeline"][0]["$match"]
    return str(query["$comment"]).removeprefix("mcp-sidecar trace ")


def _who_read_the_salaries_through_which_agent_and_which_rule_allowed_it(friday: Friday) -> None:
    rows = friday.ask("audit", "query", "--collection", "hr.salaries", "--decision", "allow")
    reads = Counter((one.user, one.agent, one.tool, one.grants) for one in calls_of(rows))
    assert reads == {
        (HR_ADMIN.user, HR_ADMIN.agent, tool, ("people/hr-admins-read",)): len(ERAS) for tool in ("find", "count")
    }
    assert {row["status"] for row in rows} == {"ok"}
    known = {row["trace_id"] for row in friday.ask("audit", "query", "--limit", "1000")}
    at_spans = [one for one in friday.spans if "read:hr.salaries" in one.accesses and one.trace in known]
    assert reads == Counter((one.user, one.agent, one.tool, one.grants) for one in at_spans if one.decision == "allow")


def _would_todays_policy_still_allow_it(friday: Friday) -> None:
    """Every call of the administrators that was let through would be refused now, and nothing else differs."""
    [found] = friday.ask("replay", "--policies", str(friday.today), "--opa", str(parts.installed("opa")))
    assert found["counts"]["would_deny"] == 2 * len(ERAS)
    assert found["counts"]["would_allow"] == 0
    assert [(row["name"], row["newly_denied"]) for row in found["by"]["users"]] == [(HR_ADMIN.user, 2 * len(ERAS))]
    assert [row["name"] for row in found["by"]["teams"]] == ["people"]
    assert [row["name"] for row in found["by"]["collections"]] == ["hr.salaries"]
    [before] = friday.ask(
        *("replay", "--policies", str(parts.ROOT / "policies"), "--opa", str(parts.installed("opa"))),
        *("--until", friday.changed.isoformat()),
    )
    assert before["counts"]["same"] == before["compared"] == 14


def _who_was_refused_most_and_who_stopped_working(friday: Friday) -> None:
    rows = friday.ask("audit", "query", "--limit", "1000")
    first = min(datetime.fromisoformat(row["time"]) for row in rows)
    until = max(datetime.now(UTC), friday.changed + (friday.changed - first)) + (friday.changed - first)
    [whole] = friday.ask("audit", "report", "--since", first.isoformat(), "--until", until.isoformat())
    refused: Counter[str] = Counter()
    for row in whole["most_refused"]:
        refused[row["user"]] += row["refused"]
    known = {row["trace_id"] for row in rows}
    assert refused.most_common(1) == [(STRANGER.user, 3 * len(ERAS))]
    assert refused == Counter(one.user for one in friday.spans if one.decision == "deny" and one.trace in known)
    [since] = friday.ask("audit", "report", "--since", friday.changed.isoformat(), "--until", until.isoformat())
    assert [row["user"] for row in since["stopped_working"]] == [HR_ADMIN.user]
    later = {row["trace_id"] for row in rows if datetime.fromisoformat(row["time"]) >= friday.changed}
    worked = {one.user for one in friday.spans if one.trace in known - later and one.decision == "allow"}
    works = {one.user for one in friday.spans if one.trace in later and one.decision == "allow"}
    assert worked - works == {HR_ADMIN.user}
