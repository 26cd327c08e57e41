"""The other end of the control listener: one command, one answer."""

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final, Literal

from typing_extensions import override

from sidecar import strict_json
from sidecar.model import JsonObject

TIMEOUT_S: Final = 30.0
LONGEST_ANSWER: Final = 64 * 2**20

Verb = Literal["suspend", "resume", "suspended"]


class ControlError(Exception):
    """The command was not carried out, or it is unknown whether it was; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """What this end shows and trusts on TCP."""

    certificate: Path
    key: Path
    ca: Path


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def send(address: str, command: Verb, asked: JsonObject, tls: ClientTls | None) -> JsonObject:
    """Send one command and return its answer.

    Args:
        address: ``unix:PATH`` or ``host:port``.
        command: what to do.
        asked: its parts.
        tls: needed for ``host:port``.

    Raises:
        ControlError: it was not carried out.
    """
    connection = _connection(address, tls)
    try:
        connection.request("POST", f"/{command}", json.dumps(asked).encode(), {"Content-Type": "application/json"})
        response = connection.getresponse()
        status, body = response.status, response.read(LONGEST_ANSWER)
        answer = strict_json.DECODER.decode(body.decode("utf-8"))
    except (OSError, http.client.HTTPException) as error:
        raise ControlError(f"no answer from {address}: {getattr(error, 'strerror', None) or error}") from error
    except ValueError as error:
        raise ControlError(f"{address} is not the control listener of a sidecar") from error
    finally:
        connection.close()
    if not isinstance(answer, dict):
        raise ControlError(f"{address} is not the control listener of a sidecar")
    if status != HTTPStatus.OK:
        raise ControlError(str(answer.get("error", status)))
    return answer


def _connection(address: str, tls: ClientTls | None) -> http.client.HTTPConnection:
    if address.startswith("unix:"):
        return _UnixConnection(address.removeprefix("unix:").removeprefix("//"))
    if tls is None:
        raise ControlError("an address other than unix:PATH needs --certificate, --key and --ca")
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(tls.ca)
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise ControlError(f"certificate, key or ca cannot be used: {error.strerror or error}") from error
    return http.client.HTTPSConnection(host.strip("[]"), int(port or "0"), timeout=TIMEOUT_S, context=context)
