"""The posture of a deployment: what is wider, more open or older than it should be, each with what mends it."""

from sidecar.doctor.examination import ExaminedDeployment, examine, role_for
from sidecar.doctor.findings import Check, Posture

__all__ = ["Check", "ExaminedDeployment", "Posture", "examine", "role_for"]
