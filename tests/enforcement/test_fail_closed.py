"""The enforcement point when something it depends on fails: nothing forwarded without a permit, always evidence.

Policy, evidence and the list of tools are the real ones. A foreign port stands in only where a fault is staged, and the
upstream writes down what reached it.
"""

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from sidecar.audit.chain import verify
from sidecar.commands import pinning
from sidecar.commands.catalog import CATALOG
from sidecar.commands.generic import GenericTool
from sidecar.commands.tool_groups import ToolGroup
from sidecar.enforcement import Accepted, Caller, EnforcementPoint, EnforcementRules, Exchange, Ports, Refused
from sidecar.errors import (
    AuditUnavailable,
    DecisionUnavailable,
    InvalidRequest,
    KeysUnavailable,
    McpRevisionError,
    MessageError,
    ParseError,
    SessionNotFound,
    SessionRequired,
    SidecarError,
    TokenMissing,
    TokenRejected,
    TooManyCalls,
    UpstreamProtocolViolation,
    UpstreamRefused,
    UpstreamTimedOut,
    UpstreamUnreachable,
)
from sidecar.faults import TokenFault
from sidecar.mcp import methods
from sidecar.mcp.mirrored import MirroredHeaders
from sidecar.mcp.session import Sessions
from sidecar.model import (
    Actor,
    AuthScheme,
    Credential,
    Identity,
    JsonObject,
    Permit,
    Principal,
    UnverifiedToken,
    UpstreamResult,
)
from sidecar.opa.managed import ManagedOpa
from sidecar.ports import AuditReceipt, PdpAnswer, Question
from sidecar.store.file import FileAuditSink
from sidecar.system.clock import SystemClock
from sidecar.system.identifiers import RandomIdentifiers
from sidecar.telemetry.metrics import OtelMetrics
from sidecar.telemetry.tracing import OtelTracer, build_tracer_provider
from tests.patience import HANG_S
from tests.policy_sets import served
from tests.telemetry.test_tracing_over_otlp import attributes, collecting

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real]

CREDENTIAL = Credential(
    scheme=AuthScheme.BEARER, token=UnverifiedToken("canary-token"), method="POST", uri="http://127.0.0.1/mcp"
)
CANARY = "canary-detail-of-a-dependency"
ORDERS = {"connectionId": "preconfigured", "database": "sales", "collection": "orders"}
FIND = {"name": "find", "arguments": {**ORDERS, "filter": {"status": "canary-value"}, "limit": 1}}
SALARIES = {"name": "find", "arguments": {**ORDERS, "database": "hr", "collection": "salaries", "filter": {}}}
ANSWER = b'{"content":[{"type":"text","text":"canary-document"}]}'


def identity(
    user: str, *groups: str, agent: str = "claude-desktop", scopes: tuple[str, ...] = ("mongodb:read",)
) -> Identity:
    principal = Principal(issuer="https://idp.example", subject=user, groups=groups, scopes=scopes)
    return Identity(principal=principal, actor=Actor(id=agent), expires_at=time.time() + 3600)


ANALYST = identity("alice", "analysts")
STRANGER = identity("mallory")


# --- foreign ports ----------------------------------------------------------------------------------------------------


@dataclass
class StagedDecisions:
    """A PDP whose decisions are staged; what a caller may see is still the real one's answer."""

    real: ManagedOpa
    decide: Callable[[JsonObject], Awaitable[PdpAnswer]] | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, question: Question, document: JsonObject) -> PdpAnswer:
        self.asked.set()
        if question is Question.DECISION and self.decide is not None:
            return await self.decide(document)
        return await self.real.ask(question, document)


@dataclass
class StagedSink:
    """An audit store that fails for some records."""

    real: FileAuditSink
    fails: tuple[str, ...] = ()

    async def append(self, record: JsonObject) -> AuditReceipt:
        if record["event"] in self.fails:
            raise AuditUnavailable(CANARY)
        return await self.real.append(record)


@dataclass
class StagedUpstream:
    """An MCP server that writes down what reached it, and answers as staged."""

    offered: tuple[JsonObject, ...]
    answer: Callable[[], Awaitable[UpstreamResult]]
    permits: list[Permit] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    tools_fail: bool = False
    healthy: bool = True

    async def forward(self, permit: Permit) -> UpstreamResult:
        self.permits.append(permit)
        self.reached.set()
        return await self.answer()

    def unwatch(self, uri: str) -> None:
        """Nothing was watched."""

    def discard(self, uri: str) -> None:
        """Nothing was exported."""

    async def prompts(self) -> tuple[JsonObject, ...]:
        return ()

    async def tools(self) -> tuple[JsonObject, ...]:
        if self.tools_fail:
            raise UpstreamUnreachable(CANARY)
        return self.offered


