"""Everything that policy can route to one server: the rows of ``policy who``, of each of its databases."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sidecar.authoring.engine import engine
from sidecar.authoring.reaching import AskedPlace, who
from sidecar.authoring.switched_off import Servers
from sidecar.errors import ConfigurationError, DecisionUnavailable

_LAYOUT = '{"servers": data.mcp.platform.servers, "deployments": data.mcp.platform.deployments}'


async def routable(
    folder: Path, opa: str, wanted: Mapping[str, Collection[str]], servers: Servers
) -> dict[str, dict[str, Any]]:
    """Return, by server and database, the ways to grants (``reach`` of ``policy who``).

    Args:
        folder: the policy folder.
        opa: the OPA executable.
        wanted: by server, databases that are there besides those that the platform's data names.
        servers: the configured servers.

    Raises:
        ConfigurationError: it is no policy folder, or OPA cannot evaluate it.
    """
    async with engine(opa, folder) as held:
        layout: Any = await held.value(_LAYOUT, None)
        if not isinstance(layout, dict):
            raise ConfigurationError(f"{folder} has no servers and deployments")
        rows: dict[str, Any] = {}
        found: dict[str, dict[str, Any]] = {}
        for server, further in wanted.items():
            deployment = layout["servers"].get(server, {}).get("deployment")
            known = layout["deployments"].get(deployment, {})
            databases = {*known.get("databases", {}), *further} - {""}
            for database in sorted(databases - rows.keys()):
                try:
                    rows[database] = (await who(held, AskedPlace(database=database, collection=None), servers))["reach"]
                except DecisionUnavailable as error:
                    raise ConfigurationError(f"this policy cannot be evaluated: {error.detail}") from error
            found[server] = {database: rows[database] for database in sorted(databases)}
        return found
