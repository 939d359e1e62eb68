"""Handing entries of a journal to MLflow: each exactly once, in order; what MLflow refuses for good is put aside.

Each entry is one that MLflow may be given twice: points keep their time, parameters and tags their values, files their names,
and a model is not logged again where the run has one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from finespun.masking import masked
from finespun.tracking.outbox.journal import Entry, Journal, fingerprint

BATCH = 1000  # metrics of one request, MLflow's limit
FEW = 100  # parameters or tags of one request
VALUE_LENGTH = {"params": 6000, "tags": 8000}
FOR_GOOD = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE", "MALFORMED_REQUEST"}
FAILURES = (MlflowException, OSError, sqlite3.Error)
T = TypeVar("T")


class UnknownRunError(Exception):
    """The store does not know the run: it was deleted, or the store was."""


class Delivery:
    """Delivers to one run of one store."""

    def __init__(
        self, client: mlflow.MlflowClient, run_id: str, refused: Path, is_there: Callable[[], bool] = lambda: True
    ) -> None:  # fmt: skip
        """`refused` is the file for what can never be delivered; `is_there` says whether the store still is."""
        self.client, self.run_id, self.refused, self.is_there = client, run_id, refused, is_there
        self.reported = 0

    def deliver(self, journal: Journal) -> None:
        """Sends all that a journal owes.

        Raises:
            MlflowException, OSError, sqlite3.Error: the store does not answer now; what is delivered is marked.
            UnknownRunError: the run is not there.
        """
        for entries in _grouped(journal.undelivered()):
            if not self.is_there():
                raise UnknownRunError("its database was deleted")
            try:
                getattr(self, f"_send_{entries[0].kind}")([entry.content for entry in entries])
            except MlflowException as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    raise UnknownRunError(str(error)) from error
                if error.error_code not in FOR_GOOD:
                    raise
                self._put_aside(entries[0].kind, [entry.content for entry in entries], error)
            journal.deliver_to(entries[-1].end)

    def _put_aside(self, kind: str, content: Any, error: Exception) -> None:
        self.refused.parent.mkdir(parents=True, exist_ok=True)
        reason = " ".join(masked(str(error)).split())[:300]
        with self.refused.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": self.run_id, "kind": kind, "content": content, "reason": reason}) + "\n")
        self.reported += 1
        if self.reported == 1:
            print(f"warning: MLflow refuses {_short(content)} ({reason}); it is put aside in {self.refused}")  # noqa: T201

    def _in_halves(self, kind: str, items: Sequence[T], send: Callable[[Sequence[T]], Any]) -> None:
        """Sends items at once; where MLflow refuses some, all but those."""
        if not items:
            return
        try:
            send(items)
        except MlflowException as error:
            if error.error_code not in FOR_GOOD:
                raise
            if len(items) == 1:
                self._put_aside(kind, items[0], error)
                return
            middle = len(items) // 2
            self._in_halves(kind, items[:middle], send)
            self._in_halves(kind, items[middle:], send)

    def _send_metrics(self, contents: list[list[Any]]) -> None:
        points = [point for content in contents for point in content]
        for start in range(0, len(points), BATCH):
            self._in_halves("metrics", points[start : start + BATCH], self._log_metrics)

    def _log_metrics(self, points: Sequence[Any]) -> None:
        self.client.log_batch(self.run_id, metrics=[Metric(name, value, moment, step) for name, value, step, moment in points])

    def _send_results(self, contents: list[dict[str, Any]]) -> None:
        model = self._model_id()
        for content in contents:
            named = {"dataset_name": content["dataset"]["name"], "dataset_digest": content["dataset"]["digest"]}
            points = content["points"]
            for start in range(0, len(points), BATCH):
                self._in_halves("results", points[start : start + BATCH], lambda part: self._log_results(part, model, named))  # noqa: B023

    def _log_results(self, points: Sequence[Any], model: str | None, named: dict[str, str]) -> None:
        more: dict[str, Any] = {"model_id": model, **named} if model else {}
        self.client.log_batch(self.run_id, metrics=[Metric(name, value, at, step, **more) for name, value, step, at in points])

    def _send_images(self, contents: list[dict[str, str]]) -> None:
        for name, path in (pair for content in contents for pair in content.items()):
            shown = {file.path.partition("%")[0] for file in self.client.list_artifacts(self.run_id, "images")}
            if Path(path).is_file() and f"images/{name}" not in shown:
                from PIL import Image  # noqa: PLC0415  (only pictures need it)

                with Image.open(path) as image:
                    self.client.log_image(self.run_id, image.convert("RGB"), key=name, step=0, synchronous=True)

    def _send_params(self, contents: list[dict[str, str]]) -> None:
        pairs = [pair for content in contents for pair in content.items()]
        for start in range(0, len(pairs), FEW):
            self._in_halves("params", pairs[start : start + FEW], lambda part: self._log_pairs(params=part))

    def _send_tags(self, contents: list[dict[str, str]]) -> None:
        pairs = [pair for content in contents for pair in content.items()]
        for start in range(0, len(pairs), FEW):
            self._in_halves("tags", pairs[start : start + FEW], lambda part: self._log_pairs(tags=part))

    def _log_pairs(self, *, params: Sequence[tuple[str, str]] = (), tags: Sequence[tuple[str, str]] = ()) -> None:
        self.client.log_batch(
            self.run_id,
            params=[Param(name, value[: VALUE_LENGTH["params"]]) for name, value in params],
            tags=[RunTag(name, value[: VALUE_LENGTH["tags"]]) for name, value in tags],
        )

    def _send_data(self, contents: list[dict[str, Any]]) -> None:
        for content in contents:
            context = InputTag("mlflow.data.context", content["context"])
            self.client.log_inputs(self.run_id, [DatasetInput(Dataset(**content["dataset"]), [context])])

    def _send_folder(self, contents: list[dict[str, str]]) -> None:
        for content in contents:
            if self._is_there("folder", content):
                self.client.log_artifacts(self.run_id, content["folder"], content["to"])

    def _is_there(self, kind: str, content: dict[str, Any]) -> bool:
        folder = Path(content["folder"])
        if folder.is_dir() and fingerprint(folder) == content["fingerprint"]:
            return True
        self._put_aside(kind, content["folder"], FileNotFoundError("others were written in place of these files"))
        return False

    def _send_model(self, contents: list[dict[str, Any]]) -> None:
        from finespun.tracking.served.log_model import log_served_model  # noqa: PLC0415  (imports pandas)

        for content in contents:
            if not self._has_model() and self._is_there("model", content):
                with mlflow.start_run(run_id=self.run_id, log_system_metrics=False):
                    log_served_model(Path(content["folder"]), content["examples"], content["predictions"])

    def _has_model(self) -> bool:
        """Whether the run has a whole model; half of one, of a process that was killed, is deleted."""
        whole = False
        for model in self._models():
            if _is_ready(model):
                whole = True
            else:
                self.client.delete_logged_model(model.model_id)
        return whole

    def _model_id(self) -> str | None:
        """Returns the id of the run's model; None where it has none."""
        return next((str(model.model_id) for model in self._models() if _is_ready(model)), None)

    def _models(self) -> list[Any]:
        experiment = self.client.get_run(self.run_id).info.experiment_id
        return list(self.client.search_logged_models([experiment], filter_string=f"source_run_id = '{self.run_id}'"))

    def _send_status(self, contents: list[str]) -> None:
        status = contents[-1]
        if status == "RUNNING":
            self.client.update_run(self.run_id, status=status)
        else:
            self.client.set_terminated(self.run_id, status)


def _is_ready(model: Any) -> bool:
    return str(model.status.value if hasattr(model.status, "value") else model.status).upper().endswith("READY")


def _grouped(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    """Yields neighbouring entries of metrics together, others alone."""
    group: list[Entry] = []
    points = 0
    for entry in entries:
        if group and (entry.kind != "metrics" or group[0].kind != "metrics" or points >= BATCH):
            yield group
            group, points = [], 0
        group.append(entry)
        points += len(entry.content) if entry.kind == "metrics" else 0
    if group:
        yield group


def _short(content: Any) -> str:
    text = str(content)
    return text if len(text) <= 120 else text[:117] + "..."
