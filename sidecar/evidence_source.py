"""From the settings, or a file that is named, to the evidence that a command asks."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

from sidecar.audit import AuditReader
from sidecar.configured import configured
from sidecar.errors import ConfigurationError
from sidecar.store import FileAuditReader, KeptPolicySets, policy_sets_of

T = TypeVar("T")

_NO_FILE: Final = "no audit file: name one with --file, or set SIDECAR_CONFIG"


def kept_policies(file: Path | None) -> KeptPolicySets:
    """Return the policy sets that decided what a file has, else what the store of the settings has.

    Raises:
        ConfigurationError: no file is named, and there are no settings.
    """
    config = configured() if file is None else None
    place = file if config is None else config.audit.path or config.audit.spool
    if place is None:
        raise ConfigurationError(_NO_FILE)
    return KeptPolicySets(policy_sets_of(place))


async def asked(file: Path | None, work: Callable[[AuditReader], Awaitable[T]], *, instance: str = "") -> T:
    """Do what a command has to do with the evidence: that of a file, else that of the settings.

    Args:
        file: the file that is named.
        work: what is to be done.
        instance: the chain that is meant, where a store has several; empty for all.

    Raises:
        ConfigurationError: no file is named, and there are no settings; or the store cannot be read.
    """
    if file is None:
        if (config := configured()) is None:
            raise ConfigurationError(_NO_FILE)
        if config.audit.path is None:
            from sidecar.evidence_store import asked_of_store  # noqa: PLC0415 - a driver that a file does not need

            return await asked_of_store(config, work, instance)
        file = config.audit.path
    if instance:
        raise ConfigurationError(f"{file} holds one chain; --instance is for a mongodb: store")
    return await work(FileAuditReader(file))
