"""Which parts of a question the rules of a package can read, from OPA's own parse trees.

What this says is sound and not exact: a part that is not listed does not change what the package says, under one policy
set; a part that is listed may or may not. It is found by what stands in the rules, without evaluating anything:

- ``input.a.b`` reads the part ``a.b``, whole. Steps behind one that is no constant text are not followed:
  ``input.a[x].b`` reads ``a``; ``input[x]`` and a bare ``input``, wherever it stands, read everything. So what a
  variable, an argument or an import names (``s := input.subject``) is read whole.
- A name that may be a rule's, a function's or an import's stands for what that rule reads too, and a rule reads what
  the rules read that it names, through packages and libraries. A name that is only a local variable's is taken for the
  rule's all the same, and a part that ``with`` replaces for one that is still read: that lists too much, never too
  little.
- Syntax that is not known here reads everything.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sidecar.policyset.syntax_tree import (
    SCALARS,
    UNREAD,
    RegoPath,
    head_of,
    imports_of,
    is_known,
    listed,
    package_of,
    path_of,
)

EVERYTHING: Final[frozenset[RegoPath]] = frozenset({()})


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleReads:
    """What stands in one rule."""

    path: RegoPath
    """Where its value lies below ``data``, as far as constants say."""
    package: RegoPath
    reads: frozenset[RegoPath]
    """Parts of the question that it names itself."""
    names: frozenset[RegoPath]
    """Paths below ``data`` that it names, its own package's included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadList:
    """The rules of a policy set, and what each names."""

    rules: tuple[RuleReads, ...]
    _at: Mapping[RegoPath, list[int]] = field(init=False, repr=False, compare=False, default_factory=dict)
    _below: Mapping[RegoPath, list[int]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Index the rules by their paths, and by everything above these."""
        at: dict[RegoPath, list[int]] = {}
        below: dict[RegoPath, list[int]] = {}
        for index, rule in enumerate(self.rules):
            at.setdefault(rule.path, []).append(index)
            for length in range(len(rule.path) + 1):
                below.setdefault(rule.path[:length], []).append(index)
        object.__setattr__(self, "_at", at)
        object.__setattr__(self, "_below", below)

    def of(self, place: RegoPath) -> frozenset[RegoPath]:
        """Return the parts of the question that the value at a place below ``data`` can depend on.

        Each is there without the parts below it; the empty path is the whole question.
        """
        reads: set[RegoPath] = set()
        seen: set[int] = set()
        visited: set[RegoPath] = {place}
        places = [place]
        while places:
            here = places.pop()
            for index in self._met(here):
                if index in seen:
                    continue
                seen.add(index)
                rule = self.rules[index]
                reads |= rule.reads
                fresh = rule.names - visited
                visited |= fresh
                places += fresh
        return widest(reads)

    @property
    def packages(self) -> tuple[RegoPath, ...]:
        """The packages that have rules."""
        return tuple(sorted({rule.package for rule in self.rules}))

    def _met(self, place: RegoPath) -> Iterator[int]:
        """Yield the rules whose value is at the place, below it, or has it within itself."""
        yield from self._below.get(place, ())
        for length in range(len(place)):
            yield from self._at.get(place[:length], ())


def widest(paths: Iterable[RegoPath]) -> frozenset[RegoPath]:
    """Leave out what lies below another path."""
    kept: set[RegoPath] = set()
    for path in sorted(paths, key=len):
        if not any(path[:length] in kept for length in range(len(path) + 1)):
            kept.add(path)
    return frozenset(kept)


def rules_of(tree: Any) -> Iterator[RuleReads]:
    """Yield what stands in the rules of one module.

    Args:
        tree: OPA's parse tree of it, or the tree that it evaluates, as JSON.
    """
    package = package_of(tree)
    if not package or not is_known(tree):
        yield RuleReads(path=(), package=package, reads=EVERYTHING, names=frozenset({()}))
        return
    imports: dict[str, list[RegoPath]] = {}
    for name, path in imports_of(tree):
        imports.setdefault(name, []).append(path)
    for rule in listed(tree.get("rules")):
        yield _ReadScan(package, imports).rule(rule)


class _ReadScan:
    """Collects what one rule names."""

    def __init__(self, package: RegoPath, imports: Mapping[str, list[RegoPath]]) -> None:
        self._package = package
        self._imports = imports
        self._reads: set[RegoPath] = set()
        self._names: set[RegoPath] = set()

    def rule(self, rule: Any) -> RuleReads:
        """Walk it whole, without recursion: its depth is the author's choice."""
        stack: list[Any] = [rule]
        while stack:
            node = stack.pop()
            if isinstance(node, list):
                stack += node
            elif isinstance(node, dict):
                stack += self._node(node)
        return RuleReads(
            path=self._place(rule), package=self._package, reads=widest(self._reads), names=frozenset(self._names)
        )

    def _node(self, node: dict[str, Any]) -> list[Any]:
        """Take what a node names, and return what lies below it."""
        if not is_known(node):
            self._reads.add(())
            self._names.add(())
            return []
        kind, value = node.get("type"), node.get("value")
        match kind:
            case "var":
                self._named((str(value),))
                return []
            case "ref" if path := path_of(value):
                self._named(path)
                return listed(value)[1:]
            case _ if kind in SCALARS:
                return []
            case _ if _is_all_of_input(node.get("target")):
                return [value]
            case _:
                return [child for name, child in node.items() if name not in UNREAD]

    def _named(self, path: RegoPath) -> None:
        """Take a variable with the constant steps behind it for all that it can stand for."""
        head, steps = path[0], path[1:]
        for whole in (path, *((*stands, *steps) for stands in self._imports.get(head, ()))):
            if whole[0] == "input":
                self._reads.add(whole[1:])
            elif whole[0] == "data":
                self._names.add(whole[1:])
        self._names.add((*self._package, *path))

    def _place(self, rule: Any) -> RegoPath:
        head = rule.get("head") if isinstance(rule, dict) else None
        terms = head.get("ref") if isinstance(head, dict) else None
        path = path_of(terms)
        if head_of(terms) == "data":
            return path[1:]
        return (*self._package, *path)


def _is_all_of_input(target: Any) -> bool:
    """Whether ``with`` replaces the whole question: then nothing of it is left to read there."""
    return isinstance(target, dict) and target.get("type") == "ref" and path_of(target.get("value")) == ("input",)


def written(part: RegoPath) -> str:
    """Write a part of the question as a rule would: ``input.subject.claims["a b"]``."""
    steps = (f".{name}" if name.isidentifier() and name.isascii() else f"[{_quoted(name)}]" for name in part)
    return "input" + "".join(steps)


def _quoted(name: str) -> str:
    plain = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"'
