"""The control listener, where operators take rights away and give them back, and its client."""

from typing import TYPE_CHECKING

from sidecar.lazy_face import by_need

if TYPE_CHECKING:
    from sidecar.control import listener
    from sidecar.control.client import ClientTls, ControlError, Verb, send
else:
    __getattr__ = by_need(
        __name__,
        {
            "ClientTls": "client",
            "ControlError": "client",
            "Verb": "client",
            "listener": "listener",
            "send": "client",
        },
    )

__all__ = ["ClientTls", "ControlError", "Verb", "listener", "send"]
