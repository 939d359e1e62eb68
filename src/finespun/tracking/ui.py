"""MLflow's own pages for this project."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import suppress

import click

from finespun.artifacts import Artifacts
from finespun.config.compose import compose
from finespun.errors import MachineError
from finespun.tracking.addresses import bring_along
from finespun.tracking.client import tracking_uri
from finespun.training.lightning.launching import die_with_parent


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
    with suppress(sqlite3.Error):  # a project that can only be read is shown as it is; MLflow names a damaged database
        bring_along(artifacts.mlruns / "mlflow.db")
    click.echo(f"MLflow: http://127.0.0.1:{port}  ({uri}); Ctrl-C ends it")
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    try:
        store = {**os.environ, "MLFLOW_BACKEND_STORE_URI": uri}  # not as an argument, which every user of the machine sees
        code = subprocess.run(command, env=store, check=False, preexec_fn=die_with_parent).returncode
    except KeyboardInterrupt:
        return
    if code:
        raise MachineError(f"MLflow ended with exit code {code}; if port {port} is taken, give another: finespun ui --port")