@dataclass
class StagedVerifier:
    """Proves whatever it is told to."""

    found: Identity | SidecarError

    async def verify(self, _credential: Credential) -> Identity:
        if isinstance(self.found, SidecarError):
            raise self.found
        return self.found


def raising(error: BaseException) -> Callable[..., Awaitable[Any]]:
    async def fail(*_: object) -> Any:
        raise error

    return fail


async def answers(documents: int = 1) -> UpstreamResult:
    return UpstreamResult(result=ANSWER, failed=False, documents=documents)


async def never(*_: object) -> Any:
    await asyncio.Event().wait()


def says(result: Any, revision: str = "r1") -> Callable[[JsonObject], Awaitable[PdpAnswer]]:
    async def answer(_document: JsonObject) -> PdpAnswer:
        return PdpAnswer(result=result, revision=revision)

    return answer


# --- the parts that are real ------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opa(opa_binary):
    with tempfile.TemporaryDirectory(prefix="opa-") as folder:
        async with ManagedOpa(opa_binary, served(), directory=Path(folder), timeout_s=10.0) as running:
            yield running


class World:
    """One enforcement point with what is staged around it."""

    def __init__(self, opa: ManagedOpa, offered: tuple[JsonObject, ...], file: Path, **staged: Any) -> None:
        self.file = file
        self.store = FileAuditSink(file)
        self.decisions = StagedDecisions(opa, staged.get("decide"))
        self.upstream = StagedUpstream(offered, staged.get("answer", answers), tools_fail=staged.get("no_tools", False))
        self.metrics = OtelMetrics(methods=methods.KNOWN, tools=CATALOG.keys(), servers=["demo-ro", "demo-rw"])
        ports = Ports(
            verifier=StagedVerifier(staged.get("verified", ANALYST)),
            decisions=self.decisions,
            audit=StagedSink(self.store, staged.get("unrecorded", ())),
            upstreams={"demo-ro": self.upstream, "demo-rw": self.upstream},
            clock=SystemClock(),
            identifiers=RandomIdentifiers(),
            tracer=staged.get("tracer") or OtelTracer(None),
            metrics=self.metrics,
        )
        rules = EnforcementRules(
            environment="test",
            server_version="0",
            audit_at_once=staged.get("at_once", False),
            tool_groups=staged.get("tool_groups", {}),
            generic_tools=staged.get("generic_tools", {}),
        )
        self.pep = EnforcementPoint(ports, rules, Sessions(100, 100, 3600))

    @staticmethod
    def caller(who: Identity) -> Caller:
        return Caller(identity=who, began_ns=1, ended_ns=2)

    async def send(self, message: Any, session: str | None, who: Identity = ANALYST, protocol: str | None = None):
        exchange = Exchange(transport="http", client_ip="127.0.0.1", session_id=session, protocol=protocol)
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        return await asyncio.wait_for(self.pep.enforce(body, exchange, self.caller(who)), HANG_S)

    async def turned_away(self, credential: Credential | None) -> SidecarError:
        """Return why a caller is not let in."""
        refused = await self.pep.authenticate(credential, Exchange(transport="http", client_ip="127.0.0.1"))
        assert isinstance(refused, Refused)
        assert refused.error.public.encode() in refused.body
        assert CANARY.encode() not in refused.body
        return refused.error

    async def open(self, who: Identity = ANALYST, revision: str = "2025-11-25") -> str:
        params = {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
        reply = await self.send(request("initialize", params), None, who)
        session: str | None = reply.session_id
        assert session is not None
        return session

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_bytes().splitlines()]  # noqa: TID251 - our own file

    def told(self) -> list[tuple[str, str, str | None]]:
        return [(r["event"], r["outcome"]["status"], r["outcome"]["error"]) for r in self.records() if r["outcome"]]

    def refusals(self) -> dict[tuple[str, str], float]:
        return {
            (sample.labels["stage"], sample.labels["error"]): sample.value
            for family in text_string_to_metric_families(self.metrics.render()[0].decode())
            for sample in family.samples
            if sample.name == "mcp_sidecar_refusals_total"
        }


def request(method: str, params: Any = None, number: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}}


def call(params: Any = None, number: Any = 1) -> dict[str, Any]:
    return request("tools/call", params or FIND, number)


def cancelled(number: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number, "reason": "enough"}}


def body(reply: Any) -> Any:
    return json.loads(reply.body)  # noqa: TID251 - our own reply


def code(reply: Any) -> str:
    """The refusal's reason code, ``ok`` for a result, or the JSON-RPC error's number."""
    answer = body(reply)
    if "error" in answer:
        return str(answer["error"]["code"])
    decision = answer["result"].get("_meta", {}).get("mcp-sidecar/decision")
    return str(decision["reasons"][0]["code"]) if decision else "ok"


