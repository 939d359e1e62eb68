"""Preparing, fine-tuning and measuring in this process, without MLflow: what a table of inputs needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.data.prepared import PreparedData
from finespun.evaluation.measure import Measured, measure
from finespun.evaluation.predict import predict_split
from finespun.models.conversion.folder import ready
from finespun.models.pretrained import load_model
from finespun.stages import finetune, saving
from finespun.stages.prepare import prepare
from finespun.training.checkpoints import Store
from finespun.training.lightning.devices import choose
from helpers import write_csv
from small_run import small_config

REGRESSION: dict[str, Any] = {
    "_target_": "finespun.tasks.text_regression.TextRegression", "max_length": 32, "loss_function": "mse", "huber_delta": 1.0,
    "monitor": "val/r2", "monitor_mode": "max",
}  # fmt: skip
RIDGE = {
    "_target_": "finespun.strategies.features.Features", "head": "logistic_regression", "C": 1.0, "max_iter": 1000,
    "trees": 5, "min_samples_leaf": 3,
}  # fmt: skip
HARDLY = {"optimizer__lr": 1e-12, "trainer__max_epochs": 1}  # trains nothing: the model is as it was taken up


def prepared(folder: Path, rows: list[dict[str, str]], columns: dict[str, Any], **changes: Any) -> Any:
    """Prepares rows; returns the configuration and what was prepared."""
    write_csv(folder / "rows.csv", rows)
    config = small_config(data={"path": "rows.csv", "columns": columns}, **changes)
    prepare(config, Artifacts(project=folder, out=folder), folder / "prepared")
    return config, PreparedData(folder / "prepared")


def tuned(folder: Path, rows: list[dict[str, str]], columns: dict[str, Any], **changes: Any) -> Path:
    """Prepares and fine-tunes; returns the folder of the model."""
    return trained(folder, *prepared(folder, rows, columns, **changes))


def trained(folder: Path, config: Any, data: PreparedData) -> Path:
    """Fine-tunes on what was prepared; returns the folder of the model."""
    task = targets.build("task", config.task)
    weights = ready(config.model, folder, auto_class=task.auto_class)
    (folder / "store").mkdir(exist_ok=True)
    store = Store(folder / "store")
    fitted, processor, loaded, finish = finetune._train(
        config, weights, data, choose(config.runtime, "32-true"), store, features=folder / "features",
        sink=lambda _metrics, _step: None,
    )  # fmt: skip
    record = {"columns": data.schema["columns"], "task": config.task.model_dump(by_alias=True), "loaded": str(loaded)}
    saving.save(fitted, processor, finish, store, folder / "model", record)
    return folder / "model"


def measured(folder: Path, rows: list[dict[str, str]], columns: dict[str, Any], model: Path, **changes: Any) -> Measured:
    """Prepares rows and measures a model on their validation split, as `evaluate` does."""
    config, data = prepared(folder, rows, columns, model={"checkpoint": str(model)}, **changes)
    task = targets.build("task", config.task)
    loaded = load_model(model, auto_class=task.auto_class, options={})
    task, encoder = task.settled(loaded.config.to_dict()), task.encoder(model)
    outputs = predict_split(model=loaded, task=task, encoder=encoder, prepared=data, split="val", runtime=config.runtime)
    assert outputs is not None
    return measure(task=task, prepared=data, split="val", outputs=outputs, config=config.evaluation)
