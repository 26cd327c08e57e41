"""``mcp-sidecar stdio``: the sidecar of one client, which launches it and talks over standard input and output."""

import asyncio
import logging
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click
from pydantic import ValidationError

from sidecar import app, lifecycle, settings
from sidecar.edge import stdio as front
from sidecar.errors import ConfigurationError
from sidecar.model import AuthScheme, Credential, UnverifiedToken
from sidecar.ports import TokenVerifier
from sidecar.setting_names import in_words
from sidecar.settings import Settings
from sidecar.stdio_settings import Stdio
from sidecar.system import ClientStreams, OsUser
from sidecar.telemetry import logs

_LOG = logging.getLogger("sidecar.stdio")

PRODUCTION: Final = "production"

NO_BOUNDARY: Final = (
    "the caller is the user of the operating system, who can also read the settings and the connection string of this "
    "process: this protects from slips of an agent, and from nobody who can start a program"
)

MOST_TOKEN_BYTES: Final = 65_536
"""Of a token's file; longer than any header could be."""


_OF_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class TokenFile:
    """The token in a file, read again when the file has changed.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._token: str | None = None

    def read(self) -> str | None:
        """Return the token; None where there is none, or it cannot be read."""
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
            if seen != self._seen:
                if status.st_mode & _OF_OTHERS:
                    _LOG.warning(
                        "stdio.token_file is open to other users of this machine: run chmod 600 on it",
                        extra={"file": str(self._path), "mode": f"{stat.S_IMODE(status.st_mode):04o}"},
                    )
                with self._path.open("rb") as file:
                    self._token = file.read(MOST_TOKEN_BYTES).decode("ascii").strip() or None
                self._seen = seen
        except (OSError, UnicodeDecodeError) as error:
            if self._token is not None or self._seen is None:
                why = error.strerror if isinstance(error, OSError) else "it holds more than a token"
                _LOG.warning("stdio.token_file cannot be read", extra={"file": str(self._path), "why": why})
            self._seen, self._token = (), None
        return self._token


async def serve(config: Settings) -> None:
    """Serve the client of this process until it closes its end, or the process is told to end.

    Raises:
        ConfigurationError: something does not come up, or nothing says who calls.
    """
    streams = ClientStreams.take()
    logs.configure(config.log_level, json=not sys.stderr.isatty())
    verifier, credential = caller_of(config)
    try:
        async with app.launched(config, verifier) as pep:
            _LOG.info("serving MCP over standard input and output")
            serving = front.StdioFront(pep, credential, streams.write, most_bytes=config.max_request_bytes)
            work = [
                asyncio.create_task(serving.serve(streams.chunks()), name="stdio"),
                asyncio.create_task(lifecycle.interrupted(), name="signals"),
            ]
            try:
                await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in work:
                    task.cancel()
                await asyncio.gather(*work, return_exceptions=True)
    finally:
        streams.close()


def caller_of(config: Settings) -> tuple[TokenVerifier | None, Callable[[], Credential | None]]:
    """Return who verifies, where that is not the issuers' keys, and what proves at each message who is calling.

    Raises:
        ConfigurationError: nothing says who calls, or the user of the operating system does and may not.
    """
    given = config.stdio
    if given.as_os_user:
        if config.environment == PRODUCTION:
            raise ConfigurationError(f'stdio.as_os_user is refused where environment is "{PRODUCTION}": {NO_BOUNDARY}')
        _LOG.warning("%s", NO_BOUNDARY)
        return OsUser.current(given.agent, config.scopes), lambda: _presented(config, "-")
    if given.token_file is not None:
        file = TokenFile(given.token_file)
        file.read()  # says at the start, and not at the first call, what is wrong with it
        return None, lambda: _presented(config, file.read())
    if given.token is None:
        raise ConfigurationError("nothing says who calls: give stdio.token_file, stdio.token or stdio.as_os_user")
    token = settings.secret(given.token, None)
    return None, lambda: _presented(config, token)


def _presented(config: Settings, token: str | None) -> Credential | None:
    if token is None:
        return None
    return Credential(scheme=AuthScheme.BEARER, token=UnverifiedToken(token), method="POST", uri=config.resource.text)


def with_options(config: Settings, **given: object) -> Settings:
    """Return the settings with what the command line says of them.

    Raises:
        ConfigurationError: the two do not fit together.
    """
    kept = {name: getattr(config.stdio, name) for name in Stdio.model_fields}
    try:
        changed = Stdio.model_validate({**kept, **{name: value for name, value in given.items() if value}})
    except ValidationError as error:
        found = [in_words(one["type"], one["msg"]) for one in error.errors(include_input=False)]
        raise ConfigurationError("; ".join(found)) from None
    return config.model_copy(update={"stdio": changed})


@click.command("stdio")
@click.option("--agent", metavar="NAME", help="The agent, where the token names none; it proves nothing.")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file with the user's access token, read again when it changes.",
)
@click.option("--as-os-user", is_flag=True, help="The caller is the user of the operating system. No boundary.")
def stdio(*, agent: str | None, token_file: Path | None, as_os_user: bool) -> None:
    """Serve MCP to the client that launches this process, over standard input and output.

    Every call is decided as over HTTP. The user comes from an access token: of --token-file, or of the settings.
    """
    config = with_options(settings.load(), agent=agent, token_file=token_file, as_os_user=as_os_user)
    settings.forget_tokens()
    lifecycle.run(serve(config))