@pytest_asyncio.fixture(loop_scope="module")
async def world(opa, offered, tmp_path):
    made: list[World] = []

    def make(**staged: Any) -> World:
        made.append(World(opa, offered, tmp_path / f"audit{len(made)}.jsonl", **staged))
        return made[-1]

    yield make
    for one in made:
        await one.store.close()
        one.metrics.shutdown(1)
        written = one.file.read_bytes()
        for canary in (CANARY, "canary-value", "canary-document", "canary-token"):
            assert canary.encode() not in written
        with one.file.open("rb") as lines:
            assert verify(lines).fault is None


# --- what a sampler leaves out ----------------------------------------------------------------------------------------


async def test_a_refused_call_is_exported_whatever_the_sampler_says_and_another_is_not(world, monkeypatch):
    with collecting(monkeypatch) as collector:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        tracer = OtelTracer(build_tracer_provider(endpoint_configured=True))
        one = world(tracer=tracer)
        session = await one.open()
        assert code(await one.send(call(), session)) == "ok"
        assert code(await one.send(call(SALARIES), session)) == "not_granted"
        assert await asyncio.to_thread(tracer.shutdown, HANG_S)
        spans = collector.spans
    assert spans.keys() == {"tools/call find", "authenticate", "derive", "authorize", "audit"}
    told = attributes(spans["tools/call find"])
    assert (told["user.id"], told["mcp_sidecar.decision"]) == ("alice", "deny")
    assert told["mcp_sidecar.accesses"] == ("read:hr.salaries",)
    refusal = one.records()[-1]
    assert spans["tools/call find"].trace_id.hex() == refusal["trace_id"]
    assert told["mcp_sidecar.audit.id"] == refusal["id"]


# --- a server whose tools change --------------------------------------------------------------------------------------


async def test_a_tool_that_changes_to_what_python_takes_to_be_equal_is_neither_shown_nor_called(world, offered):
    """``True == 1``: the kept comparison and the kept list are both of the reviewed tool."""
    staged = world(decide=says(ALLOW))
    session = await staged.open()
    listed = body(await staged.send(request("tools/list"), session))["result"]["tools"]
    assert "find" in {tool["name"] for tool in listed}
    assert code(await staged.send(call(), session)) == "ok"
    changed = tuple(
        {**tool, "annotations": {**tool["annotations"], "readOnlyHint": 1}} if tool["name"] == "find" else tool
        for tool in offered
    )
    assert changed == offered
    staged.upstream.offered = changed
    after = body(await staged.send(request("tools/list"), session))["result"]["tools"]
    assert after == [tool for tool in listed if tool["name"] != "find"]
    assert code(await staged.send(call(), session)) == "tool_changed"
    assert len(staged.upstream.permits) == 1
    staged.upstream.offered = tuple(dict(tool) for tool in offered)
    assert body(await staged.send(request("tools/list"), session))["result"]["tools"] == listed
    assert code(await staged.send(call(), session)) == "ok"


# --- the matrix -------------------------------------------------------------------------------------------------------

ALLOW: dict[str, Any] = {
    "v": 1, "allow": True, "reasons": [], "server": "demo-ro", "approval": None, "revision": "r1",
    "accesses": [
        {"owner": "analytics", "grants": ["g"], "filter": None, "mask": [], "max_documents": None, "max_time_ms": None}
    ],
}  # fmt: skip
DENY: dict[str, Any] = {
    **ALLOW,
    "allow": False,
    "server": "",
    "reasons": [{"code": "not_granted", "source": "platform", "access": 0}],
}

APPROVAL: dict[str, Any] = {"accesses": [{"access": 0, "codes": ["write"]}]}


def obliged(**obligation: Any) -> dict[str, Any]:
    return {**ALLOW, "accesses": [{**ALLOW["accesses"][0], **obligation}]}


GARBAGE: tuple[Any, ...] = (
    None,
    True,
    [],
    {},
    "allow",
    {"allow": True},
    {**ALLOW, "allow": "true"},
    {**ALLOW, "allow": 1},
    {**ALLOW, "v": 2},
    {**ALLOW, "extra": 1},
    {**ALLOW, "accesses": []},
    {**ALLOW, "accesses": [*ALLOW["accesses"], *ALLOW["accesses"]]},
    {**ALLOW, "server": "elsewhere"},
    {**ALLOW, "server": ""},
    {**ALLOW, "reasons": DENY["reasons"]},
    {**DENY, "reasons": []},
    obliged(owner=""),
    obliged(grants=[]),
    obliged(filter="region"),
    obliged(unknown_obligation=1),
)
"""Answers that are not of the contract."""

REFUSED = "refusal"
UNAVAILABLE = "decision_unavailable"

