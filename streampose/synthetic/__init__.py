"""SynthPose: rendered videos with exact ground truth."""
