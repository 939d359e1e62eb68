"""Prepared by several processes, or on a Ray cluster (a local one), a project's data are the same bits, and errors the same."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import ROOT, real_rows

pytestmark = pytest.mark.slow
PREPARE = """
import sys
from pathlib import Path
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from finespun.artifacts import Artifacts
from finespun.config.check import Origin, check
from finespun.data.passes import processes
from finespun.errors import FinespunError
from finespun.stages.prepare import prepare
conf, project, how = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
with initialize_config_dir(str(conf), version_base="1.3"):
    composed = compose("config")
OmegaConf.set_struct(composed, False)
composed.data = {"path": "raw/*.csv", "columns": {"text": "text", "label": "sentiment"}, "slices": ["sentiment"],
                 "checks": {"duplicate": "drop", "conflicting_labels": "drop", "unknown_label": "drop"},
                 "labels": ["negative", "positive"]}
composed.runtime.prepare_with = "ray" if how == "ray" else "local"
if how == "processes":
    processes.SECONDS, processes.MOST_ROWS, processes.workers_here = 0.0, 50, lambda: 3
config = check(composed, Origin(conf=conf, choices={}))
try:
    prepare(config, Artifacts(project=project, out=project), project / how)
except FinespunError as error:
    raise SystemExit(f"{error.exit_code} {error}")
"""


def prepared(project: Path, how: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PREPARE, str(ROOT / "conf"), str(project), how], text=True, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "RAY_USAGE_STATS_ENABLED": "0", **environment}, cwd=project,
    )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Three files of unlike lengths, with rows that are there twice, across files too."""
    rows = real_rows(600)
    (tmp_path / "raw").mkdir()
    for name, mine in {"a": rows[:50], "b": rows[40:400], "c": rows[400:]}.items():
        with (tmp_path / "raw" / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(mine)
    return tmp_path


@pytest.mark.parametrize("how", ["ray", "processes"])
def test_the_bits_are_those_of_one_process(project: Path, how: str) -> None:
    one, several = prepared(project, "local"), prepared(project, how)
    assert (one.returncode, several.returncode) == (0, 0), one.stderr + several.stderr
    assert several.stdout == one.stdout
    names = {path.name for path in (project / "local").iterdir()}
    assert {"train.arrow", "val.arrow", "test.arrow", "schema.json", "profile.json", "dropped.parquet"} <= names
    for name in names:
        assert (project / how / name).read_bytes() == (project / "local" / name).read_bytes(), name


@pytest.mark.parametrize("how", ["ray", "processes"])
def test_an_error_of_a_worker_is_the_error_of_one_process(project: Path, how: str) -> None:
    with (project / "raw" / "b.csv").open("a", encoding="utf-8") as file:
        file.write('"never closed,1\n')
    one, several = prepared(project, "local"), prepared(project, how)
    assert one.returncode == 1
    assert "raw/b.csv:362" in one.stderr
    assert several.stderr.splitlines()[-1:] == one.stderr.splitlines()[-1:]


def test_a_cluster_that_is_not_there(project: Path) -> None:
    found = prepared(project, "ray", RAY_ADDRESS="127.0.0.1:1")
    assert found.stderr.strip().splitlines()[-1].startswith("5 runtime.prepare_with: ray: no cluster at 127.0.0.1:1")
