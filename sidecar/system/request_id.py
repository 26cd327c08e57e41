"""The request id as it goes with a span."""

from typing import Final

REQUEST_ID: Final = "mcp_sidecar.request_id"
"""The key under which the context of a message's span holds the request id, for the decision log of OPA alone."""
