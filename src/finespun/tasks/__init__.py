"""Kinds of tasks, one file each; nothing here imports torch before a model is at hand, and nothing imports Lightning."""
