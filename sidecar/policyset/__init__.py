"""Whether a policy set may serve: it is read, checked, and made into bundles, without an OPA that answers questions."""
