"""The operating system's part: child processes that end with this one, their private folders, clocks, randomness."""

from sidecar.system.backoff import BackOff
from sidecar.system.clock import SystemClock
from sidecar.system.identifiers import RandomIdentifiers
from sidecar.system.liveness import Pulse
from sidecar.system.process import in_thread, kill, make_home, remove, spawn
from sidecar.system.tied_process import tied

__all__ = [
    "BackOff",
    "Pulse",
    "RandomIdentifiers",
    "SystemClock",
    "in_thread",
    "kill",
    "make_home",
    "remove",
    "spawn",
    "tied",
]
