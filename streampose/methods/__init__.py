"""One readable file a self-training method."""
