"""What an answer is kept by: questions that agree in it have one answer. The judge of that is OPA.

The questions are those of the golden cases, mixed part by part and with parts of none of them. With a memo and without
one the answers are the same, over generated policies, other data of the platform, and a clock that moves.
"""

import asyncio
import copy
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sidecar.opa.memo import Memo
from sidecar.policyset import known_platform
from sidecar.policyset.folder import PolicySet
from sidecar.policyset.question_reads import TIME, QuestionReads, question_reads
from sidecar.policyset.read_list import EVERYTHING, rules_of
from sidecar.ports import PdpAnswer, Question
from tests import examples
from tests.parts import ROOT
from tests.policyset.opa_eval import PARSE, opa_eval

pytestmark = pytest.mark.real

SEED = 20
DECIDE = "[answer | some asked in input; answer := data.mcp.main.decision with input as asked]"
NOW = 1_704_888_000_000_000_000
HOUR_NS = 3_600_000_000_000
MOST_VALUES = 8

HEAD = "package mcp.teams.analytics\n\nimport data.mcp.lib\n\n"
DENIED = 'deny contains "x" if '
READERS = {
    "an alias": "asked := input.command\n\n" + DENIED + "{ c := asked; c.limit > 50 }\n",
    "a helper": "large(n) if n > 50\n\n" + DENIED + "large(input.command.limit)\n",
    "walk": DENIED + '{ walk(input.subject.claims, [_, value]); value == "US" }\n',
    "object.get": DENIED + 'object.get(input, ["context", "client_ip"], "") == "192.0.2.9"\n',
    "a comprehension": DENIED + 'count([f | some f in input.command.fields.filtered; f == "card"]) > 0\n',
    "every": DENIED + '{ count(input.command.stages) > 1; every s in input.command.stages { s != "$match" } }\n',
    "a variable step": DENIED + '{ some part in ["client_ip", "protocol"]; input.context[part] == "192.0.2.9" }\n',
    "a library's function": "late if lib.during(hours)\n\n"
    'hours := {"days": ["Wednesday"], "from": "12:00", "to": "24:00", "timezone": "UTC"}\n\n' + DENIED + "late\n",
    "a library's rule": DENIED + 'not lib.looks_only_at({"region", "total"})\n',
    "a negation": DENIED + "not input.subject.roles[0]\n",
    "an else": "mark := 1 if { input.command.limit == 10 } else := 2\n\n" + DENIED + "mark == 2\n",
    "a filter": 'grant contains {"id": "own", "filter": {"owner": input.subject.claims.sub}} if '
    "{ lib.reads; is_string(input.subject.claims.sub) }\n",
    "a default": 'default far := false\n\nfar if input.context.environment == "production"\n\n' + DENIED + "far\n",
    "nothing": "",
}

READ_AT = {
    "an alias": ("command", "limit"),
    "a helper": ("command", "limit"),
    "walk": ("subject", "claims"),
    "object.get": ("context", "client_ip"),
    "a comprehension": ("command", "fields", "filtered"),
    "every": ("command", "stages"),
    "a variable step": ("context", "client_ip"),
    "a library's function": ("context", "time_ns"),
    "a library's rule": ("command", "fields", "filtered"),
    "a negation": ("subject", "roles"),
    "an else": ("command", "limit"),
    "a filter": ("subject", "claims"),
    "a default": ("context", "environment"),
}
"""Where each reads."""

DATA: dict[str, list[tuple[tuple[str, ...], Any]]] = {
    "as it is": [],
    "closed hours": [
        (
            ("windows",),
            [
                {
                    "id": "nights",
                    "kinds": ["read"],
                    "databases": ["sales"],
                    "hours": {"days": ["Wednesday"], "from": "08:00", "to": "13:00", "timezone": "UTC"},
                }
            ],
        )
    ],
    "declared views": [
        (
            ("deployments", "demo", "views"),
            {"sales": {"orders": {"sources": [{"database": "support", "collection": "tickets"}], "alone": False}}},
        )
    ],
    "a person is suspended": [
        (("suspended", "subjects"), [{"issuer": "https://idp.example", "id": "alice@corp.example"}])
    ],
}


@cache
def golden() -> tuple[dict[str, Any], ...]:
    """The questions of the golden cases."""
    cases = (
        case["input"]
        for file in sorted((ROOT / "policies" / "cases").glob("*.json"))
        for case in json.loads(file.read_text()).values()  # noqa: TID251 - the repository's own files
    )
    return tuple(one for one in cases if isinstance(one, dict) and {"subject", "accesses", "command"} <= one.keys())


