"""The repository's policies on a real OPA, asked with our documents and read with our reader."""

import copy
import subprocess
from collections.abc import Callable
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # no stubs among the locked tools
import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sidecar.errors import DecisionUnavailable
from sidecar.model import (
    Access,
    AccessKind,
    AccessRequest,
    Actor,
    Command,
    Identity,
    Namespace,
    Principal,
    RequestContext,
    Target,
    TargetKind,
    Trait,
)
from sidecar.opa.self_test import whole_question
from sidecar.policy.document import ToolKinds, decision_document, visibility_document
from sidecar.policy.verdict import is_called_malformed, read_decision, read_selftest, read_visibility
from tests.examples import examples
from tests.parts import ROOT

SERVERS = ("demo-ro", "demo-rw")
Ask = Callable[..., tuple[int, Any]]
INPUT = jsonschema.Draft202012Validator(msgspec.json.decode((ROOT / "policies/schema/input.json").read_bytes()))
ANSWER = jsonschema.Draft202012Validator(msgspec.json.decode((ROOT / "policies/schema/decision.json").read_bytes()))
served = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
CONTEXT = RequestContext(
    time_ns=1_704_888_000_000_000_000, client_ip="192.0.2.7", protocol="2025-11-25", environment="demo"
)


def somebody(
    *groups: str, scopes: tuple[str, ...] = ("mongodb:read", "mongodb:write"), agent: str = "claude-desktop"
) -> Identity:
    principal = Principal(issuer="https://idp.example", subject="alice", groups=groups, scopes=scopes)
    return Identity(principal=principal, actor=Actor(id=agent), expires_at=0.0)


def request(identity: Identity, *accesses: Access, traits: frozenset[Trait] = frozenset()) -> AccessRequest:
    command = Command(tool="find", accesses=accesses, traits=traits)
    return AccessRequest(identity=identity, method="tools/call", command=command, context=CONTEXT)


def access(kind: AccessKind, database: str = "", collection: str = "", **more: Any) -> Access:
    return Access(kind=kind, namespace=Namespace(database=database, collection=collection), via="/arguments", **more)


ORDERS = access(AccessKind.READ, "sales", "orders")


def test_an_allow_of_the_served_set_is_accepted(ask: Ask) -> None:
    _, answer = ask("decision", decision_document(request(somebody("analysts"), ORDERS)))
    decision = read_decision(answer["result"], accesses=1, servers=SERVERS, revision="other")
    assert decision.allow
    assert (decision.server, decision.grants, decision.revision) == (
        "demo-ro",
        ("analytics/analysts-read-orders",),
        "r-test",
    )
    assert not decision.accesses[0].obliges


groups = st.lists(
    st.sampled_from(["analysts", "regional-analysts", "loaders", "support", "hr-admins", "x", "*"]),
    max_size=3,
    unique=True,
)
namespaces = st.builds(
    Namespace,
    database=st.sampled_from(["sales", "hr", "support", "staging", "admin", "Sales", "*", "sales\n", "nobody"]),
    collection=st.sampled_from(["", "orders", "salaries", "tickets", "system.views", "*", "a.b", "orders "]),
)
accesses = st.builds(
    Access,
    kind=st.sampled_from(AccessKind),
    namespace=namespaces,
    via=st.just("/arguments"),
    via_view=st.none() | st.just(Namespace(database="sales", collection="view")),
) | st.builds(
    Access,
    kind=st.sampled_from(AccessKind),
    namespace=st.just(Namespace()),
    via=st.just(""),
    target=st.none() | st.builds(Target, kind=st.sampled_from(TargetKind), id=st.just("c")),
)
identities = st.builds(
    Identity,
    principal=st.builds(
        Principal,
        issuer=st.just("https://idp.example"),
        subject=st.just("alice"),
        groups=groups.map(tuple),
        scopes=st.lists(st.sampled_from(["mongodb:read", "mongodb:write", "mongodb:admin", "x"]), max_size=3).map(
            tuple
        ),
        claims=st.dictionaries(st.just("region"), st.sampled_from(["EU", "", None, {"$ne": 1}, ["EU"], 1])),
    ),
    actor=st.builds(Actor, id=st.sampled_from(["claude-desktop", "support-console", "nightly-loader", "*"])),
    expires_at=st.just(0.0),
)


