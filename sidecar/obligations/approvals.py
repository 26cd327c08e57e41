"""Which approvals an allow asks for: two kinds that are never confused (``policies/platform/terms.rego``).

``confirm`` is the user's, through the client that makes the call: it guards against accidents, and proves no person.
``second_person`` is another person's, with a token of their own: only this holds against an agent.
"""

from dataclasses import dataclass
from enum import StrEnum

from sidecar.errors import ObligationNotSupported
from sidecar.model import Decision

APPROVAL = "approval"
"""The key of the decision contract."""


class ApprovalKind(StrEnum):
    """The codes that there are; every other one refuses."""

    CONFIRM = "confirm"
    SECOND_PERSON = "second_person"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """What a call waits for; nothing where both are empty."""

    confirm: tuple[int, ...] = ()
    """The accesses that the user has to confirm through the client."""
    second_person: tuple[int, ...] = ()
    """The accesses that a second person has to approve."""

    def by_kind(self) -> tuple[tuple[ApprovalKind, tuple[int, ...]], ...]:
        """Return the accesses that wait, by the kind of approval."""
        return (ApprovalKind.CONFIRM, self.confirm), (ApprovalKind.SECOND_PERSON, self.second_person)

    def __bool__(self) -> bool:
        return bool(self.confirm or self.second_person)


def waits(decision: Decision) -> Waits:
    """Return what the call waits for.

    Raises:
        ObligationNotSupported: an approval of another kind is asked for.
    """
    if decision.approval is None:
        return Waits()
    asked: dict[ApprovalKind, list[int]] = {kind: [] for kind in ApprovalKind}
    entries = decision.approval.get("accesses")
    for entry in entries if isinstance(entries, list) and entries else [None]:
        access, codes = (entry.get("access"), entry.get("codes")) if isinstance(entry, dict) else (None, None)
        if not isinstance(access, int) or not isinstance(codes, list) or not codes:
            raise ObligationNotSupported(APPROVAL, conditions=(APPROVAL,))
        for code in codes:
            if code not in frozenset(ApprovalKind):
                detail = f"an approval of another kind, of access {access}"
                raise ObligationNotSupported(detail, access=access, conditions=(APPROVAL,))
            asked[ApprovalKind(str(code))].append(access)
    return Waits(confirm=tuple(asked[ApprovalKind.CONFIRM]), second_person=tuple(asked[ApprovalKind.SECOND_PERSON]))
