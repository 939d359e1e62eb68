"""MLflow: one run a fine-tuned model, opened by `finetune`, added to by `evaluate` and `test`."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # the outbox tries again; its patience costs no training time
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
from mlflow.exceptions import MlflowException

from finespun.artifacts import Artifacts
from finespun.config.check import flatten
from finespun.config.sections import RuntimeConfig
from finespun.data.checks import named_columns
from finespun.errors import InterruptError, MachineError, PrunedError
from finespun.masking import first_line, masked, without_login
from finespun.tracking.addresses import bring_along, database_path, database_uri, remove_strays
from finespun.tracking.names import legal
from finespun.tracking.outbox import leftovers
from finespun.tracking.outbox.delivery import FAILURES, Delivery
from finespun.tracking.outbox.journal import fingerprint
from finespun.tracking.outbox.outbox import Outbox
from finespun.tracking.trials.trial import PARENT

if TYPE_CHECKING:
    from collections.abc import Iterator

KIND = ("mlflow.experimentKind", "custom_model_development")  # MLflow shows pages for training, not for agents
TABLES = "mlflow.loggedArtifacts"  # tag of a run: the tables on its page
KEY = "mlflow.finespun.key"  # tag of a run that is given before the run exists: by it a run is found whose id a kill has lost
BY_METRIC = "CREATE INDEX IF NOT EXISTS finespun_by_metric ON latest_metrics (key, run_uuid, value, is_nan, timestamp, step)"

for _noisy in ("alembic", "mlflow"):
    logging.getLogger(_noisy).setLevel(logging.WARNING)


def tracking_uri(runtime: RuntimeConfig, artifacts: Artifacts) -> str:
    """Returns the server's address, without user and password, or that of the embedded database."""
    return without_login(runtime.tracking_uri) if runtime.tracking_uri else database_uri(artifacts.mlruns / "mlflow.db")


def new_key() -> str:
    """Returns a name for a run that does not exist yet."""
    return uuid.uuid4().hex


