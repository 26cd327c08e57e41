"""Every way in which OPA can answer wrongly is a refusal with a name of its own, and nothing reaches the MCP server.

A real sidecar asks a real OPA through ``lying_opa``. Each row is one falsified answer to a call that is otherwise
allowed (or refused, where the lie is about a refusal); the near miss beside each is the same call answered honestly.
"""

import gzip
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.demo import database as demo_database
from sidecar.demo.client import DemoClient
from sidecar.demo.identities import ANALYST
from sidecar.errors import DecisionUnavailable
from sidecar.faults import PdpFault
from tests import parts
from tests.integration import lying_opa as lies
from tests.integration.deployment import Deployment, deployed, wait_until
from tests.integration.lying_opa import Lie, LyingOpa, answered, edited, lying_opa, rewritten

pytestmark = pytest.mark.real

TIMEOUT_MS = 2000
WHERE = {"connectionId": "preconfigured"}
ALLOWED = {**WHERE, "database": "sales", "collection": "orders", "query": {}}
REFUSED = {**WHERE, "database": "hr", "collection": "salaries", "query": {}}

Change = Callable[[dict[str, Any]], object]


def first(change: Change) -> Lie:
    """A change of the first access's entry."""
    return edited(lambda answer: change(answer["accesses"][0]))


def reason(change: Change) -> Lie:
    """A change of the first reason."""
    return edited(lambda answer: change(answer["reasons"][0]))


def without(key: str) -> Lie:
    return edited(lambda answer: answer.pop(key))


def said(**members: Any) -> Lie:
    return edited(lambda answer: answer.update(members))


def envelope(text: bytes) -> Lie:
    """Something else in the place of OPA's whole answer."""
    return answered(body=text)


def changed(change: Change) -> Lie:
    """OPA's whole answer, changed in place."""

    def tell(honest: bytes) -> bytes:
        members = json.loads(honest)  # noqa: TID251 - a fault that is staged
        change(members)
        return json.dumps(members).encode()

    return rewritten(tell)


def beside(**members: Any) -> Lie:
    """The honest result in an envelope that says more, or other things, about it."""
    return changed(lambda envelope: envelope.update(members))


def instead(result: Any) -> Lie:
    """Something else in the place of the decision, as from the policy set that serves."""
    return beside(result=result)


def appended(text: bytes) -> Lie:
    return rewritten(lambda honest: honest + text)


def replaced(old: bytes, new: bytes) -> Lie:
    return rewritten(lambda honest: honest.replace(old, new, 1))


