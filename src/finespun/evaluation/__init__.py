"""Predicting whole splits and files, and measuring predictions."""
