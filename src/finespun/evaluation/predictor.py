"""A fine-tuned model that predicts rows: what `finespun predict` and the MLflow model use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from finespun.config.sections import HistoriesConfig
from finespun.data.checks import named_columns, problems_of, role_values
from finespun.data.images import inline
from finespun.data.loader import RowReader
from finespun.data.sources.tables import Row
from finespun.evaluation.record import read_record, saved_task
from finespun.failures import ran_out_of_memory
from finespun.models.pretrained import load_model
from finespun.tasks.answers.written_text import WrittenText
from finespun.tasks.base import Outputs
from finespun.training.lightning.devices import choose_accelerator, device_of
from finespun.training.lightning.heartbeat import progressed

BATCH_TOKENS = {"cpu": 1024}  # of one forward pass, padding included; halved for as long as memory does not hold it
BATCH_TOKENS_ELSEWHERE = 4096  # on CPUs what fits into caches is quicker: 183 rows of MiniLM a CPU second against 139
WRITTEN_TOKENS = 4096  # where texts are generated: each new token reads all weights once, for however many rows


class Predictor:
    """A folder that `finetune` wrote, opened."""

    def __init__(self, folder: Path, *, trust_remote_code: bool = False) -> None:
        """Loads model, task and encoder; code that lies in the folder is run only if it is trusted.

        Raises:
            ModelError: the folder holds no fine-tuned model, or not all of it.
        """
        record = read_record(folder)
        task = saved_task(record, folder)
        self.device = device_of(choose_accelerator("auto"))
        loaded = load_model(folder, auto_class=task.auto_class, options={}, trust_remote_code=trust_remote_code)
        self.model: Any = loaded.to(self.device, getattr(torch, task.dtype)).eval()
        self.task, self.encoder = task.settled(self.model.config.to_dict()), task.encoder(folder)
        self.labels = [self.model.config.id2label[position] for position in range(self.model.config.num_labels)]
        self.columns = {role: record["columns"][role] for role in task.input_roles if role in record["columns"]}
        joined = record.get("histories")
        self.histories = HistoriesConfig.model_validate(joined) if joined else None  # events that are joined to rows
        self.reading: dict[str, Any] = record.get("reading", {})  # how a CSV is read: the delimiter and encoding of training
        known = BATCH_TOKENS.get(self.device.type, BATCH_TOKENS_ELSEWHERE)
        self.batch_tokens = WRITTEN_TOKENS if isinstance(task, WrittenText) else known

    def predict(self, rows: Sequence[Row], *, top_k: int = 1) -> list[dict[str, Any]]:
        """Returns a prediction for each row; a row that cannot be predicted gives `error` and nothing else."""
        values, errors = zip(*(self._read(row) for row in rows), strict=True) if rows else ((), ())
        good = [each for each, error in zip(values, errors, strict=True) if error is None]
        answers = iter(self._answered(good, top_k) if good else [])
        return [next(answers) if error is None else {"error": error} for error in errors]

    def _read(self, row: Row) -> tuple[dict[str, Any], str | None]:
        """Returns what a row says by role, and why it cannot be predicted."""
        gap = next((column for _, column in named_columns(self.columns) if column not in row), None)
        if gap is not None:
            return {}, f"has no column {gap!r}"
        if self.task.processor == "AutoImageProcessor":
            row = row | {column: inline(row[column]) for _, column in named_columns(self.columns)}
        values = role_values(row, self.columns, self.task)
        problem = next(problems_of(values, self.task, None), None)
        return values, f"{self.columns[problem[1]]} {problem[2].partition(';')[0]}" if problem else None

    def _answered(self, values: list[dict[str, Any]], top_k: int) -> list[dict[str, Any]]:
        columns = self.task.encode(values, self.encoder, None)
        source = columns.pop("source", None)
        columns["row"] = source if source is not None else pa.array(range(len(values)), pa.int64())
        table = pa.table(columns)
        reader = RowReader(table.select([name for name in self.task.model_columns if name in table.column_names]))
        lengths = table["length"].to_numpy()
        order = np.argsort(-lengths, kind="stable")
        outputs: list[Any] = [None] * len(order)
        start = 0
        while start < len(order):
            rows = order[start : start + max(1, self.batch_tokens // max(1, lengths[order[start]]))]
            try:
                found = self._forward(reader.take(rows))
            except (RuntimeError, MemoryError) as error:
                if len(rows) == 1 or not ran_out_of_memory(error):
                    raise
                self.batch_tokens //= 2
                continue
            for row, output in zip(rows, found, strict=True):
                outputs[row] = output
            start += len(rows)
        return self.task.predictions(table, outputs, self.labels, top_k=top_k)

    def _forward(self, columns: dict[str, list[Any]]) -> Outputs:
        progressed()
        inputs, _ = self.task.collate(columns, self.encoder)
        with torch.inference_mode():
            return self.task.predict(self.model, {name: tensor.to(self.device) for name, tensor in inputs.items()})
