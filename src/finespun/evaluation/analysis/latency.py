"""How long one row takes, from the user's row to its prediction, on this device."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from finespun.config import targets
from finespun.config.sections import RunConfig
from finespun.data.prepared import PreparedData
from finespun.evaluation.predictor import Predictor

ROWS, WARM_UP = 40, 3
SECONDS = 1.5  # no longer, however slow the model is


def latency(folder: Path, prepared: PreparedData, split: str, config: RunConfig) -> dict[str, float]:
    """Returns the median and the 99th percentile of single predictions, in milliseconds."""
    task, columns = targets.build("task", config.task), prepared.schema["columns"]
    given = [task.given(row) for row in prepared.examples(split, ROWS).to_pylist()]
    rows = [{columns[role]: value for role, value in row.items()} for row in given]
    predictor = Predictor(folder, trust_remote_code=config.model.trust_remote_code)
    predictor.predict(rows[:WARM_UP])
    times: list[float] = []
    while rows and sum(times) < SECONDS and len(times) < ROWS:
        began = time.perf_counter()
        predictor.predict([rows[len(times) % len(rows)]])
        times.append(time.perf_counter() - began)
    middle, high = np.quantile(times, (0.5, 0.99)) * 1000
    return {"latency_ms_p50": float(middle), "latency_ms_p99": float(high)}
