"""What is trained, one file a strategy; importable without torch."""
