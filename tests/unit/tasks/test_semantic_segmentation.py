"""Semantic segmentation: losses are those of transformers, scores those of torchmetrics, masks move with the pixels."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml
from PIL import Image

from finespun.config.sections import Target
from finespun.config.targets import build
from finespun.errors import DataError
from finespun.evaluation.predictor import Predictor
from finespun.tasks.answers.masks import as_png
from finespun.tasks.answers.pixels import IGNORED, NEAR, boundaries
from finespun.tasks.base import Batch
from finespun.tasks.metrics.scores import segmentation_scores
from helpers import ROOT
from tuned import measured, prepared, tuned

SHIPPED = yaml.safe_load((ROOT / "conf" / "task" / "semantic_segmentation.yaml").read_text())
CLASSES = {0: "ground", 5: "square", 9: "ball"}
COLUMNS = {"image": "file", "mask": "mask"}
LABELS = [*CLASSES.values()]


def options(**changes: Any) -> dict[str, Any]:
    return SHIPPED | {"classes": CLASSES} | changes


def make_task(**changes: Any) -> Any:
    return build("task", Target.model_validate(options(**changes)))


def scenes(folder: Path, count: int = 24) -> list[dict[str, str]]:
    """Pictures of 48 x 32 pixels with a red square or a blue ball, and their masks: with a palette, or as greys."""
    folder.mkdir()
    random, rows = np.random.default_rng(1), []
    down, right = np.mgrid[:32, :48]
    for number in range(count):
        pixels = random.integers(90, 140, (32, 48, 3), dtype=np.uint8)
        y, x = (int(random.integers(9, limit - 9)) for limit in (32, 48))
        square = number % 2 == 0
        place = np.maximum(abs(down - y), abs(right - x)) < 8 if square else (down - y) ** 2 + (right - x) ** 2 < 64
        pixels[place] = (220, 30, 30) if square else (30, 30, 220)
        mask = np.where(place, 5 if square else 9, 0).astype(np.uint8)
        mask[0] = 255  # nobody has labelled the first row
        Image.fromarray(pixels).save(folder / f"{number}.png")
        picture = Image.fromarray(mask)
        if number % 3 == 0:
            picture = picture.convert("P")
            picture.putdata(mask.ravel().tolist())
        picture.save(folder / f"{number}_mask.png")
        rows.append({"file": f"{folder.name}/{number}.png", "mask": f"{folder.name}/{number}_mask.png"})
    return rows


def tiny(folder: Path, name: str) -> Path:
    """A model of a few thousand weights and an image processor beside it."""
    torch.manual_seed(0)
    if name == "mobilenet_v2":
        config: Any = transformers.MobileNetV2Config(
            depth_multiplier=0.1, min_depth=4, tf_padding=False, layer_norm_eps=1e-5, output_stride=16
        )
        model: Any = transformers.MobileNetV2ForSemanticSegmentation(config)
        processor: Any = transformers.MobileNetV2ImageProcessorPil(
            size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}
        )
    elif name == "upernet":
        stages = [f"stage{number}" for number in range(1, 5)]
        net = transformers.ConvNextConfig(hidden_sizes=[16, 16, 16, 16], depths=[1] * 4, out_features=stages)
        config = transformers.UperNetConfig(
            backbone_config=net, hidden_size=16, pool_scales=[1, 2], use_auxiliary_head=False, auxiliary_in_channels=16
        )
        model = transformers.UperNetForSemanticSegmentation(config)
        processor = transformers.SegformerImageProcessorPil(size={"height": 32, "width": 32})
    else:
        config = transformers.SegformerConfig(
            hidden_sizes=[8, 8, 16, 16], depths=[1] * 4, num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16
        )
        model = transformers.SegformerForSemanticSegmentation(config)
        processor = transformers.SegformerImageProcessorPil(size={"height": 32, "width": 32})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def mask_in(answer: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["mask"].partition(",")[2]))))


@pytest.mark.parametrize("name", ["segformer", "mobilenet_v2", pytest.param("upernet", marks=pytest.mark.slow)])
def test_a_model_learns_and_answers_as_plain_transformers(tmp_path: Path, name: str) -> None:
    rows, given = scenes(tmp_path / "scenes"), {"task": options()}
    changes: dict[str, Any] = {"trainer__max_epochs": 3, "trainer__batch_size": 8, "optimizer__lr": 1e-2}
    folder = tuned(tmp_path, rows, COLUMNS, model={"checkpoint": str(tiny(tmp_path / "tiny", name))}, **given, **changes)
    model, processor = (
        each.from_pretrained(folder)
        for each in (transformers.AutoModelForSemanticSegmentation, transformers.AutoImageProcessor)
    )
    assert [*model.config.id2label.values()] == LABELS
    images = [Image.open(tmp_path / row["file"]) for row in rows[:4]]
    with torch.no_grad():
        output = model.eval()(**processor(images, return_tensors="pt"))
    predictor = Predictor(folder)
    predictor.task = predictor.task.reading_from(tmp_path)
    answers = predictor.predict(rows[:4])
    theirs = processor.post_process_semantic_segmentation(output, target_sizes=[(32, 32)] * 4)
    for answer, expected in zip(answers, theirs, strict=True):
        found = mask_in(answer)
        assert found.shape == (32, 48)
        again = np.asarray(Image.fromarray(expected.numpy().astype(np.uint8)).resize((48, 32), Image.Resampling.NEAREST))
        assert (found == again).mean() > 0.999  # float32 in other orders
        assert sum(answer["shares"].values()) == pytest.approx(1, abs=1e-5)
    found = measured(tmp_path, rows, COLUMNS, folder, **given, evaluation__baselines=True)
    assert set(found.baselines) == {"most_frequent_class", "usual_class_of_place"}
    assert {"mean_iou", "pixel_accuracy", "iou/square", "recall/ball", "boundary_f1", "boundary_f1/ball"} <= set(found.scores)
    assert found.intervals["mean_iou"]["low"] <= found.scores["mean_iou"] <= found.intervals["mean_iou"]["high"]
    assert found.predictions["image"].to_pylist()[0] in [row["file"] for row in rows]


@pytest.fixture
def batch(tmp_path: Path) -> tuple[Any, Any, Batch]:
    """A prepared training split as one batch."""
    model = tiny(tmp_path / "tiny", "segformer")
    _, data = prepared(tmp_path, scenes(tmp_path / "scenes"), COLUMNS, task=options(), model={"checkpoint": str(model)})
    task, table = make_task(), data.open("train")
    inputs, targets = task.collate({name: table[name].to_pylist() for name in ("pixels", "target")}, task.encoder(model))
    count = len(table)
    weights = torch.from_numpy(task.counts(table) / task.counts(table).sum()).float()
    found = Batch(inputs, targets, torch.arange(count), weights, count)
    options_of = task.model_options(LABELS)
    loaded = transformers.AutoModelForSemanticSegmentation.from_pretrained(model, **options_of, ignore_mismatched_sizes=True)
    return task, loaded.eval(), found


def test_the_loss_of_a_batch_is_that_of_transformers(batch: Any) -> None:
    task, model, given = batch
    with torch.no_grad():
        theirs = model(pixel_values=given.inputs["pixel_values"], labels=given.targets).loss
        losses = task.losses(task.forward(model, given), given)
    assert (given.targets == IGNORED).any()
    assert float((losses * given.weights).sum()) == pytest.approx(float(theirs), abs=1e-5)


@pytest.mark.parametrize("name", ["focal", "dice", "cross_entropy_and_dice"])
def test_other_losses_fall_where_the_mask_is_met_and_skip_what_is_ignored(batch: Any, name: str) -> None:
    _, _, given = batch
    task = make_task(loss_function=name)
    right = torch.nn.functional.one_hot(given.targets.where(given.targets != IGNORED, 0), 3).permute(0, 3, 1, 2) * 20.0
    wrong = right.roll(1, 1)
    assert float(task.losses(right, given).max()) < 0.01
    assert float(task.losses(wrong, given).min()) > 0.3
    noise = right + torch.randn_like(right) * 9 * (given.targets == IGNORED)[:, None]
    assert torch.allclose(task.losses(right, given), task.losses(noise, given), atol=1e-5)


def test_rare_classes_weigh_more_if_asked_for(tmp_path: Path, batch: Any) -> None:
    from finespun.data.prepared import PreparedData

    _, _, given = batch
    task = make_task(class_weights=True).fitted(PreparedData(tmp_path / "prepared").open("train"), LABELS)
    known = given.targets[given.targets != IGNORED]
    weights = np.array(task._weights)
    shares = np.bincount(known.numpy(), minlength=3) / len(known)
    assert (weights * shares).sum() == pytest.approx(1)
    assert np.ptp(weights * shares) == pytest.approx(0, abs=1e-9)


def test_scores_are_those_of_torchmetrics_in_resamples_too() -> None:
    from torchmetrics.functional.segmentation import mean_iou

    random = np.random.default_rng(2)
    targets, found = random.integers(0, 3, (2, 5, 20, 20))
    counts = np.stack(
        [np.bincount(t.ravel() * 3 + f.ravel(), minlength=9).reshape(3, 3) for t, f in zip(targets, found, strict=True)]
    )
    weights = np.array([[1, 1, 1, 1, 1], [2, 0, 1, 0, 2]], dtype=float)
    ours = segmentation_scores(counts, weights, labels=LABELS)
    for sample, drawn in enumerate(([0, 1, 2, 3, 4], [0, 0, 2, 4, 4])):
        one, other = (torch.from_numpy(each[drawn]).reshape(1, -1, 20) for each in (found, targets))
        theirs = mean_iou(one, other, num_classes=3, per_class=True, input_format="index")[0]
        assert [ours[f"iou/{label}"][sample] for label in LABELS] == pytest.approx(theirs.tolist(), abs=1e-6)
        assert ours["mean_iou"][sample] == pytest.approx(float(theirs.mean()), abs=1e-6)
        assert ours["pixel_accuracy"][sample] == pytest.approx((found[drawn] == targets[drawn]).mean())
    empty = segmentation_scores(np.zeros((2, 3, 3), int), np.ones((1, 2)), labels=LABELS)
    assert not any(np.isnan(values).any() for values in empty.values())


def test_boundaries_meet_where_a_distance_transform_says_so() -> None:
    """Against scipy: pixels on the boundary of a class, and those within a chessboard distance of the other one's."""
    from scipy.ndimage import binary_dilation, distance_transform_cdt

    random, reach = np.random.default_rng(4), round(NEAR * np.hypot(90, 160))
    assert reach == 1
    masks = random.integers(0, 3, (2, 3, 9, 16)).repeat(10, 2).repeat(10, 3)
    targets, found = masks[0].copy(), np.roll(masks[0], (1, 2), (1, 2))
    found[2] = masks[1][2]
    targets[:, :7] = IGNORED
    counts = boundaries(torch.from_numpy(found), torch.from_numpy(targets), 4).numpy()
    for row in range(3):
        known = targets[row] != IGNORED
        for label in range(3):
            one, other = (
                (each[row] == label) & known & binary_dilation((each[row] != label) & known, np.ones((3, 3)))
                for each in (found, targets)
            )
            met = [distance_transform_cdt(~each, "chessboard") <= reach for each in (other, one)]
            assert counts[row, label].tolist() == [(one & met[0]).sum(), one.sum(), (other & met[1]).sum(), other.sum()]
    assert not counts[:, 3].any()
    confusion = np.zeros((3, 4, 4), int)
    scores = segmentation_scores(np.concatenate([confusion, counts], 2), np.ones((1, 3)), labels=["a", "b", "c", "d"])
    precision, recall = counts[:, 0, 0].sum() / counts[:, 0, 1].sum(), counts[:, 0, 2].sum() / counts[:, 0, 3].sum()
    assert scores["boundary_f1/a"][0] == pytest.approx(2 * precision * recall / (precision + recall))
    assert scores["boundary_f1"][0] == pytest.approx(np.mean([scores[f"boundary_f1/{label}"][0] for label in "abc"]))
    same = boundaries(torch.from_numpy(targets), torch.from_numpy(targets), 4).numpy()
    assert (same[..., 0] == same[..., 1]).all()


