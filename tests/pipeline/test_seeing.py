"""Detection and segmentation through the real pipeline, and the commands of their pages in docs/."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file

from finespun.training.lightning.callbacks import Saver
from helpers import ROOT, Project, make_project, write_csv

sys.path.insert(0, str(ROOT / "tests" / "unit" / "tasks"))
import test_object_detection as detection
import test_semantic_segmentation as segmentation

from tuned import tuned

pytestmark = pytest.mark.slow


def project_for(folder: Path, tiny_bert: Path, task: str, data: dict[str, Any], model: Path, **options: Any) -> Project:
    """A project with a data set `scenes` and a tiny model, nothing run yet."""
    project = make_project(folder, tiny_bert)
    shutil.copytree(model, project.folder / "data" / "tiny")
    (project.folder / "conf" / "model" / "tiny_seeing.yaml").write_text("checkpoint: data/tiny\n")
    (project.folder / "conf" / "data" / "scenes.yaml").write_text(yaml.safe_dump(data))
    project.edit("params.yaml", data="scenes", task=task, model="tiny_seeing")
    project.edit(f"conf/task/{task}.yaml", **options)
    return project


def commands(page: str) -> list[list[str]]:
    """The commands of a page's blocks of bash."""
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    found = [line.split("  #")[0].split() for block in blocks for line in block.splitlines() if line.strip()]
    assert found
    return found


def served(project: Project, path: str) -> Any:
    """What the MLflow model says of an image, asked in a process of its own."""
    run = json.loads((project.folder / "models" / "finetuned" / "run.json").read_text())["run_id"]
    code = (
        "import mlflow, pandas as pd; mlflow.set_tracking_uri('sqlite:///mlruns/mlflow.db');"
        f"model = mlflow.pyfunc.load_model('runs:/{run}/model');"
        f"model.predict(pd.DataFrame({{'file': [{path!r}]}})).to_json('served.json', orient='records');"
        "model.predict(model.input_example)"
    )
    project.run("python", "-c", code)
    return json.loads((project.folder / "served.json").read_text())[0]


