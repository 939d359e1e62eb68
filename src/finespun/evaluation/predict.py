"""A model's outputs for a prepared split: `trainer.validate` or `trainer.test`, on all devices, each row once."""

from __future__ import annotations

from typing import Any

from finespun.config.sections import RuntimeConfig
from finespun.data.prepared import ITEMS, PreparedData
from finespun.strategies.base import Tuning
from finespun.tasks.base import Encoder, Outputs, Task
from finespun.training.data_loaders import EVALUATION_ROWS, make_loader
from finespun.training.lightning.callbacks import in_terminal
from finespun.training.lightning.data_module import FineTuningData
from finespun.training.lightning.devices import choose
from finespun.training.lightning.fine_tuner import FineTuner
from finespun.training.lightning.launching import rank
from finespun.training.lightning.sharding import Shards
from finespun.training.lightning.trainer import make_trainer


def predict_split(
    *, model: Any, task: Task, encoder: Encoder, prepared: PreparedData, split: str, runtime: RuntimeConfig
) -> Outputs | None:
    """Returns one array a row, in the order of `split` (val, test, items), on rank zero, None on the others.

    With shards, the whole `model` need be on rank zero alone (`from_rank_zero`); it is not changed.
    The arithmetic is float32 everywhere, so that the numbers are those of plain transformers on the saved model.
    """
    hardware = choose(runtime, "32-true")
    if hardware.sharded:
        model = Shards(Tuning(model=model, groups=()), hardware).tuning.model
    module = FineTuner(model=model, task=task, encoder=encoder, labels=prepared.labels)
    loader = make_loader(prepared, split, task=task, encoder=encoder, step_rows=EVALUATION_ROWS, runtime=runtime)
    shown = runtime.progress_bar and rank() == 0 and in_terminal()
    trainer = make_trainer(hardware, progress_bar=shown, enable_checkpointing=False, **runtime.lightning)
    evaluate = trainer.validate if split == "val" else trainer.test
    evaluate(module, datamodule=FineTuningData({"val" if split == "val" else "test": loader}), verbose=False)
    assert rank() or len(module.collected or ()) == len(loader.batches.lengths), "each row must be predicted once"
    return module.collected


def with_items(task: Task, *, model: Any, encoder: Encoder, prepared: PreparedData, runtime: RuntimeConfig) -> Task:
    """Returns a task that ranks the prepared items by their vectors of this model; on other ranks than zero, as it was."""
    vectors = predict_split(
        model=model, task=task.of_items(), encoder=encoder, prepared=prepared, split=ITEMS, runtime=runtime
    )  # fmt: skip
    return task if vectors is None else task.with_items(prepared.open(ITEMS), vectors)
