"""The MongoDB MCP server: a child on standard input and output, or a Streamable HTTP endpoint."""

from sidecar.upstream.environment import mongodb_environment
from sidecar.upstream.http import HttpUpstream
from sidecar.upstream.process import StdioUpstream

__all__ = ["HttpUpstream", "StdioUpstream", "mongodb_environment"]
