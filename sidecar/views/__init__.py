"""Which namespaces are views, and what of."""
