"""read_* and write_* for the formats of others."""
