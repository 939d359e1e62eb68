"""Images: the numbers of transformers' own processors, splits by pixels, random changes that depend on nothing but the row."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
import yaml
from PIL import Image

from finespun.config.sections import DataConfig, Target
from finespun.config.targets import build
from finespun.data.checks import check_rows
from finespun.data.encode import encode_splits
from finespun.data.prepared import PreparedData
from finespun.data.sources.tables import read
from finespun.errors import DataError, MachineError, ModelError
from finespun.models.compatibility import require_size
from finespun.models.pretrained import require_same_pixels
from finespun.tasks.base import Batch
from finespun.tasks.inputs.augmentation import Augmentation
from finespun.tasks.inputs.image_encoder import ImageEncoder
from finespun.tasks.inputs.images import ImageInput
from helpers import ROOT, write_digits

SHIPPED = yaml.safe_load((ROOT / "conf" / "task" / "image_classification.yaml").read_text())
CHANGED = {
    "flip": True,
    "rotation": 20.0,
    "translation": 0.1,
    "scale": 0.2,
    "brightness": 0.1,
    "contrast": 0.2,
    "saturation": 0.3,
}


def make_task(**options: Any) -> Any:
    augmentation = SHIPPED["augmentation"] | options.pop("augmentation", {})
    return build("task", Target.model_validate(SHIPPED | options | {"augmentation": augmentation}))


def photograph(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(width)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


PROCESSORS: dict[str, dict[str, Any]] = {
    "MobileNetV2": {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    "MobileNetV1": {},
    "ViT": {},
    "DeiT": {},
    "ConvNext": {"size": {"shortest_edge": 224}, "image_mean": [0.4, 0.5, 0.6]},
    "ConvNext-384": {},
    "Bit": {},
    "ViT-plain": {"do_normalize": False},
    "MobileNetV2-odd": {"size": {"shortest_edge": 101}, "crop_size": {"height": 121, "width": 90}},
}


@pytest.mark.parametrize("image_size", [None, 64])
@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_are_those_of_transformers(tmp_path: Path, name: str, image_size: int | None) -> None:
    kind = getattr(transformers, f"{name.partition('-')[0]}ImageProcessorPil")
    kind(**PROCESSORS[name]).save_pretrained(tmp_path)
    task = make_task(image_size=image_size)
    encoder = task.encoder(tmp_path)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, **task.processor_options(encoder))
    assert image_size is None or encoder.size == (64, 64)
    for size in ((300, 200), (200, 301), (33, 50), (8, 8), (500, 20)):
        image = photograph(*size)
        theirs = processor(images=image, return_tensors="pt")["pixel_values"]
        pixels = encoder.pixels(image)
        assert pixels.dtype == np.uint8
        ours = task.collate({"pixels": [pixels.tobytes()]}, encoder)[0]["pixel_values"]
        assert torch.equal(ours, theirs.float()), (size, (ours - theirs).abs().max())
        assert ours.is_contiguous(memory_format=torch.channels_last)
    require_same_pixels(processor, encoder, tmp_path)
    processor.save_pretrained(tmp_path / "again")  # what lies beside the fine-tuned model asks for the same
    assert task.encoder(tmp_path / "again").size == encoder.size
    assert make_task().encoder(tmp_path / "again").size == encoder.size


def test_an_old_file_that_says_little_is_completed(tmp_path: Path) -> None:
    said = {"feature_extractor_type": "ViTFeatureExtractor", "size": 96, "image_mean": [0.5, 0.5, 0.5], "do_resize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    encoder = ImageEncoder.read(tmp_path, None)
    assert (encoder.size, encoder.resample) == ((96, 96), 2)
    assert encoder.table[255].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (None, "has no preprocessor_config.json (an image processor); take a model of images"),
        ("[1", "is no JSON object"),
        ({}, "image_processor_type is none; prepare knows what Bit, ConditionalDetr, ConvNext"),
        ({"image_processor_type": "SamImageProcessor"}, "image_processor_type is SamImageProcessor; prepare knows"),
        ({"image_processor_type": "ViTImageProcessor", "size": {"longest": 3}}, "make no sense (KeyError('height'))"),
        ({"image_processor_type": "BitImageProcessor", "do_center_crop": False}, "leaves images of different sizes"),
    ],
)
def test_a_processor_that_is_not_known_is_an_error(tmp_path: Path, said: Any, message: str) -> None:
    if said is not None:
        (tmp_path / "preprocessor_config.json").write_text(said if isinstance(said, str) else json.dumps(said))
    with pytest.raises(ModelError) as caught:
        make_task().encoder(tmp_path)
    assert message in str(caught.value)


def test_a_processor_that_does_more_is_found_out(tmp_path: Path) -> None:
    processor = transformers.ViTImageProcessorPil(size={"height": 20, "width": 20})
    processor.save_pretrained(tmp_path)
    encoder = ImageEncoder.read(tmp_path, None)
    processor.image_std = [0.4, 0.5, 0.5]
    with pytest.raises(ModelError, match="does something that prepare does not know: other pixel values"):
        require_same_pixels(processor, encoder, tmp_path)
    processor.size = {"height": 20, "width": 21}
    with pytest.raises(ModelError, match=r"other pixel values \(\(3, 20, 21\), here \(3, 20, 20\)\)"):
        require_same_pixels(processor, encoder, tmp_path)


def test_a_model_that_takes_one_size_alone_says_so() -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8)
    model = transformers.ViTForImageClassification(config)
    require_size(model, (32, 32), Path("vit"))
    with pytest.raises(ModelError, match=r"takes no images of 64 x 64 pixels .*; set task.image_size to null"):
        require_size(model, (64, 64), Path("vit"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_digits(tmp_path / "raw" / "digits", 90)


def settings(path: Path, **options: Any) -> DataConfig:
    return DataConfig(path=str(path), **({"columns": {"image": "file", "label": "folder"}} | options))


def encoded(path: Path, data: DataConfig, task: Any, encoder: Any, out: Path) -> PreparedData:
    report = check_rows(read(path), data, task)
    assert not report.counts("error"), report.text("error")
    labels = task.label_names(data.labels or sorted(report.answers), data.columns)
    encode_splits(
        read(path), data=data, task=task, encoder=encoder, labels=labels, folder=out, left_out=report.left_out
    )  # fmt: skip
    (out / "schema.json").write_text(json.dumps({"labels": labels}))
    return PreparedData(out)


def whereabouts(prepared: PreparedData) -> dict[str, str]:
    return {name: split for split in ("train", "val", "test") for name in prepared.open(split)["image"].to_pylist()}


def test_folders_and_tables_give_the_same_rows_and_splits(folder: Path, tmp_path: Path, tiny_net: Path) -> None:
    names = sorted(path.relative_to(folder.parent).as_posix() for path in folder.rglob("*.png"))
    table = folder.parent / "digits.csv"
    table.write_text("path,kind\n" + "".join(f"{name},{name.split('/')[1]}\n" for name in names))
    task = make_task()
    encoder = task.encoder(tiny_net)
    one = encoded(folder, settings(folder), task.reading_from(folder, tmp_path), encoder, tmp_path / "one")
    columns = {"columns": {"image": "path", "label": "kind"}}
    two = encoded(table, settings(table, **columns), task.reading_from(table.parent, tmp_path), encoder, tmp_path / "two")
    assert one.labels == list("0123456789")
    assert {f"digits/{name}": split for name, split in whereabouts(one).items()} == whereabouts(two)
    assert one.open("train")["pixels"].equals(two.open("train")["pixels"])
    assert one.open("train").schema.field("pixels").type == pa.binary(32 * 32 * 3)
    smaller = make_task(image_size=16).reading_from(folder, tmp_path)
    small = encoded(folder, settings(folder), smaller, smaller.encoder(tiny_net), tmp_path / "three")
    assert whereabouts(small) == whereabouts(one), "the size of the model's images moves no row to another split"


def test_copies_of_an_image_fall_on_one_side_and_are_told(folder: Path, tmp_path: Path, tiny_net: Path) -> None:
    for number, path in enumerate(sorted(folder.rglob("*.png"))[::9]):
        Image.open(path).save(path.with_name(f"copy-{number}.bmp"))  # other bytes, the same pixels
    task = make_task().reading_from(folder)
    report = check_rows(read(folder), settings(folder), task)
    assert report.counts("warn") == {"duplicate": 10}
    assert "same image and label as row" in report.text("warn")
    prepared = encoded(folder, settings(folder), task, task.encoder(tiny_net), tmp_path / "out")
    where = whereabouts(prepared)
    digest = {name: task.content({"image": name}) for name in where}
    assert len(set(digest.values())) == 90
    assert len({(value, where[name]) for name, value in digest.items()}) == 90


def test_the_same_name_in_another_folder_and_the_same_bytes_in_another_shape_are_other_images(tmp_path: Path) -> None:
    for name, shape, colour in (("one", (2, 8), 10), ("two", (2, 8), 200), ("three", (8, 2), 10)):
        (tmp_path / name).mkdir()
        Image.new("L", shape, colour).save(tmp_path / name / "a.png")
    task, contents = make_task(), []
    for name in ("one", "two", "three"):
        task = task.reading_from(tmp_path / name)
        contents.append(task.content({"image": "a.png"}))
    assert len(set(contents)) == 3


def test_bad_images_are_told_with_file_row_value_and_remedy(folder: Path) -> None:
    (folder / "3" / "notes.bin").write_bytes(b"\0\1")
    (folder / "3" / "zz.png").write_bytes(b"")
    frames = [Image.new("L", (8, 8), colour) for colour in (10, 200)]
    frames[0].save(folder / "9" / "zz.gif", save_all=True, append_images=frames[1:])
    (folder / "misc").mkdir()
    Image.new("L", (8, 8), 77).save(folder / "misc" / "a.png")
    data = settings(folder, labels=[str(number) for number in range(10)])
    report = check_rows(read(folder), data, make_task().reading_from(folder))
    assert report.counts("error") == {"bad_image": 2, "unknown_label": 1}
    text = report.text("error")
    assert "file '3/notes.bin': is no image of a known kind" in text
    assert "file '3/zz.png': is empty (0 bytes); fetch it again, or set data.checks.bad_image: drop" in text
    assert "folder 'misc': is not one of 0, 1, 2" in text
    assert "file '9/zz.gif': has several frames, of which the first is used" in report.text("warn")
    dropped = settings(folder, checks={"bad_image": "drop", "unknown_label": "drop", "animated_image": "drop"})
    report = check_rows(read(folder), dropped, make_task().reading_from(folder))
    assert (report.counts("error"), report.counts("warn"), len(report.left_out)) == ({}, {}, 3)


def test_a_bad_image_cannot_be_kept() -> None:
    with pytest.raises(ValueError, match="bad_image"):
        settings(Path("x"), checks={"bad_image": "warn"})


def test_one_label_is_none() -> None:
    with pytest.raises(DataError, match="'folder' says only cat; a classifier needs two labels or more"):
        make_task().label_names(["cat"], {"image": "file", "label": "folder"})


def test_an_image_that_is_text_is_not_kept_in_memory(tmp_path: Path) -> None:
    photograph(90, 60).save(tmp_path / "a.png")
    inline = f"data:image/png;base64,{base64.b64encode((tmp_path / 'a.png').read_bytes()).decode()}"
    task = make_task().reading_from(tmp_path)
    assert task.content({"image": inline}) == task.content({"image": str(tmp_path / "a.png")})
    assert list(task.problems({"image": inline, "label": "x"}, None)) == []
    assert len(inline) > 10_000 > 10 * max(map(len, task._contents))


def test_an_animation_is_answered_when_predicting(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), colour) for colour in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    task = make_task().reading_from(tmp_path)
    assert list(task.problems({"image": str(tmp_path / "a.gif")}, None)) == []
    assert [kind for kind, _, _ in task.problems({"image": str(tmp_path / "a.gif"), "label": "x"}, None)] == ["animated_image"]


def test_simple_methods_see_small_grey_pictures(folder: Path, tmp_path: Path, tiny_net: Path) -> None:
    task = make_task().reading_from(folder)
    prepared = encoded(folder, settings(folder), task, task.encoder(tiny_net), tmp_path / "out")
    train = prepared.open("train")
    found = task.baselines(train, train, prepared.labels)
    right = np.stack(found["pixels_logistic"]).argmax(axis=1) == train["target"].to_numpy()
    assert set(found) == {"majority_class", "pixels_logistic"}
    assert right.mean() > 0.8
    assert all(np.allclose(each.sum(), 1) for each in found["pixels_logistic"])


def changed(
    images: torch.Tensor, rows: list[int], encoder: Any, *, epoch: int = 0, seed: int = 1, **options: Any
) -> torch.Tensor:
    task = make_task(augmentation=options or CHANGED)
    return task.augment(a_batch(images, rows), encoder, epoch=epoch, seed=seed).inputs["pixel_values"]


def a_batch(images: torch.Tensor, rows: list[int]) -> Batch:
    return Batch({"pixel_values": images}, torch.zeros(len(rows)), torch.tensor(rows), torch.ones(len(rows)), len(rows))


@pytest.fixture
def encoder(tiny_net: Path) -> ImageEncoder:
    return ImageEncoder.read(tiny_net, None)


@pytest.fixture
def batch(encoder: ImageEncoder) -> torch.Tensor:
    pixels = [encoder.pixels(photograph(60 + number, 50)).tobytes() for number in range(6)]
    return make_task().collate({"pixels": pixels}, encoder)[0]["pixel_values"]


def test_changes_depend_on_seed_epoch_and_row_alone(batch: torch.Tensor, encoder: ImageEncoder) -> None:
    rows = [5, 900_000, 2, 3, 4, 0]
    whole = changed(batch, rows, encoder)
    assert whole.shape == batch.shape
    assert whole.is_contiguous(memory_format=torch.channels_last)
    for parts in ([0, 1, 2], [4], [5, 3]):  # other batches, other orders, as on other ranks
        assert torch.equal(changed(batch[parts], [rows[part] for part in parts], encoder), whole[parts])
    torch.manual_seed(99)
    assert torch.equal(changed(batch, rows, encoder), whole)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(changed(batch, rows, encoder), whole)
    for other in (
        changed(batch, rows, encoder, epoch=1),
        changed(batch, rows, encoder, seed=2),
        changed(batch, rows[::-1], encoder),
    ):
        assert not any(torch.equal(one, two) for one, two in zip(other, whole, strict=True))


@pytest.mark.parametrize("name", CHANGED)
def test_each_option_changes_images_within_their_range(name: str, batch: torch.Tensor, encoder: ImageEncoder) -> None:
    found = changed(batch, list(range(6)), encoder, **{name: CHANGED[name]})
    assert not torch.allclose(found, batch)
    lowest, highest = torch.tensor(encoder.table[0]), torch.tensor(encoder.table[255])
    assert bool((found.amin((0, 2, 3)) >= lowest - 1e-4).all())
    assert bool((found.amax((0, 2, 3)) <= highest + 1e-4).all())


def test_images_that_are_not_square_are_changed_about_their_middle() -> None:
    rows, nothing = torch.arange(8), SHIPPED["augmentation"]
    down, right = torch.arange(24.0), torch.arange(48.0)
    spot = torch.exp(-((down[:, None] - 11.5) ** 2 + (right - 23.5) ** 2) / 8)
    images = spot.expand(8, 3, 24, 48)
    scaled = Augmentation(**nothing | {"scale": 0.5}).apply(images, rows, epoch=0, seed=1)
    assert not torch.allclose(scaled, images, atol=0.01)
    assert torch.allclose(scaled, scaled.flip(-1), atol=1e-5)
    assert torch.allclose(scaled, scaled.flip(-2), atol=1e-5)
    moving = Augmentation(**nothing | {"translation": 0.2})
    drawn, moved = moving.draws(rows, epoch=0, seed=1), moving.apply(images, rows, epoch=0, seed=1)[:, 0]
    for way, places, across in (("down", down, 2), ("right", right, 1)):
        light = moved.sum(dim=across)
        found = (light * places).sum(dim=1) / light.sum(dim=1) - places.mean()
        assert torch.allclose(found, drawn[way] * len(places) * 0.2, atol=0.1), way


def test_a_flip_is_exact_and_comes_every_other_time(batch: torch.Tensor, encoder: ImageEncoder) -> None:
    many = batch[:1].expand(400, -1, -1, -1)
    found = changed(many, list(range(400)), encoder, flip=True)
    flipped = torch.tensor([bool(torch.allclose(each, batch[0].flip(-1), atol=1e-5)) for each in found])
    kept = torch.tensor([bool(torch.allclose(each, batch[0], atol=1e-5)) for each in found])
    assert bool((flipped ^ kept).all())
    assert 150 < int(flipped.sum()) < 250


def test_levels_have_names() -> None:
    off, light, strong = (
        build("task", Target.model_validate(SHIPPED | {"augmentation": name})).augmentation
        for name in (False, "light", "strong")
    )
    assert not off.on
    assert light.flip
    assert 0 < light.rotation < strong.rotation
    assert 0 < light.saturation < strong.saturation
    with pytest.raises(ValueError, match="is off, light, strong, or its options"):
        build("task", Target.model_validate(SHIPPED | {"augmentation": "much"}))


def test_nothing_is_changed_by_default(batch: torch.Tensor, encoder: ImageEncoder) -> None:
    task = make_task()
    assert task.deterministic
    assert not make_task(augmentation={"rotation": 5.0}).deterministic
    given = a_batch(batch, [0, 1, 2, 3, 4, 5])
    assert task.augment(given, encoder, epoch=0, seed=0) is given
    assert ImageInput.augment is type(task).augment


def test_the_extra_is_named_where_it_is_missing(
    batch: torch.Tensor, encoder: ImageEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kornia", None)
    with pytest.raises(MachineError, match=r"pip install 'finespun\[images\]', or set all of it to 0"):
        changed(batch, list(range(6)), encoder)
