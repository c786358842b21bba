"""Subjects followed through time: boxes, identities, smoothing."""
