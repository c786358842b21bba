"""Foreground masks and what is derived from them."""
