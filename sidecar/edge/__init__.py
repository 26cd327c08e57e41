"""The client side: HTTP routes, limits, and the one table from error to wire."""

from sidecar.edge import admin, http, origins, server
from sidecar.edge.connections import ConnectionLimits, Connections
from sidecar.edge.origins import allowed_host, allowed_origin

__all__ = ["ConnectionLimits", "Connections", "admin", "allowed_host", "allowed_origin", "http", "origins", "server"]
