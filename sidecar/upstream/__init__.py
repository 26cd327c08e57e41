"""The MongoDB MCP server: a child on standard input and output, or a Streamable HTTP endpoint."""

from sidecar.upstream.agreeing import Opening
from sidecar.upstream.confirming import ConfirmingUpstream
from sidecar.upstream.database import Databases, doubtful_options, hosts_of, without_credentials
from sidecar.upstream.environment import mongodb_environment, read_further
from sidecar.upstream.http import HttpUpstream
from sidecar.upstream.pool import StdioPool
from sidecar.upstream.process import StdioUpstream
from sidecar.upstream.renewal import Renewal

__all__ = [
    "ConfirmingUpstream",
    "Databases",
    "HttpUpstream",
    "Opening",
    "Renewal",
    "StdioPool",
    "StdioUpstream",
    "doubtful_options",
    "hosts_of",
    "mongodb_environment",
    "read_further",
    "without_credentials",
]
