"""Checks of a policy set outside a sidecar, in a folder that is gone afterwards."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from sidecar.policyset.checks import SetChecker
from sidecar.policyset.finding import Violation
from sidecar.policyset.folder import PolicySet
from sidecar.policyset.opa_command import OpaCommand, installed

_CHECK_S: Final = 60.0
"""Of one OPA command."""
CHECK_MEMORY_BYTES: Final = 1024 * 2**20
"""Of one check, where no OPA serves beside it."""


async def examine(folder: Path, binary: str) -> list[Violation]:
    """Return what is wrong with the containment of a policy folder: an empty list, or warnings, is fine.

    Args:
        folder: the policy folder.
        binary: the OPA executable, as a path or as a name on ``PATH``.

    Raises:
        ConfigurationError: it is no policy folder, or OPA cannot be run.
    """
    return await examine_set(await asyncio.to_thread(PolicySet.read, folder), binary)


async def examine_set(policies: PolicySet, binary: str) -> list[Violation]:
    """Return what is wrong with the containment of a set that was read from wherever.

    Raises:
        ConfigurationError: OPA cannot be run.
    """
    async with workshop(binary) as checker:
        return await checker.violations(policies)


@asynccontextmanager
async def workshop(
    binary: str, issuers: Collection[str] = (), scopes: Collection[str] = ()
) -> AsyncIterator[SetChecker]:
    """Vet outside a sidecar, in a folder that is gone afterwards.

    Args:
        binary: the OPA executable, as a path or as a name on ``PATH``.
        issuers: those that a sidecar would trust; none if that is not known.
        scopes: those that it would ask clients for; the same.

    Raises:
        ConfigurationError: there is no such executable.
    """
    executable = installed(binary)
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-vet-") as directory:
        opa = OpaCommand(binary=executable, memory_limit_bytes=CHECK_MEMORY_BYTES)
        yield SetChecker(opa, Path(directory), timeout_s=_CHECK_S, issuers=issuers, scopes=scopes)
