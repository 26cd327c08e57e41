"""The settings of the listener: where it is, its TLS, and whose word about the client's address counts."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from sidecar.edge import CertificateHeader, CertificateReader, ForwardedHeader, TrustedProxies, tls
from sidecar.settings_group import SettingsGroup

UNIX: Final = "unix:"
"""Begins the address of a Unix socket; the path follows."""

Address = tuple[str, int] | Path
"""Host and port, or the path of a Unix socket."""


def read_address(text: str) -> Address:
    """Return the address of ``host:port``, ``[v6]:port`` or ``unix:/path``.

    Raises:
        ValueError: it is none.
    """
    if text.startswith(UNIX):
        path = Path(text.removeprefix(UNIX).removeprefix("//"))
        if not path.is_absolute():
            msg = "use unix:/absolute/path"
            raise ValueError(msg)
        return path
    return split_address(text)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[v6]:port``.

    Raises:
        ValueError: it is not one.
    """
    parts = urlsplit(f"//{address}")
    if not parts.hostname or parts.port is None or parts.username is not None or parts.netloc != address:
        msg = "use host:port"
        raise ValueError(msg)
    return parts.hostname, parts.port


class Tls(SettingsGroup):
    """TLS of the listener itself, 1.2 at least; changed files are taken up without a restart. See docs/tls.md."""

    certificate_file: Path | None = None
    """PEM: the certificate of `listen`, then its chain. Without it, something in front has to end TLS."""
    key_file: Path | None = None
    """PEM: its private key, without a password, readable by this user only."""
    client_certificates: Literal["off", "optional", "required"] = "off"
    """Whether clients show a certificate: `optional` asks for one, `required` refuses connections without. Both need
    TLS 1.3."""
    client_ca_file: Path | None = None
    """PEM: the authorities that issue the certificates of clients."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            msg = "give certificate_file and key_file, or neither"
            raise ValueError(msg)
        if self.client_certificates != "off" and (self.certificate_file is None or self.client_ca_file is None):
            msg = "client_certificates needs certificate_file, key_file and client_ca_file"
            raise ValueError(msg)
        return self

    @property
    def files(self) -> tls.TlsFiles | None:
        """The files, or None where the listener has no TLS of its own."""
        if self.certificate_file is None or self.key_file is None:
            return None
        return tls.TlsFiles(
            certificate=self.certificate_file,
            key=self.key_file,
            client_authorities=self.client_ca_file,
            client_certificates=tls.ClientCertificates(self.client_certificates),
        )


class Proxies(SettingsGroup):
    """Proxies in front, whose word about the client's address counts in evidence, policy and limits."""

    trusted: tuple[IPv4Network | IPv6Network, ...] = ()
    """Their addresses or networks, such as `10.0.0.0/8`. Headers from other addresses are not believed."""
    unix: bool = False
    """Whether what connects to a `listen` of `unix:` is such a proxy."""
    header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    """The one header that they write. The other one is not read: a client could send it."""

    certificate_header: Literal["", "client-cert", "ssl-client-cert"] = ""
    """The header in which they name the client's certificate: `client-cert` is RFC 9440, `ssl-client-cert` the escaped
    PEM of nginx. It counts only over `tls` with a certificate of `tls.client_ca_file` and such a subject:"""
    certificate_subjects: tuple[str, ...] = ()
    """Subjects of the certificates that proxies show, such as `organizationName=Example,commonName=proxy`."""

    @model_validator(mode="after")
    def _proxies_prove_themselves(self) -> Self:
        if self.certificate_header and not (self.certificate_subjects and (self.trusted or self.unix)):
            msg = "certificate_header needs trusted (or unix) and certificate_subjects: who may name certificates"
            raise ValueError(msg)
        return self

    def read(self) -> TrustedProxies:
        """Return them as the edge asks them."""
        return TrustedProxies(networks=self.trusted, header=ForwardedHeader(self.header), local=self.unix)

    def certificates(self) -> CertificateReader:
        """Return which certificate a request comes with."""
        return CertificateReader(
            proxies=self.read(),
            header=CertificateHeader(self.certificate_header),
            subjects=frozenset(self.certificate_subjects),
        )


class ClientConnections(SettingsGroup):
    """How many connections of clients there may be; beyond that idle ones end, refused and silent ones first."""

    total: int = Field(default=10_000, ge=64)
    """Open connections; never more than the process may open files (`ulimit -n`), less 288 for everything else."""
    per_address: int = Field(default=2_000, ge=8)
    """Open connections of one IPv4 address or IPv6 /64; behind a proxy, all clients have the proxy's."""
    first_byte_s: int = Field(default=10, ge=1, le=3600)
    """Seconds from connecting to the first byte."""
    head_s: int = Field(default=10, ge=1, le=3600)
    """Seconds from the first byte of a request to its complete head."""
    idle_s: int = Field(default=75, ge=1, le=3600)
    """Seconds that a connection stays open between two requests."""
    body_s: int = Field(default=30, ge=1, le=3600)
    """Seconds from the head of a request to its complete body."""
    write_s: int = Field(default=30, ge=1, le=3600)
    """Seconds that a client may take to read one event of a stream; one that takes longer has left."""
