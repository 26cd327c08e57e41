"""Partial evaluation on a real OPA: what is allowed is visible, what nobody grants is not, and the rest is closed."""

import json
import random
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sidecar.enforcement.visibility import TOOLS
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
    Trait,
)
from sidecar.opa.managed import ManagedOpa
from sidecar.policy.document import ToolKinds, decision_document, visibility_document
from sidecar.policy.residual import COMPILE_QUERY, COMPILE_UNKNOWNS, possible_document, read_residual, residual_document
from sidecar.ports import Question
from tests.examples import examples

CONTEXT = RequestContext(
    time_ns=1_704_888_000_000_000_000, client_ip="192.0.2.7", protocol="2025-11-25", environment="demo"
)
served = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=examples(60),
    deadline=None,
)
GROUPS = ["analysts", "regional-analysts", "loaders", "support", "support-leads", "hr-admins", "x"]


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A private folder whose path is short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="vis") as folder:
        yield Path(folder)


def somebody(
    *groups: str,
    scopes: tuple[str, ...] = ("mongodb:read", "mongodb:write"),
    agent: str = "claude-desktop",
    **claims: Any,
) -> Identity:
    principal = Principal(issuer="https://idp.example", subject="alice", groups=groups, scopes=scopes, claims=claims)
    return Identity(principal=principal, actor=Actor(id=agent), expires_at=0.0)


def compiled(ask, identity: Identity) -> list[Any]:
    body = {"query": COMPILE_QUERY, "unknowns": list(COMPILE_UNKNOWNS), "input": residual_document(identity)}
    status, answer = ask("/v1/compile", body=msgspec.json.encode(body))
    assert status == 200
    return possible_document(read_residual(answer.get("result", {})))


def visible(
    ask, identity: Identity, tools: dict[str, ToolKinds] = TOOLS, context: RequestContext = CONTEXT
) -> set[str]:
    document = visibility_document(identity, context, tools, possible=compiled(ask, identity))
    status, answer = ask("visibility", document)
    assert status == 200
    return set(answer["result"]["tools"])


def test_a_loader_sees_what_inserts_and_reads_and_nothing_else(ask) -> None:
    seen = visible(ask, somebody("loaders", agent="nightly-loader"))
    assert {"insert-many", "find", "count"} <= seen
    assert not seen & {"update-many", "delete-many", "drop-collection", "create-collection", "export"}
    assert "list-databases" in seen


def test_an_agent_that_a_grant_does_not_name_hides_what_stands_on_it(ask) -> None:
    assert not {"find", "insert-many"} & visible(ask, somebody("loaders"))
    assert "find" in visible(ask, somebody("loaders", "analysts"))


def test_a_region_that_is_missing_hides_what_stands_on_it(ask) -> None:
    assert "find" in visible(ask, somebody("regional-analysts", region="EU"))
    assert "find" not in visible(ask, somebody("regional-analysts"))


def test_hours_and_traits_hide_nothing(ask) -> None:
    saturday = replace(CONTEXT, time_ns=CONTEXT.time_ns + 3 * 24 * 3600 * 10**9)
    assert "insert-many" in visible(ask, somebody("loaders", agent="nightly-loader"), context=saturday)
    assert "update-many" in visible(ask, somebody("support", agent="support-console"))


def test_a_caller_without_a_group_sees_nothing(ask) -> None:
    assert visible(ask, somebody("x")) == set()


# --- what is allowed is visible ---------------------------------------------------------------------------------------

kinds = st.sampled_from(AccessKind)
namespaces = st.builds(
    Namespace,
    database=st.sampled_from(["sales", "hr", "support", "staging", "nobody"]),
    collection=st.sampled_from(["", "orders", "returns", "salaries", "tickets", "imports", "*", "a.b"]),
)
accesses = st.builds(Access, kind=kinds, namespace=namespaces, via=st.just("")) | st.builds(
    Access, kind=st.just(AccessKind.METADATA), namespace=st.just(Namespace()), via=st.just("")
)
identities = st.builds(
    lambda groups, scopes, agent, region: somebody(
        *groups, scopes=scopes, agent=agent, **({"region": region} if region else {})
    ),
    st.lists(st.sampled_from(GROUPS), max_size=3, unique=True),
    st.lists(st.sampled_from(["mongodb:read", "mongodb:write", "mongodb:admin"]), max_size=3, unique=True).map(tuple),
    st.sampled_from(["claude-desktop", "support-console", "nightly-loader"]),
    st.sampled_from(["", "EU"]),
)


