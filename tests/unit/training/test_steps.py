"""A step without hooks is Lightning's step: the same bits, the same record, taken up from the same checkpoints."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
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
    if options.get("trainer__precision"):
        assert not same_bits(ours, train(tmp_path / "float32", dropout=0.2)), "the arithmetic was what was asked for"
    assert (ours.steps, ours.best_epoch, ours.best_score) == (theirs.steps, theirs.best_epoch, theirs.best_score)
    assert record(tmp_path / "ours") == record(tmp_path / "theirs")


@pytest.mark.parametrize(("world_size", "scaler", "ours"), [(1, None, True), (1, object(), False), (2, None, False)])
def test_several_processes_and_a_scaler_of_gradients_are_left_to_lightning(world_size: int, scaler: object, ours: bool) -> None:
    trainer: Any = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    told = SimpleNamespace(
        world_size=world_size, precision_plugin=SimpleNamespace(scaler=scaler), fit_loop=trainer.fit_loop,
        accelerator_connector=None,
    )  # fmt: skip
    Steps.put_into(told)  # type: ignore[arg-type]
    assert isinstance(trainer.fit_loop.epoch_loop, Steps) is ours
