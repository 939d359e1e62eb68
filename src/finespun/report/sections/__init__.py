"""What sections of the page show, from the facts."""
