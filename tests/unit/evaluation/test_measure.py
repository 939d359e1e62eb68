"""Intervals that mean what they say, and what is reported of a split."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import accuracy_score, f1_score

from finespun.config.sections import EvaluationConfig
from finespun.config.targets import build
from finespun.data.prepared import PreparedData
from finespun.evaluation.analysis import resampling
from finespun.evaluation.measure import bootstrap, headline, measure, score
from finespun.stages.measuring import write_report
from finespun.tasks.base import Judgement
from finespun.tasks.multi_label import MultiLabel
from finespun.tasks.text_regression import TextRegression
from finespun.tasks.token_classification import TokenClassification
from helpers import real_rows
from small_run import LABELS, small_config

TASK = build("task", small_config().task)


def config(*, resamples: int = 2000, confidence: float = 0.95, baselines: bool = False) -> EvaluationConfig:
    changes = {"bootstrap_resamples": resamples, "confidence": confidence, "baselines": baselines, "zero_shot": False}
    return small_config(**{f"evaluation__{name}": value for name, value in changes.items()}).evaluation


def drawn(rows: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Targets, and outputs that are right some three times out of four."""
    random = np.random.default_rng(5)
    targets = random.integers(0, 2, rows)
    own = random.beta(3, 1.5, rows)
    outputs = np.where(np.arange(2) == targets[:, None], own[:, None], 1 - own[:, None])
    return targets, outputs


def judged(targets: NDArray[np.int64], outputs: NDArray[np.float64]) -> Judgement:
    return TASK.judge(pa.table({"row": range(len(targets)), "target": targets}), list(outputs), LABELS)


