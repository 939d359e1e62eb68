"""docs/adding_a_task.md, done word for word: two files make a task that trains, is tested, summed up and predicts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers import ROOT, Project, make_project, real_rows, write_csv

STARS = ["one", "two", "three", "four", "five"]


def blocks(page: str) -> dict[str, str]:
    """Path -> content: a block of code belongs to the last path that was named before it."""
    found: dict[str, str] = {}
    for place in re.finditer(r"^```(?:python|yaml)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        named = re.findall(r"`((?:src|conf)/[\w/]+\.(?:py|yaml))`", page[: place.start()])
        found[named[-1]] = place[1]
    return found


@pytest.fixture
def walked(tmp_path: Path, tiny_bert: Path) -> Project:
    project = make_project(tmp_path / "project", tiny_bert)
    for path, content in blocks((ROOT / "docs" / "adding_a_task.md").read_text(encoding="utf-8")).items():
        assert not (project.folder / path).exists()
        (project.folder / path).write_text(content, encoding="utf-8")
    rows = [{"review": row["text"], "stars": STARS[min(4, int((float(row["rating"]) + 4) / 8 * 5))]} for row in real_rows(200)]
    write_csv(project.folder / "data" / "raw" / "stars.csv", rows)
    return project


def test_the_page_makes_a_task(walked: Project) -> None:
    new = walked.run("git", "status", "--short", "-uall").stdout.split()[1::2]
    assert set(new) == {
        "src/finespun/tasks/ordered_labels.py", "conf/task/ordered_labels.yaml", "conf/data/stars.yaml", "data/raw/stars.csv"
    }  # fmt: skip
    walked.run("ruff", "check", "--config", str(ROOT / "pyproject.toml"), "src/finespun/tasks/ordered_labels.py")
    walked.edit("params.yaml", data="stars", task="ordered_labels")
    too_long = walked.run("dvc", "repro", check=False).stderr
    assert "task.max_length: 128 tokens asked for, BertForSequenceClassification has positions for 64; lower it" in too_long
    walked.edit("conf/task/ordered_labels.yaml", max_length=48)
    walked.run("dvc", "repro")
    told = pd.read_parquet(walked.folder / "reports" / "test" / "predictions.parquet")
    places = [[STARS.index(star) for star in told[name]] for name in ("label", "predicted")]
    scores = json.loads((walked.folder / "reports" / "test" / "metrics.json").read_text())
    assert scores["distance"] == pytest.approx(np.abs(np.subtract(*places)).mean())
    history = (walked.folder / "models" / "finetuned" / "history.csv").read_text()
    assert "val/distance" in history
    assert "distance" in walked.run("finespun", "summary").stdout
    walked.run("finespun", "predict", "data/raw/stars.csv", "--output", "out.csv")
    assert set(pd.read_csv(walked.folder / "out.csv")["label"]) <= set(STARS)
    walked.edit("conf/task/ordered_labels.yaml", distance_weight="much")
    assert "conf/task/ordered_labels.yaml: distance_weight" in walked.run("dvc", "repro", check=False).stderr
