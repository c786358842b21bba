"""streampose: from a folder of unlabelled videos to a live 2D/3D pose model."""

__version__ = "0.1.0"
