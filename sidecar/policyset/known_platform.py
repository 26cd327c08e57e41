"""What the platform's rules of this build use of a question; written by tools/platform_reads.py."""

from collections.abc import Mapping
from typing import Final

from sidecar.policyset.syntax_tree import RegoPath

RULES: Final = "f421f2af885efc0b0390c9ebb888406ded4a4a7827f1f8731171cba7b809f73c"
"""The served modules of the platform, by ``question_reads.digest_of_rules``."""

READS: Final[frozenset[RegoPath]] = frozenset(
    {
        ("accesses",),
        ("action", "tool"),
        ("actor", "chain"),
        ("actor", "id"),
        ("command", "amplifiers"),
        ("command", "traits"),
        ("subject", "claims"),
        ("subject", "groups"),
        ("subject", "id"),
        ("subject", "issuer"),
        ("subject", "scopes"),
        ("subject", "several_issuers"),
        ("subject", "type"),
    }
)

LIBRARY: Final[Mapping[str, frozenset[RegoPath]]] = {
    "asks": frozenset({("access", "kind"), ("access", "target", "id"), ("access", "target", "kind")}),
    "bucket": frozenset(),
    "claim": frozenset({("subject", "claims")}),
    "counts": frozenset({("access", "kind"), ("command", "fields", "returned")}),
    "drops": frozenset({("access", "kind")}),
    "during": frozenset({("context", "time_ns")}),
    "has_role": frozenset({("subject", "roles")}),
    "has_trait": frozenset({("command", "traits")}),
    "in_any_group": frozenset({("subject", "groups")}),
    "in_group": frozenset({("subject", "groups")}),
    "in_group_of": frozenset({("subject", "groups"), ("subject", "issuer")}),
    "inserts": frozenset({("access", "kind")}),
    "inside": frozenset(),
    "is_person": frozenset({("subject", "type")}),
    "issued_by": frozenset({("subject", "issuer")}),
    "last4": frozenset(),
    "looks_only_at": frozenset({("command", "fields", "filtered")}),
    "named": frozenset(),
    "on": frozenset({("access", "collection"), ("access", "database")}),
    "on_any": frozenset({("access", "collection"), ("access", "database")}),
    "one_of_claim": frozenset({("subject", "claims")}),
    "reads": frozenset({("access", "kind")}),
    "reads_metadata": frozenset({("access", "kind")}),
    "returns_only": frozenset({("access", "kind"), ("command", "fields", "returned")}),
    "runs": frozenset({("access", "kind"), ("access", "target", "id"), ("access", "target", "kind")}),
    "via_agent": frozenset({("actor", "id")}),
    "via_agent_of": frozenset({("actor", "id"), ("subject", "issuer")}),
    "weekdays": frozenset(),
    "writes": frozenset({("access", "kind")}),
}
"""What each rule and function of the library reads."""
