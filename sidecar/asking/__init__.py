"""Questions to the evidence: is it whole, who did what, what changed. The command line loads its commands by name."""