def test_intervals_are_those_of_scipy() -> None:
    targets, outputs = drawn(400)
    right = (outputs.argmax(axis=1) == targets).astype(float)
    theirs = scipy_bootstrap((right,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    ours = bootstrap(judged(targets, outputs), config(resamples=4000))["accuracy"]
    assert 0.7 < right.mean() < 0.9
    assert ours["low"] == pytest.approx(theirs.low, abs=0.006)
    assert ours["high"] == pytest.approx(theirs.high, abs=0.006)


def test_intervals_hold_the_value_and_narrow_with_rows_and_confidence() -> None:
    def interval(rows: int, confidence: float) -> dict[str, float]:
        targets, outputs = drawn(rows)
        values = score(judged(targets, outputs))
        bounds = bootstrap(judged(targets, outputs), config(confidence=confidence))
        assert bounds.keys() == values.keys()
        assert all(bounds[name]["low"] < value < bounds[name]["high"] for name, value in values.items())
        return bounds["f1_macro"]

    wide, narrow, sure = interval(100, 0.95), interval(1600, 0.95), interval(100, 0.5)
    ratio = (wide["high"] - wide["low"]) / (narrow["high"] - narrow["low"])
    assert ratio == pytest.approx(4, rel=0.25)
    assert wide["low"] < sure["low"] < sure["high"] < wide["high"]


def test_intervals_are_the_same_each_time_and_whatever_is_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    targets, outputs = drawn(150)
    before = bootstrap(judged(targets, outputs), config(resamples=300))
    assert bootstrap(judged(targets, outputs), config(resamples=300)) == before
    monkeypatch.setattr(resampling, "CHUNK_CELLS", 150 * 7)
    again = bootstrap(judged(targets, outputs), config(resamples=300))
    assert again["log_loss"] == pytest.approx(before["log_loss"])
    assert again["accuracy"] == pytest.approx(before["accuracy"])


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedData:
    """Real rows in two splits, without tokens: measuring reads none."""
    rows = [row for row in real_rows(240) if row["sentiment"] in LABELS]
    for split, part, first in (("train", rows[:180], 2), ("val", rows[180:], 182)):
        columns = {
            "row": pa.array(range(first, first + len(part)), pa.int64()),
            "text": [row["text"] for row in part],
            "target": pa.array([LABELS.index(row["sentiment"]) for row in part], pa.int64()),
        }
        table = pa.table(columns)
        with pa.OSFile(str(tmp_path / f"{split}.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=50)
    (tmp_path / "schema.json").write_text(json.dumps({"labels": LABELS}))
    return PreparedData(tmp_path)


def test_a_split_is_measured_row_by_row(prepared: PreparedData) -> None:
    table = prepared.open("val")
    _, outputs = drawn(table.num_rows)
    found = measure(task=TASK, prepared=prepared, split="val", outputs=outputs, config=config(resamples=100))
    judged = found.judgement
    assert found.predictions["row"].to_pylist() == table["row"].to_pylist()
    assert found.predictions["text"].to_pylist() == table["text"].to_pylist()
    assert found.predictions["probability/positive"].to_pylist() == outputs[:, 1].tolist()
    assert found.predictions["label"].to_pylist() == judged.actual == [LABELS[target] for target in table["target"].to_pylist()]
    assert found.predictions["predicted"].to_pylist() == judged.predicted == [LABELS[best] for best in outputs.argmax(axis=1)]
    assert found.scores["accuracy"] == pytest.approx(accuracy_score(judged.actual, judged.predicted))
    assert found.scores["f1_macro"] == pytest.approx(f1_score(judged.actual, judged.predicted, average="macro"))
    assert found.intervals.keys() == found.scores.keys()
    assert found.baselines == {}


def test_the_headline_is_about_all_labels(prepared: PreparedData) -> None:
    _, outputs = drawn(prepared.open("val").num_rows)
    found = measure(task=TASK, prepared=prepared, split="val", outputs=outputs, config=config(resamples=100))
    of_labels = {f"{what}/{label}" for what in ("precision", "recall") for label in LABELS}
    assert set(found.scores) - set(headline(found.scores)) == of_labels


def test_what_a_split_cannot_say_is_reported(
    prepared: PreparedData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "schema.json").write_text(json.dumps({"labels": [*LABELS, "mixed"]}))
    outputs = np.full((prepared.open("val").num_rows, 3), 1 / 3)
    found = measure(task=TASK, prepared=prepared, split="val", outputs=outputs, config=config(resamples=100))
    write_report(found, tmp_path / "evaluation", confidence=0.95)
    details = json.loads((tmp_path / "evaluation" / "details.json").read_text())
    assert (details["labels_without_rows"], details["constant_targets"]) == (["mixed"], [])
    assert "warning: evaluation: no row has the label mixed: its precision and recall are 0" in capsys.readouterr().out


def test_labels_without_rows_and_constant_targets_are_found_by_every_task() -> None:
    rows = pa.table({"row": [2, 3], "target": [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]})
    sets = MultiLabel(max_length=16, delimiter=";", monitor="val/f1_macro", monitor_mode="max")
    assert sets.judge(rows, [np.ones(3)] * 2, ["a", "b", "c"]).without_rows == ["c"]
    numbers = TextRegression(max_length=16, loss_function="mse", huber_delta=1.0, monitor="val/r2", monitor_mode="max")
    assert numbers.judge(rows, [np.ones(3)] * 2, ["a", "b", "c"]).constant == ["a", "c"]
    tags = TokenClassification(
        scheme="bio", max_length=16, stride=4, label_smoothing=0.0, monitor="val/f1", monitor_mode="max"
    )  # fmt: skip
    labels = tags.label_names(["LOC", "PER"], {})
    words = {"row": [2], "text": ["Ann"], "words": [[0, 3]], "listed": [False], "tags": [[labels.index("B-PER")]]}
    rows = pa.table(words | {"places": [[1]], "length": [3]})
    assert tags.judge(rows, [np.eye(5)[:3]], labels).without_rows == ["LOC"]


def test_baselines_are_measured_on_the_same_rows(prepared: PreparedData) -> None:
    targets = prepared.open("val")["target"].to_numpy()
    _, outputs = drawn(len(targets))
    found = measure(task=TASK, prepared=prepared, split="val", outputs=outputs, config=config(resamples=100, baselines=True))
    seen = np.bincount(prepared.open("train")["target"].to_numpy())
    assert set(found.baselines) == {"majority_class", "tfidf_logistic"}
    assert found.baselines["majority_class"]["accuracy"] == pytest.approx((targets == seen.argmax()).mean())
    shares = seen / seen.sum()  # of the training rows, not of those that are measured
    assert found.baselines["majority_class"]["log_loss"] == pytest.approx(-np.log(shares[targets]).mean())
    assert all(each.keys() == found.scores.keys() for each in found.baselines.values())


def test_outputs_of_another_model_are_compared_as_baselines_are(prepared: PreparedData) -> None:
    rows = prepared.open("val").num_rows
    _, outputs = drawn(rows)
    others = {"zero_shot": (TASK, [np.full(2, 0.5)] * rows)}
    found = measure(task=TASK, prepared=prepared, split="val", outputs=outputs, config=config(resamples=100), others=others)
    assert set(found.baselines) == {"zero_shot"}
    difference = found.comparison["zero_shot"]["differences"]["accuracy"]
    assert difference["value"] == pytest.approx(found.scores["accuracy"] - found.baselines["zero_shot"]["accuracy"])
    assert difference["low"] <= difference["value"] <= difference["high"]
