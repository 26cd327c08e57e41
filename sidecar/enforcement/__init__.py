"""The policy enforcement point: ``point`` owns the order, ``turn`` the facts of a message, ``evidence`` its record."""

from sidecar.enforcement.budget import Budget
from sidecar.enforcement.evidence import OWN_SOURCE
from sidecar.enforcement.killswitch import KillSwitch, NotDone
from sidecar.enforcement.point import EnforcementPoint
from sidecar.enforcement.suspensions import Suspensions
from sidecar.enforcement.turn import Caller, Exchange, Ports, Reply, Rules

__all__ = [
    "OWN_SOURCE",
    "Budget",
    "Caller",
    "EnforcementPoint",
    "Exchange",
    "KillSwitch",
    "NotDone",
    "Ports",
    "Reply",
    "Rules",
    "Suspensions",
]
