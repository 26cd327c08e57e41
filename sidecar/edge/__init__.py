"""The client side: HTTP routes, limits, and the one table from error to wire."""

from sidecar.edge import admin, http, origins, server, stdio, tls
from sidecar.edge.approvals import SEGMENT as APPROVALS_SEGMENT
from sidecar.edge.certificates import CertificateHeader, CertificateReader
from sidecar.edge.connections import ConnectionLimits, Connections
from sidecar.edge.forwarded import ForwardedHeader, TrustedProxies
from sidecar.edge.origins import allowed_host, allowed_origin

__all__ = [
    "APPROVALS_SEGMENT",
    "CertificateHeader",
    "CertificateReader",
    "ConnectionLimits",
    "Connections",
    "ForwardedHeader",
    "TrustedProxies",
    "admin",
    "allowed_host",
    "allowed_origin",
    "http",
    "origins",
    "server",
    "stdio",
    "tls",
]
