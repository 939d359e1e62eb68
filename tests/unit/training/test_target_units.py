"""Numbers in any unit are learnt alike, by every way of training, and the saved model speaks the user's unit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t

from finespun.config.targets import build
from finespun.evaluation.predictor import Predictor
from finespun.models import heads
from finespun.models.conversion.module import ModuleConfig, ModuleForLabels
from finespun.models.pretrained import load
from finespun.training.target_units import take_up
from helpers import real_rows
from small_run import small_config
from tuned import REGRESSION, RIDGE
from tuned import tuned as fine_tuned

UNITS = {"rating": (1.0, 0.0), "price": (150_000.0, 400_000.0), "share": (1e-6, 3e-6), "year": (2.0, 2000.0)}
STRATEGIES: dict[str, dict[str, Any]] = {
    "full": {"_target_": "finespun.strategies.full.Full", "regression_head_lr_scale": 10.0},
    "head": {"_target_": "finespun.strategies.head.Head", "train_pooler": True, "head_lr_scale": 20.0},
    "last_n": {
        "_target_": "finespun.strategies.last_n.LastN", "blocks": 1, "freeze_embeddings": True, "layer_decay": 1.0,
        "head_lr_scale": 1.0,
    },
    "lora": {
        "_target_": "finespun.strategies.lora.Lora", "rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": None,
        "magnitude": False, "four_bit": False, "lr_scale": 10.0,
    },
    "ridge": RIDGE,
    "forest": {**RIDGE, "head": "random_forest"},
}  # fmt: skip


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A tiny BERT with larger weights: what it says of two texts is not nearly the same."""
    folder = tmp_path_factory.mktemp("lively") / "bert"
    shutil.copytree(tiny_bert, folder)
    model = t.BertModel.from_pretrained(tiny_bert)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 if parameter.ndim == 1 else 15)
    model.save_pretrained(folder)
    return folder


def rows(count: int = 120) -> list[dict[str, str]]:
    """Real texts with their rating, and the same rating in other units."""
    return [
        row | {name: repr(float(row["rating"]) * size + zero) for name, (size, zero) in UNITS.items()}
        for row in real_rows(count)
    ]  # fmt: skip


def tuned(folder: Path, model: Path, target: Any, given: list[dict[str, str]] | None = None, **changes: Any) -> Path:
    """Prepares and fine-tunes; returns the folder of the model, which has history.csv, too."""
    columns, task = {"text": "text", "target": target}, {"task": REGRESSION, "model": {"checkpoint": str(model)}}
    return fine_tuned(folder, rows() if given is None else given, columns, **task, **changes)


def predicted(folder: Path, target: str, given: list[dict[str, str]] | None = None) -> np.ndarray:
    found = Predictor(folder).predict(given or rows())
    return np.array([row[f"predicted_{target}"] for row in found])


def by_transformers(folder: Path) -> np.ndarray:
    """What plain transformers says, text by text."""
    model = t.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = t.AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        texts = [tokenizer(row["text"], return_tensors="pt", truncation=True, max_length=32) for row in rows()]
        return np.stack([model(**each).logits[0].double().numpy() for each in texts])


def last_of_history(folder: Path, name: str) -> float:
    lines = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
    return [float(line[lines[0].index("value")]) for line in lines if name in line][-1]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("target", ["price", pytest.param("share", marks=pytest.mark.slow)])
def test_every_way_of_training_learns_numbers_in_any_unit_alike(
    tmp_path: Path, lively: Path, strategy: str, target: str
) -> None:
    models = {
        name: tuned(tmp_path / name, lively, name, strategy=STRATEGIES[strategy], optimizer__eps=1e-4)
        for name in ("rating", target)
    }
    size, zero = UNITS[target]
    ratings = predicted(models["rating"], "rating")
    spread = ratings.std()
    assert spread > 0.001
    assert (predicted(models[target], target) - zero) / size == pytest.approx(ratings, abs=0.02 * spread + 2e-3)
    assert by_transformers(models[target])[:, 0] == pytest.approx(predicted(models[target], target), abs=1e-3 * size)
    names = ("val/r2", 1), ("val/mse", size**2)
    for name, factor in names:
        one, other = (last_of_history(models[each], name) for each in ("rating", target))
        assert other == pytest.approx(one * factor, rel=1e-3)


def test_an_average_of_weights_is_in_the_users_unit_too(tmp_path: Path, lively: Path) -> None:
    model = tuned(tmp_path, lively, "price", trainer__ema_decay=0.9)
    assert predicted(model, "price").mean() == pytest.approx(by_transformers(model).mean(), rel=1e-5)
    assert abs(predicted(model, "price").mean() - 400_000) < 2 * 150_000


