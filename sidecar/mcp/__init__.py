"""The MCP wire language without I/O: bytes to messages and back, the closed method table, revisions, sessions."""
