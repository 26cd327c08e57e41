"""The real nginx, in the foreground and with all that it writes in one folder."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.patience import HANG_S

_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def with_real(shown: str, real: Mapping[str, str]) -> str:
    """A configuration that readers are shown, with what is here in place of the addresses and files of another host."""
    for theirs, ours in real.items():
        assert theirs in shown, f"{theirs} is not in the configuration any more"
        shown = shown.replace(theirs, ours)
    return shown


@asynccontextmanager
async def nginx(folder: Path, servers: str, port: int) -> AsyncIterator[None]:
    """Run it until the end.

    Args:
        folder: where it writes.
        servers: what stands in its ``http`` block.
        port: the one of loopback that it then listens on.
    """
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in _TEMPORARY)
    configuration, log = folder / "nginx.conf", folder / "nginx.log"
    configuration.write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log {log};\n"
        f"events {{}}\nhttp {{ access_log off;\n{temporary}{servers} }}\n"
    )
    process = await asyncio.create_subprocess_exec("nginx", "-p", str(folder), "-c", str(configuration), "-e", str(log))
    try:
        async with asyncio.timeout(HANG_S):
            while not await _listens(port):
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.05)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
