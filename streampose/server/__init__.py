"""The live server: capture, infer, smooth, publish."""
