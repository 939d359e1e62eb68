"""What scores are."""
