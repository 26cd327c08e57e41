"""Whether the loading team's hours are open: what the tour expects of the loader depends on it."""

import asyncio
import shutil
from pathlib import Path
from typing import Final

from sidecar.errors import ConfigurationError
from sidecar.policyset import CHECK_MEMORY_BYTES, OpaCommand

_LIMIT_S: Final = 60.0

_QUERY: Final = "data.mcp.platform.calendar.during(data.mcp.grants.loading.hours, {time_ns})"


async def are_on(binary: str, policies: Path, time_ns: int) -> bool:
    """Ask the team's data, not the rules that use it.

    OPA answers, because it has the time zones built in; the machine may have none.

    Args:
        binary: OPA's executable.
        policies: the policy folder; without such a team, or its hours, they are never open.
        time_ns: the moment, in nanoseconds since the epoch.

    Raises:
        ConfigurationError: there is no such executable.
    """
    opa = OpaCommand(binary=await asyncio.to_thread(_executable, binary), memory_limit_bytes=CHECK_MEMORY_BYTES)
    arguments = ("eval", "--fail", "--bundle", "platform", "--bundle", "teams/loading", _QUERY.format(time_ns=time_ns))
    status, _ = await opa.run(*arguments, folder=policies, home=policies, timeout_s=_LIMIT_S)
    return status == 0


def _executable(binary: str) -> str:
    path = shutil.which(binary)
    if path is None:
        raise ConfigurationError(f"{binary} is not on PATH: run `mcp-sidecar setup`")
    return str(Path(path).resolve())
