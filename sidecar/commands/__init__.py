"""From a tool call to what it would do to MongoDB, or a refusal."""
