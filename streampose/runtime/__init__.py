"""Bundles and what executes them; never imports models or methods."""