def allowed(ask, identity: Identity, *asked: Access, traits: frozenset[Trait] = frozenset()) -> bool:
    command = Command(tool="find", accesses=asked, traits=traits)
    request = AccessRequest(identity=identity, method="tools/call", command=command, context=CONTEXT)
    return bool(ask("decision", decision_document(request))[1]["result"]["allow"])


def of(kind: AccessKind, database: str, collection: str = "") -> Access:
    return Access(kind=kind, namespace=Namespace(database=database, collection=collection), via="")


ALLOWED = {
    "reads": (somebody("analysts"), of(AccessKind.READ, "sales", "orders")),
    "sees the catalogue": (somebody("x", "analysts"), of(AccessKind.METADATA, "sales")),
    "reads a part": (somebody("regional-analysts", region="EU"), of(AccessKind.READ, "sales", "returns")),
    "reads everything of a database": (somebody("hr-admins"), of(AccessKind.READ, "hr", "salaries")),
    "updates": (somebody("support", agent="support-console"), of(AccessKind.UPDATE, "support", "tickets")),
    "reads with an approval": (somebody("support-leads"), of(AccessKind.READ, "support", "tickets")),
    "inserts": (somebody("loaders", agent="nightly-loader"), of(AccessKind.INSERT, "staging", "orders")),
    "reads what it loaded": (somebody("loaders", agent="nightly-loader"), of(AccessKind.READ, "staging", "orders")),
}
"""One caller and one access for each way in which the shipped policies allow."""


@pytest.mark.parametrize("name", ALLOWED)
def test_each_way_of_being_allowed_is_visible(ask, name: str) -> None:
    identity, one = ALLOWED[name]
    assert allowed(ask, identity, one)
    for needed in (ToolKinds(needs=frozenset({one.kind})), ToolKinds(may_need=frozenset({one.kind}))):
        assert visible(ask, identity, {"tool": needed}) == {"tool"}


callers = st.sampled_from([identity for identity, _ in ALLOWED.values()])
wanted = st.sampled_from([one for _, one in ALLOWED.values()])
nearly_allowed = (
    st.tuples(callers, st.lists(accesses | wanted, min_size=1, max_size=2))
    | st.tuples(identities | callers, st.lists(wanted, min_size=1, max_size=2))
    | st.sampled_from([(identity, [one]) for identity, one in ALLOWED.values()])
)


@settings(served, suppress_health_check=[*served.suppress_health_check, HealthCheck.filter_too_much])
@given(nearly_allowed, st.frozensets(st.sampled_from(Trait), max_size=1))
def test_what_is_allowed_is_visible(ask, asking: tuple[Identity, list[Access]], traits: frozenset[Trait]) -> None:
    identity, asked = asking
    assume(allowed(ask, identity, *asked, traits=traits))
    needs = frozenset(one.kind for one in asked)
    assert visible(ask, identity, {"tool": ToolKinds(needs=needs)}) == {"tool"}
    assert visible(ask, identity, {"tool": ToolKinds(may_need=needs)}) == {"tool"}


# --- policies that nobody wrote ---------------------------------------------------------------------------------------

CONDITIONS = (
    'input.access.kind == "read"',
    'input.access.kind in {"read", "insert"}',
    'not input.access.kind == "read"',
    "reads",
    "not reads",
    'startswith(input.access.collection, "or")',
    'input.access.database == "sales"',
    "input.access.collection in data.mcp.grants.people.names",
    'some part; input.access[part] == "orders"',
    'object.get(input, ["access", "kind"], "") == "insert"',
    'count([1 | input.access.kind == "read"]) == 1',
    "count(input.command.stages) == 0",
    'every stage in input.command.stages { stage != "$out" }',
    'x := input; x.access.kind == "insert"',
    "level == 2",
    'allowed[input.access.kind] == "yes"',
    '[input.access.kind, input.access.collection] == ["read", "orders"]',
    "f(input.access)",
    '"staff" in input.subject.groups',
    "time.clock(input.context.time_ns)[0] < 13",
    'input.context.environment == "demo"',
    'some group in input.subject.groups; sprintf("%s-%s", [group, input.access.collection]) == "staff-orders"',
    'walk(input, [_, "metadata"])',
)
RULES = """package mcp.teams.people

reads if input.access.kind == "read"

default level := 1

level := 2 if input.access.kind == "insert"

allowed := {"read": "yes", "insert": "no"}

f(access) if access.kind == "read"

f(access) if access.collection == "returns"

"""
ANYTHING = {"owner": "people", "delegated": [{"kinds": [*AccessKind], "collections": ["", "*"]}], "obligations": []}


