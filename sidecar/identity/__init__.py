"""Verified claims to Principal and Actor; challenges and resource metadata as text."""

from sidecar.identity.challenge import challenge, proof_challenge, resource_metadata
from sidecar.identity.claims import ClaimMap, IdentityRules, identify
from sidecar.identity.person import CLIENT_CLAIMS, PersonRule
from sidecar.identity.presets import PRESETS, Preset, as_settings
from sidecar.identity.resource import WELL_KNOWN, ResourceUri, spellings

__all__ = [
    "CLIENT_CLAIMS",
    "PRESETS",
    "WELL_KNOWN",
    "ClaimMap",
    "IdentityRules",
    "PersonRule",
    "Preset",
    "ResourceUri",
    "as_settings",
    "challenge",
    "identify",
    "proof_challenge",
    "resource_metadata",
    "spellings",
]