@pytest.mark.parametrize("change", [{"flip": True}, {"rotation": 40.0}, {"translation": 0.3}, {"scale": 0.4}])
def test_masks_move_with_the_pixels(batch: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    _, _, given = batch
    task = make_task(augmentation=SHIPPED["augmentation"] | change)
    encoder = task.encoder(tmp_path / "tiny")
    mean, std = (torch.tensor(each)[:, None, None] for each in (encoder.mean, encoder.std))
    painted = (given.targets == 1)[:, None].float().expand(-1, 3, -1, -1)  # a picture of the mask itself
    moved = task.augment(
        given._replace(inputs=given.inputs | {"pixel_values": (painted - mean) / std}), encoder, epoch=3, seed=5
    )
    seen = (moved.inputs["pixel_values"] * std + mean)[:, 0] > 0.5
    assert torch.equal(moved.targets, moved.inputs["labels"])
    known = moved.targets != IGNORED
    assert float(((moved.targets == 1) == seen)[known].float().mean()) > 0.97
    assert not torch.equal(moved.targets, given.targets)
    again = task.augment(given, encoder, epoch=3, seed=5)
    assert torch.equal(again.targets, moved.targets)


BAD: dict[str, tuple[Any, str]] = {
    "another size": (Image.new("L", (47, 32)), "is 47 x 32 pixels and its image 48 x 32; make them the same"),
    "colours": (Image.new("RGB", (48, 32)), "has pixels of mode RGB, and a mask has one value a pixel"),
    "an unknown value": (Image.new("L", (48, 32), 7), "has the value 7 (at row 0, column 0), which is none of task.classes"),
    "nothing labelled": (Image.new("L", (48, 32), 255), "has nothing but the value 255, which task.ignore_value leaves out"),
    "no PNG": (b"GIF89a", "is no PNG, and other kinds change values of pixels"),
    "damaged": (b"\x89PNG\r\n\x1a\n" + b"0" * 60, "is "),
    "not there": (None, "is not there"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_masks_stop_before_training(tmp_path: Path, name: str) -> None:
    rows, (content, message) = scenes(tmp_path / "scenes"), BAD[name]
    path = tmp_path / rows[4]["mask"]
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        content.save(path)
    model = {"checkpoint": str(tiny(tmp_path / "tiny", "segformer"))}
    with pytest.raises(DataError, match="scenes/4_mask.png") as caught:
        prepared(tmp_path, rows, COLUMNS, task=options(), model=model)
    assert message in str(caught.value)


def test_a_task_as_it_was_built_reads_files_of_the_working_folder() -> None:
    problems = list(make_task().problems({"image": "gone.png"}, None))
    assert [kind for kind, _, _ in problems] == ["bad_image"]
    assert "is not there" in problems[0][2]


def test_a_mask_survives_being_written(tmp_path: Path) -> None:
    mask = np.random.default_rng(4).integers(0, 200, (30, 20), dtype=np.uint8)
    assert np.array_equal(mask_in({"mask": as_png(mask)}), mask)


def test_a_classifier_in_a_file_of_weights_does_not_keep_its_backbone_from_segmenting(tmp_path: Path) -> None:
    from finespun.config.sections import ModelConfig
    from finespun.models.conversion.folder import ready
    from finespun.models.pretrained import load

    said: dict[str, Any] = {"depth_multiplier": 0.1, "min_depth": 4, "tf_padding": False, "num_labels": 7}
    net = transformers.MobileNetV2ForImageClassification(transformers.MobileNetV2Config(**said))
    tensors = {f"layer{place}": tensor for place, tensor in enumerate(net.state_dict().values()) if tensor.ndim}
    torch.save(tensors, tmp_path / "net.pth")
    named = {"image_processor_type": "MobileNetV2ImageProcessor"}
    config = said | {"model_type": "mobilenet_v2"}
    model = ModelConfig(config=config, weights="net.pth", mapping="by_order", processor=named)
    kind, options_of = "AutoModelForSemanticSegmentation", make_task().model_options(LABELS)
    found, loaded = load(ready(model, tmp_path, auto_class=kind), auto_class=kind, options=options_of, new_head=True)
    assert all(name.startswith("segmentation_head") for name in loaded.new)
    theirs = net.mobilenet_v2.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in found.mobilenet_v2.state_dict().items())
