"""The client side: HTTP routes, limits, and the one table from error to wire."""
