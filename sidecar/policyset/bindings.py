"""What the names inside one rule of a parse tree stand for: ``x := y``, ``some x in y``, ``every x in y``."""

from collections.abc import Iterable
from typing import Any

from sidecar.policyset.syntax_tree import path_of


class Bindings:
    """What the names in one rule stand for; nothing where a name is bound twice, which scopes may tell apart."""

    def __init__(self) -> None:
        self._bound: dict[str, tuple[Any, bool] | None] = {}

    def of(self, name: str) -> tuple[Any, bool] | None:
        """Return the term that a name is bound to, and whether it is a member of that."""
        return self._bound.get(name)

    def forget(self, names: Iterable[str]) -> None:
        """Leave names alone that are bound from outside: the arguments of the rule."""
        for name in names:
            self._bound.pop(name, None)

    def assignment(self, terms: list[Any]) -> None:
        """Take ``x := y``."""
        match terms:
            case [{"type": "ref", "value": list(operator)}, {"type": "var", "value": str(name)}, term]:
                if path_of(operator) == ("assign",):
                    self._bind(name, (term, False))
            case _:
                pass

    def declaration(self, terms: list[Any]) -> None:
        """Take ``some x in y`` and ``some k, x in y``."""
        match terms:
            case [_, {"type": "var", "value": str(name)}, term] | [_, _, {"type": "var", "value": str(name)}, term]:
                self._bind(name, (term, True))
            case _:
                pass

    def every(self, node: dict[str, Any]) -> None:
        """Take ``every x in y``."""
        match node:
            case {"domain": term, "value": {"type": "var", "value": str(name)}}:
                self._bind(name, (term, True))
            case _:
                pass

    def _bind(self, name: str, bound: tuple[Any, bool]) -> None:
        self._bound[name] = None if name in self._bound else bound