MATRIX: dict[str, tuple[dict[str, Any], str, int, list[tuple[str, str, str | None]]]] = {
    # name: (what is staged, reply, calls that reached upstream, what the evidence says)
    "nothing fails": ({}, "ok", 1, [("outcome", "ok", None)]),
    "the scripted allow is one": ({"decide": says(ALLOW)}, "ok", 1, [("outcome", "ok", None)]),
    "policy denies": ({"decide": says(DENY)}, "not_granted", 0, [("refusal", "refused", "policy_denied")]),
    "the PDP is not there": (
        {"decide": raising(DecisionUnavailable(CANARY))},
        UNAVAILABLE,
        0,
        [("refusal", "refused", UNAVAILABLE)],
    ),
    **{
        f"the PDP answers {json.dumps(garbage)[:60]}": (
            {"decide": says(garbage)},
            UNAVAILABLE,
            0,
            [("refusal", "refused", UNAVAILABLE)],
        )
        for garbage in GARBAGE
    },
    **{
        f"an obligation of {name}": (
            {"decide": says(obliged(**{name: value}))},
            "obligation_unsupported",
            0,
            [("refusal", "refused", "obligation_unsupported")],
        )
        for name, value in (("filter", {"a": None}), ("mask", ["$ssn"]))
    },
    "more documents come back than may": (
        {
            "decide": says(obliged(max_documents=5)),
            "answer": lambda *_: answers(6),
        },
        "upstream_protocol",
        1,
        [("outcome", "error", "upstream_protocol")],
    ),
    "as many documents come back as may": (
        {"decide": says(obliged(max_documents=1))},
        "ok",
        1,
        [("outcome", "ok", None)],
    ),
    "the server takes longer than policy lets it": (
        {"decide": says(obliged(max_time_ms=5)), "answer": never},
        "time_limit",
        1,
        [("outcome", "error", "time_limit")],
    ),
    "the server takes less": ({"decide": says(obliged(max_time_ms=2**31 - 1))}, "ok", 1, [("outcome", "ok", None)]),
    "an approval is asked for": (
        {"decide": says({**ALLOW, "approval": APPROVAL})},
        "obligation_unsupported",
        0,
        [("refusal", "refused", "obligation_unsupported")],
    ),
    "the list of tools cannot be had": (
        {"no_tools": True},
        "upstream_unreachable",
        0,
        [("refusal", "refused", "upstream_unreachable")],
    ),
    "the intent is not recorded": (
        {"unrecorded": ("intent",)},
        "audit_unavailable",
        0,
        [("refusal", "refused", "audit_unavailable")],
    ),
    "nothing can be recorded": ({"unrecorded": ("intent", "outcome", "refusal")}, "audit_unavailable", 0, []),
    "the outcome is not recorded": ({"unrecorded": ("outcome",)}, "outcome_not_recorded", 1, []),
    "nothing can be recorded and policy denies": (
        {"unrecorded": ("intent", "outcome", "refusal"), "decide": says(DENY)},
        "not_granted",
        0,
        [],
    ),
    **{
        f"upstream: {error.label}": ({"answer": raising(error)}, error.label, 1, [("outcome", "error", error.label)])
        for error in (
            UpstreamTimedOut(CANARY),
            UpstreamUnreachable(CANARY),
            UpstreamProtocolViolation(CANARY),
            UpstreamRefused(CANARY),
        )
    },
}


@pytest.mark.parametrize("name", MATRIX)
async def test_a_failure_ends_in_a_typed_refusal_and_one_record(world, name):
    staged, expected, reached, told = MATRIX[name]
    one = world(**staged)
    reply = await one.send(call(), await one.open())
    assert code(reply) == expected
    assert CANARY.encode() not in reply.body
    assert len(one.upstream.permits) == reached
    assert one.told() == told
    intents = [record for record in one.records() if record["event"] == "intent"]
    recorded = reached and "intent" not in staged.get("unrecorded", ())
    assert len(intents) == (1 if recorded else 0), "an intent is what was about to be forwarded, and nothing else"
    if reached:
        (permit,) = one.upstream.permits
        assert permit.audit_id == (intents[0]["id"] if intents else "")
        assert {"name": permit.call.name, "arguments": permit.call.arguments} == FIND
    if expected == "ok":
        assert b"canary-document" in reply.body
    else:
        assert b"canary-document" not in reply.body
        assert body(reply)["result"]["isError"] is True
        if told and told[0][0] == REFUSED:
            assert [error for _, error in one.refusals()] == [told[0][2]]


@pytest.mark.parametrize(("most", "label"), [(len(ANSWER) - 1, "answer_too_large"), (len(ANSWER), "ok")])
async def test_an_answer_that_is_larger_than_it_may_be_is_withheld(world, most, label):
    one = world(decide=says(obliged(max_bytes=most)))
    reply = await one.send(call(), await one.open())
    assert code(reply) == label
    assert (b"canary-document" in reply.body) is (label == "ok")
    assert one.told() == [("outcome", *(("ok", None) if label == "ok" else ("error", label)))]


CHANGE = {"name": "update-many", "arguments": {**ORDERS, "filter": {"a": "canary-value"}, "update": {"$set": {"b": 1}}}}
WRITER = identity("sue", "support", agent="support-console", scopes=("mongodb:read", "mongodb:write"))
FEW = says(obliged(max_affected=3))


