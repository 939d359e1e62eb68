"""Finding the nearest items: all of them compared with, or by an index."""
