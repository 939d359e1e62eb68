"""Numbers in every unit, and models whose labels stand in another order: learnt as they are meant, or refused with a remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from finespun.errors import DataError
from finespun.evaluation.predictor import Predictor
from helpers import real_rows
from tuned import HARDLY, REGRESSION, RIDGE, measured, prepared, tuned

NUMBER = {"text": "text", "target": "number"}
LABEL = {"text": "text", "label": "label"}
SETS = {"_target_": "finespun.tasks.multi_label.MultiLabel", "max_length": 32, "delimiter": ";", "monitor": "val/loss"}
TAGS = {
    "_target_": "finespun.tasks.token_classification.TokenClassification", "max_length": 32, "stride": 8, "scheme": "bio",
    "label_smoothing": 0.0, "monitor": "val/loss",
}  # fmt: skip


def slowly(*values: Any) -> Any:
    """Values of a test that `make test-all` alone runs."""
    return pytest.param(*values, marks=pytest.mark.slow)


def rows(number: Callable[[float], float] = float, count: int = 120) -> list[dict[str, str]]:
    """Real texts, their rating and a function of it."""
    return [row | {"number": repr(number(float(row["rating"])))} for row in real_rows(count)]


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A tiny BERT with larger weights: what it says of two texts is not nearly the same."""
    folder = tmp_path_factory.mktemp("lively") / "bert"
    shutil.copytree(tiny_bert, folder)
    tensors = {
        name: tensor * (1 if tensor.ndim == 1 else 15) for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    ("name", "size", "zero"),
    [
        ("prices", 150_000.0, 400_000.0),
        ("falling", -2.0, 0.0),
        slowly("shares of a millionth", 1e-6, 0.0),
        slowly("years", 3.0, 2000.0),
        slowly("negative", 5.0, -900.0),
        slowly("populations", 1e12, 5e12),
        slowly("time stamps", 30_000.0, 1.7e9),
    ],
)
def test_numbers_are_learnt_in_any_unit(tmp_path: Path, lively: Path, name: str, size: float, zero: float) -> None:
    options: dict[str, Any] = {"task": REGRESSION, "strategy": RIDGE, "model": {"checkpoint": str(lively)}}
    found = []
    for folder, given in (("plain", rows()), ("unit", rows(lambda rating: rating * size + zero))):
        model = tuned(tmp_path / folder, given, NUMBER, **options)
        answers = np.array([row["predicted_number"] for row in Predictor(model).predict(given)])
        scores = measured(tmp_path / folder, given, NUMBER, model, task=REGRESSION).scores
        found.append((answers, scores))
    (plain, of_plain), (answers, scores) = found
    assert (answers - zero) / size == pytest.approx(plain, abs=0.01), name
    assert scores["r2"] == pytest.approx(of_plain["r2"], abs=0.01)
    assert scores["mae"] == pytest.approx(of_plain["mae"] * abs(size), rel=0.01)


def test_one_outlier_is_reported_and_the_other_rows_are_still_learnt(
    tmp_path: Path, lively: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"task": REGRESSION, "model": {"checkpoint": str(lively)}, "optimizer__lr": 0.003}
    _, data = prepared(tmp_path / "first", rows(), NUMBER, **options)
    train = set(data.open("train")["row"].to_pylist())
    given = rows()
    given[min(train) - 2]["number"] = "9e9"
    for advice in ("huber", "corrected"):
        capsys.readouterr()
        folder = tmp_path / advice
        model = tuned(folder, given, NUMBER, **options | {"task": REGRESSION | {"loss_function": "huber"}})
        said = (
            f"number: 1 of {len(train)} rows are more than 100 times the interquartile range from the median (row {min(train)}:"
        )
        assert (said in capsys.readouterr().out) == (advice == "huber")
        assert measured(folder, given, NUMBER, model, task=REGRESSION).scores["mae"] < 2.5  # ratings are -4 to 4
        given[min(train) - 2]["number"] = "1.0"


