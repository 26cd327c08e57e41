"""What must be done for an allow to stand: planned before forwarding, discharged on commands and results."""

from sidecar.obligations.plan import Plan, plan
from sidecar.obligations.results import failed_list, read_names

__all__ = ["Plan", "failed_list", "plan", "read_names"]
