"""MLflow's registry of models: versions under the aliases `candidate` and `champion`, and what their runs were tested on."""

from __future__ import annotations

import json
import re
import tempfile
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pyarrow.parquet as pq

from finespun.errors import MachineError
from finespun.masking import first_line
from finespun.tracking.client import Tracker, needed
from finespun.tracking.outbox.delivery import FAILURES

CANDIDATE, CHAMPION = "candidate", "champion"
ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
MADE = "`dvc repro` makes a model and tests it; `finespun promote RUN_ID` makes a run what it makes"


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A run's model and its results on the test split, as MLflow keeps them."""

    run_id: str
    name: str
    model_id: str
    data: str  # the data set's name
    details: dict[str, Any]  # reports/test/details.json
    predictions: pa.Table
    version: str = ""  # in the registry


def legal_model(data: str) -> str:
    """Returns the name of a data set as MLflow takes it for a registered model."""
    return re.sub(r"[/:'\"]", "-", data)


class Registry:
    """The registry of one store."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker, self.client = tracker, tracker.client

    def tested(self, run_id: str, *, version: str = "") -> Tested:
        """Returns what is known of a run's model.

        Raises:
            MachineError: MLflow does not know the run, or has not its model or its results on the test split.
        """
        left = self.tracker.deliver_leftovers()
        if run_id in left:
            raise MachineError(f"run {run_id}: MLflow has not been sent everything of it ({left[run_id]}); run `finespun sync`")
        with needed(f"MLflow does not know the run {run_id}", "`finespun ui` shows those that there are"):
            run = self.client.get_run(run_id)
        rule = f"source_run_id = '{run_id}'"
        models = list(self.client.search_logged_models([run.info.experiment_id], filter_string=rule))
        if not models:
            raise MachineError(f"run {run_id}: MLflow has no model of it; {MADE}")
        details, predictions = self._results(run_id)
        data = next((each.dataset.name for each in (run.inputs.dataset_inputs if run.inputs else ())), "model")
        return Tested(
            run_id=run_id, name=str(run.info.run_name), model_id=str(models[0].model_id),
            data=re.sub(r"-(train|val|test)$", "", data), details=details, predictions=predictions, version=version,
        )  # fmt: skip

    def _results(self, run_id: str) -> tuple[dict[str, Any], pa.Table]:
        known = {file.path for file in self.client.list_artifacts(run_id, "test")}
        if not {"test/details.json", "test/predictions.parquet"} <= known:
            raise MachineError(f"run {run_id}: was not tested, or its results are not in MLflow; {MADE}")
        with tempfile.TemporaryDirectory() as folder, needed(f"run {run_id}: its results cannot be read", "its files are gone"):
            details = self.client.download_artifacts(run_id, "test/details.json", folder)
            predictions = self.client.download_artifacts(run_id, "test/predictions.parquet", folder)
            return json.loads(Path(details).read_text(encoding="utf-8")), pq.read_table(predictions)

    def champion(self, name: str) -> Tested | None:
        """Returns the present champion of a name; None where there is none.

        Raises:
            MachineError: its results cannot be read.
        """
        try:
            version = self.client.get_model_version_by_alias(name, CHAMPION)
        except mlflow.exceptions.MlflowException as error:
            if error.error_code in ABSENT:
                return None
            raise MachineError(f"MLflow does not answer ({first_line(error)}); start it again") from error
        return self.tested(str(version.run_id), version=str(version.version))

    def register(self, tested: Tested, name: str, description: str) -> str:
        """Makes a run's model a version under `candidate`, or finds it again; returns its number.

        Raises:
            MachineError: MLflow does not answer.
        """
        with needed(f"{name} cannot be registered", "start MLflow again, or look at it with `finespun ui`"):
            there = self.client.search_model_versions(f"name = '{name}' and run_id = '{tested.run_id}'")
            with redirect_stderr(StringIO()):  # MLflow says what is said below
                found = there[0] if there else mlflow.register_model(f"models:/{tested.model_id}", name)
            self.client.update_model_version(name, found.version, description)
            self.client.set_registered_model_alias(name, CANDIDATE, found.version)
        return str(found.version)

    def crown(self, name: str, version: str) -> None:
        """Gives a version the alias `champion`."""
        with needed(f"{name} {version} cannot be made the champion", "start MLflow again"):
            self.client.set_registered_model_alias(name, CHAMPION, version)


def champion_of(tracker: Tracker, name: str, *, but: str) -> Tested | None:
    """Returns the champion of a name unless a run is it itself, or it cannot be had now: then a line says why."""
    try:
        found = Registry(tracker).champion(name)
    except (*FAILURES, MachineError) as error:
        print(f"warning: the model is not compared with the champion: {first_line(error)}")  # noqa: T201
        return None
    return found if found and found.run_id != but else None
