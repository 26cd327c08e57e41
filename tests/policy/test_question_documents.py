"""The documents that OPA is asked with: pure values, of the schema, and what the policies call well-formed."""

import json
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # no stubs among the locked tools
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import DecisionUnavailable
from sidecar.model import (
    Access,
    AccessKind,
    AccessRequest,
    Actor,
    Command,
    FieldUse,
    Identity,
    Namespace,
    Principal,
    RequestContext,
    Target,
    TargetKind,
    Trait,
)
from sidecar.policy.document import ToolKinds, decision_document, visibility_document
from sidecar.policy.residual import PossibleGrant, possible_document
from tests.parts import ROOT

SCHEMAS = ROOT / "policies" / "schema"


def schema(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(msgspec.json.decode((SCHEMAS / f"{name}.json").read_bytes()))


INPUT = schema("input")
VISIBILITY = schema("visibility")

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
tuples = st.lists(texts, max_size=3).map(tuple)
namespaces = st.builds(Namespace, database=names, collection=texts)
accesses = st.one_of(
    st.builds(
        Access,
        kind=st.sampled_from(AccessKind),
        namespace=namespaces,
        via=texts,
        via_view=st.none() | st.builds(Namespace, database=names, collection=names),
    ),
    st.builds(
        Access,
        kind=st.sampled_from(AccessKind),
        namespace=st.just(Namespace()),
        via=texts,
        target=st.none() | st.builds(Target, kind=st.sampled_from(TargetKind), id=texts),
    ),
)
identities = st.builds(
    Identity,
    principal=st.builds(
        Principal,
        issuer=names,
        subject=names,
        groups=tuples,
        roles=tuples,
        scopes=tuples,
        claims=st.dictionaries(names, texts | st.booleans() | st.integers(0, 2**53), max_size=2),
    ),
    actor=st.builds(Actor, id=names, chain=tuples),
    expires_at=st.just(0.0),
)
contexts = st.builds(RequestContext, time_ns=st.integers(0, 2**62), client_ip=texts, protocol=texts, environment=texts)
requests = st.builds(
    AccessRequest,
    identity=identities,
    method=st.sampled_from(["tools/call", "resources/read"]),
    command=st.builds(
        Command,
        tool=names,
        accesses=st.lists(accesses, min_size=1, max_size=4).map(tuple),
        traits=st.frozensets(st.sampled_from(Trait)),
        stages=tuples,
        fields=st.builds(FieldUse, filtered=tuples, returned=st.none() | tuples),
        limit=st.none() | st.integers(0, 2**62),
    ),
    context=contexts,
)

REQUEST = AccessRequest(
    identity=Identity(
        principal=Principal(
            issuer="https://idp.example",
            subject="alice@corp.example",
            groups=("analysts",),
            scopes=("mongodb:read",),
            claims={"region": "EU"},
        ),
        actor=Actor(id="claude-desktop"),
        expires_at=1.0,
    ),
    method="tools/call",
    command=Command(
        tool="aggregate",
        accesses=(
            Access(kind=AccessKind.READ, namespace=Namespace(database="sales", collection="orders"), via="/a"),
            Access(
                kind=AccessKind.READ,
                namespace=Namespace(database="sales", collection="raw"),
                via="/b",
                via_view=Namespace(database="sales", collection="view"),
            ),
            Access(
                kind=AccessKind.METADATA,
                namespace=Namespace(),
                via="/c",
                target=Target(kind=TargetKind.CLUSTER, id="c1"),
            ),
        ),
        traits=frozenset({Trait.UPSERT, Trait.COST}),
        stages=("$match",),
        fields=FieldUse(filtered=("region",)),
        limit=100,
    ),
    context=RequestContext(time_ns=1_999_999_999, client_ip="192.0.2.7", protocol="2025-11-25", environment="test"),
)


def test_the_document_says_everything_that_policy_may_know_and_nothing_else() -> None:
    assert decision_document(REQUEST) == {
        "v": 1,
        "subject": {
            "type": "user",
            "id": "alice@corp.example",
            "issuer": "https://idp.example",
            "groups": ["analysts"],
            "roles": [],
            "scopes": ["mongodb:read"],
            "claims": {"region": "EU"},
        },
        "actor": {"type": "agent", "id": "claude-desktop", "chain": []},
        "action": {"method": "tools/call", "tool": "aggregate"},
        "accesses": [
            {"kind": "read", "database": "sales", "collection": "orders", "via": "/a"},
            {
                "kind": "read",
                "database": "sales",
                "collection": "raw",
                "via": "/b",
                "via_view": {"database": "sales", "collection": "view"},
            },
            {
                "kind": "metadata",
                "database": "",
                "collection": "",
                "via": "/c",
                "target": {"kind": "cluster", "id": "c1"},
            },
        ],
        "command": {
            "traits": ["cost", "upsert"],
            "stages": ["$match"],
            "fields": {"filtered": ["region"], "returned": "all"},
            "limit": 100,
        },
        "context": {
            "time_ns": 1_000_000_000,
            "client_ip": "192.0.2.7",
            "protocol": "2025-11-25",
            "environment": "test",
            "approval": None,
        },
    }


def test_time_is_truncated_to_the_step() -> None:
    context = decision_document(REQUEST, step_ns=7)["context"]
    assert isinstance(context, dict)
    assert context["time_ns"] == 1_999_999_999 - 1_999_999_999 % 7


def test_an_access_of_a_namespace_and_a_target_is_no_question() -> None:
    access = Access(
        kind=AccessKind.READ,
        namespace=Namespace(database="sales"),
        via="",
        target=Target(kind=TargetKind.CLUSTER),
    )
    command = Command(tool="find", accesses=(access,))
    request = AccessRequest(identity=REQUEST.identity, method=REQUEST.method, command=command, context=REQUEST.context)
    with pytest.raises(DecisionUnavailable):
        decision_document(request)


@given(requests)
def test_every_question_is_of_the_schema_and_survives_json(request: AccessRequest) -> None:
    document = decision_document(request)
    INPUT.validate(document)
    assert msgspec.json.decode(json.dumps(document)) == document


some_kinds = st.frozensets(st.sampled_from(AccessKind), max_size=4)
some_names = st.none() | st.frozensets(names, max_size=2)
some_ways = st.builds(
    PossibleGrant, owner=names.filter(bool), kinds=some_names, databases=some_names, collections=some_names
)


@given(
    identities,
    contexts,
    st.dictionaries(names, st.builds(ToolKinds, needs=some_kinds, may_need=some_kinds), max_size=4),
    st.none() | st.lists(some_ways, max_size=3),
)
def test_every_listing_is_of_the_schema(
    identity: Identity, context: RequestContext, tools: dict[str, ToolKinds], ways: list[PossibleGrant] | None
) -> None:
    possible = None if ways is None else possible_document(ways)
    document = visibility_document(identity, context, tools, possible=possible)
    VISIBILITY.validate(document)
    assert document["tools"] == {
        name: {"needs": sorted(kinds.needs), "may_need": sorted(kinds.may_need)} for name, kinds in tools.items()
    }


def properties(name: str, *path: str) -> Any:
    value = msgspec.json.decode((SCHEMAS / f"{name}.json").read_bytes())
    for key in path:
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


@pytest.mark.parametrize(
    ("path", "members"),
    [
        (("properties", "accesses", "items", "anyOf", "0", "properties", "kind", "enum"), AccessKind),
        (("properties", "accesses", "items", "anyOf", "1", "properties", "kind", "enum"), AccessKind),
        (
            ("properties", "accesses", "items", "anyOf", "1", "properties", "target", "properties", "kind", "enum"),
            TargetKind,
        ),
        (("properties", "command", "properties", "traits", "items", "enum"), Trait),
    ],
)
def test_the_closed_sets_are_the_same_on_both_sides(path: tuple[str, ...], members: Any) -> None:
    assert set(properties("input", *path)) == {str(member) for member in members}


def test_a_team_sees_the_same_question_with_one_access() -> None:
    whole, single = properties("input", "properties"), properties("question", "properties")
    assert single.pop("access") == whole.pop("accesses")["items"]
    assert single == whole
