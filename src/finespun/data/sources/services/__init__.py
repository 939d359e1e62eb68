"""Rows that no file holds: of databases, of the hub."""
