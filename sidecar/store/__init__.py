"""Where audit records are kept."""