def places(value: Any, here: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if here:
        yield here
    if isinstance(value, dict) and here[-1:] != ("claims",):
        for name, below in value.items():
            yield from places(below, (*here, name))


def at(value: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def put(value: Any, place: tuple[str, ...], new: Any) -> None:
    for name in place[:-1]:
        if not isinstance(value, dict):
            return
        value = value.setdefault(name, {})
    if isinstance(value, dict):
        value[place[-1]] = copy.deepcopy(new)


ODD: dict[tuple[str, ...], list[Any]] = {
    ("command", "limit"): [None, 0, 1, 10, 51, 100, -1, "10"],
    ("command", "fields", "filtered"): [[], ["region"], ["card"], ["region", "total"], [1]],
    ("command", "fields", "returned"): ["all", ["total"], ["region", "total"], "none"],
    ("command", "stages"): [[], ["$match"], ["$match", "$group"], ["$group", "$sort"]],
    ("context", "client_ip"): ["192.0.2.7", "192.0.2.9", "", None],
    ("context", "environment"): ["demo", "production"],
    ("context", "time_ns"): [NOW + hours * HOUR_NS for hours in (-5, -1, 0, 1, 2, 30)],
    ("subject", "claims"): [
        {},
        {"region": "EU"},
        {"region": "US", "sub": "a"},
        {"sub": "b"},
        {"sub": ["a"]},
        {"deep": {"x": "US"}},
    ],
    ("subject", "roles"): [[], ["admin"], [None]],
    ("subject", "scopes"): [[], ["mongodb:read"], ["mongodb:read", "mongodb:write"]],
}


def asked(chance: random.Random, number: int) -> list[dict[str, Any]]:
    """Questions of which many agree in much: each is a step away from another one."""
    pool = golden()
    every = sorted({place for one in pool for place in places(one)})
    questions = [copy.deepcopy(chance.choice(pool)) for _ in range(max(2, number // 40))]
    while len(questions) < number:
        one = copy.deepcopy(chance.choice(questions))
        for _ in range(chance.choice((1, 1, 2))):
            if chance.random() < 0.7:
                place = chance.choice([*ODD])
                put(one, place, chance.choice(ODD[place]))
            else:
                place = chance.choice(every)
                put(one, place, at(chance.choice(pool), place))
        questions.append(one)
    return questions


@pytest.fixture(scope="module")
def sets(opa_binary: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes policy sets with other rules of a team and other data of the platform, and decides under them."""

    def make(readers: tuple[str, ...], data: str) -> tuple[QuestionReads | None, Any]:
        folder = tmp_path_factory.mktemp("set") / "policies"
        PolicySet.read(ROOT / "policies").write(folder)
        for number, reader in enumerate(readers):
            (folder / f"teams/analytics/more{number}.rego").write_text(
                HEAD + READERS[reader].replace("mark", f"mark{number}")
            )
        tables = folder / "platform" / "data.json"
        document = json.loads(tables.read_text())  # noqa: TID251 - made of the repository's own file
        for place, value in DATA[data]:
            put(document, ("mcp", "platform", *place), value)
        tables.write_text(json.dumps(document))
        policies = PolicySet.read(folder)
        texts = {path: content.decode() for path, content in policies.files if path.endswith(".rego")}
        trees = opa_eval(opa_binary, PARSE, texts)
        rules = {
            team: [rule for path, tree in trees.items() if path.startswith(f"teams/{team}/") for rule in rules_of(tree)]
            for team in policies.teams
        }
        options = [option for bundle in policies.bundles for option in ("-d", str(folder / bundle))]
        return question_reads(policies, rules), lambda questions: opa_eval(opa_binary, DECIDE, questions, *options)

    return make


@pytest.fixture(scope="module")
def plain(sets: Any) -> Any:
    return sets(("nothing",), "as it is")


class Tally:
    """Plays questions with a memo, against what is true of each."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.wrong: list[tuple[Any, Any, Any]] = []

    async def play(self, reads: QuestionReads | None, questions: list[Any], answers: list[Any]) -> None:
        memo = Memo(1e9, lambda: True, reads)
        for question, answer in zip(questions, answers, strict=True):
            key = memo.key(Question.DECISION, question)
            assert key is not None
            known = memo.recall(key)
            if known is None:
                self.seen["asked"] += 1
                memo.remember(key, PdpAnswer(result=answer, revision=""), size=100)
            elif known.result == answer:
                self.seen["remembered"] += 1
            else:
                self.wrong.append((question, known.result, answer))


def chosen(chance: random.Random) -> tuple[tuple[str, ...], str]:
    return tuple(chance.sample(sorted(READERS), 2)), chance.choice([*DATA])


def test_with_the_memo_and_without_it_the_answers_are_the_same(sets: Any, capsys: pytest.CaptureFixture[str]) -> None:
    chance, tally = random.Random(SEED), Tally()  # noqa: S311 - repeatable
    each = 500
    for number in range(examples.examples(10, deep=400)):
        readers, data = chosen(chance)
        if number < len(DATA):
            data = [*DATA][number]
        reads, decide = sets(readers, data)
        assert reads is not None
        questions = asked(chance, each)
        asyncio.run(tally.play(reads, questions, decide(questions)))
    with capsys.disabled():
        sys.stdout.write(f"\nmemo of answers: {dict(tally.seen)}, {len(tally.wrong)} wrong\n")
    assert tally.wrong == []
    assert tally.seen["remembered"] > tally.seen["asked"] / 5, "it remembers something"


@pytest.mark.parametrize("part", sorted(known_platform.READS), ids=".".join)
def test_no_part_that_the_platform_reads_could_be_left_out(plain: Any, part: tuple[str, ...]) -> None:
    reads, decide = plain
    questions = [varied for one in golden()[::2] for varied in variants(one, part)]
    answers = decide(questions)
    poorer = replace(reads, platform=reads.platform - {part}, owners=dict.fromkeys(reads.owners, frozenset()))
    assert len(wrong(poorer, questions, answers)) > 0
    assert wrong(reads, questions, answers) == []


def test_the_time_could_not_be_left_out_where_hours_are_closed(sets: Any) -> None:
    reads, decide = sets(("nothing",), "closed hours")
    poorer = replace(reads, platform=reads.platform - {TIME})
    questions = [varied for one in golden()[::2] for varied in variants(one, TIME)]
    assert len(wrong(poorer, questions, decide(questions))) > 0
    assert wrong(reads, questions, decide(questions)) == []


@pytest.mark.parametrize(("reader", "part"), sorted(READ_AT.items()))
def test_what_a_team_reads_could_not_be_left_out(sets: Any, reader: str, part: tuple[str, ...]) -> None:
    reads, decide = sets((reader,), "as it is")
    poorer = replace(reads, platform=reads.platform - {part}, owners={**reads.owners, "analytics": frozenset()})
    questions = [varied for one in golden()[::2] for varied in variants(one, part)]
    answers = decide(questions)
    assert len(wrong(poorer, questions, answers)) > 0
    assert wrong(reads, questions, answers) == []


def wrong(reads: QuestionReads, questions: list[Any], answers: list[Any]) -> list[Any]:
    tally = Tally()
    asyncio.run(tally.play(reads, questions, answers))
    return tally.wrong


def variants(question: dict[str, Any], part: tuple[str, ...]) -> list[dict[str, Any]]:
    """The question, and with what others have at the part."""
    found = [question]
    values = {json.dumps(value): value for value in (*ODD.get(part, []), *(at(one, part) for one in golden()))}
    for value in [*values.values()][:MOST_VALUES]:
        other = copy.deepcopy(question)
        put(other, part, value)
        found.append(other)
    return found


def test_other_rules_of_the_platform_are_known_nothing_of(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    PolicySet.read(ROOT / "policies").write(folder)
    assert question_reads(PolicySet.read(folder), {}) is not None
    with (folder / "platform" / "views.rego").open("a") as file:
        file.write("# another\n")
    assert question_reads(PolicySet.read(folder), {}) is None


def test_where_a_builtin_answers_differently_each_time_nothing_is_known(tmp_path: Path) -> None:
    folder = tmp_path / "policies"
    PolicySet.read(ROOT / "policies").write(folder)
    file = folder / "capabilities.json"
    capabilities = json.loads(file.read_text())  # noqa: TID251 - made of the repository's own file
    capabilities["builtins"].append({"name": "time.now_ns", "decl": {}, "nondeterministic": True})
    file.write_text(json.dumps(capabilities))
    assert question_reads(PolicySet.read(folder), {}) is None


@pytest.mark.parametrize(
    "text", ["allow := data.mcp.platform.windows", "allow := data.mcp", "allow := data", "x := input"]
)
def test_a_team_that_names_what_is_not_its_own_reads_everything(opa_binary: str, text: str) -> None:
    policies = PolicySet.read(ROOT / "policies")
    [tree] = opa_eval(opa_binary, PARSE, {"x.rego": f"package mcp.teams.analytics\n\n{text}\n"}).values()
    reads = question_reads(policies, {"analytics": rules_of(tree)})
    assert reads is not None
    assert reads.owners["analytics"] == EVERYTHING
