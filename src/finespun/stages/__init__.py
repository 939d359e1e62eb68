"""The stages: each reads, calls and writes. `python -m finespun.stages NAME` runs one, as `dvc.yaml` does."""
