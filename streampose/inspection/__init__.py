"""What `streampose inspect` draws: plots and the page."""