def counting(count: Any, changed: int) -> Callable[[], Awaitable[UpstreamResult]]:
    """Answers the count that comes first, and then the change."""
    counted = json.dumps({"content": [], "structuredContent": {"count": count}}).encode()
    left = [
        UpstreamResult(result=ANSWER, failed=False, documents=changed),
        UpstreamResult(result=counted, failed=False, documents=None),
    ]

    async def answer() -> UpstreamResult:
        return left.pop()

    return answer


@pytest.mark.parametrize(("changed", "beyond"), [(3, 0), (4, 1)])
async def test_what_changed_more_than_was_counted_is_recorded_and_alerted(world, changed, beyond):
    one = world(decide=FEW, answer=counting(3, changed))
    assert code(await one.send(call(CHANGE), await one.open(WRITER), WRITER)) == "ok"
    probe, _, intent, outcome = one.records()
    assert (probe["tool"], intent["tool"], outcome["outcome"]["documents"]) == ("count", "update-many", changed)
    assert outcome.get("excess") == ({"max_affected": 3} if beyond else None)
    text = one.metrics.render()[0].decode()
    assert ('mcp_sidecar_obligations_exceeded_total{obligation="max_affected"} 1.0' in text) is bool(beyond)


@pytest.mark.parametrize("count", [4, None, "3", True])
async def test_what_is_counted_to_be_more_or_cannot_be_counted_is_not_sent(world, count):
    one = world(decide=FEW, answer=counting(count, 1))
    assert code(await one.send(call(CHANGE), await one.open(WRITER), WRITER)) == "obligation_unsupported"
    assert [permit.call.name for permit in one.upstream.permits] == ["count"]
    assert one.told() == [("outcome", "ok", None), ("refusal", "refused", "obligation_unsupported")]


async def test_a_count_that_fails_or_is_not_recorded_keeps_the_call_from_being_sent(world):
    for staged, label, sent in (
        ({"answer": raising(UpstreamTimedOut(CANARY))}, "upstream_timeout", ["count"]),
        ({"unrecorded": ("intent",)}, "audit_unavailable", []),
        ({"unrecorded": ("outcome",), "answer": counting(1, 1)}, "outcome_not_recorded", ["count"]),
    ):
        one = world(decide=FEW, **staged)
        assert code(await one.send(call(CHANGE), await one.open(WRITER), WRITER)) == label
        assert [permit.call.name for permit in one.upstream.permits] == sent


async def test_a_bug_in_an_adapter_is_not_an_answer_and_its_outcome_is_recorded(world):
    one = world(answer=raising(RuntimeError(CANARY)))
    session = await one.open()
    with pytest.raises(RuntimeError):
        await one.send(call(), session)
    assert one.told() == [("outcome", "error", "internal")]


async def test_a_tool_that_is_not_the_reviewed_one_is_not_called(world, offered):
    one = world()
    one.upstream.offered = tuple(
        {**tool, "inputSchema": {"type": "object"}} if tool["name"] == "find" else tool for tool in offered
    )
    assert code(await one.send(call(), await one.open())) == "tool_changed"
    one.upstream.offered = tuple(tool for tool in offered if tool["name"] != "find")
    assert code(await one.send(call(), await one.open())) == "-32602"
    assert one.upstream.permits == []


# --- who is calling ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [TokenRejected(CANARY), KeysUnavailable(CANARY)], ids=lambda error: error.label)
async def test_a_caller_who_cannot_be_proven_leaves_one_refusal(world, error):
    one = world(verified=error)
    assert type(await one.turned_away(CREDENTIAL)) is type(error)
    assert one.told() == [("refusal", "refused", error.label)]
    assert one.refusals() == {("admit", error.label): 1.0}
    assert one.records()[0]["subject"] is None


async def test_no_token_is_refused_without_asking_the_verifier(world):
    one = world()
    assert isinstance(await one.turned_away(None), TokenMissing)
    assert one.told() == [("refusal", "refused", "token_missing")]


async def test_why_a_token_proves_nothing_is_in_the_record_and_the_span_but_not_in_the_error_that_is_answered(world):
    one = world(verified=TokenRejected(CANARY, fault=TokenFault.NO_PERSON))
    refusal = await one.turned_away(CREDENTIAL)
    assert one.told() == [("refusal", "refused", "token_no_person")]
    assert one.refusals() == {("admit", "token_rejected"): 1.0}
    assert refusal.public == TokenRejected().public


async def test_a_refusal_stands_even_if_it_cannot_be_recorded(world):
    one = world(verified=TokenRejected(CANARY), unrecorded=("refusal",))
    assert isinstance(await one.turned_away(CREDENTIAL), TokenRejected)
    assert one.refusals() == {("admit", "token_rejected"): 1.0, ("reply", "audit_unavailable"): 1.0}