def test_several_targets_are_each_in_their_own_unit(tmp_path: Path, lively: Path) -> None:
    strategy = STRATEGIES["ridge"]
    both = tuned(tmp_path / "both", lively, ["price", "year"], strategy=strategy)
    for name in ("price", "year"):
        alone = predicted(tuned(tmp_path / name, lively, name, strategy=strategy), name)
        assert predicted(both, name) == pytest.approx(alone, abs=1e-3 * UNITS[name][0])
    assert by_transformers(both).mean(axis=0) == pytest.approx([predicted(both, n).mean() for n in ("price", "year")], rel=1e-4)


@pytest.mark.parametrize("again", ["price", "rating"])
def test_continuing_begins_with_the_predictions_of_the_earlier_model(tmp_path: Path, lively: Path, again: str) -> None:
    """Other rows, so another mean and deviation; a target of another name has a new row."""
    first = tuned(tmp_path / "first", lively, "price")
    higher = [row for row in rows() if float(row["rating"]) > -1]
    nothing = {"optimizer__lr": 1e-12, "trainer__max_epochs": 1}
    second = tuned(tmp_path / "second", first, again, higher, **nothing)
    loaded = json.loads((second / "run.json").read_text())["loaded"]
    if again == "price":
        assert loaded.endswith("head: 1 label taken by name (price)")
        assert predicted(second, "price") == pytest.approx(predicted(first, "price"), abs=100)
    else:
        assert "new head" in loaded
        assert abs(predicted(second, "rating").mean()) < 5


def tiny_gpt(folder: Path, lively: Path) -> Path:
    """A model whose last layer has no biases; as the one above, with large weights."""
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 1000, "pad_token_id": 0}
    for file in lively.glob("*token*"):
        folder.mkdir(exist_ok=True)
        shutil.copyfile(file, folder / file.name)
    torch.manual_seed(0)
    t.GPT2Model(t.GPT2Config(**sizes, initializer_range=0.3)).save_pretrained(folder)
    return folder


def test_a_head_without_biases_says_in_its_configuration_what_its_logits_mean(tmp_path: Path, lively: Path) -> None:
    base = tiny_gpt(tmp_path / "gpt", lively)
    first = tuned(tmp_path / "first", base, ["price", "year"])
    scale = json.loads((first / "config.json").read_text())["target_scale"]
    numbers = by_transformers(first) * scale["deviation"] + scale["mean"]  # as docs/models.md says
    for position, name in enumerate(("price", "year")):
        assert predicted(first, name) == pytest.approx(numbers[:, position], abs=1e-3 * UNITS[name][0])
    higher = [row for row in rows() if float(row["rating"]) > -1]
    second = tuned(tmp_path / "second", first, ["year", "price"], higher, optimizer__lr=1e-12, trainer__max_epochs=1)
    for name in ("price", "year"):
        assert predicted(second, name) == pytest.approx(predicted(first, name), abs=1e-3 * UNITS[name][0])
    again = json.loads((second / "config.json").read_text())["target_scale"]
    assert again["mean"] == pytest.approx(scale["mean"][::-1])


def test_a_mean_too_far_away_for_single_precision_stays_in_the_configuration(tmp_path: Path, lively: Path) -> None:
    far = [row | {"seconds": str(1.7e9 + 30_000 * float(row["rating"]))} for row in rows()]
    model = tuned(tmp_path, lively, "seconds", far, strategy=STRATEGIES["ridge"])
    assert json.loads((model / "config.json").read_text())["target_scale"]["mean"][0] == pytest.approx(1.7e9, rel=1e-4)
    plain = tuned(tmp_path / "plain", lively, "rating", strategy=STRATEGIES["ridge"])
    found = (predicted(model, "seconds", far) - 1.7e9) / 30_000
    assert found == pytest.approx(predicted(plain, "rating"), abs=0.05)


def test_a_module_of_the_users_own_has_such_a_layer() -> None:
    options = {"num_embeddings": 1000, "embedding_dim": 8}
    config = ModuleConfig(target="torch.nn.Embedding", options=options, hidden_size=8, num_labels=1)
    model = ModuleForLabels(config)
    layer = heads.output_layer(model)
    assert layer is not None
    assert [tensor.shape for tensor in layer] == [(1, 8), (1,)]


def test_the_head_of_another_task_leaves_no_scale_behind(tmp_path: Path, lively: Path) -> None:
    first = tuned(tmp_path / "first", tiny_gpt(tmp_path / "gpt", lively), "price")
    assert "target_scale" in json.loads((first / "config.json").read_text())
    task = build("task", small_config().task)
    model, loaded = load(first, auto_class=task.auto_class, options=task.model_options(["a", "b"]), new_head=True)
    assert take_up(task, model, loaded) is task
    assert "target_scale" not in model.config.to_dict()
