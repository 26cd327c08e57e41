"""The policy enforcement point: ``point`` owns the order, ``turn`` the facts of a message, ``evidence`` its record."""

from sidecar.enforcement.budget import Budget
from sidecar.enforcement.killswitch import KillSwitch, OperatorCommandFailed
from sidecar.enforcement.point import EnforcementPoint
from sidecar.enforcement.replies import OWN_SOURCE
from sidecar.enforcement.suspensions import Suspensions
from sidecar.enforcement.turn import Caller, EnforcementRules, Exchange, Ports, Reply

__all__ = [
    "OWN_SOURCE",
    "Budget",
    "Caller",
    "EnforcementPoint",
    "EnforcementRules",
    "Exchange",
    "KillSwitch",
    "OperatorCommandFailed",
    "Ports",
    "Reply",
    "Suspensions",
]
