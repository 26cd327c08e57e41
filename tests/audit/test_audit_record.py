"""What a record says, and what it never says."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from sidecar.audit.chain import FIELDS, GENESIS, link, read
from sidecar.audit.record import (
    TEXT_LIMIT,
    Facts,
    Status,
    arguments_digest,
    intent,
    outcome,
    question_text,
    refusal,
    rfc3339,
    session_digest,
)
from sidecar.model import (
    Access,
    AccessKind,
    AccessVerdict,
    Actor,
    Command,
    Decision,
    Identity,
    JsonValue,
    Namespace,
    Principal,
    Reason,
    Target,
    TargetKind,
    Trait,
)

IDENTITY = Identity(
    principal=Principal(
        issuer="https://idp.example", subject="alice", groups=("analysts",), claims={"region": "EU"}, scopes=("s",)
    ),
    actor=Actor(id="claude", chain=("router",)),
    expires_at=1.0,
)
COMMAND = Command(
    tool="aggregate",
    accesses=(
        Access(
            kind=AccessKind.READ,
            namespace=Namespace(database="sales", collection="or.ders"),
            via="/arguments/collection",
        ),
        Access(
            kind=AccessKind.READ,
            namespace=Namespace(database="sales", collection="raw"),
            via="/arguments/collection",
            via_view=Namespace(database="sales", collection="view"),
        ),
        Access(
            kind=AccessKind.ADMIN,
            namespace=Namespace(),
            via="/arguments/projectId",
            target=Target(kind=TargetKind.PROJECT, id="p1"),
        ),
    ),
    traits=frozenset({Trait.UNBOUNDED, Trait.COST}),
)
MASK: tuple[JsonValue, ...] = ("ssn", {"field": "card", "as": "last4"})
ALLOW = Decision(
    allow=True,
    reasons=(),
    server="sales-ro",
    accesses=(
        AccessVerdict(owner="analytics", grants=("g1",), filter={"region": "EU"}, mask=MASK, max_documents=50),
        AccessVerdict(owner="analytics", grants=("g1", "g2")),
        AccessVerdict(owner="platform", grants=("p",)),
    ),
    revision="r1",
    decision_id="d1",
)
DENY = Decision(
    allow=False,
    reasons=(Reason(code="not_granted", source="analytics", access=1),),
    server="",
    accesses=(),
    revision="r1",
    decision_id="d2",
)
FACTS = Facts(
    request_id="req-1",
    trace_id="a" * 32,
    span_id="b" * 16,
    identity=IDENTITY,
    client_ip="10.0.0.7",
    client_name="claude-code",
    protocol="2025-11-25",
    session=session_digest("very-secret-session-id"),
    method="tools/call",
    tool="aggregate",
    command=COMMAND,
    arguments_sha256=arguments_digest({"collection": "or.ders", "secret-value": 1.5}),
)
NOW = 1_795_365_329_123_456_789


def an_intent(**changes: Any) -> dict[str, Any]:
    return intent(replace(FACTS, **changes), ALLOW, record_id="rec-1", time_ns=NOW)


def test_every_kind_of_record_has_exactly_the_fields_of_the_contract():
    begun = an_intent()
    records = [
        begun,
        outcome(begun, record_id="rec-2", time_ns=NOW, status=Status.OK),
        refusal(FACTS, "policy_denied", DENY, record_id="rec-3", time_ns=NOW),
        refusal(Facts(request_id="req-2"), "token_missing", record_id="rec-4", time_ns=NOW),
    ]
    for record in records:
        # The records of earlier versions have no digest of the token, and still hold.
        assert record.keys() | {"seq", "prev", "hash"} == FIELDS | {"token"}
        line, _ = link(record, 1, GENESIS)
        assert read(line).request_id == record["request_id"]


def test_an_intent_says_who_what_where_and_why():
    record = an_intent()
    assert record["event"] == "intent"
    assert record["time"] == "2026-11-22T16:35:29.123456Z"
    assert record["subject"] == {"issuer": "https://idp.example", "id": "alice", "type": "user", "groups": ["analysts"]}
    assert record["actor"] == {"id": "claude", "chain": ["router"]}
    assert record["client"] == {"ip": "10.0.0.7", "name": "claude-code"}
    assert record["server"] == "sales-ro"
    assert record["traits"] == ["cost", "unbounded"]
    assert record["accesses"] == [
        {"kind": "read", "database": "sales", "collection": "or.ders", "via": "/arguments/collection"},
        {
            "kind": "read",
            "database": "sales",
            "collection": "raw",
            "via": "/arguments/collection",
            "via_view": {"database": "sales", "collection": "view"},
        },
        {
            "kind": "admin",
            "database": "",
            "collection": "",
            "via": "/arguments/projectId",
            "target": {"kind": "project", "id": "p1"},
        },
    ]
    assert record["decision"] == {
        "allow": True,
        "reasons": [],
        "grants": ["analytics/g1", "analytics/g2", "platform/p"],
        "revision": "r1",
        "opa_decision_id": "d1",
    }
    assert record["obligations"] == [
        {
            "access": 0,
            "owner": "analytics",
            "filter": {"region": "EU"},
            "mask": ["ssn", {"field": "card", "as": "last4"}],
            "max_documents": 50,
            "max_time_ms": None,
        }
    ]
    assert record["outcome"] is None


def test_an_outcome_is_its_intent_with_an_end():
    begun = an_intent()
    ended = outcome(
        begun,
        record_id="rec-2",
        time_ns=NOW + 5_000_000,
        status=Status.TOOL_ERROR,
        error="tool_error",
        documents=3,
        size=120,
        duration_ms=4.6,
    )
    changed = {key for key in begun if begun[key] != ended[key]}
    assert changed == {"id", "time", "event", "outcome"}
    assert ended["outcome"] == {
        "status": "tool_error",
        "error": "tool_error",
        "documents": 3,
        "bytes": 120,
        "duration_ms": 5,
    }
    assert begun["outcome"] is None, "the intent stays what it was"


def test_a_refusal_says_which_reason_and_which_access():
    record: Any = refusal(FACTS, "policy_denied", DENY, record_id="rec-3", time_ns=NOW, duration_ms=0.4)
    assert record["event"] == "refusal"
    assert record["decision"]["reasons"] == [{"code": "not_granted", "source": "analytics", "access": 1}]
    assert record["outcome"] == {
        "status": "refused",
        "error": "policy_denied",
        "documents": None,
        "bytes": None,
        "duration_ms": 0,
    }


def test_what_is_not_an_intent_gets_no_outcome():
    refused = refusal(FACTS, "policy_denied", DENY, record_id="rec-3", time_ns=NOW)
    with pytest.raises(ValueError):
        outcome(refused, record_id="rec-4", time_ns=NOW, status=Status.OK)


@pytest.mark.parametrize(("facts", "decision"), [(FACTS, DENY), (replace(FACTS, command=None), ALLOW)])
def test_there_is_no_intent_without_an_allow_and_a_command(facts, decision):
    with pytest.raises(ValueError):
        intent(facts, decision, record_id="rec-1", time_ns=NOW)


def test_a_refusal_without_a_name_is_an_error():
    with pytest.raises(ValueError):
        refusal(FACTS, "", record_id="rec-1", time_ns=NOW)


def test_arguments_are_recorded_only_when_asked_for_and_only_once():
    assert "arguments" not in an_intent()
    full = an_intent(arguments={"filter": {"ssn": "123"}})
    assert full["arguments"] == {"filter": {"ssn": "123"}}
    assert "arguments" not in outcome(full, record_id="rec-2", time_ns=NOW, status=Status.OK)


def test_a_record_holds_neither_session_id_nor_claims_nor_argument_values():
    line, _ = link(an_intent(), 1, GENESIS)
    for secret in (b"very-secret-session-id", b"secret-value", b'"scopes"', b"expires"):
        assert secret not in line


def test_the_arguments_digest_is_the_sha256_of_the_canonical_json():
    arguments: Any = {"b": [1.0, "ü"], "a": None}
    assert arguments_digest(arguments) == hashlib.sha256(rfc8785.dumps(arguments)).hexdigest()
    assert arguments_digest(arguments) == arguments_digest({"a": None, "b": [1.0, "ü"]})


def test_a_large_argument_is_not_canonicalised_in_python(monkeypatch):
    """Only a compiled encoder looks at the whole of it: a refused megabyte costs no more than its decoding."""
    monkeypatch.setattr(rfc8785, "dumps", None)
    for number in (0.1, 1.0, 10**17):
        vector: list[Any] = [number] * 10_000
        whole = arguments_digest({"vector": vector, "name": "a"})
        assert whole.startswith("raw-")
        assert whole == arguments_digest({"name": "a", "vector": vector})
        assert whole != arguments_digest({"vector": [*vector[1:], 2], "name": "a"})


@pytest.mark.parametrize("large", [10**30, "\ud800"], ids=repr)
def test_a_large_argument_without_a_canonical_form_gets_a_digest_too(large):
    assert arguments_digest({"a": [large] * 10_000}) != arguments_digest({"a": [large] * 9_999})


@pytest.mark.parametrize("arguments", [{"a": 2**53}, {"a": "\ud800"}, {"a": 10**400}])
def test_arguments_without_a_canonical_form_still_get_a_digest_of_their_own(arguments):
    digest = arguments_digest(arguments)
    assert digest.startswith("raw-")
    assert digest != arguments_digest({"a": 2**53 + 1})


@given(st.text(), st.text())
def test_any_name_a_caller_chooses_can_be_recorded(method, tool):
    facts = Facts(request_id="r", method=method * 40, tool=tool, client_name=method, protocol=tool)
    record = refusal(facts, "method_refused", record_id="rec", time_ns=NOW)
    line, _ = link(record, 1, GENESIS)
    assert len(line) < 40 * TEXT_LIMIT


def test_lone_surrogates_in_a_name_do_not_stop_the_evidence():
    record = refusal(Facts(request_id="r", tool="x\udc80y"), "unknown_tool", record_id="rec", time_ns=NOW)
    assert record["tool"] == "x?y"
    link(record, 1, GENESIS)


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (999, "1970-01-01T00:00:00.000000Z"),
        (1_000, "1970-01-01T00:00:00.000001Z"),
        (1_795_365_329_999_999_999, "2026-11-22T16:35:29.999999Z"),
        (1_795_365_330_000_000_000, "2026-11-22T16:35:30.000000Z"),
    ],
)
def test_time_is_rfc_3339_in_utc_and_never_rounded_up(time_ns, text):
    assert rfc3339(time_ns) == text


UNPRINTABLE = ["\x9b2J", "a\u202eb", "a\u2028b", "a\x85b", "a\x1b]b", "\ufeff", "a\nb", "\U000e0041"]


@pytest.mark.parametrize("text", UNPRINTABLE, ids=ascii)
def test_no_name_in_a_record_holds_what_a_terminal_acts_on(text):
    principal = Principal(issuer=text, subject=text, groups=(text,))
    identity = Identity(principal=principal, actor=Actor(id=text, chain=(text,)), expires_at=1.0)
    namespace = Namespace(database=text, collection=text)
    target = Target(kind=TargetKind.PROJECT, id=text)
    access = Access(kind=AccessKind.READ, namespace=namespace, via=f"/{text}", target=target, via_view=namespace)
    facts = Facts(
        request_id="r",
        identity=identity,
        client_name=text,
        protocol=text,
        method=text,
        tool=text,
        command=Command(tool="find", accesses=(access,)),
        question=question_text({"claims": text}),
    )
    decision = replace(DENY, accesses=(AccessVerdict(owner="o", grants=(text,), mask=(text,)),))
    line, _ = link(refusal(facts, "policy_denied", decision, record_id="r", time_ns=NOW), 1, GENESIS)
    assert line.decode().isprintable()


@pytest.mark.parametrize("text", ["ü", "名前", "a b", "naïve-✓"])
def test_what_prints_is_recorded_as_it_is(text):
    record = refusal(Facts(request_id="r", tool=text), "unknown_tool", record_id="rec", time_ns=NOW)
    assert record["tool"] == text
