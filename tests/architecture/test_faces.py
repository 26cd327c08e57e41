"""A room has a face: other rooms import what its ``__init__`` names in ``__all__``, and nothing else of it.

Import-linter's ``protected`` contract works on whole modules, and a face names single classes and functions; so this
reads the imports themselves.
"""

import ast
import importlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.parts import ROOT

PACKAGE = ROOT / "sidecar"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
SOURCES = sorted(PACKAGE.rglob("*.py"))
INTERNALS_ARE_IMPORTED = "imports from inside the room"
NOT_OF_THE_FACE = "is no name of the face"
WHOLE_ROOM = "imports the room itself"
OWN_FACE = "imports through the face of its own room"


@cache
def face(room: str) -> frozenset[str]:
    """Names in ``__all__``, read and not imported."""
    for node in ast.parse((PACKAGE / room / "__init__.py").read_text()).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts=names)):
                return frozenset(
                    name.value for name in names if isinstance(name, ast.Constant) and isinstance(name.value, str)
                )
            case _:
                pass
    return frozenset()


@cache
def shown(room: str) -> tuple[ast.ImportFrom, ...]:
    """Imports of the room's own modules in its face; those of a face by need stand under ``TYPE_CHECKING``."""
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text())
    return tuple(
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"sidecar.{room}.")
    )


@cache
def own_modules(room: str) -> frozenset[str]:
    """Modules that ``from sidecar.ROOM import NAME`` gives to the room itself: no function of the face hides them."""
    modules = frozenset(path.stem for path in (PACKAGE / room).glob("*.py"))
    hidden = {alias.name for node in shown(room) if node.module != f"sidecar.{room}" for alias in node.names}
    return modules - hidden


@cache
def taken() -> dict[str, set[tuple[str | None, str]]]:
    """By room, which names are imported from its face, each with the room that does so."""
    found: dict[str, set[tuple[str | None, str]]] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.ImportFrom(module=str(module), names=names) if module.count(".") == 1:
                    found.setdefault(module.removeprefix("sidecar."), set()).update(
                        (room_of(path), alias.name) for alias in names
                    )
                case _:
                    pass
    return found


def room_of(path: Path) -> str | None:
    """The room that a file is in; none for a module that lies beside the rooms."""
    inside = path.relative_to(PACKAGE).parts
    return inside[0] if len(inside) > 1 else None


def trespasses(tree: ast.AST, own: str | None) -> Iterator[tuple[int, str]]:
    """Lines that reach behind a face, each with what is wrong."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                for alias in names:
                    if alias.name.split(".")[:1] == ["sidecar"] and alias.name.split(".")[1:2] != [own]:
                        yield from ((node.lineno, WHOLE_ROOM) for room in alias.name.split(".")[1:2] if room in ROOMS)
            case ast.ImportFrom(module="sidecar", names=names):
                yield from ((node.lineno, WHOLE_ROOM) for alias in names if alias.name in ROOMS)
            case ast.ImportFrom(module=str(module), names=names) if module.startswith("sidecar."):
                room, *deeper = module.split(".")[1:]
                yield from ((node.lineno, wrong) for wrong in _wrong(room, deeper, [a.name for a in names], own))
            case _:
                pass


def _wrong(room: str, deeper: list[str], names: list[str], own: str | None) -> Iterator[str]:
    if room not in ROOMS:
        return
    if room == own:
        if not deeper and not own_modules(room).issuperset(names):
            yield OWN_FACE
    elif deeper:
        yield INTERNALS_ARE_IMPORTED
    elif not face(room).issuperset(names):
        yield NOT_OF_THE_FACE


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_private_to_a_room_is_imported_by_that_room_alone(path: Path) -> None:
    own = room_of(path)
    if path.name == "__init__.py" and own is not None:
        imports = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        others = imports - {node.module for node in shown(own)}
        assert others in (set(), {"typing", "sidecar.lazy_face"}), "a face shows its own room"
    else:
        assert list(trespasses(ast.parse(path.read_text()), own)) == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_face_names_what_it_imports_and_says_what_the_room_is_for(room: str) -> None:
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text())
    imported = [alias.asname or alias.name for node in shown(room) for alias in node.names]
    assert sorted(imported) == sorted(face(room))
    assert ast.get_docstring(tree)


@pytest.mark.parametrize("room", ROOMS)
def test_a_face_gives_at_run_time_what_a_type_checker_reads(room: str) -> None:
    package = importlib.import_module(f"sidecar.{room}")
    for node in shown(room):
        module = importlib.import_module(str(node.module))
        for alias in node.names:
            assert getattr(package, alias.asname or alias.name) is getattr(module, alias.name)
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        package.no_such_name  # noqa: B018 - it is asked for


@pytest.mark.parametrize("room", ROOMS)
def test_a_face_offers_nothing_that_no_other_room_takes(room: str) -> None:
    assert face(room) == {name for taker, name in taken().get(room, ()) if taker != room}


@pytest.mark.parametrize(
    ("line", "own", "wrong"),
    [
        ("from sidecar.opa.managed import ManagedOpa", "edge", INTERNALS_ARE_IMPORTED),
        ("from sidecar.opa.managed import ManagedOpa", None, INTERNALS_ARE_IMPORTED),
        ("from sidecar.opa.managed import ManagedOpa", "opa", None),
        ("from sidecar.opa import ManagedOpa", None, None),
        ("from sidecar.opa import ManagedOpa as Opa", None, None),
        ("from sidecar.opa import ManagedOpa", "opa", OWN_FACE),
        ("from sidecar.opa import wire", None, NOT_OF_THE_FACE),
        ("from sidecar.opa import wire as ManagedOpa", None, NOT_OF_THE_FACE),
        ("from sidecar.opa import *", None, NOT_OF_THE_FACE),
        ("from sidecar.opa import wire", "opa", None),
        ("from sidecar.commands import derive", "commands", OWN_FACE),
        ("from sidecar import opa", None, WHOLE_ROOM),
        ("from sidecar import settings", None, None),
        ("import sidecar.opa", None, WHOLE_ROOM),
        ("import sidecar.opa.managed as opa", "edge", WHOLE_ROOM),
        ("import sidecar.opa.managed as opa", "opa", None),
        ("import sidecar.settings", None, None),
        ("def f():\n    from sidecar.opa.wire import read", "edge", INTERNALS_ARE_IMPORTED),
        ("from sidecar.errors import SidecarError", "edge", None),
        ("from aiohttp.web import Request", "edge", None),
    ],
)
def test_a_way_behind_a_face_would_be_found(line: str, own: str | None, wrong: str | None) -> None:
    assert [found for _, found in trespasses(ast.parse(line), own)] == ([wrong] if wrong else [])
