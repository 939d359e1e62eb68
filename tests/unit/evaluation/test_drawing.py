"""Boxes and masks are drawn where they are, one picture a row, whatever the images are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from finespun.data.images import Places
from finespun.evaluation.drawing import Drawer
from finespun.tasks.answers.masks import as_png


def drawer(folder: Path) -> Drawer:
    places = Places((folder,), (folder,))
    return Drawer(folder / "drawn", labels=["cat", "dog"], columns=("file", "image"), places=places)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_boxes_are_drawn_at_their_edges(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "white").save(tmp_path / "a.png")
    (tmp_path / "deep").mkdir()
    Image.new("RGB", (60, 40), "white").save(tmp_path / "deep" / "a.png")
    box: dict[str, Any] = {"label": "dog", "score": 0.9, "x_min": 10.0, "y_min": 5.0, "x_max": 50.0, "y_max": 30.0}
    pen = drawer(tmp_path)
    pen.draw({"file": "a.png"}, {"boxes": [box]})
    pen.draw({"file": "deep/a.png"}, {"boxes": []})
    pen.draw({"file": "gone.png"}, {"error": "is not there"})
    found = pixels(tmp_path / "drawn" / "a.png")
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"a.png", "a_2.png"}
    assert (found[5, 10:50] != 255).any(axis=-1).all()
    assert (found[5:30, 10] != 255).any(axis=-1).all()
    assert (found[20:28, 15:45] == 255).all()
    assert (pixels(tmp_path / "drawn" / "a_2.png") == 255).all()


def test_masks_are_written_and_laid_over(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), "white").save(tmp_path / "a.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[:10] = 1
    drawer(tmp_path).draw({"image": "a.png"}, {"mask": as_png(mask)})
    assert np.array_equal(np.asarray(Image.open(tmp_path / "drawn" / "a_mask.png")), mask)
    found = pixels(tmp_path / "drawn" / "a.png")
    assert len(np.unique(found.reshape(-1, 3), axis=0)) == 2
    assert (found[:10] == found[0, 0]).all()
