"""Which obligations of an allow can be discharged on this command; decided before anything is forwarded.

An enforcement point that cannot perform an obligation must not honour the permit (XACML 3.0 section 7.18). The table
of obligations that can be discharged is empty so far, so every obligation refuses.
"""

from sidecar.errors import ObligationNotSupported
from sidecar.model import Decision


def plan(decision: Decision) -> None:
    """Return if the allow carries nothing that would have to be done for it to stand.

    Raises:
        ObligationNotSupported: a filter, a mask, a ceiling or an approval is asked for.
    """
    if decision.approval is not None:
        msg = "approval"
        raise ObligationNotSupported(msg)
    for index, verdict in enumerate(decision.accesses):
        if verdict.obliges:
            msg = f"access {index} of owner {verdict.owner}"
            raise ObligationNotSupported(msg)
