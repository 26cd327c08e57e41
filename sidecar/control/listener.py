"""The control listener: a Unix socket whose peer is known to the kernel, or TCP with mutual TLS; nothing else.

It is apart from the listeners of clients and of probes: those that may scrape metrics must not be able to take rights
away, and those that may take them away must be known by name.
"""

import errno
import logging
import os
import pwd
import socket
import ssl
import stat
import struct
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

from aiohttp import web

from sidecar import strict_json
from sidecar.enforcement import KillSwitch, OperatorCommandFailed
from sidecar.errors import ConfigurationError
from sidecar.mcp import jsonrpc
from sidecar.model import JsonObject
from sidecar.system import FollowedTls, subject_of

_LOG = logging.getLogger(__name__)

LONGEST_COMMAND: Final = 65_536
"""Bytes of a command."""

_CREDENTIALS: Final = struct.Struct("3i")
"""``struct ucred`` of unix(7): process, user, group."""

Operator = Callable[[web.Request], str | None]
"""Returns who sends a command, as evidence names them; None where they may not."""


def build_control_application(switch: KillSwitch, operator: Operator) -> web.Application:
    """Return the application of the control listener."""

    async def carry_out(
        request: web.Request, command: Callable[[JsonObject, str], Awaitable[JsonObject]]
    ) -> web.Response:
        who = operator(request)
        if who is None:
            _LOG.warning("a command was refused: the caller is not an operator")
            return _answer(403, {"error": "not an operator"})
        try:
            asked = strict_json.DECODER.decode((await request.read()).decode("utf-8"))
        except (ValueError, RecursionError):
            asked = None
        if not isinstance(asked, dict):
            return _answer(400, {"error": "not a JSON object"})
        try:
            done = await command(asked, who)
        except OperatorCommandFailed as refusal:
            return _answer(409, {"error": refusal.detail})
        _LOG.warning("an operator's command was carried out", extra={"operator": who, "done": done})
        return _answer(200, done)

    async def suspend(request: web.Request) -> web.Response:
        return await carry_out(request, switch.suspend)

    async def resume(request: web.Request) -> web.Response:
        return await carry_out(request, switch.resume)

    async def suspended(request: web.Request) -> web.Response:
        async def listed(_asked: JsonObject, _who: str) -> JsonObject:
            return switch.suspended()

        return await carry_out(request, listed)

    application = web.Application(client_max_size=LONGEST_COMMAND)
    application.router.add_post("/suspend", suspend)
    application.router.add_post("/resume", resume)
    application.router.add_post("/suspended", suspended)
    return application


def _answer(status: int, body: JsonObject) -> web.Response:
    return web.Response(status=status, body=jsonrpc.encode(body), content_type="application/json")


def peer_of(uids: Collection[int]) -> Operator:
    """Know operators by the user of the process at the other end of the socket (SO_PEERCRED, unix(7))."""

    def operator(request: web.Request) -> str | None:
        connection = request.transport.get_extra_info("socket") if request.transport is not None else None
        if connection is None:
            return None
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, _ = _CREDENTIALS.unpack(credentials)
        if uid not in uids:
            return None
        with suppress(KeyError):
            return f"uid {uid} ({pwd.getpwuid(uid).pw_name})"
        return f"uid {uid}"

    return operator


def certified(subjects: Collection[str]) -> Operator:
    """Know operators by the subject of the certificate that TLS has verified."""

    def operator(request: web.Request) -> str | None:
        certificate = request.transport.get_extra_info("peercert") if request.transport is not None else None
        subject = subject_of(certificate or {})
        return f"certificate {subject}" if subject in subjects else None

    return operator


async def serve_unix(switch: KillSwitch, path: Path) -> web.AppRunner:
    """Listen on a Unix socket of mode 0600; its operators are the sidecar's own user and root.

    Raises:
        ConfigurationError: the socket cannot be made, or another process listens there.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        raise ConfigurationError("this system does not say who is at the other end of a Unix socket; use TCP with TLS")
    runner = await _set_up(build_control_application(switch, peer_of({os.geteuid(), 0})))
    try:
        await web.SockSite(runner, _bound(path)).start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    except ConfigurationError:
        await runner.cleanup()
        raise
    return runner


async def serve_tls(
    switch: KillSwitch, host: str, port: int, context: ssl.SSLContext, operators: Collection[str]
) -> web.AppRunner:
    """Listen on TCP with mutual TLS.

    Raises:
        ConfigurationError: the address cannot be bound.
    """
    runner = await _set_up(build_control_application(switch, certified(operators)))
    try:
        await web.TCPSite(runner, host, port, ssl_context=context).start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return runner


class ControlContext(FollowedTls):
    """TLS that asks every client for a certificate of ``client_ca``; the next connection is made with changed files.

    Raises:
        ConfigurationError: a file cannot be used.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path) -> None:
        files = (certificate, key, client_ca)
        super().__init__("control_tls", files, lambda: _server_context(*files))


def _server_context(certificate: Path, key: Path, client_ca: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # a resumed session would bring its certificate along unverified
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
        context.load_verify_locations(client_ca)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        why = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"certificate, key or client_ca cannot be used: {why}") from error
    return context


def _no_password() -> str:
    """Keep OpenSSL from asking a terminal for one."""
    raise ValueError("the key is encrypted; give one without a password, readable by this user only")


async def _set_up(application: web.Application) -> web.AppRunner:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=2.0, keepalive_timeout=5.0)
    await runner.setup()
    return runner


def _bound(path: Path) -> socket.socket:
    """Bind a socket that no other user can connect to, at any moment; an abandoned one is removed."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        os.fchmod(listening.fileno(), 0o600)  # Linux gives the file the mode of the socket, so it is never wider
        listening.bind(str(path))
        path.chmod(0o600)
    except OSError as error:
        listening.close()
        raise ConfigurationError(f"{path}: {error.strerror or error}") from error
    except ConfigurationError:
        listening.close()
        raise
    return listening


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigurationError(f"{path}: there is a file that is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(str(path)) != errno.ECONNREFUSED:
            raise ConfigurationError(f"{path}: another process listens there")
    path.unlink()
