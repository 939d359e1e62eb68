"""The worst images of a split are drawn, labelled and predicted, and the report shows them, the worst first."""

from __future__ import annotations

import base64
import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from finespun.evaluation import pictures
from finespun.evaluation.predictor import Predictor
from finespun.report import page
from finespun.tasks.answers.several_labels import NONE
from helpers import ROOT
from reported import facts, split_facts
from tuned import HARDLY, measured, prepared, tuned

sys.path.insert(0, str(ROOT / "tests" / "unit" / "tasks"))
import test_object_detection as detection
import test_semantic_segmentation as segmentation

CASES: dict[str, Any] = {
    "boxes": (detection, "yolos", detection.in_cells, {"min_score": 0.0}, "mistakes"),
    "masks": (segmentation, "segformer", lambda rows: rows, {"classes": segmentation.CLASSES}, "mean_iou"),
}


@pytest.mark.parametrize("kind", CASES)
def test_the_worst_rows_have_a_picture_and_the_report_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(pictures, "MOST", 1)
    module, name, as_rows, changes, column = CASES[kind]
    rows, task = as_rows(module.scenes(tmp_path / "scenes")), module.SHIPPED | changes
    given: dict[str, Any] = {"model": {"checkpoint": str(module.tiny(tmp_path / "tiny", name))}, "task": task}
    folder = tuned(tmp_path, rows, module.COLUMNS, **given, **HARDLY)
    found = measured(tmp_path, rows, module.COLUMNS, folder, task=task).predictions
    _, data = prepared(tmp_path, rows, module.COLUMNS, **given)
    predictor = Predictor(folder)
    table = pictures.with_pictures(
        found, data.open("val"), model=predictor.model, task=predictor.task, encoder=predictor.encoder, labels=data.labels
    )
    order = np.argsort(found[column].to_numpy() * (-1 if column == "mistakes" else 1), kind="stable")[:1]
    assert [place for place, each in enumerate(table["picture"].to_pylist()) if each] == sorted(order.tolist())
    shown = pictures.shown(table, [*data.labels, NONE])
    assert shown is not None
    assert [line["row"] for line in shown["rows"]] == [found["row"][int(place)].as_py() for place in order]
    assert [label for label, _ in shown["legend"]] == data.labels
    image = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown["rows"][0]["picture"].partition(",")[2]))))
    assert image.shape[1] == 2 * pictures.SIDE + pictures.GAP
    assert not np.array_equal(image[:, : pictures.SIDE], image[:, -pictures.SIDE :]), "an untrained model is wrong"
    best = split_facts("test")
    whole = page.render(facts(pictured(best, table, data.labels)))
    assert whole.count('<img src="data:image/jpeg;base64,') == 1
    assert "labelled on the left, predicted on the right" in whole
    assert "No row of this split was predicted wrongly" not in whole


def pictured(split: Any, table: pa.Table, labels: list[str]) -> Any:
    """Facts of a split with other predictions."""
    return replace(split, predictions=table, details=split.details | {"labels": [*labels, NONE], "calibration": None})


def test_answers_without_places_have_no_pictures(tmp_path: Path) -> None:
    table = pa.table({"row": [1], "label": ["a"], "predicted": ["b"]})
    task: Any = type("Task", (), {"answer_roles": {"label": None}})()
    assert pictures.with_pictures(table, table, model=None, task=task, encoder=None, labels=["a"]) is table
    assert pictures.shown(table, ["a"]) is None
