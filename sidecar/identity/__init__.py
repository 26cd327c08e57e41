"""Verified claims to Principal and Actor; challenges and resource metadata as text."""

from sidecar.identity.approval import (
    Approval,
    ApprovalConflict,
    ApprovalNotFound,
    ApprovalRequired,
    ApprovalState,
    ApprovalsUnavailable,
    Party,
    TooManyApprovals,
    binding_of,
    read_approval,
)
from sidecar.identity.approval_store import ApprovalStore
from sidecar.identity.challenge import challenge, proof_challenge, resource_metadata
from sidecar.identity.claims import ClaimMap, IdentityRules, identify
from sidecar.identity.person import CLIENT_CLAIMS, PersonRule
from sidecar.identity.presets import PRESETS, Preset, as_settings
from sidecar.identity.resource import APPROVALS_SEGMENT, WELL_KNOWN, ResourceUri, spellings
from sidecar.identity.suspension import (
    CallerName,
    Suspendable,
    Suspension,
    SuspensionTarget,
    names_of,
    read_suspension,
    read_target,
    whole_seconds,
)

__all__ = [
    "APPROVALS_SEGMENT",
    "CLIENT_CLAIMS",
    "PRESETS",
    "WELL_KNOWN",
    "Approval",
    "ApprovalConflict",
    "ApprovalNotFound",
    "ApprovalRequired",
    "ApprovalState",
    "ApprovalStore",
    "ApprovalsUnavailable",
    "CallerName",
    "ClaimMap",
    "IdentityRules",
    "Party",
    "PersonRule",
    "Preset",
    "ResourceUri",
    "Suspendable",
    "Suspension",
    "SuspensionTarget",
    "TooManyApprovals",
    "as_settings",
    "binding_of",
    "challenge",
    "identify",
    "names_of",
    "proof_challenge",
    "read_approval",
    "read_suspension",
    "read_target",
    "resource_metadata",
    "spellings",
    "whole_seconds",
]
