"""What is recorded of a run: each step once, also where it was taken up again, and what became of a loss."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from finespun.errors import DivergedError
from finespun.training.history import History, Recorder
from finespun.training.lightning.callbacks import Lines, Progress, progress


@pytest.mark.parametrize("cut_short", ["6,0,train/lo", "2,0,train/loss,0.1", "1"])
def test_history_is_cut_back_to_the_checkpoint(tmp_path: Path, cut_short: str) -> None:
    history = History(tmp_path / "history.csv")
    history.cut_back(-1)
    for step in range(1, 6):
        history.add([(step, {"train/loss": 1 / step})], epoch=0)
    with history.path.open("a") as file:
        file.write(cut_short)  # by a kill in mid-write; "1" was going to be step 12
    history.cut_back(3)
    history.add([(4, {"train/loss": 0.25})], epoch=0)
    assert [(row["step"], float(row["value"])) for row in history.rows()] == [("1", 1.0), ("2", 0.5), ("3", 1 / 3), ("4", 0.25)]


def recorded(folder: Path, seen: list[tuple[int, dict[str, float]]], *, every: int = 1) -> Recorder:
    history = History(folder / "history.csv")
    history.cut_back(-1)
    return Recorder(history, lambda metrics, step: seen.append((step, dict(metrics))), every=every)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_the_last_that_is_recorded(tmp_path: Path, bad: float) -> None:
    seen: list[tuple[int, dict[str, float]]] = []
    recorder = recorded(tmp_path, seen)
    for step, loss in enumerate((2.0, bad, 1.0), 1):
        recorder.step(step, epoch=0, rate=0.1, rows=4, loss=torch.tensor(loss), norm=torch.tensor(1.0))
    with pytest.raises(DivergedError, match=f"^step 2: train/loss is {bad} .*lower optimizer.lr"):
        recorder.flush()
    assert [step for step, _ in seen] == [1, 2]
    assert [row["step"] for row in recorder.history.rows() if row["name"] == "train/loss"] == ["1", "2"]


def test_a_point_is_the_mean_of_its_steps_and_rows_are_counted_since_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    seen: list[tuple[int, dict[str, float]]] = []
    recorder = recorded(tmp_path, seen, every=2)
    for step, loss in enumerate((2.0, 4.0, 5.0), 1):
        recorder.step(step, epoch=0, rate=step / 10, rows=4, loss=torch.tensor(loss), norm=torch.tensor(2 * loss))
    now = 2.0
    recorder.flush()
    recorder.step(4, epoch=0, rate=0.4, rows=3, loss=torch.tensor(1.0), norm=torch.tensor(1.0))
    now = 3.0
    recorder.flush()
    points = [(2, 3.0, 6.0, 0.2, None), (3, 5.0, 10.0, 0.3, 6.0), (4, 1.0, 1.0, 0.4, 3.0)]
    names = ("train/loss", "train/gradient_norm", "train/learning_rate", "train/samples_per_second")
    assert [(step, *map(metrics.get, names)) for step, metrics in seen] == points


def test_a_bar_shows_no_loss_before_there_is_one(tmp_path: Path) -> None:
    recorder = Recorder(History(tmp_path / "history.csv"), lambda _metrics, _step: None)
    module: Any = None
    trainer: Any = SimpleNamespace(callback_metrics={})
    assert Progress(recorder, "val/accuracy").get_metrics(trainer, module) == {}
    recorder.recent_loss = 0.5
    assert Progress(recorder, "val/accuracy").get_metrics(trainer, module) == {"loss": "0.500"}


def test_a_log_gets_a_line_a_validation_and_no_bar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = Recorder(History(tmp_path / "history.csv"), lambda _metrics, _step: None)
    recorder.recent_loss = 0.5
    module: Any = None
    trainer: Any = SimpleNamespace(
        callback_metrics={"val/loss": torch.tensor(0.25), "val/accuracy": torch.tensor(0.75)}, current_epoch=1, max_epochs=3,
        global_step=40, is_global_zero=True,
    )  # fmt: skip
    lines = progress(recorder, "val/accuracy")
    assert isinstance(lines, Lines), "tests have no terminal"
    lines.on_validation_end(trainer, module)
    assert capsys.readouterr().out == "epoch 2/3, step 40: loss 0.500, val/loss 0.250, val/accuracy 0.750 (0 s)\n"
    trainer.is_global_zero = False
    lines.on_validation_end(trainer, module)
    assert capsys.readouterr().out == ""
