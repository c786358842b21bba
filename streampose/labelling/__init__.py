"""Frames worth labelling, packages for labelling tools, and what comes back from them."""
