"""Copies on several devices: each row counts once, however they divide, and what is recorded is the mean over ranks."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finespun.config.targets import build
from finespun.data.prepared import PreparedData
from finespun.evaluation.predict import predict_split
from finespun.models.pretrained import load_model
from finespun.tasks.inputs.text import TextEncoder
from finespun.training.checkpoints import Store
from finespun.training.history import History, Recorder
from finespun.training.lightning.launching import rank
from several import together
from small_run import LABELS, STEADY, Train, small_config

CONFIG = small_config()
TASK = build("task", CONFIG.task)


def recorded(path: Path) -> dict[tuple[str, int], float]:
    with path.open() as file:
        return {(row["name"], int(row["step"])): float(row["value"]) for row in csv.DictReader(file)}


def test_the_loss_that_is_recorded_is_the_mean_over_ranks(tmp_path: Path) -> None:
    import torch.distributed as dist

    def work() -> float:
        dist.init_process_group("gloo")
        recorder = Recorder(History(tmp_path / "history.csv"), lambda _metrics, _step: None)
        if rank() == 0:
            recorder.history.cut_back(-1)
        loss, norm = torch.tensor(1.0 + 4 * rank()), torch.tensor(2.0)
        recorder.step(1, epoch=0, rate=0.1, rows=8, loss=loss, norm=norm)
        recorder.flush()
        return recorder.recent_loss

    assert together(2, work) == [3.0, 3.0], "of 1 and 5, on both ranks"
    assert recorded(tmp_path / "history.csv")["train/loss", 1] == 3.0


@pytest.mark.parametrize("split", ["val", "test"])
def test_rows_that_do_not_divide_are_evaluated_once_each(split: str, prepared: PreparedData, tiny_bert: Path) -> None:
    if split == "test":
        prepared.path("test").write_bytes(prepared.path("val").read_bytes())
    rows = prepared.open(split).num_rows
    processes = next(number for number in (2, 3, 5) if rows % number)

    def work() -> Any:
        torch.manual_seed(0)
        model = load_model(tiny_bert, auto_class=TASK.auto_class, options=TASK.model_options(LABELS), new_head=True)
        encoder = TextEncoder.read(tiny_bert)
        return predict_split(
            model=model, task=TASK, encoder=encoder, prepared=prepared, split=split, runtime=CONFIG.runtime
        )  # fmt: skip

    found, *others = together(processes, work)
    assert others == [None] * (processes - 1)
    assert len(found) == rows
    assert np.stack(found) == pytest.approx(np.stack(work()), abs=1e-6)


def test_validation_metrics_of_rows_that_do_not_divide_are_those_of_one_process(
    train: Train, tmp_path: Path, prepared: PreparedData
) -> None:
    rows = prepared.open("val").num_rows
    processes = next(number for number in (3, 2, 5) if rows % number)
    options = {"dropout": 0.0, "trainer__max_epochs": 2, "runtime__checkpoint_seconds": 1e6, **STEADY}
    train(tmp_path / "one", **options)

    def work() -> None:
        train(tmp_path / "many", runtime__devices=processes, **options)

    together(processes, work)
    one, many = recorded(tmp_path / "one" / "history.csv"), recorded(tmp_path / "many" / "history.csv")
    counted = [point for point in one if point[0] in {"val/accuracy", "val/f1_macro"}]
    assert len(counted) == 4
    for point in counted:
        assert many[point] == pytest.approx(one[point], abs=1e-7), "whole rows: one that counts twice, or not, is seen"
        assert one["val/accuracy", point[1]] * rows == pytest.approx(round(one["val/accuracy", point[1]] * rows), abs=1e-3)


def test_the_best_weights_are_read_when_they_are_written(train: Train, tmp_path: Path) -> None:
    """Rank zero writes them, on whatever disk; the others go on to read them."""

    def work() -> float:
        write = Store.write

        def slowly(self: Store, state: Any, name: str, **options: Any) -> Path:
            time.sleep(2.0 if name.startswith("best") else 0.0)
            return write(self, state, name, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "write", slowly)
            return train(
                tmp_path, runtime__devices=2, trainer__max_epochs=1, runtime__checkpoint_seconds=1e6, **STEADY
            ).best_score  # fmt: skip

    one, other = together(2, work)
    assert one == other
