"""MLflow: one run a fine-tuned model, opened by `finetune`, added to by `evaluate` and `test`."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # the spool tries again; its patience costs no training time
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from finespun.artifacts import Artifacts
from finespun.config.check import flatten
from finespun.config.sections import RuntimeConfig
from finespun.data.checks import named_columns
from finespun.errors import InterruptError, MachineError
from finespun.masking import masked, without_login
from finespun.tracking.spool import Point, Spool, send_leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator

REFUSALS = (MlflowException, OSError)  # what calls of MLflow raise where the server does not answer, or not as asked
PARAM_LENGTH = 250  # longer values are cut by MLflow's stores
CLOSE_SECONDS = 20.0
PARENT = "FINESPUN_PARENT_RUN"  # set by the sweep that a run belongs to

for _noisy in ("alembic", "mlflow"):
    logging.getLogger(_noisy).setLevel(logging.WARNING)


def tracking_uri(runtime: RuntimeConfig, artifacts: Artifacts) -> str:
    """Returns the server's address, without user and password, or that of the embedded database."""
    return without_login(runtime.tracking_uri) if runtime.tracking_uri else f"sqlite:///{artifacts.mlruns / 'mlflow.db'}"


class Tracker:
    """A connection to one MLflow experiment."""

    def __init__(self, runtime: RuntimeConfig, artifacts: Artifacts) -> None:
        """Connects, making the embedded database where there is none.

        Raises:
            MachineError: the server does not answer.
        """
        self.artifacts, self.uri = artifacts, tracking_uri(runtime, artifacts)
        self.spool_folder = artifacts.state / "metrics"
        mlflow.set_tracking_uri(self.uri)
        remedy = "start the server, or set null for the database in mlruns/"
        with self._alone(), needed(f"runtime.tracking_uri: {self.uri} does not answer", remedy):
            self.client = mlflow.MlflowClient(self.uri)
            self.experiment_id = self._experiment(runtime.mlflow_experiment)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time makes the database: several at once would break it for good."""
        self.artifacts.mlruns.mkdir(parents=True, exist_ok=True)
        with (self.artifacts.mlruns / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _experiment(self, name: str) -> str:
        experiment = self.client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        local = self.uri.startswith("sqlite:")
        folder = (self.artifacts.mlruns / "artifacts").as_uri() if local else None
        return str(self.client.create_experiment(name, artifact_location=folder))

    def start(self, name: str, *, tags: Mapping[str, str], params: Mapping[str, Any]) -> Run:
        """Opens a new run."""
        parent = os.environ.get(PARENT)
        all_tags = {**tags, **({"mlflow.parentRunId": parent} if parent else {})}
        created = self.client.create_run(self.experiment_id, tags=all_tags, run_name=name)
        run = Run(self, created.info.run_id)
        run.log_params(params)
        return run

    def resume(self, run_id: str) -> Run | None:
        """Goes on with a run; None if the tracking server does not know it (another server, or it was deleted).

        Raises:
            MachineError: the server does not answer.
        """
        with needed(f"MLflow at {self.uri} does not answer", "start it again"):
            try:
                self.client.update_run(run_id, status="RUNNING")
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                return None
        return Run(self, run_id)

    def count_looks(self, test_digest: str) -> int:
        """Returns how often a test split has been looked at, by all runs together.

        Raises:
            MachineError: the server does not answer.
        """
        rule = f"tags.test_split = '{test_digest}'"
        with needed(f"MLflow at {self.uri} cannot count the looks at the test split", "start it again"):
            found = mlflow.search_runs([self.experiment_id], rule, output_format="list", max_results=50_000)
        return sum(int(run.data.tags.get("test_looks", 0)) for run in found)

    def send(self, run_id: str, points: list[Point]) -> None:
        """Writes metrics in one request."""
        self.client.log_batch(run_id, metrics=[Metric(name, value, moment, step) for name, value, step, moment in points])

    def tidy(self) -> None:
        """Refreshes SQLite's statistics: without them a search ordered by a metric is quadratic in the number of runs."""
        if self.uri.startswith("sqlite:///"):
            connection = sqlite3.connect(self.uri.removeprefix("sqlite:///"), timeout=30)
            with connection:
                connection.execute("PRAGMA analysis_limit = 1000")
                connection.execute("ANALYZE")
            connection.close()


