"""How the sidecar proves to an authorization server that it may ask about tokens (RFC 6749, 7523 and 8705).

Secrets and keys are files, read again when they change, so that a rotation needs no restart.
"""

import base64
import logging
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Generic, TypeVar
from urllib.parse import quote_plus

import jwt

from sidecar.errors import ConfigurationError, KeysUnavailable
from sidecar.ports import Clock
from sidecar.system import stamps

T = TypeVar("T")

_log = logging.getLogger(__name__)

ASSERTION_S: Final = 60
"""How long a signed assertion is good; it is used at once."""
_ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
"""RFC 7523 section 2.2."""
_MAX_SECRET_BYTES: Final = 65_536


class AuthMethod(StrEnum):
    """Registered names (RFC 7591 section 2, RFC 8705 section 2)."""

    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    ASSERTION = "private_key_jwt"
    CERTIFICATE = "tls_client_auth"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientProof:
    """What one request carries besides its own parameters."""

    headers: dict[str, str]
    parameters: dict[str, str]
    context: ssl.SSLContext | None = None


class FromFile(Generic[T]):
    """A value that is made of files, and made again when one of them changes.

    Args:
        paths: the files.
        make: makes the value; may raise OSError or ValueError.
    """

    def __init__(self, paths: tuple[Path, ...], make: Callable[[], T]) -> None:
        self._paths = paths
        self._make = make
        self._seen: tuple[object, ...] = ()
        self._told: tuple[object, ...] = ()
        self._value: T | None = None

    def value(self) -> T:
        """Return the present value; the last good one where a file is not usable, which is told once.

        Raises:
            KeysUnavailable: there never was a good one.
        """
        seen = stamps(self._paths)
        if self._value is None or seen != self._seen:
            try:
                self._value = self._make()
                self._seen = seen
            except (OSError, ValueError) as error:
                why = f"{self._paths[0].name}: {type(error).__name__}"
                if self._value is None:
                    raise KeysUnavailable(why) from None
                if seen != self._told:
                    _log.error("introspection: what changed is not used, what was there before is: %s", why)
                self._told = seen
        if self._value is None:
            raise KeysUnavailable(f"{self._paths[0].name} holds nothing")
        return self._value


class ClientAuthentication:
    """One client of one authorization server.

    Args:
        method: how it proves itself.
        client_id: as it is registered.
        audience: the issuer, which an assertion is made for (RFC 7523 section 3, item 3).
        secret_file: the secret, or the private key (PEM).
        certificate_file: the certificate chain (PEM) of ``tls_client_auth``.
        algorithm: what an assertion is signed with.
        clock: the only source of time.

    Raises:
        ConfigurationError: a file is missing, or one too many.
    """

    def __init__(
        self,
        method: AuthMethod,
        client_id: str,
        *,
        audience: str,
        secret_file: Path | None,
        certificate_file: Path | None,
        algorithm: str,
        clock: Clock,
    ) -> None:
        if secret_file is None or (certificate_file is None) is (method is AuthMethod.CERTIFICATE):
            raise ConfigurationError(f"{method} needs its files: secret_file, and certificate_file for tls_client_auth")
        self._method = method
        self._client_id = client_id
        self._audience = audience
        self._algorithm = algorithm
        self._clock = clock
        self._secret = FromFile((secret_file,), lambda: _text(secret_file))
        files = (secret_file,) if certificate_file is None else (secret_file, certificate_file)
        self._context = FromFile(files, lambda: _context(certificate_file, secret_file))

    def proof(self) -> ClientProof:
        """Return what the next request carries.

        Raises:
            KeysUnavailable: a file is not usable.
        """
        match self._method:
            case AuthMethod.BASIC:
                # RFC 6749 section 2.3.1: both are encoded as in a form before they are joined
                pair = f"{quote_plus(self._client_id)}:{quote_plus(self._secret.value())}"
                return ClientProof(
                    headers={"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}, parameters={}
                )
            case AuthMethod.POST:
                return self._with(client_secret=self._secret.value())
            case AuthMethod.ASSERTION:
                return self._with(client_assertion_type=_ASSERTION_TYPE, client_assertion=self._assertion())
            case AuthMethod.CERTIFICATE:
                return ClientProof(headers={}, parameters={"client_id": self._client_id}, context=self._context.value())

    def _with(self, **parameters: str) -> ClientProof:
        return ClientProof(headers={}, parameters={"client_id": self._client_id, **parameters})

    def _assertion(self) -> str:
        """RFC 7523 section 3."""
        now = self._clock.time_ns() // 1_000_000_000
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": self._audience,
            "iat": now,
            "exp": now + ASSERTION_S,
            "jti": secrets.token_urlsafe(16),
        }
        try:
            return jwt.encode(claims, self._secret.value(), algorithm=self._algorithm)
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise KeysUnavailable(f"no assertion can be signed: {type(error).__name__}") from None


def _text(path: Path) -> str:
    with path.open("rb") as file:
        text = file.read(_MAX_SECRET_BYTES).decode("utf-8").strip()
    if not text:
        raise ValueError("empty")
    return text


def _context(certificate: Path | None, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context
