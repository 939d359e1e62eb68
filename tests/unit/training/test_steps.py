"""A step without hooks is Lightning's step: the same bits, the same record, taken up from the same checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop

from finespun.training.history import History
from finespun.training.steps import Steps
from small_run import Train, same_bits

PLATEAU = {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "patience": 0, "factor": 0.5}


def record(folder: Path) -> list[tuple[str, ...]]:
    rows = History(folder / "history.csv").rows()
    return [(row["step"], row["epoch"], row["name"], row["value"]) for row in rows if "second" not in row["name"]]


@pytest.fixture
def advances(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each batch was Lightning's."""
    seen: list[bool] = []
    theirs = _TrainingEpochLoop.advance
    monkeypatch.setattr(_TrainingEpochLoop, "advance", lambda self, fetcher: seen.append(True) or theirs(self, fetcher))
    return seen


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"runtime__device_batch_size": 4},
        {"scheduler": PLATEAU},
        {"trainer__ema_decay": 0.5},
        {"trainer__precision": "bf16-mixed"},
        {"trainer__early_stopping_patience": 0, "task__monitor": "val/accuracy", "task__monitor_mode": "max"},
    ],
    ids=["plain", "accumulated", "plateau", "averaged", "bf16", "stopped early"],
)
def test_the_same_bits_as_lightnings_own(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, advances: list[bool], options: dict[str, Any]
) -> None:
    ours = train(tmp_path / "ours", dropout=0.2, **options)
    assert not advances
    with monkeypatch.context() as patch:
        patch.setattr(Steps, "put_into", lambda _trainer: None)
        theirs = train(tmp_path / "theirs", dropout=0.2, **options)
    assert len(advances) >= theirs.steps
    assert same_bits(ours, theirs)
    assert (ours.steps, ours.best_epoch, ours.best_score) == (theirs.steps, theirs.best_epoch, theirs.best_score)
    assert record(tmp_path / "ours") == record(tmp_path / "theirs")


def test_a_scaler_of_gradients_is_left_to_lightning() -> None:
    class Trainer:
        world_size, precision = 1, "16-mixed"

        class fit_loop:  # noqa: N801
            epoch_loop = None

    Steps.put_into(Trainer)  # type: ignore[arg-type]
    assert Trainer.fit_loop.epoch_loop is None
