"""Tests that can fail: read from the syntax tree, each rule with a planted violation and its near miss beside it.

Three ways in which a test passes without having looked: no check is reached (each stands under a condition, or in a
loop that may have nothing to go through), there is no check at all, or what is asserted is true whatever happens.
"""

import ast
from collections.abc import Iterable, Iterator, Sequence

import pytest

from tests.architecture.syntax import trees

Function = ast.FunctionDef | ast.AsyncFunctionDef

ALWAYS_TRUE_CALLS = frozenset({"free_port", "Path", "mkdtemp", "uuid4"})
"""What these return is true whatever happened."""

CHECKING_CALLS = frozenset({"pytest.fail", "pytest.raises", "pytest.warns", "asyncio.timeout", "asyncio.wait_for"})
"""Calls that end a test which goes another way."""

REFUSED_OR_READ = "any input is refused or read; other tests hold what must be read, this one what is read by chance"

CONDITIONAL: dict[str, str] = {
    "authoring/test_replay_reading.py::test_an_arbitrary_question_is_read_as_it_stands_or_refused": REFUSED_OR_READ,
    "edge/test_admission.py::test_any_accept_header_is_read_or_refused": REFUSED_OR_READ,
    "edge/test_admission.py::test_whatever_is_taken_from_authorization_was_its_one_credential": REFUSED_OR_READ,
    "edge/test_connections.py::test_the_bounds_hold_whatever_happens": "after each step, of which there may be none",
    "identity/test_challenge.py::test_a_challenge_is_one_header_line_or_an_error": REFUSED_OR_READ,
    "identity/test_claims.py::test_any_claims_are_an_identity_or_a_rejection": REFUSED_OR_READ,
    "identity/test_resource_uri.py::test_any_text_is_a_uri_as_written_or_refused": REFUSED_OR_READ,
    "mcp/test_envelope.py::test_an_id_is_what_every_reader_of_the_body_reads": REFUSED_OR_READ,
    "mcp/test_jsonrpc_decoding.py::test_any_bytes_are_a_message_or_a_message_error": REFUSED_OR_READ,
    "oauth/test_jwt_verification.py::test_a_changed_character_never_changes_who_is_speaking": REFUSED_OR_READ,
    "oauth/test_jwt_verification.py::test_strict_objects_survive_only_as_objects": REFUSED_OR_READ,
    "oauth/test_jwt_verification.py::test_whatever_a_signed_claim_holds_the_answer_is_an_identity_or_a_refusal": (
        REFUSED_OR_READ
    ),
    "opa/test_external_inventory.py::test_any_listing_is_judged_or_refused": REFUSED_OR_READ,
    "policy/test_verdicts.py::test_any_one_change_is_read_as_what_it_says_or_refused": REFUSED_OR_READ,
    "settings/test_settings_sources.py::test_no_address_however_odd_ends_in_another_error": REFUSED_OR_READ,
    "soundness/test_wire_messages.py::test_arbitrary_bytes_are_read_or_refused_and_nothing_else": REFUSED_OR_READ,
}
"""Tests, below ``tests/``, whose checks are all conditional, and why each is so."""

