"""Weights from anywhere become a folder of transformers."""
