"""Images are decoded once where they are encoded, JPEGs no larger than needed, and too many of them while training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from sklearn.datasets import load_sample_image

from finespun.config.sections import Target
from finespun.config.targets import build
from finespun.data import images
from finespun.data.batches import Batches
from finespun.data.loader import BatchLoader, Rows
from finespun.errors import DataError
from finespun.tasks.inputs.image_files import pixels_of
from helpers import ROOT
from tuned import prepared, trained

sys.path.insert(0, str(ROOT / "tests" / "unit" / "tasks"))
import test_image_answers as answers
import test_image_classification as classification
import test_object_detection as detection
import test_semantic_segmentation as segmentation


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    """A JPEG of 1280 x 853 pixels."""
    path = tmp_path / "flower.jpg"
    Image.fromarray(load_sample_image("flower.jpg")).resize((1280, 853)).save(path, quality=90)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_decoded_to_the_size_that_is_needed(photograph: Path, tiny_net: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    Image.open(photograph).save(photograph, exif=exif, quality=90)
    encoder = classification.make_task(image_size=64).encoder(tiny_net)
    places, most = images.Places([photograph.parent], [photograph.parent]), 10**7
    whole = images.read(photograph.name, places, max_pixels=most)
    small = images.read(photograph.name, places, max_pixels=most, wanted=encoder.resized)
    assert small.size == whole.size == whole.image.size == ((1280, 853) if orientation < 5 else (853, 1280))
    assert max(small.image.size) == 160
    one, other = (encoder.pixels(*each[:3]).astype(float) for each in (whole, small))
    assert np.abs(one - other).mean() < 1.5  # of 255
    assert images.size_of(photograph.read_bytes(), max_pixels=most) == whole.size


@pytest.mark.parametrize("options", [{}, {"tile": 32}], ids=["whole", "tiles"])
@pytest.mark.parametrize("module", [detection, segmentation])
def test_an_image_is_decoded_once_to_be_encoded(
    tmp_path: Path, module: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = module.scenes(tmp_path / "scenes", 4)
    task = module.make_task(**options).reading_from(tmp_path)
    encoder = task.encoder(module.tiny(tmp_path / "net", "rt_detr" if module is detection else "mobilenet_v2"))
    given = [{"image": row["file"], **{role: row[role] for role in task.answer_roles}} for row in rows]
    decoded = []
    plain = images.decode
    monkeypatch.setattr(images, "decode", lambda *given, **said: (decoded.append(1), plain(*given, **said))[1])
    columns = task.encode(given, encoder, ["ball", "square"] if module is detection else ["0", "1"])
    assert (len(columns["pixels"]) > 4) == bool(options), "a row a tile"
    assert len(decoded) == 4


def rows_of(task: Any, encoder: Any, names: list[str]) -> list[dict[str, Any]]:
    columns = task.encode([{"image": name, "label": "a"} for name in names], encoder, ["a", "b"])
    return [dict(zip(columns, row, strict=True)) for row in zip(*(each.to_pylist() for each in columns.values()), strict=True)]


def test_images_that_are_not_kept_have_the_same_pixels(photograph: Path, tiny_net: Path) -> None:
    task = classification.make_task(image_size=48).reading_from(photograph.parent)
    encoder = task.encoder(tiny_net)
    kept, said = task.kept_within(3 * 48 * 48 * 2, 2, encoder)
    assert (kept, said) == (task, None)
    lean, said = task.kept_within(3 * 48 * 48 * 2 - 1, 2, encoder)
    assert said.startswith("1.38e-05 GB of pixels are more than runtime.image_cache_gb: 1.38")
    names = [photograph.name, images.inline(photograph.read_bytes())]
    expected, found = rows_of(task, encoder, names), rows_of(lean, encoder, names)
    assert [row["pixels"] is None for row in found] == [True, False], "what has no file is kept"
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(pixels_of(one), pixels_of(other))
    columns = [{name: [row[name] for row in rows] for name in rows[0]} for rows in (expected, found)]
    one, other = (lean.collate(each, encoder)[0]["pixel_values"] for each in columns)
    assert torch.equal(one, other)
    photograph.write_bytes(photograph.read_bytes() + b"more")
    with pytest.raises(DataError, match=r"flower\.jpg: has changed since `prepare` read it; run `dvc repro` again"):
        pixels_of(found[0])
    photograph.unlink()
    with pytest.raises(DataError, match=r"flower\.jpg: cannot be read \(No such file"):
        pixels_of(found[0])


@pytest.mark.slow
def test_a_model_of_images_that_are_not_kept_is_the_same(
    tmp_path: Path, tiny_net: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models, data = [], {}
    for most, workers in ((1.0, 0), (0.0, 1)):
        folder = tmp_path / str(most)
        folder.mkdir()
        given = {"task": answers.shipped("image_regression"), "model": {"checkpoint": str(tiny_net)}}
        rows = answers.rows_of(folder / "pictures")
        given |= answers.CHANGES | {"runtime__image_cache_gb": most, "runtime__num_workers": workers}
        config, data[most] = prepared(folder, rows, answers.CASES["image_regression"], **given)
        assert ("are decoded by workers while training" in capsys.readouterr().out) == (not most)
        models.append(trained(folder, config, data[most]))
    assert data[0.0].open("train")["pixels"].null_count == data[0.0].open("train").num_rows
    one, other = (transformers.AutoModelForImageClassification.from_pretrained(each).state_dict() for each in models)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())

    table = data[0.0].open("train")
    (tmp_path / "0.0" / table["image"][0].as_py()).write_bytes(b"another")
    task = build("task", Target.model_validate(answers.shipped("image_regression")))
    batches = Batches(table["length"].to_numpy(), step_rows=16, seed=None, rank=0, world_size=1)
    with pytest.raises(DataError, match=r"^\S+\.png: has changed since"):
        list(BatchLoader(Rows(table, task, task.encoder(tiny_net)), batches, num_workers=1))
