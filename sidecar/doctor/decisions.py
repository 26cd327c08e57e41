"""The OPA that decides: its version, and whether others could change or ask it."""

import asyncio
import shutil
import ssl
import tempfile
from pathlib import Path
from typing import Final

import aiohttp

from sidecar import os_environment
from sidecar.doctor.findings import Check, PostureFinding
from sidecar.errors import ConfigurationError, DecisionUnavailable
from sidecar.opa import OpaClient, version_fault
from sidecar.opa_settings import Opa
from sidecar.policyset import CHECK_MEMORY_BYTES, OpaCommand, installed

_WAIT_S: Final = 5.0
_NO_MODULE: Final = b"package"
_REFUSED: Final = frozenset({401, 403})
_VERSION: Final = "Version: "


async def examine_opa(opa: Opa) -> list[PostureFinding]:
    """Return what is wrong with the OPA of the settings."""
    return await _examine_external(opa) if opa.url else await _examine_managed(opa)


async def _examine_managed(opa: Opa) -> list[PostureFinding]:
    path = shutil.which(opa.binary, path=os_environment.search_path())
    if path is None:
        return [_unreachable("opa.binary", f"there is no program {opa.binary}", "mcp-sidecar setup")]
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-doctor-") as home:
        command = OpaCommand(binary=installed(path), memory_limit_bytes=CHECK_MEMORY_BYTES)
        _, printed = await command.run("version", folder=Path(home), home=Path(home), timeout_s=_WAIT_S * 4)
    line = next((one for one in printed.decode("utf-8", "replace").splitlines() if one.startswith(_VERSION)), _VERSION)
    return _version("opa.binary", line.removeprefix(_VERSION).strip())


async def _examine_external(opa: Opa) -> list[PostureFinding]:
    try:
        client = OpaClient(opa.url, timeout_s=_WAIT_S, ca_file=opa.ca_file, token_file=opa.token_file)
        async with client:
            found = _version("opa.url", await client.engine())
    except (ConfigurationError, DecisionUnavailable) as error:
        return [_unreachable("opa.url", f"OPA does not answer: {error.detail}", f"curl -i {opa.url}/health")]
    if await _is_open(opa):
        found.append(
            PostureFinding(
                check=Check.OPA_OPEN,
                where="opa.url",
                what="anyone who reaches OPA can replace its policies: /v1/policies takes them without a token",
                fix="start it with --authorization=basic and the system bundle, as docs/external-opa.md says",
            )
        )
    return found


async def _is_open(opa: Opa) -> bool:
    """Whether a policy could be written without a token: a module that is none is parsed, and not refused before.

    Nothing is changed: what does not parse is not stored (OPA REST API, "Create or Update a Policy").
    """
    unix = opa.url.startswith("unix://")
    connector = (
        aiohttp.UnixConnector(opa.url.removeprefix("unix://"))
        if unix
        else aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=opa.ca_file) if opa.ca_file else True)
    )
    address = f"{'http://opa' if unix else opa.url.rstrip('/')}/v1/policies/mcp-sidecar-doctor"
    try:
        async with (
            aiohttp.ClientSession(connector=connector, trust_env=False) as http,
            asyncio.timeout(_WAIT_S),
            http.put(address, data=_NO_MODULE, allow_redirects=False) as answer,
        ):
            return answer.status not in _REFUSED
    except (aiohttp.ClientError, OSError):
        return False


def _version(where: str, version: str) -> list[PostureFinding]:
    fault = version_fault(version)
    return [PostureFinding(check=Check.OPA_VERSION, where=where, what=fault, fix="mcp-sidecar setup")] if fault else []


def _unreachable(where: str, what: str, fix: str) -> PostureFinding:
    return PostureFinding(check=Check.OPA_UNREACHABLE, where=where, what=what, fix=fix)
