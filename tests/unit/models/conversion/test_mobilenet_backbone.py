"""MobileNetV2 inside a detector gives what plain MobileNetV2 gives, with a classifier's weights, taken by order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
import yaml

from finespun.config.sections import ModelConfig
from finespun.errors import ModelError
from finespun.models.conversion.folder import ready
from finespun.models.pretrained import load
from helpers import ROOT

SMALL = {"depth_multiplier": 0.5}
LABELS = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}


def section(weights: Path, **changes: object) -> ModelConfig:
    """The shipped detector on a smaller net, with the weights of a file."""
    said = yaml.safe_load((ROOT / "conf" / "model" / "mobilenet_v2_detector.yaml").read_text()) | {"sha256": None}
    said["config"]["backbone_config"] |= SMALL
    said["config"] |= {"encoder_in_channels": [16, 48, 160]}
    return ModelConfig.model_validate(said | {"weights": str(weights)} | changes)


def test_its_feature_maps_are_those_of_plain_mobilenet(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.MobileNetV2Config(**SMALL, tf_padding=False, layer_norm_eps=1e-5, num_labels=7)
    plain = transformers.MobileNetV2ForImageClassification(config).eval()
    renamed = {f"other.{place}.{name.split('.')[-1]}": each for place, (name, each) in enumerate(plain.state_dict().items())}
    torch.save(renamed, tmp_path / "w.pth")
    folder = ready(section(tmp_path / "w.pth"), tmp_path, auto_class="AutoModelForObjectDetection")
    model, loaded = load(folder, auto_class="AutoModelForObjectDetection", options=LABELS, new_head=True, allow_partial=True)
    names = [name for name in model.state_dict() if ".backbone." in name and not name.endswith("num_batches_tracked")]
    assert loaded.matched == len(names)
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        hidden = plain.mobilenet_v2(images, output_hidden_states=True).hidden_states
        found = model.eval().model.backbone.model(images).feature_maps
    assert [each.shape[1:] for each in found] == [(16, 8, 12), (48, 4, 6), (160, 2, 3)]
    assert all(torch.equal(one, hidden[place]) for one, place in zip(found, (4, 11, 15), strict=True))
    model.save_pretrained(tmp_path / "saved")
    again = transformers.AutoModelForObjectDetection.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        assert torch.equal(again(images).pred_boxes, model(images).pred_boxes)


def test_a_file_of_another_net_is_refused(tmp_path: Path) -> None:
    plain = transformers.MobileNetV2ForImageClassification(transformers.MobileNetV2Config(depth_multiplier=1.0))
    torch.save(plain.state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        ModelError, match="by_order: the first mismatch is at tensor 1: .*conv_stem.* for model.backbone.model.conv"
    ):
        ready(section(tmp_path / "w.pth"), tmp_path, auto_class="AutoModelForObjectDetection")
