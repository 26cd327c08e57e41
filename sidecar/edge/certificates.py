"""The certificate that a client proved to hold: that of the connection, or the one that a trusted proxy names.

A proxy that ends TLS saw the client prove its certificate, and can only pass it on in a header, which anybody could
write. So a header counts only from a proxy that proves itself three times: its address is trusted, it shows a
certificate of the configured authority, and that certificate's subject is a proxy's. From anybody else the header means
nothing, and the certificate of the connection counts. A proxy's own certificate is never a client's.

Sources: RFC 8705 section 6.5 and 7; RFC 9440 section 2 (``Client-Cert``) and 3.2; nginx, ``ssl_client_escaped_cert``.
"""

import base64
import binascii
import re
import ssl
from asyncio import BaseTransport
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import unquote

from multidict import MultiMapping

from sidecar.bounded import BoundedMemory
from sidecar.edge.forwarded import TrustedProxies
from sidecar.errors import ProxyCertificate
from sidecar.system import subject_of, thumbprint_of

MAX_CERTIFICATE_BYTES: Final = 16_384
"""DER of one certificate; those of clients have one to two thousand."""

MAX_PEERS: Final = 256
"""Certificates of peers of which is remembered whether they are proxies'."""

_BINARY: Final = re.compile(r":([A-Za-z0-9+/]+={0,2}):", re.ASCII)
"""RFC 8941 section 3.3.5: a byte sequence; RFC 9440 section 2.1 allows no parameters."""
_PEM: Final = re.compile(
    r"-----BEGIN CERTIFICATE-----\r?\n([A-Za-z0-9+/=\r\n]+)\r?\n-----END CERTIFICATE-----(?:\r?\n)?", re.ASCII
)
"""RFC 7468 section 2: exactly one, with nothing around it."""


class CertificateHeader(StrEnum):
    """Which header the proxies write the client's certificate into, and in which form."""

    NONE = ""
    CLIENT_CERT = "client-cert"
    """DER as a byte sequence (RFC 9440)."""
    SSL_CLIENT_CERT = "ssl-client-cert"
    """PEM, percent-encoded (nginx ``$ssl_client_escaped_cert``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateReader:
    """Says which certificate a request comes with."""

    proxies: TrustedProxies = field(default_factory=TrustedProxies)
    header: CertificateHeader = CertificateHeader.NONE
    subjects: frozenset[str] = frozenset()
    """Of the certificates that proxies show."""
    _peers: BoundedMemory[str, bool] = field(default_factory=lambda: BoundedMemory(MAX_PEERS), repr=False)

    def thumbprint(self, transport: BaseTransport | None, peer: str, headers: MultiMapping[str]) -> str | None:
        """Return the thumbprint of the client's certificate (RFC 8705 section 3.1), or None where it showed none.

        Args:
            transport: the connection.
            peer: its address; empty on a Unix socket.
            headers: the request's.

        Raises:
            ProxyCertificate: a proxy's header is there more than once, or is not one certificate.
        """
        tls = None if transport is None else transport.get_extra_info("ssl_object")
        if tls is None or not (der := tls.getpeercert(binary_form=True)):
            return None
        shown = thumbprint_of(der)
        if not self.header or not self.proxies.trusts(peer) or not self._is_proxy(shown, tls):
            return shown
        values = headers.getall(self.header.value, ())
        if len(values) > 1:
            raise ProxyCertificate(f"more than one {self.header} header")
        return thumbprint_of(_der(self.header, values[0])) if values else None

    def _is_proxy(self, shown: str, tls: ssl.SSLObject) -> bool:
        known = self._peers.use(shown)
        if known is None:
            known = subject_of(tls.getpeercert() or {}) in self.subjects
            self._peers.put(shown, known)
        return known


def _der(header: CertificateHeader, value: str) -> bytes:
    """Read one certificate; that it is one, and that the client holds its key, is the proxy's word."""
    found: re.Match[str] | None = None
    match header:
        case CertificateHeader.CLIENT_CERT:
            found = _BINARY.fullmatch(value)
        case CertificateHeader.SSL_CLIENT_CERT:
            found = _PEM.fullmatch(unquote(value)) if value.isascii() else None
        case CertificateHeader.NONE:
            pass
    text = "" if found is None else found[1].replace("\r", "").replace("\n", "")
    try:
        der = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ProxyCertificate(f"{header} is not base64") from error
    if not 0 < len(der) <= MAX_CERTIFICATE_BYTES:
        raise ProxyCertificate(f"{header} is not one certificate")
    return der
