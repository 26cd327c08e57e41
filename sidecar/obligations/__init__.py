"""What must be done for an allow to stand: planned before forwarding, discharged on commands and results."""

from sidecar.obligations.plan import plan

__all__ = ["plan"]
