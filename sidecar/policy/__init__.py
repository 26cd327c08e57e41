"""The decision contract: the document that OPA is asked with, and the reading of its answer."""
