"""The engine that moves batches, saves and resumes."""
