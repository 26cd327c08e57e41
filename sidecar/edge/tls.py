"""TLS of the listener itself: files in, a context out, and new files taken up without a restart.

A connection that is made after the files changed is made with the new ones (``sidecar.system.followed_tls``). Files
that do not fit together change nothing.

Where client certificates are asked for, the floor is TLS 1.3, and no session is resumed.

Sources: RFC 9325 (TLS 1.2 as the floor, 1.3 preferred), RFC 8446 sections 2.2 and 4.6.1.
"""

import ssl
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from sidecar.errors import ConfigurationError
from sidecar.system import FollowedTls


class ClientCertificates(StrEnum):
    """Whether clients show a certificate."""

    OFF = "off"
    OPTIONAL = "optional"
    REQUIRED = "required"


_ASKED: Final = {
    ClientCertificates.OPTIONAL: ssl.CERT_OPTIONAL,
    ClientCertificates.REQUIRED: ssl.CERT_REQUIRED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """Where the listener's TLS comes from."""

    certificate: Path
    """PEM: the certificate, then its chain."""
    key: Path
    """PEM, not encrypted."""
    client_authorities: Path | None = None
    """PEM: who issues the certificates of clients."""
    client_certificates: ClientCertificates = ClientCertificates.OFF

    def all(self) -> tuple[Path, ...]:
        """Every file that is read."""
        return tuple(path for path in (self.certificate, self.key, self.client_authorities) if path is not None)


class ListenerTls(FollowedTls):
    """The newest good context of these files.

    Raises:
        ConfigurationError: they cannot be read, or do not fit together.
    """

    def __init__(self, files: TlsFiles) -> None:
        super().__init__("tls", files.all(), lambda: _context(files))
        if files.client_certificates is not ClientCertificates.OFF:
            # A resumed session brings its certificate along unverified, also one of an authority that is no longer
            # trusted. Tickets are this context's, whichever the handshake goes on with.
            self.context.num_tickets = 0


def _context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")  # of TLS 1.2 (RFC 9325 section 4.2); 1.3 has its own
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
        if files.client_certificates is not ClientCertificates.OFF:
            context.minimum_version = ssl.TLSVersion.TLSv1_3  # 1.2 resumes from OpenSSL's own cache (see ListenerTls)
            context.load_verify_locations(cafile=files.client_authorities)
            context.verify_mode = _ASKED[files.client_certificates]
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        named = ", ".join(str(path) for path in files.all())
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"tls: {named}: {reason}") from None
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one without a password, readable by this user only")
