"""Strategies on detectors and segmenters: each trains the part that it says, or says why it cannot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

from finespun.config.sections import Target
from finespun.config.targets import build
from finespun.errors import ModelError
from finespun.tasks.base import Batch
from helpers import ROOT
from tuned import tuned

sys.path.insert(0, str(ROOT / "tests" / "unit" / "tasks"))
import test_object_detection as detection
import test_semantic_segmentation as segmentation

MODULES = {
    "rt_detr": detection, "detr": detection, "yolos": detection, "segformer": segmentation, "mobilenet_v2": segmentation,
}  # fmt: skip
WHOLE = ("llrd", "lp_ft")  # train all parameters, some of them later
LORA_REFUSED = {
    "rt_detr": "makes its outputs inside its decoder",
    "mobilenet_v2": "has no linear layer in its blocks",
}
BELOW = {  # beginnings of names that stay frozen when one block trains
    "rt_detr": "model.backbone.model.embedder", "detr": "model.backbone.model.embedder", "yolos": "vit.embeddings",
    "segformer": "segformer.stages.0", "mobilenet_v2": "mobilenet_v2.conv_stem",
}  # fmt: skip
LAST = {
    "rt_detr": "model.backbone.model.encoder.stages.3", "detr": "model.decoder", "yolos": "vit.encoder.layer.1",
    "segformer": "segformer.stages.3", "mobilenet_v2": "mobilenet_v2.layer.15",
}  # fmt: skip


def strategy(name: str, **changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load((ROOT / "conf" / "strategy" / f"{name}.yaml").read_text()), **changes}


def load(folder: Path, name: str) -> Any:
    auto = "ObjectDetection" if MODULES[name] is detection else "SemanticSegmentation"
    path = MODULES[name].tiny(folder / name, name)
    labels = {0: "ground", 1: "square", 2: "ball"}
    return getattr(transformers, f"AutoModelFor{auto}").from_pretrained(path, id2label=labels, ignore_mismatched_sizes=True)


def batch(name: str) -> tuple[Any, Batch]:
    torch.manual_seed(0)
    side = 64 if MODULES[name] is detection else 32
    inputs = {"pixel_values": torch.randn(2, 3, side, side)}
    targets = torch.tensor([[[1.0, 0.5, 0.5, 0.4, 0.3, 0]], [[2.0, 0.3, 0.6, 0.2, 0.3, 0]]])
    if MODULES[name] is segmentation:
        targets = torch.randint(0, 3, (2, side, side))
        return segmentation.make_task(), Batch(inputs | {"labels": targets}, targets, torch.arange(2), torch.ones(2), 2)
    return detection.make_task(), Batch(inputs, targets, torch.arange(2), torch.ones(2), 2)


def trained_by(name: str, tuning: Any) -> set[str]:
    """Runs a step; returns the parameters that a gradient reached, by the names of the tuned model."""
    chosen = {each: parameter for group in tuning.groups for each, parameter in group.parameters.items()}
    for parameter in tuning.model.parameters():
        parameter.requires_grad_(False)
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    task, given = batch(name)
    task.losses(task.forward(tuning.model.train(), given), given, training=True).mean().backward()
    return {each for each, parameter in chosen.items() if parameter.grad is not None}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", MODULES)
def test_each_strategy_trains_its_part(tmp_path: Path, name: str) -> None:
    model = load(tmp_path, name)
    names = {each for each, _ in model.named_parameters()}
    for chosen in ("head", "last_n", "gradual", *WHOLE):
        tuning = build(
            "strategy", Target.model_validate(strategy(chosen, **({"blocks": 1} if chosen == "last_n" else {})))
        ).tune(model)
        assert tuning.groups[-1].name == "head"
        assert tuning.groups[-1].parameters, "something names and places what is found"
        reached = trained_by(name, tuning)
        assert reached
        below, last = ([each for each in reached if each.startswith(places[name])] for places in (BELOW, LAST))
        assert bool(below) == (chosen not in ("head", "last_n")), (chosen, below)
        assert bool(last) == (chosen != "head"), (chosen, last)
        if chosen in WHOLE:
            assert {each for group in tuning.groups for each in group.parameters} == names


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", MODULES)
def test_adapters_go_to_attention_or_are_refused(tmp_path: Path, name: str) -> None:
    model, lora = load(tmp_path, name), build("strategy", Target.model_validate(strategy("lora")))
    if name in LORA_REFUSED:
        with pytest.raises(ModelError, match=LORA_REFUSED[name]):
            lora.tune(model)
        return
    reached = trained_by(name, lora.tune(model))
    adapted = {each for each in reached if "lora_" in each}
    assert adapted
    assert any(f".{each}." in place for place in adapted for each in ("q_proj", "query", "q"))
    assert any(".modules_to_save." in each for each in reached), "the new head"


RUNS = [
    ("rt_detr", "head"),
    ("detr", "lora"),
    ("yolos", "lora"),
    ("segformer", "lora"),
    ("detr", "last_n"),
    ("mobilenet_v2", "last_n"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "chosen"), RUNS)
def test_a_run_of_a_strategy_changes_its_part_and_is_plain_transformers(tmp_path: Path, name: str, chosen: str) -> None:
    module = MODULES[name]
    boxes = module is detection
    rows = detection.in_cells(detection.scenes(tmp_path / "scenes")) if boxes else segmentation.scenes(tmp_path / "scenes")
    task = detection.SHIPPED if boxes else segmentation.options()
    model = module.tiny(tmp_path / "tiny", name)
    options = strategy(chosen, **({"blocks": 1} if chosen == "last_n" else {}))
    folder = tuned(
        tmp_path, rows, module.COLUMNS, model={"checkpoint": str(model)}, task=task, strategy=options, trainer__max_epochs=2
    )
    auto = transformers.AutoModelForObjectDetection if boxes else transformers.AutoModelForSemanticSegmentation
    before, after = (auto.from_pretrained(each).state_dict() for each in (model, folder))
    assert before.keys() == after.keys()
    moved = {each for each in before if before[each].shape == after[each].shape and not torch.equal(before[each], after[each])}
    assert moved
    assert all(each.double().isfinite().all() for each in after.values())
    parameters = [each for each in moved if each.endswith((".weight", ".bias"))]
    if (name, chosen) != ("segformer", "lora"):  # whose adapters go to all stages
        assert not [each for each in parameters if each.startswith(BELOW[name])]
    assert bool([each for each in parameters if each.startswith(LAST[name])]) == (chosen != "head")
