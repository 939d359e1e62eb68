"""What would change a model, and making one anew: `finespun plan`, `finespun reproduce`."""
