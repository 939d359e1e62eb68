"""`mlflow models serve` answers a real request with what `finespun predict` says."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from helpers import QUIET, Project

pytestmark = pytest.mark.slow
ROWS = ["what a joy", "dull and far too long", "a film"]


def ask(port: int, rows: list[str]) -> list[dict[str, object]]:
    """Sends rows until the server answers."""
    content = json.dumps({"dataframe_records": [{"text": row} for row in rows]}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", data=content, headers={"Content-Type": "application/json"}
    )
    until = time.monotonic() + 240
    while True:
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return list(json.loads(answer.read())["predictions"])
        except (urllib.error.URLError, OSError):
            if time.monotonic() > until:
                raise
            time.sleep(1)


def test_a_served_model_answers_as_predict_does(finished: Project, tmp_path: Path) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{finished.folder}/mlruns/mlflow.db")
    [model] = mlflow.MlflowClient().search_logged_models(["1"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ, **QUIET, "MLFLOW_TRACKING_URI": f"sqlite:///{finished.folder}/mlruns/mlflow.db",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    environment.pop("PYTHONPATH", None)
    command = ["mlflow", "models", "serve", "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--model-uri", f"models:/{model.model_id}"], cwd=tmp_path, env=environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        served = ask(port, ROWS)
    finally:
        os.killpg(server.pid, 15)
        server.wait()
    (tmp_path / "in.csv").write_text("text\n" + "\n".join(ROWS) + "\n")
    finished.run("finespun", "predict", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv"))
    with (tmp_path / "out.csv").open() as file:
        wanted = [(row["label"], pytest.approx(float(row["probability"]), abs=1e-5)) for row in csv.DictReader(file)]
    assert [(row["label"], row["probability"]) for row in served] == wanted
