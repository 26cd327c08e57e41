"""Verified claims to Principal and Actor; challenges and resource metadata as text."""

from sidecar.identity.challenge import challenge, proof_challenge, resource_metadata
from sidecar.identity.claims import ClaimMap, IdentityRules, identify
from sidecar.identity.person import CLIENT_CLAIMS, PersonRule
from sidecar.identity.presets import PRESETS, Preset, as_settings
from sidecar.identity.resource import WELL_KNOWN, ResourceUri, spellings
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
    "CLIENT_CLAIMS",
    "PRESETS",
    "WELL_KNOWN",
    "CallerName",
    "ClaimMap",
    "IdentityRules",
    "PersonRule",
    "Preset",
    "ResourceUri",
    "Suspendable",
    "Suspension",
    "SuspensionTarget",
    "as_settings",
    "challenge",
    "identify",
    "names_of",
    "proof_challenge",
    "read_suspension",
    "read_target",
    "resource_metadata",
    "spellings",
    "whole_seconds",
]
