"""Networks only: torch and siblings, no files, no losses."""
