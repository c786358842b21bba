"""Decode, probe, cut, encode and capture video."""
