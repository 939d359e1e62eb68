"""What reports are made of: the files that the stages wrote, read once; nothing is computed anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from finespun.artifacts import Artifacts
from finespun.errors import MachineError
from finespun.evaluation.analysis import label_errors
from finespun.files import read_json, read_table

REMEDY = "make it anew with `dvc repro --force`, or restore it with `dvc checkout --force`"
HISTORY = ("step", "epoch", "name", "value")
SPLITS = {"test": "test", "evaluate": "validation"}  # stage -> what its split is called; the more honest first


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """What a stage reported of its split."""

    split: str
    metrics: dict[str, Any]
    details: dict[str, Any]
    predictions: pa.Table
    folder: Path

    @property
    def rows(self) -> int:
        return int(self.metrics["rows"])


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything of one fine-tuned model: `splits` holds test before validation, as far as they are there."""

    record: dict[str, Any]  # run.json
    schema: dict[str, Any]
    profile: dict[str, Any]
    history: list[dict[str, str]]
    splits: tuple[SplitFacts, ...]
    label_errors: list[dict[str, str]]
    cost: dict[str, Any]
    bytes_on_disk: int

    @property
    def best(self) -> SplitFacts:
        """The split whose numbers count: test where it was evaluated."""
        return self.splits[0]

    @property
    def title(self) -> str:
        return str(self.record.get("name") or self.schema["name"])


def read(artifacts: Artifacts, *, stages: Sequence[str] = (*SPLITS,)) -> Facts:
    """Reads the results of some stages in an output folder: the project itself, or one of `finespun run`.

    Raises:
        MachineError: nothing is evaluated yet, or a file is torn.
    """
    splits = tuple(found for stage in stages if (found := _split(artifacts, stage)) is not None)
    if not splits:
        raise MachineError(f"{artifacts.report('evaluate')}: holds no metrics yet; `dvc repro` makes them")
    folder, errors = artifacts.finetuned, artifacts.report("evaluate") / "label_errors.csv"
    suspects = label_errors.read(errors) if errors.is_file() else []
    cost = artifacts.report("evaluate") / "cost.json"
    return Facts(
        record=_json(folder / "run.json", "task"),
        schema=_json(artifacts.prepared / "schema.json", "name", "rows"),
        profile=_json(artifacts.prepared / "profile.json", "rows"),
        history=read_table(folder / "history.csv", HISTORY, error=MachineError, remedy=REMEDY),
        splits=splits,
        label_errors=suspects,
        cost=_json(cost) if cost.is_file() else {},
        bytes_on_disk=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
    )


def _split(artifacts: Artifacts, stage: str) -> SplitFacts | None:
    folder = artifacts.report(stage)
    if not (folder / "metrics.json").is_file() or not (folder / "details.json").is_file():
        return None
    try:
        predictions = pq.read_table(folder / "predictions.parquet")
    except (OSError, pa.ArrowInvalid) as error:
        raise MachineError(f"{folder / 'predictions.parquet'}: cannot be read ({error}); {REMEDY}") from error
    return SplitFacts(
        split=SPLITS[stage],
        metrics=_json(folder / "metrics.json", "rows"),
        details=_json(folder / "details.json", "shown", "scores", "baselines", "confidence"),
        predictions=predictions,
        folder=folder,
    )


def _json(path: Path, *keys: str) -> dict[str, Any]:
    if not path.is_file():
        raise MachineError(f"{path}: is not there; {REMEDY}")
    return read_json(path, error=MachineError, remedy=REMEDY, keys=keys)
