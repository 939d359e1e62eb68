"""`run.json`, which lies beside a fine-tuned model: its MLflow run, its task, what it was made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finespun.errors import ModelError
from finespun.files import read_json

RESTORE = "restore models/finetuned with `dvc checkout --force`, or make it anew with `dvc repro --force finetune`"


def read_record(folder: Path) -> dict[str, Any]:
    """Reads `run.json`, which lies beside a fine-tuned model: its MLflow run, task and columns.

    Raises:
        ModelError: the folder is not one that finespun wrote.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise ModelError(f"{folder}: holds no fine-tuned model; run `dvc repro` first, or name one with --model")
    return read_json(path, error=ModelError, remedy=RESTORE, keys=("task", "columns"))