def rewritten(policies: Path, pick: random.Random) -> None:
    """Make the people team the owner of everything, under rules drawn at random."""
    rules = RULES
    for number in range(6):
        body = "\n\t".join(pick.sample(CONDITIONS, pick.randint(1, 3)))
        rules += f'grant contains {{"id": "g{number}"}} if {{\n\t{body}\n}}\n\n'
    (policies / "teams/people/policy.rego").write_text(rules)
    (policies / "teams/people/policy_test.rego").unlink()
    own = {"mcp": {"grants": {"people": {"names": ["returns"], "blocked_agents": []}}}}
    (policies / "teams/people/data.json").write_bytes(msgspec.json.encode(own))
    path = policies / "platform/data.json"
    data = msgspec.json.decode(path.read_bytes())
    platform = data["mcp"]["platform"]
    platform["deployments"]["demo"]["databases"] = {"sales": ANYTHING}
    platform["deployments"]["demo"]["prefixes"] = {"tmp": ANYTHING}
    for route in platform["routes"]:
        route["groups"] = ["*"]
    path.write_bytes(msgspec.json.encode(data))


@pytest.mark.parametrize("seed", range(5))
async def test_random_policies_never_allow_what_is_hidden(
    seed: int, policies: Path, opa_binary: str, short_folder: Path
) -> None:
    pick = random.Random(seed)  # noqa: S311 - policies to compare, reproducible by their seed
    rewritten(policies, pick)
    people = [somebody(*groups, agent="nightly-loader") for groups in ((), ("staff",), ("staff", "x"))]
    allowed = 0
    async with ManagedOpa(opa_binary, policies, directory=short_folder, timeout_s=5.0) as opa:
        for identity in people:
            left = (await opa.ask(Question.RESIDUAL, residual_document(identity))).result
            for kind in (AccessKind.READ, AccessKind.METADATA, AccessKind.INSERT, AccessKind.UPDATE):
                tools = {"tool": ToolKinds(needs=frozenset({kind}))}
                document = visibility_document(
                    identity, CONTEXT, tools, possible=possible_document(read_residual(left))
                )
                shown = (await opa.ask(Question.VISIBILITY, document)).result["tools"] == ["tool"]  # type: ignore[call-overload,index]
                answers = [await decided(opa, identity, kind, place) for place in PLACES]
                assert shown or not any(answers), (seed, identity.principal.groups, kind)
                allowed += any(answers)
    assert allowed


PLACES = [Namespace(database=d, collection=c) for d in ("sales", "tmp1") for c in ("orders", "returns", "a.b")]


async def decided(opa: ManagedOpa, identity: Identity, kind: AccessKind, place: Namespace) -> bool:
    command = Command(tool="find", accesses=(Access(kind=kind, namespace=place, via=""),))
    request = AccessRequest(identity=identity, method="tools/call", command=command, context=CONTEXT)
    answer: Any = (await opa.ask(Question.DECISION, decision_document(request))).result
    return answer["allow"] is True


# --- the endpoint is closed to everything else ------------------------------------------------------------------------

OPEN = {"query": COMPILE_QUERY, "unknowns": list(COMPILE_UNKNOWNS), "input": {}}


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({**OPEN, "query": "data"}),
        json.dumps({**OPEN, "unknowns": ["data"]}),
        json.dumps({**OPEN, "Query": "data"}),
        json.dumps({**OPEN, "QUERY": "data.mcp.platform"}),
        json.dumps({**OPEN, "unKnowns": ["data"]}),
        json.dumps({**OPEN, "options": {"disableInlining": ["data"]}}),
        json.dumps(OPEN)[:-1] + ', "query": "data"}',
        json.dumps({"query": COMPILE_QUERY}),
        "",
        "[]",
        "query: data",
    ],
)
def test_another_query_is_refused(ask, body: str) -> None:
    assert ask("/v1/compile", body=body.encode())[0] in {400, 401}


@pytest.mark.parametrize(
    "path", ["/v1/compile?explain=full", "/v1/compile?metrics=true", "/v1/compile/mcp/main/decision"]
)
def test_another_form_of_the_endpoint_is_refused(ask, path: str) -> None:
    assert ask(path, body=json.dumps(OPEN).encode())[0] == 401


def test_the_one_query_is_answered(ask) -> None:
    assert ask("/v1/compile", body=json.dumps(OPEN).encode())[0] == 200
