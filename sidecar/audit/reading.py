"""The evidence as questions read it: one Protocol for every store."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol

from sidecar.audit.chain import GENESIS
from sidecar.audit.checkpoint import CheckpointVerifier
from sidecar.audit.entry import AuditEntry
from sidecar.audit.selection import Selection
from sidecar.audit.survey import ChainReport

ReadProgress = Callable[[int, int], None]
"""Takes how much was read, of how much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldAgainst:
    """What chains are compared with when they are proven."""

    head: str | None = None
    """A remembered hash that one of the records must have."""
    checkpoints: tuple[str, ...] = ()
    """Names of files of published heads, besides those that the store has itself."""
    verifier: CheckpointVerifier | None = None
    """Checks their signatures; then a chain may begin behind a signed one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChain:
    """One chain, read from its beginning."""

    name: str
    """The file, or the sidecar that wrote it."""
    lines: AsyncIterator[bytes]
    """Each record as canonical JSON with its line break, which the last one may lack."""
    seq: int = 0
    """Number of the record before the first; above 0 where older ones are no longer stored."""
    head: str = GENESIS
    """Its hash."""
    size: int = 0
    """Bytes of all records; 0 where that is not known."""


class AuditReader(Protocol):
    """Where questions to the evidence are answered from; each store has one."""

    def read(
        self, selection: Selection, progress: ReadProgress | None = None
    ) -> AsyncIterator[list[tuple[AuditEntry, bytes]]]:
        """Yield the records that are meant, with their canonical JSON; those of one chain in its order.

        Raises:
            ConfigurationError: the store cannot be read.
        """
        ...

    def follow(self, selection: Selection) -> AsyncIterator[list[tuple[AuditEntry, bytes]]]:
        """Yield records that are stored from now on.

        Raises:
            ConfigurationError: the store cannot be read.
        """
        ...

    async def verify(self, against: HeldAgainst, progress: ReadProgress | None = None) -> tuple[ChainReport, ...]:
        """Prove each chain.

        Raises:
            ConfigurationError: the store cannot be read, or holds no chain.
        """
        ...

    async def chains(self) -> tuple[StoredChain, ...]:
        """Return each chain.

        Raises:
            ConfigurationError: the store cannot be read, or holds no chain.
        """
        ...
