"""Which obligations of an allow can be discharged on this command; decided before anything is forwarded.

An enforcement point that cannot perform an obligation must not honour the permit (XACML 3.0 section 7.18). What can be
discharged is in the table of ``sidecar.obligations.results``; every other obligation refuses.
"""

from dataclasses import dataclass, replace

from sidecar.errors import ObligationNotSupported
from sidecar.model import AccessVerdict, Decision, ToolCall
from sidecar.obligations.results import FORMS


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is done for an allow to stand."""

    names: bool = False
    """The list of names in the result is cut down to those that a grant of the caller reaches."""
    call: ToolCall | None = None
    """What is sent instead of the call; None where it is sent as it is."""

    @property
    def cuts(self) -> bool:
        """Whether something of the result is kept from the caller."""
        return self.names


def plan(decision: Decision, tool: str) -> Plan:
    """Return what is to be done for the allow to stand.

    Raises:
        ObligationNotSupported: a filter, a mask, a ceiling or an approval is asked for, or names of something else than
            a list of names.
    """
    unmet = {index: _unmet(verdict, tool) for index, verdict in enumerate(decision.accesses)}
    for index in _waiting(decision):
        unmet.setdefault(index, []).append("approval")
    for index, conditions in unmet.items():
        if conditions:
            detail = f"{', '.join(conditions)} of access {index}"
            raise ObligationNotSupported(detail, access=index, conditions=tuple(conditions))
    if decision.approval is not None:
        raise ObligationNotSupported("approval", conditions=("approval",))
    return Plan(names=any(verdict.reachable_names for verdict in decision.accesses))


def _unmet(verdict: AccessVerdict, tool: str) -> list[str]:
    """Return the obligations on one access that cannot be discharged, by their keys of the decision contract."""
    met = replace(verdict, reachable_names=False) if tool in FORMS else verdict
    if not met.obliges:
        return []
    parts = {
        "filter": met.filter is not None,
        "mask": bool(met.mask),
        "max_documents": met.max_documents is not None,
        "max_time_ms": met.max_time_ms is not None,
        "names": met.reachable_names,
    }
    return [part for part, asked in parts.items() if asked] or ["condition"]


def _waiting(decision: Decision) -> list[int]:
    """Return the accesses that ask for an approval."""
    entries = decision.approval.get("accesses") if decision.approval is not None else None
    asking = [entry.get("access") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [index for index in asking if isinstance(index, int)]
