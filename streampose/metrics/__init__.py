"""How good are keypoints: against truth, and without it."""
