"""What several sidecars share through MongoDB: suspensions, and marks of what may be used once."""