class Tracker:
    """A connection to one MLflow experiment; nothing is asked of the store before it has to be."""

    def __init__(self, runtime: RuntimeConfig, artifacts: Artifacts) -> None:
        self.artifacts, self.uri = artifacts, tracking_uri(runtime, artifacts)
        self.experiment = runtime.mlflow_experiment
        self.outbox = artifacts.state / "outbox"
        mlflow.set_tracking_uri(self.uri)
        self._client: mlflow.MlflowClient | None = None
        self._experiment_id = ""

    @property
    def client(self) -> mlflow.MlflowClient:
        """The way to the store, whose database is made where there is none.

        Raises:
            MachineError: the server does not answer.
        """
        if self._client is None:
            remedy = "start the server, or set null for the database in mlruns/"
            with self._alone(), needed(f"runtime.tracking_uri: {masked(self.uri)} does not answer", remedy):
                database = database_path(self.uri)
                if database is not None:
                    bring_along(database)
                client = mlflow.MlflowClient(self.uri)
                self._experiment_id = self._find_experiment(client)
                remove_strays(self.uri)
                self._client = client
        return self._client

    @property
    def experiment_id(self) -> str:
        """MLflow's number of the experiment."""
        return self._experiment_id if self.client else ""

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time makes the database: several at once would break it for good."""
        self.artifacts.mlruns.mkdir(parents=True, exist_ok=True)
        with (self.artifacts.mlruns / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _find_experiment(self, client: mlflow.MlflowClient) -> str:
        experiment = client.get_experiment_by_name(self.experiment)
        if experiment is not None:
            return str(experiment.experiment_id)
        local = self.uri.startswith("sqlite:")
        folder = (self.artifacts.mlruns / "artifacts").as_uri() if local else None
        return str(client.create_experiment(self.experiment, artifact_location=folder, tags=dict([KIND])))

    def start(self, name: str, *, tags: Mapping[str, str], params: Mapping[str, Any], key: str | None = None) -> Run:
        """Opens a new run.

        Raises:
            MachineError: the server does not answer.
        """
        key = key or new_key()
        parent = os.environ.get(PARENT)
        first = {KEY: key, **({"mlflow.parentRunId": parent} if parent else {})}
        with needed(f"MLflow at {masked(self.uri)} does not answer", "start it again"):
            experiment = self.experiment_id
            with leftovers.creating(self.outbox, key, self.uri):
                created = self.client.create_run(experiment, tags=first, run_name=name)
                run = Run(self, created.info.run_id)
        run.set_tags(tags)
        run.log_params(params)
        return run

    def begin(self, name: str, tags: Mapping[str, str]) -> str:
        """Creates a run for another process; returns its id.

        Raises:
            MachineError: the server does not answer.
        """
        with needed(f"MLflow at {masked(self.uri)} does not answer", "start it again"):
            created = self.client.create_run(
                self.experiment_id, tags={legal(k): masked(v) for k, v in tags.items()}, run_name=name
            )
        return str(created.info.run_id)

    def find(self, key: str) -> Run | None:
        """Goes on with the run that was started by a key; None where none was.

        Raises:
            MachineError: the server does not answer.
        """
        with needed(f"MLflow at {masked(self.uri)} does not answer", "start it again"):
            rule = f"tags.`{KEY}` = '{key}'"
            found = self.client.search_runs([self.experiment_id], rule, max_results=1)
        return self.resume(found[0].info.run_id) if found else None

    def look_up(self, run_id: str) -> dict[str, str] | None:
        """Returns a run's tags and last metrics, or None where the store knows no such run.

        Raises:
            MachineError: the server does not answer.
        """
        try:
            data = self.client.get_run(run_id).data
        except MlflowException as error:
            if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                return None
            raise MachineError(f"MLflow at {masked(self.uri)} does not answer ({first_line(error)}); start it again") from error
        return {**data.tags, **{name: repr(value) for name, value in data.metrics.items()}}

    def resume(self, run_id: str) -> Run | None:
        """Goes on with a run; None if the store does not know it (another server, or it was deleted).

        A store that does not answer costs nothing: what it has not received waits in the outbox.
        """
        try:
            self.client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            self._say_absent(error)
        except (MachineError, OSError) as error:
            self._say_absent(error)
        return Run(self, run_id)

    def _say_absent(self, error: Exception) -> None:
        print(f"warning: MLflow does not answer ({first_line(error)}); results wait on disk for `finespun sync`")  # noqa: T201

    def count_test_evaluations(self, test_digest: str, *, but: str = "") -> int | None:
        """Returns how often a test split has been evaluated, by all runs but one; None where the store does not answer."""
        rule = f"tags.test_split = '{test_digest}'"
        try:
            found = mlflow.search_runs([self.experiment_id], rule, output_format="list", max_results=50_000)
        except (*FAILURES, MachineError) as error:
            print(f"warning: evaluations of the test split are not counted: {first_line(error)}")  # noqa: T201
            return None
        return sum(
            int(run.data.tags.get("test_evaluations", run.data.tags.get("test_looks", 0)))  # as it was called once
            for run in found
            if run.info.run_id != but
        )

    def delivery(self, run_id: str, refused: Path) -> Delivery:
        """Returns the way to one run of the store."""
        return Delivery(self.client, run_id, refused, is_there=self._is_there)

    def _is_there(self) -> bool:
        """Whether the embedded database still is: an open connection would go on writing to one that was deleted."""
        database = database_path(self.uri)
        return database is None or database.exists()

    def deliver_leftovers(self, *, but: str = "") -> dict[str, str]:
        """Delivers what processes that have ended still owe; returns what is left, with the reason, by run."""
        left = leftovers.deliver(self.outbox, self.uri, self.delivery, but=but)
        if not left:
            leftovers.end_lost_starts(self.outbox, self.uri, self._end_by_key)
        return left

    def _end_by_key(self, key: str) -> None:
        for found in self.client.search_runs([self.experiment_id], f"tags.`{KEY}` = '{key}'", max_results=1):
            self.client.set_terminated(found.info.run_id, "KILLED")

    def tidy(self) -> None:
        """Makes searches ordered by a metric quick: without statistics SQLite takes a time that is quadratic in the runs.

        With all columns that MLflow asks for in an index, it need not look each run's metric up in a table of all metrics.
        """
        database = database_path(self.uri)
        if database is not None:
            connection = sqlite3.connect(database, timeout=30)
            with connection:
                connection.execute(BY_METRIC)
                connection.execute("PRAGMA analysis_limit = 1000")
                connection.execute("ANALYZE")
            connection.close()


@contextmanager
def needed(what: str, remedy: str) -> Iterator[None]:
    """Makes a refusal of the server's an error of the machine."""
    try:
        yield
    except FAILURES as error:
        raise MachineError(f"{what} ({first_line(error)}); {remedy}") from error


