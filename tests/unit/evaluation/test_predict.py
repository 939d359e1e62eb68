"""A split predicted by Lightning's Trainer: each row once, the numbers of plain transformers, on any number of ranks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning.trainer.states import TrainerFn

from finespun.config.targets import build
from finespun.data.prepared import PreparedData
from finespun.evaluation.predict import predict_split
from finespun.models.pretrained import load_model
from finespun.tasks.base import softmax
from finespun.tasks.inputs.text import TextEncoder
from finespun.training.data_loaders import make_loader
from finespun.training.lightning.fine_tuner import FineTuner
from small_run import LABELS, small_config

CONFIG = small_config()
TASK = build("task", CONFIG.task)


@pytest.fixture
def model(tiny_bert: Path) -> Any:
    torch.manual_seed(0)
    return load_model(tiny_bert, auto_class=TASK.auto_class, options=TASK.model_options(LABELS), new_head=True)


@pytest.mark.parametrize("split", ["val", "test"])
def test_outputs_are_those_of_the_plain_model_in_the_splits_order(
    split: str, model: Any, prepared: PreparedData, tiny_bert: Path
) -> None:
    if split == "test":
        prepared.path("test").write_bytes(prepared.path("val").read_bytes())
    found = predict_split(
        model=model, task=TASK, encoder=TextEncoder.read(tiny_bert), prepared=prepared, split=split, runtime=CONFIG.runtime
    )  # fmt: skip
    with torch.inference_mode():
        plain = [model.eval()(torch.tensor([ids])).logits[0].numpy() for ids in prepared.open(split)["input_ids"].to_pylist()]
    assert found is not None
    assert np.stack(found) == pytest.approx(softmax(np.stack(plain)), abs=1e-5)


def test_all_ranks_together_collect_each_row_once(
    model: Any, prepared: PreparedData, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = TextEncoder.read(tiny_bert)
    rows = prepared.open("val").num_rows
    parts: list[dict[int, Any]] = []
    monkeypatch.setenv("WORLD_SIZE", str(rows + 1))
    for rank in range(rows + 1):  # the last is given a row that does not count, to stay in step
        monkeypatch.setenv("RANK", str(rank))
        module = FineTuner(model=model.eval(), task=TASK, encoder=encoder, labels=LABELS)
        module._trainer = SimpleNamespace(state=SimpleNamespace(fn=TrainerFn.VALIDATING))  # type: ignore[assignment]
        loader = make_loader(prepared, "val", task=TASK, encoder=encoder, step_rows=64, runtime=CONFIG.runtime)
        with torch.inference_mode():
            for number, batch in enumerate(loader):
                module.validation_step(batch, number)
        parts.append(module._mine)
    assert [len(part) for part in parts] == [1] * rows + [0]
    assert sorted(row for part in parts for row in part) == list(range(rows))
