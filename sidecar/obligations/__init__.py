"""What must be done for an allow to stand: planned before forwarding, discharged on commands and results."""
