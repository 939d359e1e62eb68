"""`finespun reproduce`: the first stage that made something else is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finespun.artifacts import Artifacts
from finespun.lineage.reproduce import _compared

BEFORE = {"config": "c" * 64, "inputs": {f"data/prepared/{split}.arrow": split * 8 for split in ("train", "val")}}
WEIGHTS = {"model.safetensors": "w" * 64}


def made(folder: Path, *, config: str = "c" * 64, train: str = "train" * 8, weights: str = "w" * 64) -> Artifacts:
    """What running a commit again has left."""
    artifacts = Artifacts(project=folder, out=folder)
    for path in (artifacts.finetuned, artifacts.prepared):
        path.mkdir(parents=True)
    record = {"run_id": "r", "lineage": {"config": config}, "weights_files": {"model.safetensors": weights}}
    (artifacts.finetuned / "run.json").write_text(json.dumps(record | {"task": {}, "columns": {}, "reading": {}}))
    (artifacts.prepared / "schema.json").write_text(json.dumps({"digests": {"train": train, "val": "val" * 8}}))
    return artifacts


@pytest.mark.parametrize(
    ("other", "stages"),
    [
        ({}, ["configure", "prepare", "finetune"]),
        ({"weights": "x" * 64}, ["configure", "prepare", "finetune"]),
        ({"train": "another", "weights": "x" * 64}, ["configure", "prepare"]),
        ({"config": "d" * 64, "weights": "x" * 64}, ["configure"]),
    ],
)
def test_the_first_stage_that_differs_ends_the_comparison(tmp_path: Path, other: dict[str, str], stages: list[str]) -> None:
    found = _compared(BEFORE, WEIGHTS, made(tmp_path, **other))
    assert [name for name, _, _ in found] == stages
    assert [same for _, same, _ in found] == [True] * (len(stages) - bool(other)) + [False] * bool(other)