NOTHING_IS_RAISED: frozenset[str] = frozenset(
    {
        "audit/test_audit_canonical.py::test_a_text_full_of_what_looks_like_numbers_is_read_once",
        "authoring/test_replay_reading.py::test_a_chain_of_arbitrary_members_never_raises",
        "authoring/test_replay_reading.py::test_an_arbitrary_record_is_read_or_refused",
        "authoring/test_replay_reading.py::test_arbitrary_lines_never_raise",
        "commands/test_derivation_properties.py::test_every_stage_with_any_value_is_derived_or_refused",
        "edge/test_admission.py::test_a_client_that_can_read_both_answers_is_served",
        "edge/test_admission.py::test_a_request_without_an_origin_is_let_in",
        "edge/test_admission.py::test_an_allowed_origin_is_let_in",
        "edge/test_admission.py::test_json_in_utf8_is_taken",
        "edge/test_admission.py::test_the_endpoints_own_hosts_are_served",
        "edge/test_admission.py::test_two_copies_of_another_header_are_of_no_interest",
        "mcp/test_jsonrpc_decoding.py::test_bytes_put_into_a_message_never_break_out_of_the_taxonomy",
        "mcp/test_tools_params.py::test_a_list_without_parameters_is_fine",
        "oauth/test_jwt_verification.py::test_any_text_is_refused_or_read_and_nothing_else",
        "opa/test_deadline.py::test_what_comes_in_time_is_not",
        "policy/test_verdicts.py::test_a_selftest_with_all_known_answers_is_accepted",
        "policy/test_verdicts.py::test_the_examples_are_of_the_schema",
        "policy/test_visibility_residual.py::test_anything_at_all_is_read_or_refused",
        "policyset/test_refused_at_load.py::test_any_tree_is_judged_without_an_error",
        "project/test_parts.py::test_a_connection_on_loopback_is_not_refused",
        "settings/test_settings_sources.py::test_an_outside_opa_needs_neither_program_nor_policies",
        "settings/test_settings_sources.py::test_settings_whose_files_are_there_are_fine",
        "store/test_audit_file.py::test_a_file_that_others_may_read_is",
        "upstream/test_http_upstream.py::test_proxies_of_the_environment_are_not_used",
    }
)
"""Tests without a check of their own: what they call raises when it is refused, and here nothing may be."""


SKIPS: dict[str, tuple[str, ...]] = {
    "tests/attacks/test_evidence_and_failure.py": ("/proc and prlimit are Linux's",),
    "tests/integration/test_kill_switch.py": ("only root can be somebody else",),
    "tests/demo/test_demo.py": ("it needs an empty database, and a real one that was named is shared",),
    "tests/opa/test_managed_opa.py": ("PR_SET_PDEATHSIG is Linux's",),
    "tests/programs.py": ("a real MongoDB that is not named", "a program that is not installed"),
    "tests/project/test_programs.py": ("it looks at how others are skipped",),
    "tests/system/test_child_processes.py": ("PR_SET_PDEATHSIG is Linux's",),
    "tests/upstream/test_stdio_faults.py": ("/proc is Linux's", "/proc is Linux's", "PR_SET_PDEATHSIG is Linux's"),
    "tests/views/test_mongodb_views.py": ("some databases refuse the view that it is about",),
}
"""Files with tests that leave themselves out, and why each may."""


def called(node: ast.AST) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def checks_in(node: ast.AST, helpers: frozenset[str]) -> bool:
    """Whether an expression or a statement without a body of its own is, or calls, a check."""
    return isinstance(node, ast.Assert) or any(
        (name := called(child)) in CHECKING_CALLS or name in helpers for child in ast.walk(node)
    )


def checking_helpers(trees: Iterable[ast.Module]) -> frozenset[str]:
    """Names of functions of modules that check on every way through them, themselves or by others of these.

    Methods do not count: their names say too little. A fixture that hands out such a function counts by its name.
    """
    functions = [
        (outer.name, inner)
        for tree in trees
        for outer in tree.body
        if isinstance(outer, Function) and not outer.name.startswith("test")
        for inner in (outer, *(each for each in outer.body if isinstance(each, Function)))
    ]
    found: frozenset[str] = frozenset()
    while True:
        more = frozenset(name for name, function in functions if Paths(found).sure(function.body))
        if more == found:
            return found
        found = more


SAME_LENGTH = frozenset({"enumerate", "sorted", "list", "tuple", "set", "reversed", "zip"})


