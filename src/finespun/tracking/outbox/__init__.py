"""What MLflow is owed, delivered exactly once."""
