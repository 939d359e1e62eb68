"""Passes over all rows: where they are read and worked on."""
