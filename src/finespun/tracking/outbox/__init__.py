"""What MLflow has not received yet, delivered exactly once."""
