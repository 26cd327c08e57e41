"""The decision contract: the document that OPA is asked with, and the reading of its answer."""

from sidecar.policy import document, verdict
from sidecar.policy.approving import ApproverVerdict, approver_document, read_approver
from sidecar.policy.document import (
    ToolKinds,
    asker,
    command_document,
    decision_document,
    listing_document,
    tools_document,
    visibility_document,
)
from sidecar.policy.residual import (
    COMPILE_QUERY,
    COMPILE_UNKNOWNS,
    PossibleGrant,
    possible_document,
    read_residual,
    residual_document,
)
from sidecar.policy.verdict import is_called_malformed, read_decision, read_selftest, read_visibility
from sidecar.policy.well_formed import is_well_formed

__all__ = [
    "COMPILE_QUERY",
    "COMPILE_UNKNOWNS",
    "ApproverVerdict",
    "PossibleGrant",
    "ToolKinds",
    "approver_document",
    "asker",
    "command_document",
    "decision_document",
    "document",
    "is_called_malformed",
    "is_well_formed",
    "listing_document",
    "possible_document",
    "read_approver",
    "read_decision",
    "read_residual",
    "read_selftest",
    "read_visibility",
    "residual_document",
    "tools_document",
    "verdict",
    "visibility_document",
]
