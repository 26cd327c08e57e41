"""OPA: the client, and the local process that the sidecar manages."""
