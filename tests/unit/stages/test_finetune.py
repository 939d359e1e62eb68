"""What is kept beside a fine-tuning run has the name of all that it was made of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from finespun.artifacts import Artifacts
from finespun.stages import finetune
from finespun.training.lightning.devices import choose
from small_run import small_config


def test_kept_activations_are_named_by_rows_weights_and_arithmetic_and_by_nothing_else(tmp_path: Path) -> None:
    artifacts, hardware = Artifacts(project=tmp_path, out=tmp_path), choose(small_config().runtime, "32-true")
    inputs = {"data/prepared/train.arrow": "a", "data/prepared/val.arrow": "b", "weights": "c", "src/code.py": "d"}
    first = finetune._features(artifacts, inputs, hardware)
    others = [finetune._features(artifacts, inputs | {name: "other"}, hardware) for name in list(inputs)[:3]]
    others.append(finetune._features(artifacts, inputs, replace(hardware, precision="bf16-mixed")))
    assert len({first, *others}) == 5
    assert finetune._features(artifacts, inputs | {"src/code.py": "other"}, hardware) == first
