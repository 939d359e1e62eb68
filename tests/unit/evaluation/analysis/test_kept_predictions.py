"""Predictions that were kept are scored as their tasks score them, and compared on the rows that both models predicted."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from seqeval.metrics import f1_score as seqeval_f1
from sklearn.metrics import accuracy_score, f1_score, log_loss, mean_absolute_error, r2_score

from finespun.errors import DataError
from finespun.evaluation.analysis.kept_predictions import compared, on_the_same_rows, scores_of

LABELS = ["a", "b", "c"]
DRAW = np.random.default_rng(0)


def classified(rows: int, *, share: float, seed: int = 1) -> pa.Table:
    """Rows of three labels, of which a share is right."""
    actual, random = np.random.default_rng(0).integers(0, 3, rows), np.random.default_rng(seed)
    predicted = np.where(random.random(rows) < share, actual, (actual + 1) % 3)
    chances = np.full((rows, 3), 0.1)
    chances[np.arange(rows), predicted] = 0.8
    named = {f"probability/{label}": chances[:, place] for place, label in enumerate(LABELS)}
    texts = [f"row {number}" for number in range(rows)]
    table = {"row": range(rows), "text": texts, "label": [LABELS[each] for each in actual]}
    return pa.table({**table, "predicted": [LABELS[each] for each in predicted], **named})


def plain(table: pa.Table, labels: list[str]) -> dict[str, float]:
    return {name: float(values[0]) for name, values in scores_of(table, labels)(np.ones((1, table.num_rows))).items()}


def test_one_label() -> None:
    table = classified(60, share=0.7)
    found, actual, predicted = plain(table, LABELS), table["label"].to_pylist(), table["predicted"].to_pylist()
    assert found["accuracy"] == pytest.approx(accuracy_score(actual, predicted))
    assert found["f1_macro"] == pytest.approx(f1_score(actual, predicted, average="macro"))
    chances = np.stack([table[f"probability/{label}"].to_numpy() for label in LABELS], axis=1)
    assert found["log_loss"] == pytest.approx(log_loss(actual, chances, labels=LABELS))


def test_several_labels_numbers_and_means_of_rows() -> None:
    actual, predicted = DRAW.random((40, 3)) < 0.5, DRAW.random((40, 3)) < 0.5
    named = {name: [[label for label, there in zip(LABELS, row, strict=True) if there] for row in rows]
             for name, rows in (("labels", actual), ("predicted", predicted))}  # fmt: skip
    chances = {f"probability/{label}": DRAW.random(40) for label in LABELS}
    found = plain(pa.table({"row": range(40), **named, **chances}), LABELS)
    assert found["f1_micro"] == pytest.approx(f1_score(actual, predicted, average="micro"))
    assert found["exact_match"] == pytest.approx((actual == predicted).all(axis=1).mean())
    numbers = DRAW.random((2, 40))
    found = plain(pa.table({"row": range(40), "price": numbers[0], "predicted_price": numbers[1]}), [])
    assert found["mae"] == pytest.approx(mean_absolute_error(*numbers))
    assert found["r2"] == pytest.approx(r2_score(*numbers))
    texts = {"target": ["x", "y"], "predicted": ["x", "z"], "rougeL": [1.0, 0.5]}
    assert plain(pa.table({"row": [0, 1], **texts}), []) == {"rougeL": 0.75}


def test_tags() -> None:
    actual = [["B-X", "I-X", "O", "B-Y"], ["O", "O"], ["B-Y", "O", "B-X", "I-X"]]
    predicted = [["B-X", "I-X", "O", "O"], ["O", "B-X"], ["B-Y", "O", "B-X", "O"]]
    found = plain(pa.table({"row": [0, 1, 2], "tags": actual, "predicted": predicted}), [])
    assert found["f1"] == pytest.approx(seqeval_f1(actual, predicted))
    assert found["accuracy"] == pytest.approx(7 / 10)


def test_boxes() -> None:
    box = {"label": "a", "x_min": 0.0, "y_min": 0.0, "x_max": 40.0, "y_max": 40.0}
    other = {**box, "x_min": 100.0, "x_max": 140.0}
    rows: dict[str, Any] = {
        "boxes": [json.dumps([box]), json.dumps([box])], "detections": [json.dumps([{**box, "score": 0.9}]), json.dumps([])],
    }  # fmt: skip
    assert plain(pa.table({"row": [0, 1], **rows}), ["a"])["recall_100"] == pytest.approx(0.5)
    rows["detections"] = [json.dumps([{**other, "score": 0.9}])] * 2
    assert plain(pa.table({"row": [0, 1], **rows}), ["a"])["map"] == 0.0


def test_a_label_that_one_model_did_not_know_is_never_its_prediction() -> None:
    old = classified(60, share=0.9).drop_columns(["probability/c"])
    assert plain(old, LABELS)["f1_macro"] < plain(classified(60, share=0.9), LABELS)["f1_macro"]


def test_the_rows_of_both_are_compared_whatever_their_numbers_and_order() -> None:
    ours, theirs = classified(100, share=0.95), classified(80, share=0.5, seed=2)
    theirs = theirs.take(DRAW.permutation(80)).set_column(0, "row", pa.array(range(1000, 1080)))
    mine, other = on_the_same_rows(ours, theirs)
    assert mine["text"].to_pylist() == other["text"].to_pylist() == ours["text"].to_pylist()[:80]
    found = compared(mine, other, LABELS, count=500, confidence=0.95)["accuracy"]
    assert found["value"] == pytest.approx(found["ours"] - found["theirs"])
    assert 0 < found["low"] < found["value"] < found["high"]


def test_other_rows_are_refused() -> None:
    ours = classified(60, share=0.9)
    theirs = ours.set_column(1, "text", pa.array([f"another {number}" for number in range(60)]))
    with pytest.raises(DataError, match=r"on 0 rows in common, of 60 and 60: too few"):
        on_the_same_rows(ours, theirs)
    corrected = ours.set_column(2, "label", pa.array(["c"] * 60))
    assert on_the_same_rows(ours.slice(0), ours)[0].num_rows == 60
    with pytest.raises(DataError, match="rows in common"):
        on_the_same_rows(ours, corrected)


def test_what_is_no_table_of_predictions_is_said() -> None:
    with pytest.raises(DataError, match="columns row cannot be compared row by row"):
        scores_of(pa.table({"row": [1]}), [])
