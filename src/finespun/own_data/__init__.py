"""Beginning with data of one's own: `finespun init` and `finespun check`."""