@pytest.mark.parametrize("thief", [STRANGER, identity("alice", "analysts", agent="other-agent")])
@pytest.mark.parametrize("message", [call(), request("tools/list"), request("ping"), [call()]])
async def test_a_session_of_somebody_else_is_answered_as_one_that_never_was(world, thief, message):
    one = world()
    session = await one.open()
    stolen = await one.send(message, session, thief)
    unknown = await one.send(message, "no-such-session", thief)
    assert isinstance(stolen.error, SessionNotFound)
    assert stolen.body == unknown.body
    assert one.upstream.permits == []
    assert code(await one.send(call(), session)) == "ok", "and its owner's is none the worse"


async def test_without_a_session_there_is_no_call(world):
    one = world()
    assert isinstance((await one.send(call(), None)).error, SessionRequired)
    assert one.told() == [("refusal", "refused", "session_required")]


async def test_the_protocol_header_must_be_the_sessions(world):
    one = world()
    session = await one.open(revision="2025-06-18")
    assert isinstance((await one.send(call(), session, protocol="2025-11-25")).error, McpRevisionError)
    assert code(await one.send(call(), session, protocol="2025-06-18")) == "ok"


# --- tool groups ------------------------------------------------------------------------------------------------------

EXPORTED = {
    **ORDERS,
    "exportTitle": "all",
    "exportTarget": [{"name": "find", "arguments": {"filter": {}}}],
    "jsonExportFormat": "relaxed",
}
EXPORT = {"name": "export", "arguments": EXPORTED}


@pytest.mark.parametrize("arguments", [EXPORTED, {}, {"surprise": 1}], ids=["right", "none", "wrong"])
async def test_a_tool_whose_group_is_off_everywhere_is_unknown_and_policy_is_not_asked(world, arguments):
    """The staged server offers every tool, and the staged policy allows every call."""
    one = world(decide=says(ALLOW), tool_groups={"demo-ro": frozenset(ToolGroup) - {ToolGroup.EXPORT}})
    session = await one.open()
    reply = await one.send(call({"name": "export", "arguments": arguments}), session)
    unknown = await one.send(call({"name": "no-such-tool", "arguments": arguments}), session)
    assert reply.body == unknown.body
    assert one.told() == [("refusal", "refused", "tool_group_off"), ("refusal", "refused", "unknown_tool")]
    assert [record["decision"] for record in one.records()] == [None, None]
    assert one.refusals()["classify", "tool_group_off"] == 1
    assert one.upstream.permits == []


async def test_a_tool_whose_group_is_on_is_called_on_the_server_that_has_it_and_on_no_other(world):
    allowed = {"demo-ro": frozenset({ToolGroup.EXPORT})}
    both = {**ALLOW, "accesses": ALLOW["accesses"] * 2}
    one = world(decide=says(both), tool_groups=allowed)
    assert code(await one.send(call(EXPORT), await one.open())) == "ok"
    assert [permit.call.name for permit in one.upstream.permits] == ["export"]
    other = world(decide=says({**both, "server": "demo-rw"}), tool_groups=allowed)
    assert code(await other.send(call(EXPORT), await other.open())) in {"tool_group_off", "-32602"}
    assert other.upstream.permits == []
    assert [(event, status) for event, status, _ in other.told()] == [("refusal", "refused")]
    (decision,) = [record["decision"] for record in other.records()]
    off = {"code": "tool_group_off", "source": "sidecar", "access": None}
    assert (decision["allow"], decision["reasons"]) == (False, [off]), "the record says what came of it"


# --- what may not be seen ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [FIND["arguments"], {}, {"surprise": 1}, {**ORDERS, "filter": {"$where": "x"}}, {"connectionId": "x"}]
)
async def test_a_hidden_tool_is_answered_byte_for_byte_as_an_unknown_one(world, arguments):
    one = world()
    session = await one.open(STRANGER)
    hidden = await one.send(call({"name": "find", "arguments": arguments}), session, STRANGER)
    unknown = await one.send(call({"name": "no-such-tool", "arguments": arguments}), session, STRANGER)
    assert hidden.body == unknown.body
    assert type(hidden.error) is type(unknown.error)
    assert code(hidden) == "-32602"
    assert one.told() == [("refusal", "refused", "unknown_tool")] * 2
    assert one.upstream.permits == []


async def test_a_tool_that_may_be_seen_is_refused_with_reasons(world):
    one = world()
    reply = await one.send(call(SALARIES), await one.open())
    assert "not_granted" in reply.body.decode()
    assert body(reply)["result"]["_meta"]["mcp-sidecar/decision"]["owner"] == "people"
    assert one.upstream.permits == []


async def test_hiding_does_not_turn_an_outage_into_an_unknown_tool(world):
    one = world(decide=raising(DecisionUnavailable(CANARY)))
    assert code(await one.send(call(), await one.open(STRANGER), STRANGER)) == UNAVAILABLE


