"""What makes training quicker on CPUs."""