def test_detection(tmp_path: Path, tiny_bert: Path) -> None:
    model = detection.tiny(tmp_path / "tiny", "rt_detr")
    made = tmp_path / "made"
    made.mkdir()
    rows = detection.scenes(made / "scenes")
    data = detection.by_format(made, rows, "csv_of_boxes")
    data |= {"path": "data/raw/boxes.csv"}
    options = {"min_score": 0.05, "augmentation__flip": True}
    project = project_for(tmp_path / "project", tiny_bert, "object_detection", data, model, **options)
    shutil.copytree(made, project.folder / "data" / "raw", dirs_exist_ok=True)
    project.run("dvc", "repro")
    metrics = json.loads((project.folder / "reports/test/metrics.json").read_text())
    assert {"map", "map_50", "map_75", "map_small"} <= set(metrics)
    assert "mAP" in (project.folder / "reports" / "index.html").read_text()
    assert "AP50" in project.run("finespun", "summary").stdout
    shutil.copytree(made / "scenes", project.folder / "data" / "raw" / "inbox")
    for command in commands("detection.md"):
        project.run(*command)
    answers = [json.loads(line) for line in (project.folder / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == len(rows)
    assert all(0 <= box["score"] <= 1 for answer in answers for box in answer["boxes"])
    assert len(list((project.folder / "drawn").glob("*.png"))) == len(rows)
    told = served(project, str(project.folder / "data" / "raw" / "scenes" / "0.png"))["boxes"]
    mine = next(answer for answer in answers if answer["image"].endswith("/0.png"))["boxes"]
    assert [box["score"] for box in told] == pytest.approx([box["score"] for box in mine], abs=1e-4)


def test_segmentation(tmp_path: Path, tiny_bert: Path) -> None:
    model = segmentation.tiny(tmp_path / "tiny", "segformer")
    rows = segmentation.scenes(tmp_path / "scenes")
    data = {"path": "data/raw/scenes.csv", "columns": segmentation.COLUMNS}
    options = {"classes": segmentation.CLASSES, "augmentation__rotation": 10.0}
    project = project_for(tmp_path / "project", tiny_bert, "semantic_segmentation", data, model, **options)
    shutil.copytree(tmp_path / "scenes", project.folder / "data" / "raw" / "scenes")
    write_csv(project.folder / "data" / "raw" / "scenes.csv", rows)
    project.run("dvc", "repro")
    metrics = json.loads((project.folder / "reports/test/metrics.json").read_text())
    assert {"mean_iou", "pixel_accuracy"} <= set(metrics)
    assert "Mean IoU" in (project.folder / "reports" / "index.html").read_text()
    for command in commands("segmentation.md"):
        project.run(*command)
    answers = [json.loads(line) for line in (project.folder / "answers.jsonl").read_text().splitlines()]
    mine = segmentation.mask_in({"mask": answers[0]["predicted_mask"]})  # `mask` is a column of the table
    assert mine.shape == (32, 48)
    masks = sorted((project.folder / "drawn").glob("*_mask.png"))
    assert len(masks) == len(rows)
    with Image.open(masks[0]) as mask:
        assert mask.mode == "P"
    told = served(project, str(project.folder / "data" / "raw" / "scenes" / "0.png"))
    assert (segmentation.mask_in(told) == mine).mean() > 0.99


class KilledError(Exception):
    """Stands for kill -9: nothing of ours is called after it."""


KINDS: dict[str, Any] = {
    "rt_detr": (detection, detection.in_cells, {}),
    "segformer": (segmentation, lambda rows: rows, {"classes": segmentation.CLASSES}),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_killed_run_ends_in_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Augmentation, dropout and the noise that RT-DETR trains with are those of the step, however the run got there."""
    module, in_rows, changes = KINDS[name]
    task = module.SHIPPED | changes | {"augmentation": module.SHIPPED["augmentation"] | {"flip": True, "rotation": 10.0}}
    save, found = Saver.save, []
    for saves in (0, 4):
        folder = tmp_path / str(saves)
        folder.mkdir()
        rows = in_rows(module.scenes(folder / "scenes"))
        model = {"checkpoint": str(module.tiny(folder / "tiny", name))}
        given = {"model": model, "task": task, "trainer__batch_size": 8, "trainer__max_epochs": 2}
        left = iter(range(saves, -1_000, -1))

        def save_then_die(self: Saver, trainer: Any, left: Any = left) -> None:
            save(self, trainer)
            if next(left) == 1:
                raise KilledError

        monkeypatch.setattr(Saver, "save", save_then_die)
        if saves:
            with pytest.raises(KilledError):
                tuned(folder, rows, module.COLUMNS, **given)
        found.append((tuned(folder, rows, module.COLUMNS, **given) / "model.safetensors").read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("name", KINDS)
def test_two_processes_train_together_and_score_each_row_once(tmp_path: Path, tiny_bert: Path, name: str) -> None:
    """The weights are others than those of one process: each normalises its own part of a batch."""
    module, in_rows, changes = KINDS[name]
    model, rows = module.tiny(tmp_path / "tiny", name), module.scenes(tmp_path / "scenes")
    kind = "object_detection" if module is detection else "semantic_segmentation"
    project = project_for(
        tmp_path / "project", tiny_bert, kind, {"path": "data/raw/rows.csv", "columns": module.COLUMNS}, model
    )
    project.edit(f"conf/task/{kind}.yaml", **changes)
    shutil.copytree(tmp_path / "scenes", project.folder / "data" / "raw" / "scenes")
    write_csv(project.folder / "data" / "raw" / "rows.csv", in_rows(rows))
    project.edit("conf/trainer/default.yaml", precision="32-true", batch_size=6)
    rows_of = []
    for devices in (1, 2):
        project.edit("conf/runtime/default.yaml", devices=devices)
        out = tmp_path / str(devices)
        said = project.run("python", "-m", "finespun.stages", "configure", "prepare", "finetune", "evaluate", "--out", str(out))
        assert ("DDP, 2 processes" in said.stdout) == (devices == 2)
        weights = load_file(out / "models" / "finetuned" / "model.safetensors")
        assert all(np.isfinite(each).all() for each in weights.values())
        rows_of.append(pq.read_table(out / "reports" / "evaluation" / "predictions.parquet")["row"].to_pylist())
    assert rows_of[0] == rows_of[1]
