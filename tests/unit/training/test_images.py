"""Training on images: frozen conv nets, kept features, random changes, all in the same bits however often it was cut short."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

from finespun.config import targets
from finespun.config.sections import Target
from finespun.data.checks import check_rows
from finespun.data.encode import encode_splits
from finespun.data.prepared import PreparedData
from finespun.data.sources.tables import read
from finespun.errors import ConfigError, ModelError
from finespun.models.pretrained import load_model
from finespun.strategies.anatomy import dissect
from finespun.tasks.base import Batch
from finespun.training.checkpoints import Store
from finespun.training.fit import fit
from finespun.training.frozen.head_inputs import find_head
from finespun.training.lightning.callbacks import Saver
from finespun.training.lightning.devices import choose
from finespun.training.phases import begin_epoch, freeze_all_but
from helpers import ROOT, write_digits
from small_run import STEADY, Train, same_bits, small_config

TASK = yaml.safe_load((ROOT / "conf" / "task" / "image_classification.yaml").read_text())
MOVED = TASK["augmentation"] | {"rotation": 10.0, "translation": 0.1, "contrast": 0.2}


def shipped(name: str, **options: Any) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "conf" / "strategy" / f"{name}.yaml").read_text())) | options


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_net: Path) -> PreparedData:
    raw, folder = write_digits(tmp_path_factory.mktemp("raw"), 90), tmp_path_factory.mktemp("prepared")
    task = targets.build("task", Target.model_validate(TASK)).reading_from(raw)
    data = small_config(data={"path": str(raw), "columns": {"image": "file", "label": "folder"}}, task=TASK).data
    report = check_rows(read(raw), data, task)
    labels = sorted(report.answers)
    encode_splits(
        read(raw), data=data, task=task, encoder=task.encoder(tiny_net), labels=labels, folder=folder, left_out=set()
    )  # fmt: skip
    (folder / "schema.json").write_text(json.dumps({"labels": labels}))
    return PreparedData(folder)


@pytest.fixture
def train(prepared: PreparedData, tiny_net: Path) -> Train:
    def go(folder: Path, *, features: Path | None = None, augmentation: Any = None, **changes: Any) -> Any:
        plain = TASK | {"monitor": "val/loss", "monitor_mode": "min"} | ({"augmentation": augmentation} if augmentation else {})
        data = {"path": "digits", "columns": {"image": "file", "label": "folder"}}
        config = small_config(task=plain, data=data, **changes)
        task = targets.build("task", config.task)
        torch.manual_seed(config.seed)
        options = task.model_options(prepared.labels)
        model = load_model(tiny_net, auto_class=task.auto_class, options=options, new_head=True)
        folder.mkdir(parents=True, exist_ok=True)
        return fit(
            config=config, tuning=targets.build("strategy", config.strategy).tune(model), task=task, prepared=prepared,
            encoder=task.encoder(tiny_net), hardware=choose(config.runtime, "32-true", images=True), store=Store(folder),
            sink=lambda _metrics, _step: None, features=features,
        )  # fmt: skip

    return go


@pytest.mark.parametrize("saves", [2, 6])
def test_a_killed_run_with_augmentation_ends_in_the_same_bits(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saves: int
) -> None:
    whole = train(tmp_path / "whole", augmentation=MOVED)
    save, done = Saver.save, iter(range(1, 1000))

    def save_then_die(self: Saver, trainer: Any) -> None:
        save(self, trainer)
        if next(done) == saves:
            raise KeyboardInterrupt

    monkeypatch.setattr(Saver, "save", save_then_die)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(tmp_path / "killed", augmentation=MOVED)
    monkeypatch.setattr(Saver, "save", save)
    assert same_bits(whole, train(tmp_path / "killed", augmentation=MOVED))
    assert not same_bits(whole, train(tmp_path / "plain"))


def test_a_head_on_kept_features_ends_as_in_the_whole_net(train: Train, tmp_path: Path, capsys: Any) -> None:
    options: dict[str, Any] = {"strategy": shipped("head"), "trainer__max_epochs": 4, **STEADY}
    whole, alone = train(tmp_path / "whole", **options), train(tmp_path / "alone", features=tmp_path / "features", **options)
    assert (tmp_path / "features" / "train").exists()
    assert "frozen part: computed once" in capsys.readouterr().out
    ours, theirs = alone.tuning.model.state_dict(), whole.tuning.model.state_dict()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6, rtol=1e-6) for name in theirs)
    assert alone.steps == whole.steps


def test_kept_features_are_not_used_where_images_change(train: Train, tmp_path: Path, capsys: Any) -> None:
    options: dict[str, Any] = {"strategy": shipped("head"), "trainer__max_epochs": 2, "augmentation": MOVED}
    whole, asked = train(tmp_path / "whole", **options), train(tmp_path / "asked", features=tmp_path / "features", **options)
    assert not (tmp_path / "features").exists()
    assert "computed anew each epoch, for task.augmentation changes what it is given" in capsys.readouterr().out
    assert same_bits(whole, asked)
    with pytest.raises(ConfigError, match="set all of task.augmentation to 0"):
        train(tmp_path / "solved", strategy=shipped("features"), augmentation=MOVED)


def test_statistics_of_frozen_parts_do_not_move(train: Train, tmp_path: Path, tiny_net: Path) -> None:
    before = transformers.AutoModelForImageClassification.from_pretrained(tiny_net).state_dict()
    after = train(tmp_path / "a", strategy=shipped("last_n", blocks=2)).tuning.model.state_dict()
    moved = {name for name in before if "running" in name and not torch.equal(before[name], after[name])}
    trained = ("mobilenet_v2.layer.15.", "mobilenet_v2.conv_1x1.")
    assert moved
    assert all(name.startswith(trained) for name in moved)
    assert {name for name in before if "classifier" not in name and not torch.equal(before[name], after[name])} >= moved


def test_frozen_norms_are_in_eval_mode(tiny_net: Path) -> None:
    model = load_model(tiny_net, auto_class="AutoModelForImageClassification", options={})
    groups = targets.build("strategy", Target.model_validate(shipped("gradual", blocks_per_epoch=1))).tune(model).groups
    freeze_all_but(model, groups)
    for epoch in (0, 1, 2):
        begin_epoch(model, groups, epoch)
        assert model.mobilenet_v2.conv_1x1.normalization.training == (epoch > 0)
        assert model.mobilenet_v2.layer[15].reduce_1x1.normalization.training == (epoch > 1)
        assert not model.mobilenet_v2.conv_stem.first_conv.normalization.training
        assert model.dropout.training


NETS: dict[str, tuple[str, dict[str, Any], int, str]] = {  # class, sizes, blocks, the last one
    "mobilenet": ("MobileNetV2", {"depth_multiplier": 0.25}, 17, "mobilenet_v2.conv_1x1"),
    "convnext": ("ConvNext", {"hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 3, 1]}, 4, "convnext.encoder.stages.3"),
    "resnet": (
        "ResNet", {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 3, 1]}, 4, "resnet.encoder.stages.3",
    ),
    "vit": (
        "ViT", {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32,
                "patch_size": 8}, 3, "vit.layers.2",
    ),
}  # fmt: skip


def net(name: str) -> Any:
    kind, sizes, _, _ = NETS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**sizes, num_labels=3)
    return getattr(transformers, f"{kind}ForImageClassification")(config)


EXAMPLE = Batch({"pixel_values": torch.rand(4, 3, 32, 32)}, torch.zeros(4).long(), torch.arange(4), torch.ones(4), 4)


@pytest.mark.parametrize("name", NETS)
def test_every_kind_of_net_has_blocks_and_a_head_on_vectors(name: str) -> None:
    model = net(name)
    found = dissect(model)
    assert (len(found.blocks), found.block_names[-1]) == NETS[name][2:]
    assert all(found.blocks)
    assert sum(map(len, found.blocks)) + len(found.embeddings) + len(found.above_blocks) == len(list(model.parameters()))
    for strategy in ("head", "features"):
        tuning = targets.build("strategy", Target.model_validate(shipped(strategy))).tune(model)
        freeze_all_but(model, tuning.groups)
        head = find_head(model, tuning.groups, EXAMPLE)
        assert head is not None, "what enters the head can be kept"
        assert not head.first_token


def test_adapters_go_to_linear_layers_alone(tmp_path: Path) -> None:
    lora = targets.build("strategy", Target.model_validate(shipped("lora")))
    tuning = lora.tune(net("vit"))
    tuning.model(**EXAMPLE.inputs).logits.sum().backward()
    assert type(tuning.merge(tuning.model, tmp_path)).__name__ == "ViTForImageClassification"
    with pytest.raises(ModelError, match="ResNetForImageClassification has no linear layer in its blocks"):
        lora.tune(net("resnet"))


def test_convolutions_have_the_channels_last_and_it_is_said(train: Train, tmp_path: Path) -> None:
    model = train(tmp_path / "a", trainer__max_epochs=1).tuning.model
    weight = model.mobilenet_v2.conv_stem.first_conv.convolution.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    model.save_pretrained(tmp_path / "saved")
    again = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "saved").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())
    said = str(choose(small_config().runtime, "32-true", images=True))
    assert said.endswith("precision 32-true (as set), convolutions channels_last")
    assert "channels_last" not in str(choose(small_config().runtime, "32-true"))
