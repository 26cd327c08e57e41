"""The demo: everything on this machine, a short tour of allowed and denied calls, then a sidecar to play with."""

from sidecar.demo import run

__all__ = ["run"]
