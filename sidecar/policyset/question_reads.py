"""Which parts of a question about a call its answer can depend on, under one policy set.

The platform's rules hand most of a question on whole (to the owners' rules, and to themselves with the sources of views
put in), and look at each part to see whether it is well-formed. So what their text reads is everything, and what they
use is little. Which parts that are is known of exactly the rules that this build ships (``known_platform``, made and
held by ``tools/platform_reads.py``); of a platform with other rules nothing is known, and an answer counts as one about
the whole question. What a team's rules read is found in their text (``read_list``).
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sidecar.policyset import known_platform
from sidecar.policyset.folder import CAPABILITIES, PolicySet
from sidecar.policyset.manifest import decode_strictly
from sidecar.policyset.platform_names import platform_tables
from sidecar.policyset.read_list import EVERYTHING, ReadList, RuleReads, widest
from sidecar.policyset.syntax_tree import RegoPath

TIME: Final[RegoPath] = ("context", "time_ns")
MOST_PARTS: Final = 64
"""Rules that read more parts count as reading everything: a team must not make every question costly to look up."""
_TEAMS: Final[RegoPath] = ("mcp", "teams")
_LIBRARY: Final[RegoPath] = ("mcp", "lib")
_GRANTS: Final[RegoPath] = ("mcp", "grants")
_ACCESS: Final = "access"
"""What a team sees of the accesses: the one that it is asked about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionReads:
    """The parts of a well-formed question on which an answer depends; ``()`` is the whole question."""

    platform: frozenset[RegoPath]
    """What the platform's rules read, for every owner."""
    owners: Mapping[str, frozenset[RegoPath]]
    """What each team's rules read besides, with the library's that they use."""
    answers_name_owners: bool
    """An answer that allows was made by no other team's rules than those of the owners that it names."""

    def of(self, owners: Iterable[str]) -> frozenset[RegoPath]:
        """Return what the rules of these owners read beyond the platform's."""
        return _few({part for owner in owners for part in self.owners[owner]})


def question_reads(policies: PolicySet, teams: Mapping[str, Iterable[RuleReads]]) -> QuestionReads | None:
    """Return what the answers of a set that was vetted depend on; None where that cannot be told.

    Args:
        policies: the set.
        teams: the rules of all served modules of each team.
    """
    if digest_of_rules(policies) != known_platform.RULES or not _is_deterministic(policies):
        return None
    tables = platform_tables(policies)
    timed = frozenset({TIME}) if tables.get("windows") else frozenset()
    platform = known_platform.READS | timed
    return QuestionReads(
        platform=platform,
        owners={team: _beyond(platform, _reads_of_team(team, rules)) for team, rules in teams.items()},
        answers_name_owners=not _declares_views(tables),
    )


def digest_of_rules(policies: PolicySet) -> str:
    """Return what the served modules of the platform are known by: their paths and their text."""
    digest = hashlib.sha256()
    for path, content in policies.files:
        if path.startswith("platform/") and path.endswith(".rego"):
            digest.update(f"{path}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()


def digest_of_platform(policies: PolicySet) -> bytes:
    """Return what the served files of the platform are known by, its data among them."""
    digest = hashlib.sha256()
    for path, content in policies.files:
        if path.startswith("platform/"):
            digest.update(f"{path}\n{len(content)}\n".encode() + content)
    return digest.digest()


def _reads_of_team(team: str, rules: Iterable[RuleReads]) -> frozenset[RegoPath]:
    """Return what a team reads; everything, where it names what no team should."""
    library = [
        RuleReads(path=(*_LIBRARY, name), package=_LIBRARY, reads=reads, names=frozenset())
        for name, reads in known_platform.LIBRARY.items()
    ]
    own = (*_TEAMS, team)
    reads = ReadList(rules=(*(_closed(rule, own) for rule in rules), *library))
    return reads.of(own)


def _closed(rule: RuleReads, own: RegoPath) -> RuleReads:
    """Let a rule that names something else than its own, the library's and its grants read everything."""
    permitted = (own, _LIBRARY, _GRANTS)
    if all(any(path[: len(known)] == known for known in permitted) for path in rule.names):
        return rule
    return RuleReads(path=rule.path, package=rule.package, reads=EVERYTHING, names=rule.names)


def _beyond(platform: frozenset[RegoPath], reads: frozenset[RegoPath]) -> frozenset[RegoPath]:
    """Leave out what the platform reads anyway; the one access of a team is one of the accesses."""
    return _few(
        {
            path
            for path in reads
            if path[:1] != (_ACCESS,) and not any(path[:length] in platform for length in range(len(path) + 1))
        }
    )


def _few(parts: set[RegoPath]) -> frozenset[RegoPath]:
    return widest(parts) if len(parts) <= MOST_PARTS else EVERYTHING


def _is_deterministic(policies: PolicySet) -> bool:
    """Whether no builtin that policies may call answers differently from one moment to the next."""
    for path, content in (*policies.files, *policies.aside):
        if path == CAPABILITIES:
            listed: Any = decode_strictly(content)
            builtins = listed.get("builtins") if isinstance(listed, dict) else None
            return isinstance(builtins, list) and not any(_may_differ(one) for one in builtins)
    return False


def _may_differ(builtin: Any) -> bool:
    return not isinstance(builtin, dict) or bool(builtin.get("nondeterministic"))


def _declares_views(tables: Mapping[str, Any]) -> bool:
    deployments = tables.get("deployments")
    entries = deployments.values() if isinstance(deployments, dict) else ()
    return any(not isinstance(entry, dict) or bool(entry.get("views")) for entry in entries)
