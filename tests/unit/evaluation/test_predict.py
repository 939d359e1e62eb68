"""A split predicted by several processes: each row once, the numbers of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finespun.config.targets import build
from finespun.data.prepared import PreparedData
from finespun.evaluation import predict
from finespun.models.pretrained import load_model
from finespun.tasks.text import TextEncoder
from small_run import LABELS, small_config


def test_all_ranks_together_predict_each_row_once(
    prepared: PreparedData, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config()
    task = build("task", config.task)
    torch.manual_seed(0)
    model = load_model(tiny_bert, auto_class=task.auto_class, options=task.model_options(LABELS), new_head=True)

    def predicted() -> Any:
        return predict.predict_split(
            model=model, task=task, encoder=TextEncoder.read(tiny_bert), prepared=prepared, split="val", runtime=config.runtime
        )  # fmt: skip

    whole = predicted()
    parts: list[dict[int, Any]] = []
    monkeypatch.setattr(predict, "_gathered", parts.append)
    monkeypatch.setenv("WORLD_SIZE", str(len(whole) + 1))
    for rank in range(len(whole) + 1):  # the last is given a row that does not count, to stay in step
        monkeypatch.setenv("RANK", str(rank))
        assert predicted() is None
    assert [len(part) for part in parts] == [1] * len(whole) + [0]
    together = {row: output for part in parts for row, output in part.items()}
    assert np.stack([together[row] for row in range(len(whole))]) == pytest.approx(np.stack(whole), abs=1e-5)
