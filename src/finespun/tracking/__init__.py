"""The only door to MLflow, and the lineage that a run is tagged with."""
