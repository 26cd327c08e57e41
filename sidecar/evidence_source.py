"""From the settings, or a file that is named, to the evidence that a command asks."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from sidecar import settings
from sidecar.audit import AuditReader
from sidecar.errors import ConfigurationError
from sidecar.store import FileAuditReader

T = TypeVar("T")


async def asked(file: Path | None, work: Callable[[AuditReader], Awaitable[T]]) -> T:
    """Do what a command has to do with the evidence: that of a file, else that of the settings.

    Raises:
        ConfigurationError: no file is named, and there are no settings; or the store cannot be read.
    """
    if file is not None:
        return await work(FileAuditReader(file))
    if not settings.given():
        raise ConfigurationError("no audit file: name one with --file, or set SIDECAR_CONFIG")
    return await work(FileAuditReader(settings.load().audit.path))
