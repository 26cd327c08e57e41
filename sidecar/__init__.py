"""Policy enforcement point for the MongoDB MCP server."""

__version__ = "0.1.0"
