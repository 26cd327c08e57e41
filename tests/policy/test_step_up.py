"""The search for the scopes that a call lacks, against the plainest search there is: every set, the best one first."""

import itertools
import json
import random
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.model import Access, Identity
from sidecar.policy.document import decision_document
from sidecar.policy.verdict import read_decision
from tests.parts import ROOT
from tests.policy.conftest import bundles
from tests.policy.test_served_answers import SERVERS, accesses, identities, request, served

Run = Callable[..., subprocess.CompletedProcess[str]]
Ask = Callable[..., tuple[int, Any]]
KINDS = ("read", "metadata", "insert", "update", "delete")
NAMES = ("a", "b", "c", "d", "e", "f")
QUERY = """[found |
	some case in input
	[question, scopes, routes] := [case.input, case.scopes, case.routes]
	best := data.mcp.platform.step_up.best with input as question
		with data.mcp.platform.scopes as scopes
		with data.mcp.platform.routes as routes
		with data.mcp.platform.servers as {"s": {"deployment": "d"}}
		with data.mcp.platform.agents as {"default": {"servers": ["s"], "deployments": ["d"]}, "registered": {}}
	found := [chosen | some [_, _, chosen] in sort(best)]
]"""


def a_case(chance: random.Random) -> dict[str, Any]:
    scopes = {name: sorted(chance.sample(KINDS, chance.randint(0, 3))) for name in chance.sample(NAMES, 5)}
    demand = chance.choice([["*"], ["*"], chance.sample(NAMES, 2)])
    touched = chance.sample(KINDS, chance.randint(1, 4))
    return {
        "scopes": scopes,
        "routes": [{"groups": ["*"], "agents": ["*"], "scopes": demand, "kinds": [*KINDS], "server": "s"}],
        "input": {
            "subject": {"issuer": "i", "groups": ["g"], "scopes": chance.sample(NAMES, chance.choice([0, 0, 1]))},
            "actor": {"id": "agent"},
            "accesses": [{"kind": kind, "database": "d", "collection": "c", "via": ""} for kind in touched],
        },
    }


def every_set(case: dict[str, Any]) -> Iterator[tuple[int, int, list[str]]]:
    """Every set that opens what is missing, as its rank."""
    table, (route,) = case["scopes"], case["routes"]
    held = case["input"]["subject"]["scopes"]
    open_already = {kind for scope in held for kind in table.get(scope, [])}
    wanted = {access["kind"] for access in case["input"]["accesses"]} - open_already
    demand = set() if {"*", *held} & {*route["scopes"]} else {*route["scopes"]}
    if not wanted and not demand:
        return
    candidates = sorted({*table, *(name for name in route["scopes"] if name != "*")})
    for size in range(1, len(candidates) + 1):
        for scopes in itertools.combinations(candidates, size):
            opened = {kind for scope in scopes for kind in table.get(scope, [])} - open_already
            if wanted <= opened and (not demand or demand & {*scopes}):
                yield len(opened), size, [*scopes]


def test_the_search_finds_the_best_set_of_all(run_opa: Run) -> None:
    chance = random.Random(20261128)  # noqa: S311 - the same cases in every run
    cases = [a_case(chance) for _ in range(400)]
    expected = [[min(every)[2]] if (every := [*every_set(case)]) else [] for case in cases]
    loaded = [part for one in bundles(ROOT / "policies") for part in ("-b", one)]
    run = run_opa("eval", "--stdin-input", "--format=raw", *loaded, QUERY, stdin=json.dumps(cases))
    assert run.returncode == 0, run.stderr
    found = msgspec.json.decode(run.stdout)
    wrong = [(case, one, best) for case, one, best in zip(cases, found, expected, strict=True) if one != best]
    assert not wrong, wrong[:2]
    assert len([best for best in expected if best and len(best[0]) > 1]) > 40, "the cases say something"
    assert len([best for best in expected if not best]) > 40


ALL = ("mongodb:admin", "mongodb:export", "mongodb:read", "mongodb:write")


@served
@given(identities, st.lists(accesses, min_size=1, max_size=3))
def test_scopes_are_offered_where_they_help_and_only_there(ask: Ask, identity: Identity, asked: list[Access]) -> None:
    """Of the shipped set: what is offered is enough, no part of it is, and where nothing is offered nothing is."""
    document: Any = decision_document(request(identity, *asked))
    own = document["subject"]["scopes"]

    def allowed(*more: str) -> bool:
        larger = {**document, "subject": {**document["subject"], "scopes": [*own, *more]}}
        return ask("decision", larger)[1]["result"]["allow"] is True

    decision = read_decision(ask("decision", document)[1]["result"], accesses=len(asked), servers=SERVERS)
    sets = [part for size in range(5) for part in itertools.combinations(ALL, size)]
    enough = [] if decision.allow else [part for part in sets if allowed(*part)]
    missing, held = (decision.step_up.missing, decision.step_up.held) if decision.step_up else ((), ())
    assert bool(missing) == bool(enough)
    assert [part for part in enough if {*part} <= {*missing}] == ([missing] if missing else [])
    assert {*held} == ({*own} & {*ALL} if missing else set())


@pytest.mark.parametrize("held", [[], ["mongodb:read"] * 2, [f"s{number}" for number in range(10_000)]])
def test_many_scopes_cost_an_answer_and_no_more(ask: Ask, held: list[str]) -> None:
    subject = {
        "type": "user",
        "id": "u",
        "issuer": "i",
        "groups": ["loaders"],
        "roles": [],
        "scopes": held,
        "claims": {},
    }
    question = json.loads((ROOT / "policies/cases/routes.json").read_bytes())  # noqa: TID251 - the repository's own file
    document = {**question["loader-without-write-scope"]["input"], "subject": subject}
    status, answer = ask("decision", document)
    assert status == 200
    known = ["mongodb:read"] if "mongodb:read" in held else []
    assert answer["result"]["step_up"] == {"missing": ["mongodb:write"], "held": known}
