"""Which rule let a recorded call through or refused it: file and line in the policy set of that time."""

from functools import cache

from sidecar.asking.calls import RecordedCall
from sidecar.model import JsonObject, JsonValue
from sidecar.policyset import PolicySet, places_of_grant, places_of_reason
from sidecar.store import KeptPolicySets


class RuleFinder:
    """Finds the rules of recorded decisions.

    Args:
        kept: the policy sets that served.
    """

    def __init__(self, kept: KeptPolicySets) -> None:
        self._find = cache(kept.find)

    def of(self, call: RecordedCall) -> JsonObject:
        """Return the rules of one call, and whether the policy set that decided it is there to be read."""
        decision = call.entry.decision
        if decision is None:
            return {"policy_set": None, "rules": []}
        policies = self._find(decision.revision)
        rules: list[JsonValue] = [
            {"grant": grant, "at": [*_of_grant(policies, grant)]} for grant in decision.grants if decision.allow
        ]
        rules += [
            {
                "code": why.code,
                "source": why.source,
                "access": why.access,
                "at": [*(places_of_reason(policies, why.code, why.source) if policies is not None else ())],
            }
            for why in decision.reasons
        ]
        return {"policy_set": "kept" if policies is not None else "not kept", "rules": rules}


def _of_grant(policies: PolicySet | None, grant: str) -> tuple[str, ...]:
    owner, _, name = grant.partition("/")
    return () if policies is None else places_of_grant(policies, owner, name)
