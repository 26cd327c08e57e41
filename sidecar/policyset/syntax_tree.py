"""Reads OPA's parse trees as JSON (``opa parse``, ``rego.parse_module``, ``GET /v1/policies``), without recursion.

Trees of authors are as deep as they like, and not believed to have any form.
"""

from collections.abc import Iterator
from typing import Any, Final

RegoPath = tuple[str, ...]
"""Names from ``input``, or from ``data``, downwards; the empty one is all of it."""

SCALARS: Final = frozenset({"string", "number", "boolean", "null"})
TERMS: Final = SCALARS | {
    *("var", "ref", "call", "array", "set", "object", "templatestring"),
    *("arraycomprehension", "setcomprehension", "objectcomprehension"),
}
MEMBERS: Final = frozenset(
    {
        *("package", "imports", "rules", "path", "alias", "alias_location", "location", "comments", "annotations"),
        *("head", "body", "default", "else", "name", "ref", "args", "key", "value", "assign", "generated"),
        *("index", "terms", "negated", "with", "target", "symbols", "domain", "parts", "multi_line", "type", "term"),
        *("file", "row", "col", "text"),
    }
)
"""Members of the nodes of a parse tree (``v1/ast``, 1.22.4). ``lhs`` and ``rhs`` (the logical operators to come) are
not among them."""
UNREAD: Final = frozenset({"location", "alias_location", "comments", "annotations"})
"""Members that say nothing about what a module does."""


def listed(value: Any) -> list[Any]:
    """Return a list as it is; anything else is an empty one."""
    return value if isinstance(value, list) else []


def line_of(node: Any, otherwise: int) -> int:
    """Return the line that a node is on, where it says so."""
    location = node.get("location") if isinstance(node, dict) else None
    row = location.get("row") if isinstance(location, dict) else None
    return row if isinstance(row, int) else otherwise


def head_of(terms: Any) -> str:
    """Return the variable that a reference starts with, or an empty text."""
    first = terms[0] if isinstance(terms, list) and terms else None
    is_variable = isinstance(first, dict) and first.get("type") == "var"
    return str(first.get("value", "")) if is_variable and isinstance(first, dict) else ""


def path_of(terms: Any) -> RegoPath:
    """Return the variable and the constant texts that a reference starts with, as far as these go."""
    head = head_of(terms)
    if not head:
        return ()
    names = [head]
    for term in terms[1:]:
        if not isinstance(term, dict) or term.get("type") != "string":
            break
        names.append(str(term.get("value")))
    return tuple(names)


def package_of(tree: Any) -> RegoPath:
    """Return the names of a module's package without ``data``; empty where the tree has none."""
    package = tree.get("package") if isinstance(tree, dict) else None
    return path_of(package.get("path"))[1:] if isinstance(package, dict) else ()


def imports_of(tree: Any) -> Iterator[tuple[str, RegoPath]]:
    """Yield the name and the path of each import: ``("lib", ("data", "mcp", "lib"))``."""
    for entry in listed(tree.get("imports")) if isinstance(tree, dict) else ():
        reference = entry.get("path") if isinstance(entry, dict) else None
        path = path_of(reference.get("value")) if isinstance(reference, dict) else ()
        if path:
            yield str(entry.get("alias") or path[-1]), path


def is_known(node: dict[str, Any]) -> bool:
    """Whether a node is of the language that was looked at."""
    kind = str(node.get("type", ""))
    return node.keys() <= MEMBERS and (not kind or kind in TERMS)
