"""The sidecar says of no question that it is well-formed which the platform's rules refuse for its form."""

import copy
import random
from collections import Counter
from typing import Any

import pytest

from sidecar.policy import is_well_formed
from tests import examples
from tests.parts import ROOT
from tests.policyset.opa_eval import opa_eval

pytestmark = pytest.mark.real

SEED = 7
VALID = "[valid | some asked in input; valid := data.mcp.platform.input_check.valid with input as asked]"
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 1.5, 2, "", "x", "agent", "user", "service", "all", "read", "insert", "upsert"),
    *([], {}, [""], [1], ["read"], ["upsert"], [None], {"": ""}, {"x": 1}, [[]], [{}], 9223372036854775807),
    *(9223372036854775808, 1e30, {"kind": "tool", "id": ""}, {"kind": "tool"}, {"database": "a", "collection": "b"}),
    *({"database": "", "collection": "b"}, [{"construct": "x", "number": None, "at": ""}], {"/a": 1}, {"/a": []}),
    *([{"construct": "x", "number": "1", "at": ""}], {"a": 1}, {"filtered": [], "returned": "all"}),
    {"filtered": [], "returned": ["a"], "x": 1},
]

WHOLE: dict[str, Any] = {
    "v": 1,
    "subject": {
        "type": "user",
        "id": "eve",
        "issuer": "https://idp.example",
        "groups": ["g"],
        "roles": [],
        "scopes": ["s"],
        "claims": {"region": "EU"},
    },
    "actor": {"type": "agent", "id": "agent", "chain": ["a"]},
    "action": {"method": "tools/call", "tool": "find"},
    "accesses": [
        {"kind": "read", "database": "shop", "collection": "orders", "via": ""},
        {
            "kind": "read",
            "database": "shop",
            "collection": "orders",
            "via": "",
            "via_view": {"database": "shop", "collection": "open"},
        },
        {"kind": "metadata", "database": "", "collection": "", "via": ""},
        {"kind": "execute", "database": "", "collection": "", "via": "", "target": {"kind": "tool", "id": "x"}},
    ],
    "command": {
        "traits": ["upsert", "amplifying"],
        "stages": ["$match"],
        "fields": {"filtered": ["a"], "returned": ["b"]},
        "limit": 10,
        "amplifiers": [{"construct": "$topN.n", "number": 3, "at": "/arguments"}],
        "arguments": {"/a": "x", "/b": None, "/c": 1.5, "/d": True},
    },
    "context": {"time_ns": 1, "client_ip": "", "protocol": "", "environment": "", "approval": None},
}


def spoilt(chance: random.Random) -> Any:
    """The whole question with one or two changes anywhere in it."""
    question = copy.deepcopy(WHOLE)
    for _ in range(chance.choice((0, 1, 1, 1, 2))):
        here: Any = question
        while True:
            steps = [*here] if isinstance(here, dict) else [*range(len(here))]
            if not steps:
                break
            step = chance.choice(steps)
            if isinstance(here[step], dict | list) and here[step] and chance.random() < 0.75:
                here = here[step]
                continue
            match chance.randrange(4):
                case 0:
                    del here[step]
                case 1 if isinstance(here, dict):
                    here[chance.choice(["x", "several_issuers", "target", "via_view", "amplifiers", "arguments"])] = (
                        chance.choice(ODD)
                    )
                case _:
                    here[step] = copy.deepcopy(chance.choice(ODD))
            break
    return question


def test_both_say_the_same(opa_binary: str) -> None:
    chance = random.Random(SEED)  # noqa: S311 - repeatable
    questions = [spoilt(chance) for _ in range(examples.examples(4_000, deep=60_000))]
    answers = opa_eval(opa_binary, VALID, questions, "-d", str(ROOT / "policies/platform"))
    pairs = [*zip(questions, answers, strict=True)]
    seen = Counter((is_well_formed(question), theirs) for question, theirs in pairs)
    assert [question for question, theirs in pairs if is_well_formed(question) and not theirs] == []
    assert min(seen[True, True], seen[False, False]) > len(questions) / 5
    assert seen[False, True] < len(questions) / 50, "what is right is known to be"


def test_as_many_accesses_as_the_rules_take_and_no_more() -> None:
    access = WHOLE["accesses"][0]
    assert is_well_formed({**WHOLE, "accesses": [access] * 256})
    assert not is_well_formed({**WHOLE, "accesses": [access] * 257})
    assert not is_well_formed({**WHOLE, "accesses": []})
