"""`run.json`, which lies beside a fine-tuned model: its MLflow run, its task, what it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finespun.config import targets
from finespun.config.sections import Target
from finespun.errors import ModelError
from finespun.files import read_json
from finespun.tasks.base import Task

RESTORE = "restore models/finetuned with `dvc checkout --force`, or make it anew with `dvc repro --force finetune`"
ADDED: dict[str, Any] = {  # options of tasks that came later: what a model that was saved without them was trained with
    "label_smoothing": 0.0, "hard_negatives": 0, "vector_dtype": "float32", "resize": "stretch", "tile": None,
}  # fmt: skip


def read_record(folder: Path) -> dict[str, Any]:
    """Reads `run.json`, which lies beside a fine-tuned model: its MLflow run, task and columns.

    Raises:
        ModelError: the folder is not one that finespun wrote.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise ModelError(f"{folder}: holds no fine-tuned model; run `dvc repro` first, or name one with --model")
    return read_json(path, error=ModelError, remedy=RESTORE, keys=("task", "columns"))


def saved_task(record: dict[str, Any], folder: Path) -> Task:
    """Builds the task that a model was trained for, `record["task"]`; options that it lacks are `ADDED`.

    Raises:
        ModelError: an option is missing or unknown.
    """
    said = Target.model_validate(record["task"])
    kind = targets.load("task", said.target)
    options = {name: value for name, value in ADDED.items() if name in kind.model_fields} | said.options
    try:
        task: Task = kind(**options)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, ("task", *problem["loc"])))
        raise ModelError(
            f"{folder / 'run.json'}: {key} {targets.describe(problem, kind.model_fields)}; the model was saved by another"
            " version of finespun: use that one, or make the model anew with `dvc repro --force finetune`"
        ) from error
    return task