class Run:
    """An open run; use it as a context: it ends FINISHED, KILLED on an interrupt or by a pruner, FAILED on any other error."""

    _tables: list[dict[str, str]] | None = None  # what the tag TABLES says, once it is asked for

    def __init__(self, tracker: Tracker, run_id: str, *, quiet_seconds: float = 0.0) -> None:
        """Work that ends within `quiet_seconds` leaves its sending to the process that started it."""
        self.tracker, self.id = tracker, run_id

        def connect(refused: Path) -> Delivery:
            tracker.deliver_leftovers(but=run_id)
            return tracker.delivery(run_id, refused)

        self.outbox = Outbox(tracker.outbox, run_id, uri=tracker.uri, connect=connect, quiet_seconds=quiet_seconds)
        self.outbox.add("status", "RUNNING")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        interrupted = kind is not None and issubclass(kind, InterruptError | PrunedError | KeyboardInterrupt)
        self.outbox.add("status", "FINISHED" if kind is None else "KILLED" if interrupted else "FAILED")
        if self.outbox.is_quiet:
            self.outbox.wait()
            self.outbox.close()
            return
        failure = self.outbox.wait()
        if failure is None:
            with suppress(sqlite3.Error, OSError):
                self.tracker.tidy()
        else:
            self.outbox.keep_files()
            reason = first_line(failure)
            said = f"warning: MLflow does not take everything ({reason})"
            print(f"{said}; the rest waits: the next command sends it, or `finespun sync`")  # noqa: T201
        self.outbox.close()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Keeps metrics of one step, sent in the background; not again what a process that was killed has kept."""
        now, recorded = int(time.time() * 1000), self.outbox.recorded
        named = [(legal(name), value) for name, value in metrics.items()]
        points = [[name, float(value), step, now] for name, value in named if step not in recorded.get(name, ())]
        if points:
            self.outbox.add("metrics", points)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Records settings, nested ones as dotted names; those that are not set are left out."""
        known = [(name, value) for name, value in flatten(params) if value is not None]
        self.outbox.add("params", {legal(name): masked(str(value)) for name, value in known})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags, replacing those of the same name."""
        self.outbox.add("tags", {legal(name): masked(value) for name, value in tags.items()})

    def tag(self, name: str) -> str | None:
        """Returns a tag of this run, as the store has it; None where it does not answer."""
        try:
            return self.tracker.client.get_run(self.id).data.tags.get(legal(name))
        except (*FAILURES, MachineError):
            return None

    def test_evaluations(self, test_digest: str) -> int | None:
        """Returns how often other runs have evaluated a test split; None where the store does not answer."""
        return self.tracker.count_test_evaluations(test_digest, but=self.id)

    def log_folder(self, folder: Path, to: str) -> None:
        """Copies a folder's files among the run's artifacts."""
        self.outbox.add("folder", {"folder": str(folder), "to": to, "fingerprint": fingerprint(folder)})

    def log_texts(self, texts: Mapping[str, str], to: str = "") -> None:
        """Keeps texts as files among the run's artifacts, by their names."""
        folder = self.outbox.folder / "texts" / f"{time.time_ns():020d}"
        folder.mkdir(parents=True)
        for name, text in texts.items():
            (folder / name).write_text(masked(text), encoding="utf-8")
        self.log_folder(folder, to)

    def log_table(self, columns: Mapping[str, Sequence[Any]], name: str) -> None:
        """Shows a table on the run's page, as MLflow's `log_table` does, and keeps it as `tables/NAME.json`."""
        content = {"columns": [*columns], "data": [list(row) for row in zip(*columns.values(), strict=True)]}
        self.log_texts({f"{name}.json": json.dumps(content, ensure_ascii=False)}, "tables")
        if self._tables is None:
            self._tables = json.loads(self.tag(TABLES) or "[]")
        entry = {"path": f"tables/{name}.json", "type": "table"}
        if entry not in self._tables:
            self._tables.append(entry)
            self.set_tags({TABLES: json.dumps(self._tables)})

    def log_images(self, files: Mapping[str, Path]) -> None:
        """Shows pictures on the run's own page, by their names."""
        self.outbox.add("images", {name: str(path) for name, path in files.items()})

    def log_results(self, split: str, schema: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        """Records metrics as those of the run's model on a split: MLflow shows them with the model and the data, too."""
        now, recorded = int(time.time() * 1000), self.outbox.recorded
        points = [
            [legal(name), float(value), step, now]
            for name, value in metrics.items()
            if step not in recorded.get(legal(name), ())
        ]
        dataset = {"name": legal(f"{schema['name']}-{split}"), "digest": schema["digests"][split][:36]}
        self.outbox.add("results", {"dataset": dataset, "points": points})

    def log_data(self, split: str, schema: Mapping[str, Any]) -> None:
        """Records a split of prepared data that this run used, with its digest."""
        columns = [{"type": "string", "name": name, "required": True} for _, name in named_columns(schema["columns"])]
        digest = schema["digests"][split]
        dataset = {
            "name": legal(f"{schema['name']}-{split}"),
            "digest": digest[:36],  # MLflow keeps no more; the profile has it whole
            "source_type": "local",
            "source": json.dumps({"uri": schema["source"]["path"], "sha256": schema["source"]["sha256"]}),
            "schema": json.dumps({"mlflow_colspec": columns}),
            "profile": json.dumps({"num_rows": schema["rows"][split], "sha256": digest}),
        }
        context = {"train": "training", "val": "validation", "test": "testing"}[split]
        self.outbox.add("data", {"dataset": dataset, "context": context})

    def log_model(self, folder: Path, examples: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]]) -> None:
        """Logs the fine-tuned model so that `mlflow.pyfunc.load_model` predicts from a DataFrame; no pickle is written."""
        content = {"folder": str(folder), "fingerprint": fingerprint(folder), "examples": examples, "predictions": answers}
        self.outbox.add("model", content)


def run_name(config_name: str) -> str:
    """Returns a sweep's name: what it is and when it began."""
    return f"{config_name}-{time.strftime('%Y%m%d-%H%M%S')}"
