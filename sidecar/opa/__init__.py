"""OPA: the client, and the local process that the sidecar manages."""

from typing import TYPE_CHECKING

from sidecar.lazy_face import by_need

if TYPE_CHECKING:
    from sidecar.opa.client import AT_ONCE, AT_ONCE_HERE, OpaClient
    from sidecar.opa.engine_version import version_fault
    from sidecar.opa.external import ExternalOpa
    from sidecar.opa.instance import LineLimits
    from sidecar.opa.managed import ManagedOpa
    from sidecar.opa.policy_state import Load, PolicyState
else:
    __getattr__ = by_need(
        __name__,
        {
            "AT_ONCE": "client",
            "AT_ONCE_HERE": "client",
            "ExternalOpa": "external",
            "LineLimits": "instance",
            "Load": "policy_state",
            "ManagedOpa": "managed",
            "OpaClient": "client",
            "PolicyState": "policy_state",
            "version_fault": "engine_version",
        },
    )

__all__ = [
    "AT_ONCE",
    "AT_ONCE_HERE",
    "ExternalOpa",
    "LineLimits",
    "Load",
    "ManagedOpa",
    "OpaClient",
    "PolicyState",
    "version_fault",
]
