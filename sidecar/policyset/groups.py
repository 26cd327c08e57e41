"""Whether a group that a team's module spells out is nearly one that a route names: a slip that grants nothing.

A group without a route is no mistake by itself, since a caller may have a second group that has one. So only a name
that is almost a routed group's is told, and never refused.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Final

from sidecar.policyset.finding import Rule, Severity, Violation
from sidecar.policyset.folder import PolicySet
from sidecar.policyset.mentions import Mentions
from sidecar.policyset.platform_names import platform_tables
from sidecar.policyset.syntax_tree import RegoPath

_ASKS: Final[Mapping[RegoPath, int]] = {
    ("mcp", "lib", "in_group"): 0,
    ("mcp", "lib", "in_any_group"): 0,
    ("mcp", "lib", "in_group_of"): 1,
}
"""Functions of the library that ask for groups, and which argument names them."""
_GLOB: Final = frozenset("*?[]{}!\\")
_LIKENESS: Final = 0.8
"""``analyst`` for ``analysts`` is above, ``support`` for ``support-leads`` below."""


def nearly_routed(modules: Mapping[str, Mentions], policies: PolicySet) -> Iterator[Violation]:
    """Yield a warning for each group that no route names and whose name is nearly that of one.

    Args:
        modules: what each served module mentions, by file.
        policies: the whole set.
    """
    routed = _routed(policies)
    for file, mentions in modules.items():
        for call in mentions.calls:
            index = _ASKS.get(call.function)
            if index is None or index >= len(call.arguments):
                continue
            for group, line in call.arguments[index].texts:
                if group not in routed and (close := get_close_matches(group, sorted(routed), n=1, cutoff=_LIKENESS)):
                    message = f"no route names the group {group}: did you mean {close[0]}?"
                    yield Violation(file=file, line=line, rule=Rule.NAME, message=message, severity=Severity.WARNING)


def _routed(policies: PolicySet) -> frozenset[str]:
    """Return the groups that routes spell out; none where a pattern may name any group."""
    routes = platform_tables(policies).get("routes", [])
    try:
        groups = frozenset(str(group) for route in routes for group in route["groups"])
    except (KeyError, TypeError):
        return frozenset()  # the schema says what is wrong
    return frozenset() if any(_GLOB & set(group) for group in groups) else groups
