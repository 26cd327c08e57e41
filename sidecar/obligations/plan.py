"""Which obligations of an allow can be discharged on this command; decided before anything is forwarded.

An enforcement point that cannot perform an obligation must not honour the permit (XACML 3.0 section 7.18). What can be
discharged is in the table of ``sidecar.obligations.results``; every other obligation refuses.
"""

from dataclasses import dataclass, replace

from sidecar.errors import ObligationNotSupported
from sidecar.model import Decision
from sidecar.obligations.results import FORMS


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is done for an allow to stand."""

    names: bool = False
    """The list of names in the result is cut down to those that a grant of the caller reaches."""


def plan(decision: Decision, tool: str) -> Plan:
    """Return what is to be done for the allow to stand.

    Raises:
        ObligationNotSupported: a filter, a mask, a ceiling or an approval is asked for, or names of something else than
            a list of names.
    """
    if decision.approval is not None:
        raise ObligationNotSupported("approval")
    names = False
    for index, verdict in enumerate(decision.accesses):
        if replace(verdict, reachable_names=False).obliges:
            raise ObligationNotSupported(f"access {index} of owner {verdict.owner}")
        if verdict.reachable_names and tool not in FORMS:
            raise ObligationNotSupported(f"names in access {index} of owner {verdict.owner}")
        names = names or verdict.reachable_names
    return Plan(names=names)
