"""Which namespaces are views, and what of."""

from sidecar.views.mongodb import MongoViews

__all__ = ["MongoViews"]
