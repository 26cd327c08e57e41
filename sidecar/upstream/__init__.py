"""The MongoDB MCP server: a child on standard input and output, or a Streamable HTTP endpoint."""