def never_empty(iterable: ast.expr, known: frozenset[str]) -> bool:
    """Whether a loop over this runs at least once: literals, constants, and what is made of them one to one."""
    match iterable:
        case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
            found = any(not isinstance(each, ast.Starred) or never_empty(each.value, known) for each in elements)
        case ast.Dict(keys=several) | ast.Constant(value=str() | bytes() as several):
            found = bool(several)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            found = name[:1].isupper() or name in known
        case ast.Call(func=ast.Name(id="range"), args=bounds):
            found = all(isinstance(each, ast.Constant | ast.Name | ast.BinOp) for each in bounds)
        case ast.Call(func=ast.Name(id=name), args=[*inners]) if name in SAME_LENGTH:
            found = any(never_empty(inner, known) for inner in inners)
        case ast.Call(func=ast.Attribute(value=inner, attr="items" | "values" | "keys")) | ast.Subscript(value=inner):
            found = never_empty(inner, known)
        case ast.ListComp(generators=[one]) | ast.DictComp(generators=[one]) | ast.SetComp(generators=[one]):
            found = not one.ifs and never_empty(one.iter, known)
        case _:
            found = False
    return found


class Paths:
    """Reads one test and tells whether some check is reached on every way through it."""

    def __init__(self, helpers: frozenset[str]) -> None:
        self._helpers = helpers
        self._known: frozenset[str] = frozenset()
        self.some = False
        """There is a check, reached or not."""

    def sure(self, body: Sequence[ast.stmt]) -> bool:
        """Whether a check is reached in this block before it can be left without one."""
        return any(self._certain(statement) for statement in self._until_left(body))

    def _until_left(self, body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
        left = False
        for statement in body:
            self._note(statement)
            if left:
                self._certain(statement)  # for ``some``
                continue
            yield statement
            left = self._leaves(statement)

    def _note(self, statement: ast.stmt) -> None:
        """Remember names of which a check or an assignment says that they are not empty."""
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if never_empty(value, self._known):
                self._known |= {name}
            case ast.Assert(test=ast.Name(id=name)):
                self._known |= {name}
            case ast.Assert(test=ast.Compare(left=ast.Call(func=ast.Name(id="len"), args=[ast.Name(id=name)]))):
                self._known |= {name}
            case ast.Expr(value=ast.Call(func=ast.Name(id="assume"), args=[ast.Name(id=name)])):
                self._known |= {name}
            case _:
                pass

    def _leaves(self, statement: ast.stmt) -> bool:
        """Whether the test can end, or the loop go on, within this statement without a check before."""
        match statement:
            case ast.Return() | ast.Continue() | ast.Break():
                return True
            case ast.If() | ast.Try() | ast.Match() | ast.With() | ast.AsyncWith():
                return any(
                    self._leaves(inner) and not self._certain_before(block, inner)
                    for block in blocks(statement)
                    for inner in block
                )
            case _:
                return False

    def _certain_before(self, block: Sequence[ast.stmt], last: ast.stmt) -> bool:
        return any(self._certain(each) for each in block[: list(block).index(last)])

    def _certain(self, statement: ast.stmt) -> bool:
        match statement:
            case ast.With(items=items) | ast.AsyncWith(items=items):
                opened = any(checks_in(item.context_expr, self._helpers) for item in items)
                self.some |= opened
                return self.sure(statement.body) or opened
            case ast.If() | ast.Match():
                branches = [self.sure(block) for block in blocks(statement)]
                return all(branches) and (isinstance(statement, ast.Match) or bool(statement.orelse))
            case ast.For(iter=iterable) | ast.AsyncFor(iter=iterable):
                return self.sure(statement.body) and never_empty(iterable, self._known)
            case ast.While():
                self.sure(statement.body)
                return checks_in(statement.test, self._helpers)
            case ast.Try():
                body, last = self.sure([*statement.body, *statement.orelse]), self.sure(statement.finalbody)
                caught = [self.sure(handler.body) for handler in statement.handlers]
                return last or (body and all(caught))
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                return False
            case _:
                found = checks_in(statement, self._helpers)
                self.some |= found
                return found


def blocks(statement: ast.stmt) -> list[list[ast.stmt]]:
    """The blocks of a compound statement."""
    match statement:
        case ast.If(body=body, orelse=other):
            return [body, other] if other else [body]
        case ast.Try():
            return [statement.body, *(handler.body for handler in statement.handlers), statement.orelse]
        case ast.Match(cases=cases):
            return [case.body for case in cases]
        case ast.With(body=body) | ast.AsyncWith(body=body):
            return [body]
        case _:
            return []


def functions_of(tree: ast.AST) -> Iterator[Function]:
    yield from (node for node in ast.walk(tree) if isinstance(node, Function) and node.name.startswith("test"))


def without_a_sure_check(tree: ast.AST, helpers: frozenset[str]) -> Iterator[tuple[str, bool]]:
    """Names of tests in which no check is reached for sure, and whether there is one at all."""
    for test in functions_of(tree):
        paths = Paths(helpers)
        if not paths.sure(test.body):
            yield test.name, paths.some


def always_true(tree: ast.AST) -> Iterator[int]:
    """Lines of asserts of what is true whatever happened: literals, a thing and itself, what a call never denies."""
    for test in functions_of(tree):
        bound = {name: value for node in ast.walk(test) for name, value in bindings(node)}
        for node in ast.walk(test):
            if isinstance(node, ast.Assert) and _always(node.test, bound):
                yield node.lineno


def bindings(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    match node:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.NamedExpr(target=ast.Name(id=name), value=value)
        ):
            yield name, value
        case _:
            pass


def _always(tested: ast.expr, bound: dict[str, ast.expr]) -> bool:
    match tested:
        case ast.Constant(value=value):
            return bool(value)
        case ast.Tuple(elts=several) | ast.List(elts=several) | ast.Dict(keys=several) | ast.JoinedStr(values=several):
            return any(not isinstance(each, ast.Starred) for each in several)
        case ast.Lambda():
            return True
        case ast.Call():
            return called(tested).rpartition(".")[2] in ALWAYS_TRUE_CALLS
        case ast.Name(id=name):
            return name in bound and isinstance(bound[name], ast.Call) and _always(bound[name], {})
        case ast.Compare(left=left, ops=[ast.Eq() | ast.Is() | ast.LtE() | ast.GtE()], comparators=[right]):
            calls = any(isinstance(node, ast.Call) for node in ast.walk(left))
            return not calls and ast.dump(left) == ast.dump(right)
        case _:
            return False


def skips(tree: ast.AST) -> Iterator[str]:
    """What leaves a test out of a run by itself."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="pytest"), attr="skip" | "importorskip" as name):
                yield name
            case ast.Attribute(value=ast.Attribute(attr="mark"), attr="skip" | "skipif" as name):
                yield name
            case _:
                pass


# --- the tests --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unsure() -> dict[str, bool]:
    """The tests without a check on every way through them; whether they have one at all."""
    helpers = checking_helpers(trees().values())
    return {
        f"{file.removeprefix('tests/')}::{name}": some
        for file, tree in trees().items()
        for name, some in without_a_sure_check(tree, helpers)
    }


def test_a_test_reaches_a_check_on_every_way_through_it(unsure: dict[str, bool]) -> None:
    assert {name for name, some in unsure.items() if some} == CONDITIONAL.keys()


def test_a_test_without_a_check_is_one_in_which_nothing_may_be_raised(unsure: dict[str, bool]) -> None:
    assert {name for name, some in unsure.items() if not some} == NOTHING_IS_RAISED


def test_nothing_is_asserted_that_is_true_whatever_happens() -> None:
    assert {name: lines for name, tree in trees().items() if (lines := [*always_true(tree)])} == {}


def test_a_test_leaves_itself_out_for_a_known_reason_only() -> None:
    assert {name: len(found) for name, tree in trees().items() if (found := [*skips(tree)])} == {
        name: len(reasons) for name, reasons in SKIPS.items()
    }


# --- the rules --------------------------------------------------------------------------------------------------------


def verdict(body: str) -> list[bool]:
    """Whether there is a check, of a test that does not reach one for sure."""
    text = "".join(f"    {line}\n" for line in body.splitlines())
    tree = ast.parse(f"def test_planted():\n{text}")
    return [some for _, some in without_a_sure_check(tree, frozenset({"wait_until"}))]


PLANTED = {
    "under a condition": "if f():\n    assert g()",
    "in one branch only": "if f():\n    assert g()\nelse:\n    h()",
    "in a loop over what may be empty": "for x in f():\n    assert x",
    "in a loop over what is left of a list": "for x in [y for y in SOME if y]:\n    assert x",
    "after a way out": "if f():\n    return\nassert g()",
    "after an error that is passed over": "try:\n    x = f()\nexcept ValueError:\n    return\nassert x",
    "where nothing went wrong": "try:\n    f()\nexcept ValueError:\n    pass\nelse:\n    assert g()",
    "in one case of several": "match f():\n    case 1:\n        assert g()\n    case _:\n        h()",
    "behind a loop's end": "for x in SOME:\n    if x:\n        continue\n    assert f()",
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_check_that_may_not_be_reached_is_found(name: str) -> None:
    assert verdict(PLANTED[name]) == [True]


NEAR_MISSES = {
    "before a condition": "assert g()\nif f():\n    assert h()",
    "in both branches": "if f():\n    assert g()\nelse:\n    assert h()",
    "in a loop over literals": "for x in (1, 2):\n    assert f(x)",
    "in a loop over a constant": "for x, y in SOME.items():\n    assert f(x)",
    "in a loop over what was counted": "found = f()\nassert len(found) == 3\nfor x in found:\n    assert x",
    "in a loop over what is there": "found = f()\nassert found\nfor x in found:\n    assert x",
    "for an expected error": "with pytest.raises(ValueError):\n    f()",
    "either way": "try:\n    f()\nexcept ValueError:\n    assert g()\nelse:\n    assert h()",
    "in a helper": "wait_until(f)",
    "under a deadline": "async def inner():\n    pass\nwith asyncio.timeout(5):\n    f()",
    "before a way out": "assert f()\nif g():\n    return\nh()",
}


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_a_check_that_is_reached_is_fine(name: str) -> None:
    assert verdict(NEAR_MISSES[name]) == []


def test_a_test_without_any_check_is_found() -> None:
    assert verdict("f()") == [False]


@pytest.mark.parametrize(
    "text",
    [
        "assert True",
        "assert (f(), 'it is')",
        "assert 'text'",
        "assert f'{x}'",
        "assert parts.free_port()",
        "port = free_port()\n    assert port",
        "run(port := parts.free_port())\n    assert port",
        "assert x == x",
        "assert x.y is x.y",
    ],
)
def test_an_assert_that_cannot_fail_is_found(text: str) -> None:
    assert [*always_true(ast.parse(f"def test_planted():\n    {text}\n"))]


@pytest.mark.parametrize(
    "text",
    [
        "assert x",
        "port = f()\n    assert port",
        "assert f() is f()",
        "assert x == y",
        "assert ()",
        "assert [*f()]",
        "assert free_port() > 1",
    ],
)
def test_an_assert_that_can_fail_is_fine(text: str) -> None:
    assert [*always_true(ast.parse(f"def test_planted():\n    {text}\n"))] == []


@pytest.mark.parametrize("text", ["pytest.skip('x')", "@pytest.mark.skip\ndef f(): pass", "pytest.importorskip('x')"])
def test_a_skip_is_found(text: str) -> None:
    assert [*skips(ast.parse(text))]
    assert [*skips(ast.parse("pytest.skipped(x)\nparser.skip(1)"))] == []
