"""Recorded calls decided again with a policy folder, as the command line asks for it."""

import tempfile
from pathlib import Path
from typing import Any, BinaryIO, Final

from sidecar.audit import AuditReader, StoredChain
from sidecar.authoring import replaying
from sidecar.authoring.engine import engine
from sidecar.authoring.explain import vocabulary
from sidecar.authoring.replaying import ReplayReport, ReplayWanted
from sidecar.configured import configured, opa_binary
from sidecar.errors import ConfigurationError, ObligationNotSupported
from sidecar.evidence_source import asked
from sidecar.opa import ManagedOpa
from sidecar.opa_settings import Opa

REPLAY_TIMEOUT_S: Final = 5.0
"""For one question of a replay. It is about the decision, not about the speed of this machine."""

FOR_EVER_S: Final = 1e12
"""Answers do not age: the time of a recorded question is in it, so an answer that depends on the time is kept by it."""


async def replay_evidence(
    records: BinaryIO | None, folder: Path, opa: str | None, wanted: ReplayWanted, *, instance: str = ""
) -> ReplayReport:
    """Decide the recorded questions of an audit file, else of the configured store, again with a policy folder.

    An allow may go to the configured servers; without settings, to those of the platform's data.

    Args:
        records: the audit file; None takes the evidence of the settings.
        folder: the policy folder.
        opa: the OPA executable; None takes the configured one.
        wanted: which records are compared, and what is told of them.
        instance: the chain that is meant, where the store has several.

    Raises:
        ConfigurationError: the folder would not be served, the file cannot be read, or OPA cannot be run.
    """
    if records is not None:
        return await _replay(records, folder, opa, wanted)

    async def one_chain(reader: AuditReader) -> ReplayReport:
        chains = await reader.chains()
        if len(chains) > 1:
            names = ", ".join(each.name for each in chains)
            raise ConfigurationError(f"there are several chains; say which one with --instance: {names}")
        return await _replay(chains[0], folder, opa, wanted)

    return await asked(None, one_chain, instance=instance)


async def _replay(records: BinaryIO | StoredChain, folder: Path, opa: str | None, wanted: ReplayWanted) -> ReplayReport:
    config = configured()
    binary = opa_binary(opa)
    memory = (config.opa if config is not None else Opa()).memory_mb * 2**20
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-replay-") as directory:
        managed = ManagedOpa(
            binary,
            folder,
            directory=Path(directory),
            timeout_s=REPLAY_TIMEOUT_S,
            memory_limit_bytes=memory,
            memo_s=FOR_EVER_S,
        )
        # The set is vetted before anything of it is evaluated.
        async with managed, engine(binary, folder) as held:
            known = await held.value("object.keys(data.mcp.platform.servers)", {})
            servers = [str(name) for name in known] if isinstance(known, list) else []
            return await replaying.replay(
                records,
                managed,
                servers=servers if config is None else [server.name for server in config.servers],
                titles=_titles(vocabulary(held)),
                wanted=wanted,
            )


def _titles(reasons: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return what reason codes mean, in words: the set's own, and that of the enforcement point."""
    own = {ObligationNotSupported.label: ObligationNotSupported.public}
    return own | {code: str(entry.get("title", "")) for code, entry in reasons.items()}