@served
@given(identities, st.lists(accesses, min_size=1, max_size=4), st.frozensets(st.sampled_from(Trait), max_size=2))
def test_every_answer_is_of_the_schema_and_is_read(
    ask: Ask, identity: Identity, asked: list[Access], traits: frozenset[Trait]
) -> None:
    document = decision_document(request(identity, *asked, traits=traits))
    status, answer = ask("decision", document)
    assert status == 200
    ANSWER.validate(answer["result"])
    decision = read_decision(answer["result"], accesses=len(asked), servers=SERVERS)
    assert "invalid_input" not in {reason.code for reason in decision.reasons}
    if decision.allow:
        assert all(one.kind in {"read", "metadata", "insert", "update"} for one in asked)
        assert not {one.namespace.database for one in asked} & {"admin", "Sales", "*", "sales\n", "nobody"}
        assert all(one.target is None for one in asked)
    assert ask("decision", document)[1]["result"] == answer["result"], "the same question, another answer"


@served
@given(st.lists(accesses, min_size=1, max_size=3), accesses, identities)
def test_one_more_access_never_allows_more(ask: Ask, asked: list[Access], extra: Access, identity: Identity) -> None:
    fewer = ask("decision", decision_document(request(identity, *asked)))[1]["result"]
    more = ask("decision", decision_document(request(identity, *asked, extra)))[1]["result"]
    assert fewer["allow"] or not more["allow"]


# --- what is no question ----------------------------------------------------------------------------------------------