def test_a_split_of_one_number_is_reported(tmp_path: Path, lively: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"task": REGRESSION, "model": {"checkpoint": str(lively)}}
    _, data = prepared(tmp_path, rows(), NUMBER, **options)
    val = set(data.open("val")["row"].to_pylist())
    given = [row | {"number": "1.5"} if number in val else row for number, row in enumerate(rows(), 2)]
    assert "in all" not in capsys.readouterr().out
    model = tuned(tmp_path, given, NUMBER, strategy=RIDGE, **options)
    assert f"warning: val: number is 1.5 in all {len(val)} rows" in capsys.readouterr().out
    profile = json.loads((tmp_path / "prepared" / "profile.json").read_text())
    assert [len(profile["remarks"][split]) for split in ("train", "val", "test")] == [0, 1, 0]
    found = measured(tmp_path, given, NUMBER, model, task=REGRESSION)
    assert found.judgement.constant == ["number"]
    assert (found.scores["r2"], found.scores["pearson"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("target", "told", "remedy"),
    [
        ("same", "data.columns.target: 'same' is 5 in all 94 rows of the training split, so .* name another column", "number"),
        (["number", "same"], "'same' is 5 in all .* nothing to learn; leave it out of data.columns.target", ["number"]),
        ("near", "'near' differs by .* from 1e\\+09 in .* too little for single precision: subtract a constant", "less"),
        ("huge", "is beyond 1e\\+18; correct it, or write the column in a larger unit", "larger"),
    ],
)
def test_numbers_that_nothing_can_be_learnt_from_are_errors_of_the_data(
    tmp_path: Path, tiny_bert: Path, target: Any, told: str, remedy: Any
) -> None:
    given = [
        row | {"same": "5", "near": str(1e9 + float(row["rating"])), "less": row["rating"]}
        | {"huge": str(1e20 * float(row["rating"])), "larger": row["rating"]}
        for row in rows()
    ]  # fmt: skip
    options: dict[str, Any] = {"task": REGRESSION, "model": {"checkpoint": str(tiny_bert)}}
    with pytest.raises(DataError, match=told) as caught:
        prepared(tmp_path, given, {"text": "text", "target": target}, **options)
    assert caught.value.exit_code == 3
    prepared(tmp_path, given, {"text": "text", "target": remedy}, **options)


def reordered(model: Path, folder: Path, order: list[int]) -> Path:
    """The same model with its labels in another order, as another tool would save it."""
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name][order].contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    names = [config["id2label"][str(place)] for place in order]
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: place for place, name in enumerate(names)}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def of_a_file(folder: Path) -> dict[str, Any]:
    """The section `model` for a file of weights and an architecture with names of labels."""
    torch.save({"model_state_dict": load_file(folder / "model.safetensors")}, folder / "best.pth")
    config = json.loads((folder / "config.json").read_text())
    names = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    kept = {name: config[name] for name in (*names, "max_position_embeddings", "id2label")}
    return {"config": kept, "weights": str(folder / "best.pth"), "tokenizer": str(folder)}


def kinds() -> dict[str, tuple[dict[str, Any], dict[str, Any], list[dict[str, str]]]]:
    """Task, columns and rows of each kind of labels."""
    words = [row | {"text": " ".join(row["text"].split()[:8])} for row in rows()]
    tags = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    tagged = [row | {"tags": " ".join(tags[len(word) % 5] for word in row["text"].split())} for row in words]
    several = [
        row | {"labels": ";".join(name for name, yes in zip("abc", (len(row["text"]) % 2, len(row["text"]) % 3, 1), strict=True) if yes)}
        for row in rows()
    ]  # fmt: skip
    labelled = [row | {"label": "abc"[len(row["text"]) % 3]} for row in rows()]
    return {
        "labels": ({}, LABEL, labelled),
        "several labels": ({"task": {**SETS, "monitor_mode": "min"}}, {"text": "text", "labels": "labels"}, several),
        "tags": ({"task": {**TAGS, "monitor_mode": "min"}}, {"text": "text", "tags": "tags"}, tagged),
        "numbers": (
            {"task": REGRESSION},
            {"text": "text", "target": ["number", "rating"]},
            rows(lambda rating: 5 - 900 * rating),
        ),
    }


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("labels", "folder"),
        ("tags", "file"),
        slowly("labels", "file"),
        slowly("tags", "folder"),
        *(slowly(kind, source) for kind in ("several labels", "numbers") for source in ("folder", "file")),
    ],
)
def test_a_model_goes_on_from_where_it_was_whatever_the_order_of_its_labels(
    tmp_path: Path, lively: Path, kind: str, source: str
) -> None:
    options, columns, given = kinds()[kind]
    first = tuned(tmp_path / "first", given, columns, model={"checkpoint": str(lively)}, optimizer__lr=0.01, **options)
    count = len(json.loads((first / "config.json").read_text())["id2label"])
    other = reordered(first, tmp_path / "other", [*range(1, count), 0])
    model = {"checkpoint": str(other)} if source == "folder" else of_a_file(other)
    second = tuned(tmp_path / "second", given, columns, model=model, **HARDLY, **options)
    assert f"head: {count} labels taken by name" in json.loads((second / "run.json").read_text())["loaded"]
    before, after = (measured(each.parent, given, columns, each, **options).scores for each in (first, second))
    assert after == pytest.approx(before, rel=1e-3, abs=1e-4)
    plain = reordered(second, tmp_path / "plain", [*range(1, count), 0])  # what would have been, by position
    config = json.loads((second / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps(config))
    assert measured(tmp_path / "first", given, columns, plain, **options).scores != pytest.approx(before, rel=1e-2)
