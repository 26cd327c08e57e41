"""Questions to the evidence: is it whole, who did what, what changed."""

from sidecar.asking.audit_commands import audit
from sidecar.asking.trace_command import trace

__all__ = ["audit", "trace"]
