"""What lies in a fine-tuned folder beside the weights."""

from __future__ import annotations

import json
from pathlib import Path

from finespun.config.targets import build
from small_run import small_config

TASK = build("task", small_config().task)


def write_record(place: Path, columns: dict[str, str]) -> None:
    """The part of `run.json` that predicting reads."""
    task = {**TASK.model_dump(), "_target_": "finespun.tasks.text_classification.TextClassification", "max_length": 64}
    (place / "run.json").write_text(json.dumps({"columns": columns, "task": task}))
