"""Derivers of the Atlas, Atlas Local and assistant tools: accesses to targets instead of namespaces.

These tools act through the Atlas Admin API, the Docker daemon or an outside service. Each says which organisation,
project, cluster, deployment or service it acts on, so that a policy can grant it deliberately and nothing else can.
A cluster's id is ``<project id>/<cluster name>``; the forms allow no ``/`` in either.

Source: reference, section 1.2.
"""

from collections.abc import Callable, Iterable
from typing import Final

from sidecar.commands.draft import Draft
from sidecar.errors import InvalidArguments
from sidecar.model import AccessKind, JsonObject, Target, TargetKind, Trait

Finder = Callable[[JsonObject], tuple[Target, str]]
"""From the arguments to what is acted on, and the pointer to where it was named."""

_AT_NAME: Final = "/name"


def organisation(arguments: JsonObject) -> tuple[Target, str]:
    """Return the organisation, or the one of the configured API key."""
    return _named(TargetKind.ORGANISATION, arguments, "orgId")


def project(arguments: JsonObject) -> tuple[Target, str]:
    """Return the project, or all that the configured API key can see."""
    return _named(TargetKind.PROJECT, arguments, "projectId")


def cluster(arguments: JsonObject) -> tuple[Target, str]:
    """Return the cluster; without a name, its project."""
    key = "clusterName" if "clusterName" in arguments else "name"
    if key not in arguments:
        return project(arguments)
    return Target(kind=TargetKind.CLUSTER, id=f"{arguments['projectId']}/{arguments[key]}"), f"/arguments/{key}"


def deployment(arguments: JsonObject) -> tuple[Target, str]:
    """Return the local deployment; without a name, whichever there are or will be."""
    return _named(TargetKind.DEPLOYMENT, arguments, "deploymentName")


def service(name: str) -> Finder:
    """Return a finder of one fixed outside service."""
    return lambda _arguments: (Target(kind=TargetKind.SERVICE, id=name), _AT_NAME)


def acts(*accesses: tuple[AccessKind, Finder], traits: Iterable[Trait] = ()) -> Callable[[Draft, JsonObject], None]:
    """Return a deriver that always needs the same kinds on targets found in the arguments."""

    def derive(draft: Draft, arguments: JsonObject) -> None:
        draft.traits.update(traits)
        for kind, find in accesses:
            target, via = find(arguments)
            draft.touch_target(kind, target, via)

    return derive


def load_sample_dataset(draft: Draft, arguments: JsonObject) -> None:
    """Writes the ``sample_*`` databases of a cluster; with ``jobId`` only reads the state of an earlier load.

    Raises:
        InvalidArguments: neither a cluster nor a job is named.
    """
    if "jobId" in arguments:
        draft.touch_target(AccessKind.METADATA, *project(arguments))
    elif "clusterName" in arguments:
        draft.touch_target(AccessKind.CREATE, *cluster(arguments))
        draft.touch_target(AccessKind.INSERT, *cluster(arguments))
    else:
        raise InvalidArguments("missing_argument", "Name a cluster or a job.", "/arguments/clusterName")


def change_streams(draft: Draft, arguments: JsonObject) -> None:
    """Builds or changes stream processing: it can read and write any cluster of the project and send data anywhere.

    Its pipelines are a language of their own (``$source``, ``$emit``, ``$https``, ``$externalFunction``) and run as
    ``readWriteAnyDatabase`` by default, so no namespace is derived from them: the whole project is administered, and
    what it holds may leave.
    """
    draft.touch_target(AccessKind.ADMIN, *project(arguments))
    draft.touch_target(AccessKind.EXTERNAL, *project(arguments))
    draft.traits.add(Trait.COST)
    if "connectionConfig" in arguments:
        draft.traits.add(Trait.CREDENTIALS_IN_ARGUMENTS)
    if "pipeline" in arguments or "dlq" in arguments:
        draft.traits.add(Trait.WRITES_VIA_PIPELINE)
    exposing = arguments.get("resource") == "privatelink" or arguments.get("action") == "accept-peering"
    if exposing or "connectionConfig" in arguments:
        draft.traits.add(Trait.NETWORK_EXPOSURE)


def _named(kind: TargetKind, arguments: JsonObject, key: str) -> tuple[Target, str]:
    value = arguments.get(key, "")
    named = value if isinstance(value, str) else ""
    return Target(kind=kind, id=named), f"/arguments/{key}" if named else _AT_NAME