@contextmanager
def needed(what: str, remedy: str) -> Iterator[None]:
    """Makes a refusal of the server's an error of the machine."""
    try:
        yield
    except REFUSALS as error:
        raise MachineError(f"{what} ({_first_line(error)}); {remedy}") from error


@contextmanager
def forgiving(deed: str) -> Iterator[None]:
    """Lets a server fail without costing a training run: what it did not take is said, and lies on disk."""
    try:
        yield
    except (*REFUSALS, sqlite3.Error) as error:
        print(f"warning: MLflow could not {deed}: {_first_line(error)}")  # noqa: T201


class Run:
    """An open run; use it as a context: it ends FINISHED, KILLED on an interrupt, FAILED on any other error."""

    def __init__(self, tracker: Tracker, run_id: str) -> None:
        self.tracker, self.id, self.client = tracker, run_id, tracker.client
        send_leftovers(tracker.spool_folder, tracker.send, self.client.set_terminated, REFUSALS)
        self.spool = Spool(tracker.spool_folder, run_id, tracker.send, REFUSALS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        interrupted = kind is not None and issubclass(kind, InterruptError | KeyboardInterrupt)
        status = "FINISHED" if kind is None else "KILLED" if interrupted else "FAILED"
        left = self.spool.close(CLOSE_SECONDS, status)
        if left:
            print(f"warning: {left} metrics wait in {self.spool.path}; the next stage sends them")  # noqa: T201
            return
        with forgiving("close the run"):
            self.client.set_terminated(self.id, status)
            self.tracker.tidy()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Keeps metrics of one step; sent in the background."""
        self.spool.log(metrics, step)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Records settings, nested ones as dotted names."""
        flat = {name: masked(str(value))[:PARAM_LENGTH] for name, value in flatten(params)}
        with forgiving("take the parameters"):
            self.client.log_batch(self.id, params=[Param(name, value) for name, value in flat.items()])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags, replacing those of the same name."""
        with forgiving("take the tags"):
            self.client.log_batch(self.id, tags=[RunTag(name, value) for name, value in tags.items()])

    def tag(self, name: str) -> str | None:
        """Returns a tag of this run."""
        with forgiving("read the tags"):
            return self.client.get_run(self.id).data.tags.get(name)
        return None

    def log_folder(self, folder: Path, to: str) -> None:
        """Copies a folder's files among the run's artifacts."""
        with forgiving(f"take the files of {folder}"):
            self.client.log_artifacts(self.id, str(folder), to)

    def log_data(self, split: str, schema: Mapping[str, Any]) -> None:
        """Records a split of prepared data that this run used, with its digest."""
        columns = [{"type": "string", "name": name, "required": True} for _, name in named_columns(schema["columns"])]
        digest = schema["digests"][split]
        dataset = Dataset(
            name=f"{schema['name']}-{split}",
            digest=digest[:36],  # MLflow keeps no more; the profile has it whole
            source_type="local",
            source=json.dumps({"uri": schema["source"]["path"], "sha256": schema["source"]["sha256"]}),
            schema=json.dumps({"mlflow_colspec": columns}),
            profile=json.dumps({"num_rows": schema["rows"][split], "sha256": digest}),
        )
        context = {"train": "training", "val": "validation", "test": "testing"}[split]
        with forgiving("take the data sets"):
            self.client.log_inputs(self.id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

    def log_model(self, folder: Path, examples: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]]) -> None:
        """Logs the fine-tuned model so that `mlflow.pyfunc.load_model` predicts from a DataFrame; no pickle is written."""
        from finespun.tracking.served import log_served_model  # noqa: PLC0415  (imports pandas)

        with forgiving(f"take the model of {folder}"), mlflow.start_run(run_id=self.id):
            log_served_model(folder, examples, answers)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def run_name(config_name: str) -> str:
    """Returns a run's name: what it is and when it began."""
    return f"{config_name}-{time.strftime('%Y%m%d-%H%M%S')}"
