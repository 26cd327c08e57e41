"""What a test leaves behind where it fails, and what a deep search reaches: read from the syntax tree of the tests."""

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.syntax import trees


def starts_left_running(tree: ast.AST) -> Iterator[int]:
    """Lines where a start is expected to be refused, and what started all the same would go on running."""
    for node in ast.walk(tree):
        if isinstance(node, ast.With) and any("raises" in ast.unparse(item.context_expr) for item in node.items):
            for statement in node.body:
                match statement:
                    case ast.Expr(value=ast.Await(value=ast.Call(func=ast.Attribute(attr="start")))):
                        yield statement.lineno
                    case _:
                        pass


def fixed_examples(tree: ast.AST) -> Iterator[int]:
    """Lines that give a property a number of examples that a deep search cannot raise."""
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg="max_examples", value=ast.Constant()):
                yield node.value.lineno
            case _:
                pass


def test_a_start_that_should_be_refused_is_stopped_where_it_is_not() -> None:
    assert len(trees()) > 100
    assert {name: lines for name, tree in trees().items() if (lines := [*starts_left_running(tree)])} == {}


def test_a_deep_search_reaches_every_property() -> None:
    assert {name: lines for name, tree in trees().items() if (lines := [*fixed_examples(tree)])} == {}


@pytest.mark.parametrize("start", ["opa.start()", "Managed(a, b).start(x=1)"])
def test_a_start_that_would_go_on_is_found(start: str) -> None:
    text = f"async def test():\n    with pytest.raises(E):\n        await {start}\n"
    assert [*starts_left_running(ast.parse(text))] == [3]


@pytest.mark.parametrize("start", ["start_and_stop(opa)", "starting", "server.forward(x)"])
def test_a_start_that_is_stopped_is_fine(start: str) -> None:
    text = f"async def test():\n    await opa.start()\n    with pytest.raises(E):\n        await {start}\n"
    assert [*starts_left_running(ast.parse(text))] == []


def test_a_number_of_examples_of_its_own_is_found() -> None:
    text = "a = settings(max_examples=400)\nb = settings(max_examples=examples(400))\nc = settings(deadline=None)\n"
    assert [*fixed_examples(ast.parse(text))] == [1]
