"""The control listener, where operators take rights away and give them back, and its client."""

from sidecar.control import listener
from sidecar.control.client import ClientTls, ControlError, Verb, send

__all__ = ["ClientTls", "ControlError", "Verb", "listener", "send"]
