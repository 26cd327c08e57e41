"""OPA: the client, and the local process that the sidecar manages."""

from sidecar.opa.client import OpaClient
from sidecar.opa.engine_version import version_fault
from sidecar.opa.external import ExternalOpa
from sidecar.opa.managed import ManagedOpa
from sidecar.opa.policy_state import Load, PolicyState

__all__ = ["ExternalOpa", "Load", "ManagedOpa", "OpaClient", "PolicyState", "version_fault"]