VALID = decision_document(
    request(
        somebody("analysts"),
        ORDERS,
        access(AccessKind.READ, "sales", "raw", via_view=Namespace(database="sales", collection="view")),
        access(AccessKind.METADATA, target=Target(kind=TargetKind.CLUSTER, id="c")),
        traits=frozenset({Trait.UPSERT}),
    )
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.sampled_from([1.5, 2**63 - 1, 2**63])
    | st.sampled_from(["", "all", "user", "agent", "read", "cluster", "upsert", "sales"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["kind", "id", "database", "collection", "x"]), inner, max_size=3)
    ),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path into a JSON value, and one past the end of each container."""
    match value:
        case dict():
            keys: list[Any] = [*value, "extra", "target", "via_view"]
        case list():
            keys = list(range(len(value)))
        case _:
            keys = []
    inner = [
        found
        for key in keys
        for found in (places(value[key], (*path, key)) if isinstance(value, list) or key in value else [(*path, key)])
    ]
    return [path, *inner] if path else inner


def changed(path: tuple[Any, ...], value: Any, *, remove: bool = False, of: Any = VALID) -> Any:
    document: Any = copy.deepcopy(of)
    place = document
    for key in path[:-1]:
        place = place[key]
    if not remove:
        place[path[-1]] = value
    elif isinstance(place, list) or path[-1] in place:
        del place[path[-1]]
    return document


@settings(served, max_examples=examples(400))
@given(path=st.sampled_from(places(VALID)), value=values, remove=st.booleans())
def test_the_policies_and_the_schema_agree_on_what_a_question_is(
    ask: Ask, path: tuple[Any, ...], value: Any, *, remove: bool
) -> None:
    document = changed(path, value, remove=remove)
    _, answer = ask("decision", document)
    codes = {reason["code"] for reason in answer["result"]["reasons"]}
    assert INPUT.is_valid(document) is ("invalid_input" not in codes)


@served
@given(values)
def test_anything_at_all_is_answered_and_denied(ask: Ask, value: Any) -> None:
    for question in ("decision", "visibility", "selftest"):
        status, answer = ask(question, value)
        assert status == 200
        assert "result" in answer
    decision = read_decision(ask("decision", value)[1]["result"], accesses=1, servers=SERVERS)
    assert not decision.allow


LISTING = visibility_document(
    somebody("analysts"),
    CONTEXT,
    {"find": ToolKinds(needs=frozenset({AccessKind.READ}))},
    possible=[{"owner": "analytics", "kinds": None, "databases": None, "collections": None, "targets": None}],
)
OBJECTS: dict[str, list[tuple[Any, ...]]] = {
    "decision": [
        (),
        *((name,) for name in ("subject", "actor", "action", "command", "context")),
        ("command", "fields"),
        *(("accesses", index) for index in range(3)),
        ("accesses", 1, "via_view"),
        ("accesses", 2, "target"),
    ],
    "visibility": [(), ("subject",), ("actor",), ("context",), ("tools",), ("tools", "find"), ("possible", 0)],
}
"""Where a question holds an object, by what is asked."""


WHOLE = {"decision": VALID, "visibility": LISTING}


def without_an_object(question: str, path: tuple[Any, ...]) -> list[Any]:
    """The question with anything else in the place of this object."""
    others: list[Any] = [None, True, 7, "x", [], ["v"]]
    return [changed(path, value, of=WHOLE[question]) if path else value for value in others]


def refused_as_no_question(question: str, answer: Any) -> bool:
    if question == "decision":
        return [reason["code"] for reason in answer["reasons"]] == ["invalid_input"]
    return bool(answer == {"v": 1, "tools": [], "servers": []})


def test_with_its_objects_it_is_a_question(ask: Ask) -> None:
    for question, document in WHOLE.items():
        assert not refused_as_no_question(question, ask(question, document)[1]["result"])


@pytest.mark.parametrize(("question", "path"), [(question, path) for question in OBJECTS for path in OBJECTS[question]])
def test_anything_else_in_the_place_of_an_object_is_no_question_and_no_error(
    ask: Ask, question: str, path: tuple[Any, ...]
) -> None:
    documents = without_an_object(question, path)
    assert len(documents) == 6
    for document in documents:
        status, answer = ask(question, document)
        assert status == 200, answer
        assert refused_as_no_question(question, answer["result"])


@pytest.mark.parametrize("question", OBJECTS)
def test_nor_is_it_an_error_where_opas_index_leaves_no_rule_out(
    run_opa: Callable[..., subprocess.CompletedProcess[str]], question: str
) -> None:
    # A rule that asks for what is inside of no object is left out by the index, which hides that object.keys fails.
    asked = [document for path in OBJECTS[question] for document in without_an_object(question, path)]
    query = f"[answer | some document in input; answer := data.mcp.main.{question} with input as document]"
    flags = ["--strict-builtin-errors", "--disable-indexing", "--ignore=*_test.rego", "--stdin-input", "--format=raw"]
    done = run_opa("eval", *flags, "-b", "platform", query, stdin=msgspec.json.encode(asked).decode())
    assert done.returncode == 0, done.stdout + done.stderr
    answers = msgspec.json.decode(done.stdout)
    assert len(answers) == len(asked)
    assert all(refused_as_no_question(question, answer) for answer in answers)


def test_a_claim_that_looks_like_an_answer_stays_a_claim(ask: Ask) -> None:
    forged = '", "allow": true, "reasons": [], "x": "'
    principal = Principal(issuer="i", subject=forged, groups=(forged,), claims={forged: forged, "region": forged})
    identity = Identity(principal=principal, actor=Actor(id=forged), expires_at=0.0)
    _, answer = ask("decision", decision_document(request(identity, access(AccessKind.READ, forged, forged))))
    assert not read_decision(answer["result"], accesses=1, servers=SERVERS).allow
    assert "allow\\" not in msgspec.json.encode(answer["result"]).decode()


# --- the other questions ----------------------------------------------------------------------------------------------

READING = {"find", "aggregate", "list-databases"}
TOOLS = {
    "find": ToolKinds(needs=frozenset({AccessKind.READ})),
    "aggregate": ToolKinds(needs=frozenset({AccessKind.READ}), may_need=frozenset({AccessKind.INSERT})),
    "list-databases": ToolKinds(needs=frozenset({AccessKind.METADATA})),
    "insert-many": ToolKinds(needs=frozenset({AccessKind.INSERT})),
    "drop-collection": ToolKinds(needs=frozenset({AccessKind.DROP})),
    "connect": ToolKinds(needs=frozenset({AccessKind.CONNECT})),
}


@pytest.mark.parametrize(
    ("identity", "visible"),
    [
        (somebody("analysts"), READING),
        (somebody("loaders", agent="nightly-loader"), {*READING, "insert-many"}),
        (somebody("loaders"), READING),
        (somebody("loaders", scopes=("mongodb:read",), agent="nightly-loader"), {*READING, "insert-many"}),
        (somebody("loaders", scopes=(), agent="nightly-loader"), {*READING, "insert-many"}),
        (somebody("guests"), set()),
        (somebody(), set()),
    ],
)
def test_a_caller_sees_the_tools_that_could_be_allowed(ask: Ask, identity: Identity, visible: set[str]) -> None:
    status, answer = ask("visibility", visibility_document(identity, CONTEXT, TOOLS))
    assert status == 200
    assert read_visibility(answer["result"], tools=TOOLS, servers=SERVERS).tools == visible


ALLOWED = {
    "reads": (somebody("analysts"), ORDERS),
    "sees the catalogue": (somebody("analysts", "x"), access(AccessKind.METADATA, "sales")),
    "reads everything of a database": (somebody("hr-admins"), access(AccessKind.READ, "hr", "salaries")),
    "reads under a mask": (somebody("support"), access(AccessKind.READ, "support", "tickets")),
    "updates": (somebody("support", agent="support-console"), access(AccessKind.UPDATE, "support", "tickets")),
    "inserts": (somebody("loaders", agent="nightly-loader"), access(AccessKind.INSERT, "staging", "orders")),
}
"""One caller and one access for each way in which the shipped policies allow."""


def allowed(ask: Ask, identity: Identity, one: Access) -> bool:
    return bool(ask("decision", decision_document(request(identity, one)))[1]["result"]["allow"])


def shown(ask: Ask, identity: Identity, kind: AccessKind) -> bool:
    document = visibility_document(identity, CONTEXT, {"tool": ToolKinds(needs=frozenset({kind}))})
    return bool(ask("visibility", document)[1]["result"]["tools"] == ["tool"])


@pytest.mark.parametrize("name", ALLOWED)
def test_each_way_of_being_allowed_is_visible(ask: Ask, name: str) -> None:
    identity, one = ALLOWED[name]
    assert allowed(ask, identity, one)
    assert shown(ask, identity, one.kind)


callers, wanted = (st.sampled_from([pair[each] for pair in ALLOWED.values()]) for each in (0, 1))
nearly_allowed = (
    st.sampled_from([*ALLOWED.values()])
    | st.tuples(callers, accesses | wanted)
    | st.tuples(identities | callers, wanted)
)


@settings(served, suppress_health_check=[*served.suppress_health_check, HealthCheck.filter_too_much])
@given(nearly_allowed)
def test_what_is_allowed_is_visible(ask: Ask, pair: tuple[Identity, Access]) -> None:
    identity, one = pair
    assume(allowed(ask, identity, one))
    assert shown(ask, identity, one.kind)


def test_the_engine_knows_the_known_answers(ask: Ask) -> None:
    nonce = 'n", "ok": false, "x": "\u00e9\u2028\\'
    status, answer = ask("selftest", {"nonce": nonce})
    assert status == 200
    read_selftest(answer["result"], nonce=nonce)
    with pytest.raises(DecisionUnavailable):
        read_selftest(answer["result"], nonce="another")


def test_a_demanded_builtin_error_is_an_error_because_the_question_is_strict(ask: Ask) -> None:
    assert ask("selftest", {"nonce": "n", "fail": True})[0] == 500
    lax, answer = ask("/v1/data/mcp/main/selftest", {"nonce": "n", "fail": True})
    assert (lax, answer["result"]["ok"]) == (200, True)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/data/mcp/main/decision"),
        ("GET", "/v1/data"),
        ("POST", "/v1/data"),
        ("POST", "/v1/data/mcp/main"),
        ("POST", "/v1/data/mcp/main/decision/allow"),
        ("POST", "/v1/data/mcp/main/%64ecision%2fallow"),
        ("POST", "/v1/data/mcp/main//decision"),
        ("POST", "/v1/data/mcp/platform/routes"),
        ("POST", "/v0/data/mcp/main/decision"),
        ("POST", "/v1/query"),
        ("POST", "/v1/compile"),
        ("GET", "/v1/policies/platform/main.rego"),
        ("GET", "/v1/data/system"),
        ("GET", "/v1/data/system/bundles/platform"),
        ("GET", "/v1/config"),
        ("GET", "/v1/status?pretty"),
        ("POST", "/v1/status"),
        ("GET", "/metrics"),
        ("PUT", "/v1/policies/x"),
        ("PUT", "/v1/data/mcp/platform/refused_kinds"),
        ("DELETE", "/v1/data/mcp/platform"),
        ("POST", "/"),
    ],
)
def test_the_rest_of_opas_api_is_closed(ask: Ask, method: str, path: str) -> None:
    assert ask(path, {}, method=method)[0] in {301, 401}


@pytest.mark.parametrize("path", ["/health", "/v1/policies", "/v1/data/system/bundles"])
def test_the_probes_and_the_lists_of_what_runs_are_open(ask: Ask, path: str) -> None:
    assert ask(path, method="GET")[0] == 200


def test_the_question_of_the_self_test_has_all_that_a_question_can_have(ask: Ask) -> None:
    document: Any = whole_question()
    INPUT.validate(document)
    accesses = document["accesses"]
    assert {one["kind"] for one in accesses} == set(AccessKind)
    assert {one["target"]["kind"] for one in accesses if "target" in one} == set(TargetKind)
    assert {key for one in accesses for key in one} == {"kind", "database", "collection", "via", "via_view", "target"}
    assert set(document["command"]["traits"]) == set(Trait)
    assert set(document["command"]) == set(INPUT.schema["properties"]["command"]["properties"])
    assert set(document["subject"]) == set(INPUT.schema["properties"]["subject"]["properties"])
    assert not is_called_malformed(ask("decision", document)[1]["result"])
    assert is_called_malformed(ask("decision", {**document, "more": 1})[1]["result"])
