"""Passwords, tokens and keys of the environment: everything that is written and said is searched for them."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
import yaml

from finespun.artifacts import Artifacts
from finespun.config.compose import compose
from finespun.errors import ConfigError
from helpers import ROOT, Project

PLANTED = {
    "MLPASS": "hunter2planted",  # what runtime.tracking_uri takes from the environment
    "AWS_SECRET_ACCESS_KEY": "aws/secretplanted",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED",
    "HF_TOKEN": "hf_tokenplanted",
    "PIP_EXTRA_INDEX_URL": "https://me:pipplanted@127.0.0.1:9/simple",
}
SECRET = re.compile(rb"planted|AKIAPLANTED")
IN_GIT = "https://oauth2:gitplanted@127.0.0.1:9/me/project.git"


def found_in(*folders: Path) -> list[str]:
    """Files that hold a planted secret; Git's own settings are the user's."""
    files = [path for folder in folders for path in ([folder] if folder.is_file() else folder.rglob("*")) if path.is_file()]
    return [str(path) for path in files if ".git" not in path.parts and SECRET.search(path.read_bytes())]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """An MLflow server and the folder of all that it keeps."""
    port, folder = free_port(), tmp_path / "server"
    folder.mkdir()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
            break
        except (URLError, ConnectionError):
            time.sleep(0.2)
    yield port, folder
    os.killpg(process.pid, 15)
    process.wait()


@pytest.fixture
def titles() -> Iterator[list[bytes]]:
    """Command lines of processes that held a planted secret while the test ran."""
    seen: list[bytes] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes()
                except OSError:
                    continue
                if SECRET.search(line):
                    seen.append(line)

    thread = threading.Thread(target=watch)
    thread.start()
    yield seen
    ended.set()
    thread.join()


def watched(project: Project, address: str) -> Project:
    runtime = project.folder / "conf" / "runtime" / "default.yaml"
    runtime.write_text(re.sub(r"tracking_uri: .*", f'tracking_uri: "{address}"', runtime.read_text()))
    project.edit("conf/trainer/default.yaml", max_epochs=1)
    project.run("git", "remote", "add", "origin", IN_GIT)
    project.commit("address")
    return project


@pytest.mark.slow
def test_secrets_reach_nothing_that_is_written_or_said(project: Project, server: tuple[int, Path], titles: list[bytes]) -> None:
    port, kept = server
    watched(project, f"http://user:${{oc.env:MLPASS}}@127.0.0.1:{port}")
    said = []
    for command in (
        ["dvc", "repro"],
        ["finespun", "run", "optimizer.lr=0.002", f"runtime.tracking_uri='http://user:${{oc.env:MLPASS}}@127.0.0.1:{port}'"],
        ["finespun", "run", "-m", "seed=1,2", "hydra.sweep.dir=multirun/two"],
        ["finespun", "run", "--cfg", "all", "--resolve", "hydra.mode=RUN", "--package", "runtime"],
        ["finespun", "predict", "data/raw/movie_reviews.csv", "-o", "predicted.csv"],
        ["finespun", "ui"],
        ["finespun", "summary"],
    ):
        done = project.run(*command, timeout=500, **PLANTED)
        said.append(done.stdout + done.stderr)
    assert re.search(r"http://(\*\*\*@)?127.0.0.1", said[5]), "the address itself is shown"
    assert "http" in (project.folder / "models" / "finetuned" / "run.json").read_text()
    (project.folder / "said").write_text("\n".join(said))
    assert (kept / "mlflow.db").is_file()
    assert list(kept.rglob("MLmodel"))
    assert found_in(project.folder, kept) == []
    assert titles == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["http://user:{}@127.0.0.1:9", "postgresql://user:{}@127.0.0.1:9/mlflow"])
def test_secrets_are_in_no_message_about_a_server_that_is_not_there(project: Project, scheme: str) -> None:
    watched(project, scheme.format("${oc.env:MLPASS}"))
    done = project.run("python", "-m", "finespun.stages", "configure", "prepare", "finetune", check=False, **PLANTED)
    ui = project.run("finespun", "ui", check=False, **PLANTED)
    assert re.search("127.0.0.1:9|psycopg cannot be imported", done.stdout + done.stderr)
    (project.folder / "said").write_text(done.stdout + done.stderr + ui.stdout + ui.stderr)
    assert found_in(project.folder) == []


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    return Artifacts(project=tmp_path, out=tmp_path)


def set_address(artifacts: Artifacts, address: str) -> None:
    path = artifacts.conf / "runtime" / "default.yaml"
    plain = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(plain | {"tracking_uri": address}))


@pytest.mark.parametrize(
    "address",
    [
        "http://user:hunter2planted@127.0.0.1:9",
        "https://user:hunter%32planted@127.0.0.1",
        "postgresql://user:hunter2planted@127.0.0.1/mlflow",
        "http://127.0.0.1:9?access_token=hunter2planted",
        "http://hunter2plantedhunter@127.0.0.1:9",
    ],
)
def test_a_password_in_a_file_of_settings_is_refused_and_the_advice_works(
    artifacts: Artifacts, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_address(artifacts, address)
    with pytest.raises(ConfigError, match=r"runtime.tracking_uri: has a password or token in it") as caught:
        compose(artifacts)
    assert "planted" not in str(caught.value)
    assert not artifacts.config.exists()
    monkeypatch.setenv("NAME", "hunter2planted")
    advice = re.search(r"\((http://\S+), NAME", str(caught.value))
    assert advice
    set_address(artifacts, advice[1])
    assert compose(artifacts)[0].runtime.tracking_uri == "http://user:hunter2planted@host"


@pytest.mark.parametrize("value", ["${runtime.tracking_uri}", "${oc.env:MLPASS}", "${oc.select:runtime.tracking_uri}", "${.a}"])
def test_what_is_recorded_takes_nothing_from_the_environment(
    artifacts: Artifacts, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPASS", "hunter2planted")
    set_address(artifacts, "http://user:${oc.env:MLPASS}@127.0.0.1:9")
    path = artifacts.conf / "data" / "movie_reviews.yaml"
    path.write_text(re.sub(r"path: .*", f"path: '{value}'\na: ${{runtime.tracking_uri}}", path.read_text()))
    with pytest.raises(ConfigError, match=r"conf/data/movie_reviews.yaml: path: reads an environment variable") as caught:
        compose(artifacts)
    assert "planted" not in str(caught.value)