# --- cancellation -----------------------------------------------------------------------------------------------------


async def test_cancelled_before_the_permit_nothing_is_forwarded(world):
    decided = asyncio.Event()

    async def late(_document: JsonObject) -> PdpAnswer:
        await decided.wait()
        return PdpAnswer(result=ALLOW, revision="r1")

    one = world(decide=late)
    session = await one.open()
    waiting = asyncio.create_task(one.send(call(number=7), session))
    await asyncio.wait_for(one.decisions.asked.wait(), HANG_S)
    assert await one.send(cancelled(7), session) == Accepted()
    decided.set()
    assert code(await waiting) == "cancelled"
    assert one.upstream.permits == []
    assert one.told() == [("refusal", "refused", "cancelled")]


@pytest.mark.parametrize("at_once", [False, True])
async def test_cancelled_after_the_permit_the_outcome_is_still_recorded(world, at_once):
    one = world(answer=never, at_once=at_once)
    session = await one.open()
    waiting = asyncio.create_task(one.send(call(number=7), session))
    await asyncio.wait_for(one.upstream.reached.wait(), HANG_S)
    assert await one.send(cancelled(7), session) == Accepted()
    assert code(await waiting) == "cancelled"
    assert one.told() == [("outcome", "cancelled", "cancelled")]
    assert code(await one.send(request("ping", number=7), session)) == "ok", "the id is free again"


@pytest.mark.parametrize("named", ["7", 8, None, True, 7.5, [7], {"a": 1}])
async def test_a_cancellation_of_something_else_changes_nothing(world, named):
    answered = asyncio.Event()

    async def late() -> UpstreamResult:
        await answered.wait()
        return await answers()

    one = world(answer=late)
    session, other = await one.open(), await one.open()
    waiting = asyncio.create_task(one.send(call(number=7), session))
    await asyncio.wait_for(one.upstream.reached.wait(), HANG_S)
    await one.send(cancelled(named), session)
    await one.send(cancelled(7), other)
    answered.set()
    assert code(await waiting) == "ok", "an answer that comes late is an answer"
    assert one.told() == [("outcome", "ok", None)]


async def test_a_shutdown_before_the_permit_forwards_nothing(world):
    one = world(decide=never)
    session = await one.open()
    waiting = asyncio.create_task(one.send(call(), session))
    await asyncio.wait_for(one.decisions.asked.wait(), HANG_S)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert one.upstream.permits == []
    assert [record["event"] for record in one.records()] in ([], ["refusal"])


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_shutdown_after_the_permit_records_the_outcome(world, at_once):
    one = world(answer=never, at_once=at_once)
    session = await one.open()
    waiting = asyncio.create_task(one.send(call(), session))
    await asyncio.wait_for(one.upstream.reached.wait(), HANG_S)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert one.told() == [("outcome", "cancelled", "cancelled")]


# --- ids and batches --------------------------------------------------------------------------------------------------


async def test_an_id_in_flight_cannot_be_used_again(world):
    answered = asyncio.Event()

    async def late() -> UpstreamResult:
        await answered.wait()
        return await answers()

    one = world(answer=late)
    session, other = await one.open(), await one.open()
    first = asyncio.create_task(one.send(call(number=1), session))
    await asyncio.wait_for(one.upstream.reached.wait(), HANG_S)
    second = await one.send(call(number=1), session)
    assert isinstance(second.error, InvalidRequest)
    assert len(one.upstream.permits) == 1
    elsewhere = asyncio.create_task(one.send(call(number=1), other))
    as_text = asyncio.create_task(one.send(call(number="1"), session))
    answered.set()
    assert [code(await task) for task in (first, elsewhere, as_text)] == ["ok", "ok", "ok"]
    assert code(await one.send(call(number=1), session)) == "ok", "afterwards it can"
    assert len([record for record in one.records() if record["event"] == "intent"]) == 4


async def test_one_identity_cannot_keep_a_server_from_the_others(world):
    answered = asyncio.Event()

    async def late() -> UpstreamResult:
        await answered.wait()
        return await answers()

    one = world(answer=late)
    session = await one.open()
    bound = EnforcementRules(environment="test", server_version="0").calls_per_identity
    held = [asyncio.create_task(one.send(call(number=number), session)) for number in range(bound)]
    async with asyncio.timeout(HANG_S):
        while len(one.upstream.permits) < bound:  # noqa: ASYNC110 - the upstream under test has no such event
            await asyncio.sleep(0)
    refused = await one.send(call(number=bound), session)
    assert isinstance(refused.error, TooManyCalls)
    assert len(one.upstream.permits) == bound
    answered.set()
    assert {code(await task) for task in held} == {"ok"}
    assert code(await one.send(call(number=bound), session)) == "ok", "afterwards it can"


