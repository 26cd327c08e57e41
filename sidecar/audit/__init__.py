"""Evidence as values: the records and the hash chain that links them."""
