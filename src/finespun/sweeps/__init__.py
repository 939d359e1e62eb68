"""Sweeps: searching for the best settings, every trial kept, resumable, and promoting the best one."""
