"""What the rules of a package can read: what is not listed never changes an answer. The judge of that is OPA."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from sidecar.authoring.checking import reads_document
from sidecar.policyset.folder import PolicySet
from sidecar.policyset.read_list import EVERYTHING, ReadList, rules_of, widest, written
from sidecar.policyset.syntax_tree import RegoPath
from sidecar.policyset.workshop import workshop
from tests.examples import examples
from tests.policyset.opa_eval import PARSE, opa_eval

pytestmark = pytest.mark.real

Write = Callable[[str, str], Path]

HEAD = "package mcp.teams.red\n\n"
RED = ("mcp", "teams", "red")


def read_list(opa_binary: str, *modules: str) -> ReadList:
    trees = opa_eval(opa_binary, PARSE, {f"{number}.rego": text for number, text in enumerate(modules)})
    assert len(trees) == len(modules), modules
    return ReadList(rules=tuple(rule for tree in trees.values() for rule in rules_of(tree)))


# --- what is read -----------------------------------------------------------------------------------------------------

LIB = """package mcp.lib

import data.mcp.platform.names

reads if input.access.kind

on(x) if names.f(x, input.d)
"""
NAMES = "package mcp.platform.names\n\nf(x, y) if x == y\n\ng := input.g\n"

READS = {
    "a part": ("p := input.a.b", "a.b"),
    "a part, by quoted steps": ('p := input["a"]["b"]', "a.b"),
    "nothing": ('p := {"input": "input.a"}', ""),
    "what lies above another part": ("p := [input.a.b, input.a]", "a"),
    "no further than a step from elsewhere": ("p := input.a[input.x].b", "a x"),
    "no further than a number": ("p := input.a[0].b", "a"),
    "no further than a wildcard": ("p := input.a[_].b", "a"),
    "an alias, whole": ("p if {\n\ts := input.a\n\ts.b\n}", "a"),
    "an import, by its steps": ("import input.a as s\n\np := s.b", "a.b"),
    "an import by its own name": ("import input.a.b\n\np := b.c", "a.b.c"),
    "a bare import": ("import input.a.b\n\np := count(b)", "a.b"),
    "an import of everything": ("import input as i\n\np := i.a", "a"),
    "an argument, whole": ("f(x) := x.b\n\np := f(input.a)", "a"),
    "what a function names": ("f(x) := input.b\n\np := f(1)", "b"),
    "what a default names": ("default p := 1\n\np := 2 if input.a\nelse := input.b", "a b"),
    "heads, keys and sets": ("p[input.a] := 1\n\nq contains input.b\n\nr := {input.c: {input.d}}", "a b c d"),
    "comprehensions": ("p := {x: [y | y := input.b[x]] | some x in input.a}", "a b"),
    "every": ("p if {\n\tevery x in input.a {\n\t\tx == input.b.c\n\t}\n}", "a b.c"),
    "some": ("p if {\n\tsome x in input.a\n\tx\n}", "a"),
    "a text": ('p := $"x {input.a.b} y"', "a.b"),
    "not": ("p if not input.a.b", "a.b"),
    "a step of a call": ('p := object.get({}, "a", {})[input.b]', "b"),
    "another rule": ("p := q\n\nq := r\n\nr := input.a", "a"),
    "a rule whose value has the name in it": ('p := q.x.y\n\nq := {"x": {"y": input.a}}', "a"),
    "a rule of a package below": ("import data.mcp.teams.red.more\n\np := more.x", "m"),
    "the library": ("import data.mcp.lib\n\np if lib.on(input.a)", "a d"),
    "the library, in part": ("import data.mcp.lib as l\n\np if l.reads", "access.kind"),
    "the library, all of it": ("p := count(data.mcp.lib)", "access.kind d"),
    "the library, by a name from the input": ("p := data.mcp.lib[input.x]", "access.kind d x"),
    "a function of the library": ("import data.mcp.lib.on\n\np if on(1)", "d"),
    "a replacement of everything": ("p if q with input as input.y\n\nq := input.x", "x y"),
    "a replacement": ("p if q with input.x as input.y\n\nq := input.x", "x y"),
}

EVERYTHING_IS_READ = {
    "a value": "p := input",
    "an argument": "p := count(input)",
    "an alias": "p if {\n\tx := input\n\tx.a\n}",
    "a walk": "p contains x if walk(input, [_, x])",
    "object.get": 'p := object.get(input, "a", 1)',
    "json.marshal": "p := json.marshal(input)",
    "a step from elsewhere": "p := input[input.a]",
    "a wildcard": "p := input[_].a",
    "a number": "p := input[0]",
    "an import": "import input\n\np := count(input)",
    "an import by another name": "import input as i\n\np := count(i)",
    "in a set": "p := {x | some x in [input]}",
    "in a text": 'p := $"{input}"',
    "in a head": "p[input] := 1",
    "in a rule that is asked": "p := q\n\nq := count(input)",
    "as what replaces": "p if q with input as object.union(input, {})\n\nq := 1",
}


@pytest.mark.parametrize("name", READS)
def test_what_is_named_is_read(opa_binary: str, name: str) -> None:
    text, parts = READS[name]
    more = "package mcp.teams.red.more\n\nx := input.m\n"
    beside = [more] if "more" in text else []
    found = read_list(opa_binary, HEAD + text + "\n", LIB, NAMES, *beside).of(RED)
    assert found == {tuple(part.split(".")) for part in parts.split()}


@pytest.mark.parametrize("name", EVERYTHING_IS_READ)
def test_input_that_is_not_spelled_out_is_everything(opa_binary: str, name: str) -> None:
    found = read_list(opa_binary, HEAD + EVERYTHING_IS_READ[name] + "\n", LIB, NAMES)
    assert found.of(RED) == EVERYTHING
    assert found.of(("mcp", "lib", "reads")) == {("access", "kind")}, "and nobody else's"


PACKAGE_P = [{"type": "var", "value": "data"}, {"type": "string", "value": "p"}]


@pytest.mark.parametrize(
    "tree",
    [
        *(None, [], {}, {"package": {"path": []}}),
        {
            "package": {"path": [{"type": "var", "value": "data"}, {"type": "string", "value": "p"}]},
            "rules": [{"lhs": 1}],
        },
        {"package": {"path": PACKAGE_P}, "macros": []},
    ],
)
def test_what_is_not_known_reads_everything(tree: Any) -> None:
    assert ReadList(rules=tuple(rules_of(tree))).of(("p",)) == EVERYTHING


def test_parts_are_written_as_rules_write_them() -> None:
    parts = [(), ("a", "b"), ("a", "b c"), ('b"\\',), ("é",)]
    texts = ["input", "input.a.b", 'input.a["b c"]', 'input["b\\"\\\\"]', 'input["é"]']
    assert [written(part) for part in parts] == texts


def test_what_lies_below_another_part_is_not_listed() -> None:
    assert widest([("a", "b"), ("a",), ("ab",), ("a", "b", "c"), ("c", "a")]) == {("a",), ("ab",), ("c", "a")}


async def test_a_module_that_does_not_parse_reads_everything(policies: Path, team_file: Write, opa_binary: str) -> None:
    async with workshop(opa_binary) as checker:
        found = reads_document(await checker.reads(PolicySet.read(policies)))
        assert found["mcp.teams.red"] == ["input.access.kind", "input.subject.groups"]
        assert found["mcp.teams.blue"] == ["input.access.collection", "input.access.kind", "input.subject.groups"]
        team_file("more.rego", HEAD + "p := input\n")
        found = reads_document(await checker.reads(PolicySet.read(policies)))
        assert found["mcp.teams.red"] == "everything"
        assert found["mcp.teams.blue"] != "everything"
        team_file("more.rego", HEAD + "p := {\n")
        found = reads_document(await checker.reads(PolicySet.read(policies)))
        assert found["mcp.teams.blue"] == "everything"


# --- is it sound ------------------------------------------------------------------------------------------------------

NAMES_OF_PARTS = ("a", "b", "c", "d")
VALUES = st.recursive(
    st.sampled_from([*NAMES_OF_PARTS, 0, 1, True, None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES_OF_PARTS), inner, max_size=4),
    max_leaves=12,
)
QUESTIONS = st.dictionaries(st.sampled_from(NAMES_OF_PARTS), VALUES, max_size=4)

STEPS = st.sampled_from([*(f".{name}" for name in NAMES_OF_PARTS), '["a"]', '["b"]', "[0]", "[_]"])
PARTS = st.builds(
    "input.{}{}".format, st.sampled_from(NAMES_OF_PARTS), st.lists(STEPS, max_size=2).map("".join)
) | st.sampled_from(["s", "s.b", "t.a", "t", "s.a.b"])
"""With ``import input.a as s`` and ``import input.b.c as t``."""


WIDE = st.sampled_from(["input", "[x | x := input[input.a]]", "json.marshal(input)", "[x | x := input[_].b]"])
RARELY = st.sampled_from([True, *[False] * 19])


def terms(rules: list[str], functions: list[str]) -> st.SearchStrategy[str]:
    """Terms over the question, over rules, and over functions; nested as people nest them and as they do not."""
    leaves = PARTS | st.sampled_from(["1", *rules, *rules])

    def nest(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        # OPA takes the result of object.get for anything, so what is done with it is of no wrong type.
        some = st.builds("object.get({{}}, 0, {})".format, inner)
        return st.one_of(
            st.builds("[{}, {}]".format, inner, inner),
            st.builds("{{{}: {}}}".format, inner, inner),
            st.builds("[y | x := {}; y := x.b]".format, some),
            st.builds("[y | some x in {}; y := [x, {}]]".format, some, inner),
            st.builds("{{k: v | some k, v in {}}}".format, some),
            st.builds("[x | walk({}, [_, x])]".format, inner),
            st.builds("[1 | not {}]".format, some),
            st.builds("[1 | every x in {} {{ x != {} }}]".format, some, inner),
            st.builds("object.get({}, {}, {})".format, some, inner, inner),
            st.builds("json.marshal({})".format, inner),
            st.builds("[x | x := {}[_]]".format, PARTS),
            st.builds("[x | y := {}; x := {}[y].a]".format, some, PARTS),
            st.builds('$"<{{{}}}>"'.format, PARTS),
            *([st.builds("{}({})".format, st.sampled_from(functions), some)] if functions else []),
            *([st.builds("[x | x := {} with input as {}]".format, st.sampled_from(rules), inner)] if rules else []),
            *([st.builds("[x | x := {} with input.a as {}]".format, st.sampled_from(rules), inner)] if rules else []),
        )

    return st.recursive(leaves, nest, max_leaves=4)


PLACES = {
    "mcp.lib": "lib",
    "mcp.teams.red.more": "more",
    "mcp.teams.red": "",
}
"""Packages from the inside out, and by which name the outermost one knows them."""


@st.composite
def policy_sets(draw: st.DrawFn) -> list[str]:
    """Modules of three packages, in which each rule uses what was written before it."""
    rules: list[str] = []
    functions: list[str] = []
    modules = []
    for package in PLACES:
        lines = [f"package {package}", "import input.a as s", "import input.b.c as t"]
        lines += ["import data.mcp.lib"] * (package != "mcp.lib")
        own_rules: list[str] = []
        own_functions: list[str] = []
        for number in range(draw(st.integers(1, 3))):
            name = f"r{number}"
            value = draw(WIDE if draw(RARELY) else terms([*rules, *own_rules], [*functions, *own_functions]))
            condition = draw(st.none() | terms([*rules, *own_rules], []))
            match draw(st.sampled_from(["complete", "set", "object", "function", "else"])):
                case "set":
                    lines.append(f"{name} contains x if {{ x := {value} }}")
                case "object":
                    lines.append(f"{name}[x] := y if {{ x := {value}; y := {condition or 1} }}")
                case "function":
                    name = f"f{number}"
                    lines.append(f"{name}(x) := [x.b, {value}]")
                case "else":
                    lines.append(f"{name} := 1 if {{ {condition or 1} }}\nelse := {value}")
                case _:
                    lines.append(f"{name} := v if {{ v := {value}; {condition or 1} }}")
            (own_functions if name.startswith("f") else own_rules).append(name)
        modules.append("\n\n".join(lines) + "\n")
        known = [f"data.{package}.", *(["lib."] if package == "mcp.lib" else [])]
        rules = [*rules, *(prefix + name for prefix in known[:1] for name in own_rules)]
        functions = [*functions, *(prefix + name for prefix in known[:1] for name in own_functions)]
        rules += [f"data.{package}"] * (package != "mcp.teams.red")
    return modules


def changed(question: Any, other: Any, reads: frozenset[RegoPath]) -> Any:
    """Another question, in which what is read is as it was."""
    mixed = json.loads(json.dumps(other))  # noqa: TID251 - a copy
    for part in reads:
        found, there = question, True
        for step in part:
            there = there and isinstance(found, dict) and step in found
            found = found[step] if there else None
        place: Any = mixed
        if not part:
            return question
        for step in part[:-1]:
            if there and not isinstance(place.get(step), dict):
                place[step] = {}
            place = place.get(step)
            if not isinstance(place, dict):
                break
        if isinstance(place, dict):
            place.pop(part[-1], None)
            if there:
                place[part[-1]] = found
    return mixed


@settings(max_examples=examples(deep=1_000), suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(policy_sets(), st.lists(st.tuples(QUESTIONS, QUESTIONS), min_size=6, max_size=6))
def test_what_is_not_listed_never_changes_an_answer(
    opa_binary: str, tmp_path_factory: pytest.TempPathFactory, modules: list[str], pairs: list[tuple[Any, Any]]
) -> None:
    reads = read_list(opa_binary, *modules).of(RED)
    folder = tmp_path_factory.mktemp("set")
    for number, text in enumerate(modules):
        (folder / f"{number}.rego").write_text(text)
    questions = [one for base, other in pairs for one in (base, changed(base, other, reads))]
    query = "[answer | some question in input; answer := [x | x := data.mcp.teams.red with input as question]]"
    answers = opa_eval(opa_binary, query, questions, "-d", str(folder))
    assume(answers is not None)
    event("everything is read" if reads == EVERYTHING else "parts are read")
    event(f"{len({msgspec.json.encode(answer) for answer in answers})} answers")
    for base, other in zip(range(0, len(answers), 2), range(1, len(answers), 2), strict=True):
        assert answers[base] == answers[other], (reads, questions[base], questions[other])


# --- is it found through every chain ----------------------------------------------------------------------------------

PACKAGES = ("mcp.lib", "mcp.lib.more", "mcp.platform.names", "mcp.teams.red.more", "mcp.teams.red")
LEAVES = (
    "input.{0}.{1}",
    'input["{0}"]["{1}"]',
    "s_{0}.{1}",
    "t_{0}_{1}",
    "i.{0}.{1}",
    'object.get(input.{0}, "{1}", 0)',
    '[x | some k, x in input.{0}; k == "{1}"]',
    '$"{{input.{0}.{1}}}"',
    "[x | y := input.{0}; x := y.{1}]",
    '[1 | {{"after": 1}}[input.{0}.{1}]]',
    '[1 | k := {{"after": 1}}; k[input.{0}.{1}]]',
)
"""What reads one part, by its two names. ``s``, ``t`` and ``i`` are what imports make of the input."""
FORMS = {
    "rule": ("r{0} := {1}", "r{0}"),
    "rule below a name": ("r{0}.x.y := {1}", "r{0}.x.y"),
    "rule below a name, from above": ("r{0}.x.y := {1}", "r{0}"),
    "rule below a name, by any step": ("r{0}.x.y := {1}", "r{0}[_].y"),
    "set": ("r{0} contains x if {{ x := {1} }}", "r{0}"),
    "part of a value": ('r{0} := {{"x": {{"y": {1}}}}}', "r{0}.x.y"),
    "what replaces a part": ("r{0} := [x | x := input.z with input.z as {1}]", "r{0}"),
    "what replaces everything": ('r{0} := [x | x := input.z with input as {{"z": {1}}}]', "r{0}"),
    "object": ("r{0}[k] := v if {{ k := 1; v := {1} }}", "r{0}"),
    "keys": ('r{0}[k] := 1 if {{ k := sprintf("%v", [{1}]) }}', "r{0}"),
    "else": ("r{0} := 1 if {{ 1 == 2 }} else := {1}", "r{0}"),
    "default": ("default r{0} := 0\n\nr{0} := v if {{ v := {1} }}", "r{0}"),
    "function": ("r{0}(_) := {1}", "r{0}(1)"),
    "argument": ("r{0}(x) := [x]", "r{0}({1})"),
    "comprehension": ("r{0} := {{x: [y | y := {1}] | some x in [1, 2]}}", "r{0}"),
}
"""How a rule is written, by its number and its value, and how that value is had from it."""


@st.composite
def chains(draw: st.DrawFn) -> tuple[RegoPath, list[str]]:
    """A part of the question, and modules in which a rule of the team reads it, through up to four others."""
    first, second = draw(st.sampled_from(NAMES_OF_PARTS)), draw(st.sampled_from(NAMES_OF_PARTS))
    imports: dict[str, set[str]] = {package: set() for package in PACKAGES}
    rules: dict[str, list[str]] = {package: [] for package in PACKAGES}
    at = draw(st.sampled_from(PACKAGES))
    value = draw(st.sampled_from(LEAVES)).format(first, second)
    imports[at] |= {"import input as i", f"import input.{first} as s_{first}"}
    imports[at] |= {f"import input.{first}.{second} as t_{first}_{second}"}
    for number in range(draw(st.integers(1, 4))):
        form = draw(st.sampled_from(sorted(FORMS)))
        text, name = FORMS[form]
        home = draw(st.sampled_from(PACKAGES)) if form == "argument" else at
        rules[home].append(text.format(number, value))
        user = draw(st.sampled_from(PACKAGES)) if form != "argument" else at
        called = draw(naming(home, user, f"r{number}", imports[user]))
        value = called + name.format(number, value).removeprefix(f"r{number}")
        at = user
    if at != "mcp.teams.red":
        rules[at].append(f"last := {value}")
        value = draw(naming(at, "mcp.teams.red", "last", imports["mcp.teams.red"]))
    rules["mcp.teams.red"].append(f"p := [1 | {value}]\n\nq := [x | x := {value}]")
    head = {package: "\n".join([f"package {package}", *sorted(imports[package])]) for package in PACKAGES}
    return (first, second), ["\n\n".join([head[package], *rules[package]]) + "\n" for package in PACKAGES]


@st.composite
def naming(draw: st.DrawFn, home: str, user: str, rule: str, imports: set[str]) -> str:
    """How a module of one package names a rule of another; what it has to import goes to its imports."""
    if home == user and draw(st.booleans()):
        return rule
    match draw(st.integers(0, 4)):
        case 0 if home != "mcp.teams.red.more":  # two packages end in this name
            imports.add(f"import data.{home}")
            return f"{home.rpartition('.')[2]}.{rule}"
        case 1:
            alias = "a_" + home.replace(".", "_")
            imports.add(f"import data.{home} as {alias}")
            return f"{alias}.{rule}"
        case 2:
            imports.add(f"import data.{home}.{rule} as n_{rule}")
            return f"n_{rule}"
        case 3 if home != user:
            imports.add(f"import data.{home}.{rule}")
            return rule
        case _:
            return f"data.{home}.{rule}"


def everywhere(value: str) -> dict[str, Any]:
    """A question that has every part, each with a value of its own."""
    return {one: {other: f"{value} {one} {other}" for other in NAMES_OF_PARTS} for one in NAMES_OF_PARTS}


@settings(max_examples=examples(deep=1_000), suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(chains())
def test_a_part_that_is_read_through_any_chain_is_listed(
    opa_binary: str, tmp_path_factory: pytest.TempPathFactory, chain: tuple[RegoPath, list[str]]
) -> None:
    part, modules = chain
    folder = tmp_path_factory.mktemp("set")
    for number, text in enumerate(modules):
        (folder / f"{number}.rego").write_text(text)
    before, after = everywhere("before"), everywhere("before")
    after[part[0]][part[1]] = "after"
    query = "[answer | some question in input; answer := data.mcp.teams.red.q with input as question]"
    answers = opa_eval(opa_binary, query, [before, after], "-d", str(folder))
    assume(answers is not None)
    assert len(answers) == len([before, after])
    assert answers[0] != answers[1], "the chain does not lead to the part"
    reads = read_list(opa_binary, *modules).of(RED)
    event("everything is read" if reads == EVERYTHING else "parts are read")
    assert any(part[:length] in reads for length in range(len(part) + 1)), (part, reads)
