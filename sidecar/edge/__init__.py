"""The client side: HTTP routes, limits, and the one table from error to wire."""

from typing import TYPE_CHECKING

from sidecar.lazy_face import by_need

if TYPE_CHECKING:
    from sidecar.edge import admin, http, origins, server, stdio, tls
    from sidecar.edge.certificates import CertificateHeader, CertificateReader
    from sidecar.edge.connections import ConnectionLimits, Connections
    from sidecar.edge.forwarded import ForwardedHeader, TrustedProxies
    from sidecar.edge.origins import allowed_host, allowed_origin
else:
    __getattr__ = by_need(
        __name__,
        {
            "CertificateHeader": "certificates",
            "CertificateReader": "certificates",
            "ConnectionLimits": "connections",
            "Connections": "connections",
            "ForwardedHeader": "forwarded",
            "TrustedProxies": "forwarded",
            "admin": "admin",
            "allowed_host": "origins",
            "allowed_origin": "origins",
            "http": "http",
            "origins": "origins",
            "server": "server",
            "stdio": "stdio",
            "tls": "tls",
        },
    )

__all__ = [
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