async def test_each_call_of_a_batch_is_decided_alone(world):
    one = world()
    session = await one.open(revision="2025-03-26")
    reply = await one.send([call(number=1), call(SALARIES, number=2), cancelled(9), request("ping", number=3)], session)
    answers_by_id = {answer["id"]: answer["result"] for answer in body(reply)}
    assert answers_by_id.keys() == {1, 2, 3}
    assert "isError" not in answers_by_id[1]
    assert answers_by_id[2]["isError"] is True
    assert len(one.upstream.permits) == 1
    assert [(record["event"]) for record in one.records()] == ["intent", "outcome", "refusal"]


@pytest.mark.parametrize("revision", ["2024-11-05", "2025-06-18", "2025-11-25"])
async def test_other_revisions_have_no_batches(world, revision):
    one = world()
    reply = await one.send([call()], await one.open(revision=revision))
    assert isinstance(reply.error, InvalidRequest)
    assert one.upstream.permits == []
    assert one.told() == [("refusal", "refused", "invalid_request")]


@pytest.mark.parametrize(
    "batch",
    [
        [],
        [call(number=1), call(number=1)],
        [call(number=1), request("initialize", {}, 2)],
        [call(number=1), [call(number=2)]],
        [call(number=n) for n in range(65)],
        [call(number=1), 3],
    ],
)
async def test_a_batch_that_is_not_one_forwards_nothing_of_it(world, batch):
    one = world()
    reply = await one.send(batch, await one.open(revision="2025-03-26"))
    assert isinstance(reply.error, MessageError)
    assert one.upstream.permits == []
    assert [event for event, *_ in one.told()] == [REFUSED]


@pytest.mark.parametrize("text", [b"", b"{", b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', b"\xff", b"NaN"])
async def test_what_is_not_json_leaves_one_refusal(world, text):
    one = world()
    reply = await one.send(text, await one.open())
    assert isinstance(reply.error, ParseError)
    assert one.told() == [("refusal", "refused", "parse_error")]


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "method": "tools/call", "params": FIND},
        request("resources/read", {"uri": "exported-data://x"}),
        request("sampling/createMessage"),
        request("tools/call/", FIND),
        request("TOOLS/CALL", FIND),
        request("tools/call", {**FIND, "task": {}}),
        request("tools/call", {**FIND, "arguments": []}),
        request("notifications/initialized"),
    ],
)
async def test_other_ways_to_a_call_lead_nowhere(world, message):
    one = world()
    reply = await one.send(message, await one.open())
    assert reply.error is not None
    assert one.upstream.permits == []
    assert [event for event, *_ in one.told()] == [REFUSED]


# --- headers that repeat arguments (MCP 2026-07-28) -------------------------------------------------------------------

REPORT: JsonObject = {
    "name": "run-report",
    "inputSchema": {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}},
}
MIRRORED_ARGUMENTS = {
    "as the body has it": ({"region": "eu"}, (("region", "eu"),), True),
    "encoded": ({"region": "eu"}, (("region", "=?base64?ZXU=?="),), True),
    "of an argument that is not there": ({}, (), True),
    "of no argument of the tool": ({"region": "eu"}, (("region", "eu"), ("database", "hr")), True),
    "another one": ({"region": "us"}, (("region", "eu"),), False),
    "missing": ({"region": "eu"}, (), False),
    "without its argument": ({}, (("region", "eu"),), False),
    "twice": ({"region": "eu"}, (("region", "eu"), ("region", "eu")), False),
    "malformed": ({"region": "eu"}, (("region", "=?base64?ZXU?="),), False),
}


@pytest.mark.parametrize("title", MIRRORED_ARGUMENTS)
async def test_a_call_whose_headers_repeat_other_arguments_is_not_forwarded(world, offered, title):
    arguments, parameters, fine = MIRRORED_ARGUMENTS[title]
    tool = GenericTool(name="run-report", pin=pinning.fingerprint(REPORT))
    one = world(decide=says(ALLOW), generic_tools={"demo-ro": {"run-report": tool}})
    one.upstream.offered = (*offered, REPORT)
    meta = {f"io.modelcontextprotocol/{key}": value for key, value in ENVELOPE.items()}
    exchange = Exchange(
        transport="http",
        client_ip="127.0.0.1",
        protocol="2026-07-28",
        mirrored=MirroredHeaders(method="tools/call", name="run-report", parameters=parameters),
    )
    sent = json.dumps(call({"name": "run-report", "arguments": arguments, "_meta": meta})).encode()
    reply = await one.pep.enforce(sent, exchange, one.caller(ANALYST))
    assert code(reply) == ("ok" if fine else "-32020")
    assert len(one.upstream.permits) == fine
    assert [kind for kind, _, error in one.told() if error == "header_mismatch"] == ([] if fine else ["refusal"])


ENVELOPE: dict[str, Any] = {"protocolVersion": "2026-07-28", "clientCapabilities": {}}
