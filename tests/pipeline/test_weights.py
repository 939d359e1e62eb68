"""Weights from anywhere through the real pipeline: a foreign file, then a run that continues from the first one's model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModel

from helpers import Project, make_project


def record(project: Project) -> dict[str, Any]:
    return dict(json.loads((project.folder / "models" / "finetuned" / "run.json").read_text()))


def foreign(project: Project, tiny_bert: Path, **more: Any) -> None:
    """Says the tiny model as an architecture and a file whose names are of no model."""
    weights = AutoModel.from_pretrained(tiny_bert).state_dict()
    renamed = {f"tensor_{number}": tensor for number, tensor in enumerate(weights.values())}
    torch.save({"epoch": 3, "state_dict": renamed}, project.folder / "data" / "weights.pth")
    config = json.loads((tiny_bert / "config.json").read_text())
    kept = {name: config[name] for name in ("model_type", "hidden_size", "intermediate_size", "max_position_embeddings")}
    kept |= {name: config[name] for name in ("num_attention_heads", "num_hidden_layers", "vocab_size")}
    said = {"config": kept, "weights": "data/weights.pth", "mapping": "by_order", "tokenizer": "data/tiny-bert", **more}
    (project.folder / "conf" / "model" / "foreign.yaml").write_text(yaml.safe_dump(said))
    project.edit("params.yaml", model="foreign")


@pytest.mark.slow
def test_a_foreign_file_is_trained_as_the_checkpoint_it_is_and_its_model_is_continued_from(
    tmp_path: Path, tiny_bert: Path
) -> None:
    project = make_project(tmp_path / "project", tiny_bert)
    foreign(project, tiny_bert)
    project.edit("conf/trainer/default.yaml", max_epochs=1)
    said = project.run("dvc", "repro", "finetune").stdout
    assert "weights: 39 tensors matched, 2 new (classifier.weight, classifier.bias), 0 left over" in said
    first = record(project)
    assert first["loaded"].startswith("39 tensors matched, 2 new (classifier.weight, classifier.bias)")
    plain = project.copy(tmp_path / "plain")
    plain.edit("params.yaml", model="tiny")
    plain.run("dvc", "repro", "finetune")
    same = [load_file(each.folder / "models" / "finetuned" / "model.safetensors") for each in (project, plain)]
    assert all(torch.equal(same[0][name], same[1][name]) for name in same[0])
    assert record(plain)["inputs"]["weights"] != first["inputs"]["weights"]  # the same numbers, from another file

    earlier = project.folder / "conf" / "model" / "earlier.yaml"
    earlier.write_text(f"checkpoint: runs:/{first['run_id']}/model\n")
    project.edit("params.yaml", model="earlier")
    assert "weights: 41 tensors matched, 0 new, 0 left over" in project.run("dvc", "repro").stdout

    unknown = f"runs:/{'0' * 32}/model"
    for values, message in (
        ({"checkpoint": unknown}, f"model.checkpoint: {unknown}: MLflow at .* has no such model"),
        ({"checkpoint": "data/tiny-bert", "sha256": "0" * 64}, f"not {'0' * 64}: it is another file, or damaged"),
    ):
        earlier.write_text(yaml.safe_dump(values))
        failed = project.run("python", "-m", "finespun.stages", "configure", "finetune", check=False)
        assert failed.returncode == 4
        assert re.search(message, failed.stderr), failed.stderr
