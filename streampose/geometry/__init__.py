"""Cameras, crops, triangulation and alignment: plain geometry, no files, no networks."""
