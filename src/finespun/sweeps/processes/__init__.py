"""Where trials run: their processes, their folders, and the warm process that they are forked from."""
