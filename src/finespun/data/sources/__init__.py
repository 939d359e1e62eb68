"""A reader a kind of file."""
