"""MLflow's own pages for this project, opened on the columns that matter."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable

import click

from finespun.artifacts import Artifacts
from finespun.config.compose import compose
from finespun.errors import MachineError
from finespun.tracking.client import KIND, Tracker, tracking_uri
from finespun.tracking.outbox.delivery import FAILURES
from finespun.training.lightning.launching import die_with_parent

QUIET = {  # neither what a server says of itself while it starts, nor six processes for jobs that are none of ours
    "MLFLOW_LOGGING_LEVEL": "WARNING", "PYTHONWARNINGS": "ignore", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}  # fmt: skip
VIEW = "finespun"  # of the table of runs, which MLflow keeps in a tag of the experiment
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
RECENT = 50  # runs whose metrics are offered
ATTRIBUTES = ("Source", "Dataset", "Models")
PARAMETERS = ("optimizer.lr", "trainer.max_epochs")
COST = "perf/train_minutes"
NO_COLUMNS = {"loss", "rows", "f1_micro"}  # of val/ and test/: seldom what one looks for
MOST = 8  # metrics


def serve(artifacts: Artifacts, port: int) -> None:
    """Serves until interrupted, on 127.0.0.1 only.

    Raises:
        MachineError: there are no runs yet, or the port is taken.
    """
    config, _ = compose(artifacts)
    uri = tracking_uri(config.runtime, artifacts)
    if uri.startswith("http"):
        click.echo(f"this project's runs are on a server: {uri}")
        return
    if not (artifacts.mlruns / "mlflow.db").is_file():
        raise MachineError(f"{artifacts.mlruns}: holds no runs yet; `dvc repro` makes the first")
    _must_be_free(port)
    page = opening_page(Tracker(config.runtime, artifacts))
    click.echo(f"MLflow: http://127.0.0.1:{port}/{page}  ({uri}); it answers in some seconds, Ctrl-C ends it")
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--uvicorn-opts", "--log-level warning"]
    # Not as arguments, which all users of the machine see.
    store = {**QUIET, **os.environ, "MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_REGISTRY_STORE_URI": uri}
    try:
        code = subprocess.run(command, env=store, check=False, preexec_fn=die_with_parent).returncode
    except KeyboardInterrupt:
        return
    if code:
        raise MachineError(f"MLflow ended with exit code {code}; if port {port} is taken, give another: finespun ui --port")


def _must_be_free(port: int) -> None:
    """MLflow starts its workers again and again where they cannot listen."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            reason = error.strerror
            raise MachineError(f"port {port}: {reason}; give another: finespun ui --port {port + 1}") from error


def opening_page(tracker: Tracker) -> str:
    """Returns the table of runs as a path of MLflow's, with its columns chosen; the front page where that cannot be kept."""
    try:
        client, experiment = tracker.client, tracker.experiment_id
        runs = client.search_runs([experiment], max_results=RECENT)
        chosen = columns({name for run in runs for name in run.data.metrics})
        client.set_experiment_tag(experiment, *KIND)
        client.set_experiment_tag(experiment, VIEW_TAG, json.dumps({"selectedColumns": chosen}))
    except (*FAILURES, MachineError):  # a project that can only be read is shown as it is; MLflow names a damaged database
        return ""
    return f"#/experiments/{experiment}/runs?viewStateShareKey={VIEW}"


def columns(metrics: Iterable[str]) -> list[str]:
    """Returns the columns by MLflow's names, given the metrics that runs have: test before validation, then the time."""
    names = {name for name in metrics if name.count("/") == 1 and name.partition("/")[2] not in NO_COLUMNS}
    shown = [name for split in ("test/", "val/") for name in sorted(names) if name.startswith(split)][:MOST]
    shown += [COST] if COST in names else []
    kinds = (("attributes", ATTRIBUTES), ("metrics", shown), ("params", PARAMETERS))
    return [f"{kind}.`{name}`" for kind, each in kinds for name in each]