ABOUT_ALLOWS: dict[str, tuple[Lie, PdpFault]] = {
    # what OPA says where nothing is defined, and what is no document
    "no result": (envelope(b'{"decision_id":"d"}'), PdpFault.UNDEFINED),
    "no result and an error": (envelope(b'{"errors":[],"code":"x"}'), PdpFault.UNDEFINED),
    "a result of null": (instead(None), PdpFault.WRONG_TYPE),
    "a result of true": (instead(True), PdpFault.WRONG_TYPE),
    "a result of {}": (instead({}), PdpFault.MISSING_KEY),
    "only allow": (instead({"allow": True}), PdpFault.MISSING_KEY),
    "the answer in a list": (rewritten(lambda honest: b"[" + honest + b"]"), PdpFault.MALFORMED),
    "the answer inside another": (
        changed(lambda members: members.update(result={"result": members["result"]})),
        PdpFault.UNKNOWN_KEY,
    ),
    "an API usage warning": (beside(warning={"code": "api_usage_warning"}), PdpFault.MALFORMED),
    "provenance that is none": (beside(provenance="x"), PdpFault.MALFORMED),
    "no provenance": (changed(lambda members: members.pop("provenance")), PdpFault.POLICIES_REFUSED),
    "a set that nobody has looked at": (
        beside(provenance={"bundles": {"platform": {"revision": "another"}}}),
        PdpFault.POLICIES_REFUSED,
    ),
    "a decision id of two lines": (beside(decision_id="a\nb"), PdpFault.MALFORMED),
    # allow
    'allow of "true"': (said(allow="true"), PdpFault.WRONG_TYPE),
    "allow of 1": (said(allow=1), PdpFault.WRONG_TYPE),
    "allow of null": (said(allow=None), PdpFault.WRONG_TYPE),
    "allow of [true]": (said(allow=[True]), PdpFault.WRONG_TYPE),
    "allow and a reason against it": (
        said(reasons=[{"code": "not_granted", "source": "analytics", "access": 0}]),
        PdpFault.CONTRADICTION,
    ),
    "no allow and no reason": (said(allow=False), PdpFault.CONTRADICTION),
    # keys
    "one more key": (said(override=True), PdpFault.UNKNOWN_KEY),
    "a key in another case": (said(Allow=True), PdpFault.UNKNOWN_KEY),
    "no allow": (without("allow"), PdpFault.MISSING_KEY),
    "no reasons": (without("reasons"), PdpFault.MISSING_KEY),
    "no server": (without("server"), PdpFault.MISSING_KEY),
    "no accesses": (without("accesses"), PdpFault.MISSING_KEY),
    "no approval": (without("approval"), PdpFault.MISSING_KEY),
    "no revision": (without("revision"), PdpFault.MISSING_KEY),
    "no version": (without("v"), PdpFault.MISSING_KEY),
    "another version": (said(v=2), PdpFault.CONTRACT),
    "a version of true": (said(v=True), PdpFault.WRONG_TYPE),
    "a revision of null": (said(revision=None), PdpFault.WRONG_TYPE),
    # accesses
    "no access": (said(accesses=[]), PdpFault.WRONG_ACCESSES),
    "an access too few": (edited(lambda answer: answer["accesses"].pop()), PdpFault.WRONG_ACCESSES),
    "an access too many": (
        edited(lambda answer: answer["accesses"].append(answer["accesses"][0])),
        PdpFault.WRONG_ACCESSES,
    ),
    "accesses by number": (
        edited(lambda answer: answer.update(accesses={"0": answer["accesses"][0]})),
        PdpFault.WRONG_TYPE,
    ),
    "an access of null": (said(accesses=[None]), PdpFault.WRONG_TYPE),
    "an access with a key more": (first(lambda entry: entry.update(unmask=[])), PdpFault.UNKNOWN_KEY),
    "an obligation that nobody knows": (first(lambda entry: entry.update(watermark=True)), PdpFault.UNKNOWN_KEY),
    "an access without its filter": (first(lambda entry: entry.pop("filter")), PdpFault.MISSING_KEY),
    "an access without its mask": (first(lambda entry: entry.pop("mask")), PdpFault.MISSING_KEY),
    "an access of nobody": (first(lambda entry: entry.update(owner="")), PdpFault.CONTRADICTION),
    "an access without a grant": (first(lambda entry: entry.update(grants=[])), PdpFault.CONTRADICTION),
    "grants of true": (first(lambda entry: entry.update(grants=True)), PdpFault.WRONG_TYPE),
    # obligations
    "a filter that is text": (first(lambda entry: entry.update(filter="region")), PdpFault.WRONG_TYPE),
    "a filter of false": (first(lambda entry: entry.update(filter=False)), PdpFault.WRONG_TYPE),
    "a filter in a list": (first(lambda entry: entry.update(filter=[{"region": "EU"}])), PdpFault.WRONG_TYPE),
    "a filter without a condition": (first(lambda entry: entry.update(filter={})), PdpFault.CONTRACT),
    "a mask that is text": (first(lambda entry: entry.update(mask="ssn")), PdpFault.WRONG_TYPE),
    "a mask of null": (first(lambda entry: entry.update(mask=None)), PdpFault.WRONG_TYPE),
    "a mask by name": (first(lambda entry: entry.update(mask={"ssn": True})), PdpFault.WRONG_TYPE),
    "a mask of no field": (first(lambda entry: entry.update(mask=[""])), PdpFault.CONTRACT),
    "at most 0 documents": (first(lambda entry: entry.update(max_documents=0)), PdpFault.CONTRACT),
    "at most -1 documents": (first(lambda entry: entry.update(max_documents=-1)), PdpFault.CONTRACT),
    'at most "5" documents': (first(lambda entry: entry.update(max_documents="5")), PdpFault.WRONG_TYPE),
    "at most 5.5 documents": (first(lambda entry: entry.update(max_documents=5.5)), PdpFault.WRONG_TYPE),
    "more milliseconds than there are": (first(lambda entry: entry.update(max_time_ms=2**31)), PdpFault.CONTRACT),
    "an approval of true": (said(approval=True), PdpFault.WRONG_TYPE),
    "an approval of nothing": (said(approval={"accesses": []}), PdpFault.CONTRACT),
    "an approval of an access that is not asked": (
        said(approval={"accesses": [{"access": 7, "codes": ["lead"]}]}),
        PdpFault.CONTRACT,
    ),
    # server
    "an unknown server": (said(server="demo-root"), PdpFault.UNKNOWN_SERVER),
    "a server in another case": (said(server="DEMO-RO"), PdpFault.UNKNOWN_SERVER),
    "no server's name": (said(server=""), PdpFault.UNKNOWN_SERVER),
    "a server of null": (said(server=None), PdpFault.WRONG_TYPE),
    "two servers": (said(server=["demo-ro", "demo-rw"]), PdpFault.WRONG_TYPE),
    # bytes
    "allow twice, true last": (replaced(b'"allow":true', b'"allow":false,"allow":true'), PdpFault.MALFORMED),
    "allow twice, true first": (replaced(b'"allow":true', b'"allow":true,"allow":false'), PdpFault.MALFORMED),
    "a number that is none": (replaced(b'"max_documents":null', b'"max_documents":NaN'), PdpFault.MALFORMED),
    "a number beyond all": (replaced(b'"max_documents":null', b'"max_documents":1e999'), PdpFault.MALFORMED),
    "half of a character": (replaced(b'"owner":"', b'"owner":"\\ud800'), PdpFault.MALFORMED),
    "bytes that are no text": (replaced(b'"owner":"', b'"owner":"\xff'), PdpFault.MALFORMED),
    "a second answer behind the first": (appended(b'{"result":{}}'), PdpFault.MALFORMED),
    "a brace behind the answer": (appended(b"}"), PdpFault.MALFORMED),
    "a byte order mark": (rewritten(lambda honest: b"\xef\xbb\xbf" + honest), PdpFault.MALFORMED),
    "half of the answer": (rewritten(lambda honest: honest[: len(honest) // 2]), PdpFault.MALFORMED),
    "nothing": (envelope(b""), PdpFault.MALFORMED),
    # HTTP around an honest answer
    "500": (answered(status=500), PdpFault.STATUS),
    "503": (answered(status=503), PdpFault.STATUS),
    "429": (answered(status=429), PdpFault.STATUS),
    "401": (answered(status=401), PdpFault.STATUS),
    "404": (answered(status=404), PdpFault.STATUS),
    "203 of a proxy": (answered(status=203), PdpFault.STATUS),
    "206": (answered(status=206), PdpFault.STATUS),
    "301": (lies.redirected(301), PdpFault.REDIRECT),
    "302": (lies.redirected(302), PdpFault.REDIRECT),
    "307": (lies.redirected(307), PdpFault.REDIRECT),
    "308": (lies.redirected(308), PdpFault.REDIRECT),
    "HTML": (answered(body=b"<html>Sign in</html>", media_type="text/html"), PdpFault.MEDIA_TYPE),
    "HTML by name": (answered(media_type="text/html"), PdpFault.MEDIA_TYPE),
    "text": (answered(media_type="text/plain"), PdpFault.MEDIA_TYPE),
    "gzip": (
        lambda exchange, honest: exchange.say(gzip.compress(honest), Content_Encoding="gzip"),
        PdpFault.MEDIA_TYPE,
    ),
    "gzip by name": (answered(Content_Encoding="gzip"), PdpFault.MEDIA_TYPE),
    "more than the limit": (appended(b" " * 1_000_000), PdpFault.TOO_LARGE),
    "more and more": (lies.endless, PdpFault.TOO_LARGE),
    # the connection
    "cut off within": (lies.cut_off_within, PdpFault.INCOMPLETE),
    "cut off behind the whole answer": (lies.cut_off, PdpFault.INCOMPLETE),
    "cut off between chunks": (lies.cut_off_between_chunks, PdpFault.INCOMPLETE),
    "a reset connection": (lies.resetting, PdpFault.UNREACHABLE),
    "a server of another protocol": (lies.not_http, PdpFault.UNREACHABLE),
    "silence": (lies.silent, PdpFault.TIMEOUT),
    "one byte after the other": (lies.dripping, PdpFault.TIMEOUT),
}

ABOUT_REFUSALS: dict[str, tuple[Lie, PdpFault]] = {
    "a refusal that allows": (said(allow=True), PdpFault.CONTRADICTION),
    "a refusal without its reasons": (said(reasons=[]), PdpFault.CONTRADICTION),
    "a refusal with reasons of null": (said(reasons=None), PdpFault.WRONG_TYPE),
    "a refusal under an approval": (
        said(approval={"accesses": [{"access": 0, "codes": ["lead"]}]}),
        PdpFault.CONTRADICTION,
    ),
    "a reason with a text": (reason(lambda one: one.update(text="alice may not")), PdpFault.UNKNOWN_KEY),
    "a reason without its source": (reason(lambda one: one.pop("source")), PdpFault.MISSING_KEY),
    "a reason that is a sentence": (reason(lambda one: one.update(code="Not granted.")), PdpFault.CONTRACT),
    "a reason of null": (said(reasons=[None]), PdpFault.WRONG_TYPE),
    "a reason about another access": (reason(lambda one: one.update(access=1)), PdpFault.CONTRACT),
    "a refusal with an access too many": (
        edited(lambda answer: answer["accesses"].append(answer["accesses"][0])),
        PdpFault.WRONG_ACCESSES,
    ),
    "a refusal by an unknown server": (said(server="demo-root"), PdpFault.UNKNOWN_SERVER),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A sidecar, the OPA that it asks, and one that it must not ask."""

    running: Deployment
    opa: LyingOpa
    trap: LyingOpa

    def counted(self, name: str, **labels: str) -> float:
        """The sum of a counter on ``/metrics`` under these labels; 0 where it was never counted."""
        families = text_string_to_metric_families(self.running.admin("/metrics")[1])
        found = (
            one
            for family in families
            for one in family.samples
            if one.name == name and labels.items() <= one.labels.items()
        )
        return sum(one.value for one in found)

    def faults(self, fault: PdpFault) -> float:
        return self.counted("mcp_sidecar_opa_faults_total", fault=fault)


@pytest.fixture(scope="module")
def opa(opa_binary: str) -> Iterator[str]:
    """A real OPA with the repository's policies, started as docs/deploy.md says."""
    policies = parts.ROOT / "policies"
    url = f"127.0.0.1:{parts.free_port()}"
    teams = sorted(f"teams/{team.name}" for team in (policies / "teams").iterdir())
    bundles = ["platform", "system", *teams, "../deploy/opa/revision"]
    flags = ["--authorization=basic", "--skip-version-check", "--ignore=*_test.rego", "--log-level=error"]
    process = subprocess.Popen(
        [opa_binary, "run", "--server", f"--addr={url}", *flags, "--bundle", *bundles],
        cwd=policies,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield f"http://{url}"
    finally:
        parts.stop(process)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, database: str, opa: str) -> Iterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("lied-to")
    with lying_opa(opa) as mouth, lying_opa(opa) as trap:
        mouth.elsewhere = trap.url
        wait_until(lambda: healthy(mouth), "OPA to answer")
        environment = {
            "SIDECAR_OPA__URL": mouth.url,
            "SIDECAR_OPA__TIMEOUT_MS": str(TIMEOUT_MS),
            "SIDECAR_SESSIONS__PER_IDENTITY": "1000",  # every row opens two
        }
        with deployed(folder, database, environment=environment) as running:
            yield Scene(running=running, opa=mouth, trap=trap)


@pytest.fixture(autouse=True)
async def _documents(scene: Scene) -> None:
    await demo_database.seed(scene.running.uri)


def healthy(mouth: LyingOpa) -> bool:
    try:
        return mouth.honestly("GET", "/health?bundles=true", b"", {})[0] == 200
    except OSError:
        return False


async def refusal(scene: Scene, client: DemoClient, lie: Lie, arguments: dict[str, Any]) -> tuple[Any, Any]:
    """Tell one lie about one call; return what the caller is answered, and the record that is kept."""
    before, records = scene.running.all_reached(), len(scene.running.records())
    with scene.opa.telling(lie):
        answer = await client.call("count", arguments)
    assert answer.status == 200
    assert scene.running.all_reached() == before, "nothing was forwarded"
    [record] = scene.running.records()[records:]
    return answer.result, record


async def lied_about(scene: Scene, lie: Lie, fault: PdpFault, arguments: dict[str, Any]) -> None:
    """Tell a lie, and look at everything that must follow."""
    refused = {"stage": "authorize", "error": "decision_unavailable"}
    async with scene.running.plain(ANALYST) as client:
        await client.initialize()
        faults, refusals = scene.faults(fault), scene.counted("mcp_sidecar_refusals_total", **refused)
        everything = scene.counted("mcp_sidecar_decisions_total")
        result, record = await refusal(scene, client, lie, arguments)
        assert result["isError"] is True
        assert result["content"] == [{"type": "text", "text": DecisionUnavailable.public}]
        decision = result["_meta"]["mcp-sidecar/decision"]
        assert decision["allow"] is False
        assert decision["reasons"] == [{"code": "decision_unavailable", "source": f"opa.{fault}", "access": None}]
        assert (record["event"], record["outcome"]["status"]) == ("refusal", "refused")
        assert record["outcome"]["error"] == "decision_unavailable"
        assert record["decision"] is None, "what is not of the contract is no decision, not even in part"
        assert record["request_id"] == decision["request_id"]
        assert scene.faults(fault) == faults + 1
        assert scene.counted("mcp_sidecar_refusals_total", **refused) == refusals + 1
        assert scene.counted("mcp_sidecar_decisions_total") == everything
        assert scene.trap.asked == [], "a redirect is not followed"


@pytest.mark.parametrize("name", ABOUT_ALLOWS)
async def test_a_wrong_answer_about_an_allowed_call_forwards_nothing(scene: Scene, name: str) -> None:
    await lied_about(scene, *ABOUT_ALLOWS[name], ALLOWED)
    reached = len(scene.running.all_reached())
    async with scene.running.plain(ANALYST) as client:
        await client.initialize()
        assert not (await client.call("count", ALLOWED)).result.get("isError"), "the near miss: the answer as it is"
    assert len(scene.running.all_reached()) == reached + 1


@pytest.mark.parametrize("name", ABOUT_REFUSALS)
async def test_a_wrong_answer_about_a_refused_call_forwards_nothing(scene: Scene, name: str) -> None:
    await lied_about(scene, *ABOUT_REFUSALS[name], REFUSED)
    async with scene.running.plain(ANALYST) as client:
        await client.initialize()
        meta = (await client.call("count", REFUSED)).result["_meta"]["mcp-sidecar/decision"]
        assert [one["code"] for one in meta["reasons"]] == ["not_granted"], "the near miss: the answer as it is"


HARMLESS: dict[str, Lie] = {
    "as it is": answered(),
    "with blanks around it": appended(b" \n"),
    "with a media type in full": answered(media_type="application/json; charset=utf-8"),
    "in chunks": lies.chunked,
    "with members of another distribution around the result": beside(metrics={"timer": 1}),
}


@pytest.mark.parametrize("name", HARMLESS)
async def test_another_spelling_of_a_right_answer_is_right(scene: Scene, name: str) -> None:
    async with scene.running.plain(ANALYST) as client:
        await client.initialize()
        with scene.opa.telling(HARMLESS[name]):
            assert not (await client.call("count", ALLOWED)).result.get("isError")


def one_row_of_each() -> dict[PdpFault, Lie]:
    rows: dict[PdpFault, Lie] = {}
    for lie, fault in ABOUT_ALLOWS.values():
        rows.setdefault(fault, lie)
    return rows


async def test_every_fault_that_there_is_can_be_seen_on_the_metrics(scene: Scene) -> None:
    """What no answer can stage: a question too large to be asked (long names, each named twice); what ends OPA, which
    has a file of its own (test_memory_hog); more questions than can be sent (tests/opa/test_opa_client); and a process
    that is too busy to read an answer (tests/opa/test_questions_in_line).
    """
    rows = one_row_of_each()
    elsewhere = {PdpFault.SET_ASIDE, PdpFault.OVERLOADED, PdpFault.LAGGING}
    assert rows.keys() | {PdpFault.QUESTION} | elsewhere == set(PdpFault), "a member that nobody stages"
    before = {fault: scene.faults(fault) for fault in PdpFault}
    long = {f"k{number}": f"${number}" + "\x01" * 500 for number in range(250)}
    asked = len(scene.opa.asked)
    async with scene.running.plain(ANALYST) as client:
        await client.initialize()
        reached = len(scene.running.all_reached())
        where = {key: ALLOWED[key] for key in ("connectionId", "database", "collection")}
        large = await client.call("aggregate", {**where, "pipeline": [{"$group": {"_id": long}}]})
        assert large.result["_meta"]["mcp-sidecar/decision"]["reasons"][0]["source"] == "opa.question"
        assert not any(path.startswith(lies.ABOUT_CALLS) for path in scene.opa.asked[asked:])
        for lie in rows.values():
            with scene.opa.telling(lie):
                await client.call("count", ALLOWED)
        assert len(scene.running.all_reached()) == reached
    counted = {fault: scene.faults(fault) - before[fault] for fault in PdpFault}
    assert counted == dict.fromkeys(PdpFault, 1.0) | dict.fromkeys(elsewhere, 0.0)


def test_every_fault_that_there_is_has_its_line_for_operators() -> None:
    page = (parts.ROOT / "docs" / "deploy.md").read_text()
    assert [fault for fault in PdpFault if f"`{fault}`" not in page] == []
