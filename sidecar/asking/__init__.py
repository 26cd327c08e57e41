"""Questions to the evidence: is it whole, who did what, what changed."""

from sidecar.asking.audit_commands import audit

__all__ = ["audit"]
