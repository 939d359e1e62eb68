"""Suspected label errors: the rows that cleanlab finds, in its order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from finespun.evaluation.analysis import label_errors
from finespun.evaluation.analysis.label_errors import suspected
from finespun.tasks.base import Judgement


@pytest.mark.parametrize(("labels", "seed"), [(2, 0), (3, 1), (6, 2)])
def test_the_rows_are_those_of_cleanlab(labels: int, seed: int) -> None:
    filters = pytest.importorskip("cleanlab.filter")
    random = np.random.default_rng(seed)
    right = random.integers(0, labels, 500)
    chances = softmax(random.normal(size=(500, labels)) + 2.5 * np.eye(labels)[right], axis=1)
    given = np.where(random.random(500) < 0.1, random.integers(0, labels, 500), right)
    theirs = filters.find_label_issues(
        given, chances, filter_by="confident_learning", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    ours = suspected(given, chances)
    assert len(ours) > 10
    assert ours.tolist() == theirs.tolist()


def test_a_wrong_label_is_written_with_its_row_and_text(tmp_path: Path) -> None:
    chances = np.array([[0.9, 0.1], [0.8, 0.2], [0.2, 0.8], [0.95, 0.05], [0.3, 0.7]])
    actual = ["bad", "bad", "good", "good", "good"]
    table = {"row": np.array([2, 3, 4, 5, 6]), "text": ["a", "b", "c", "=d", "e"], "label": actual}
    table |= {f"probability/{label}": chances[:, position] for position, label in enumerate(("bad", "good"))}
    judged = Judgement(units=5, scores=lambda _: {}, table=table, actual=actual, predicted=actual, classes=("bad", "good"))
    assert label_errors.write(judged, tmp_path / "found.csv") == 1
    [row] = label_errors.read(tmp_path / "found.csv")
    assert (row["row"], row["label"], row["predicted"], row["text"]) == ("5", "good", "bad", "'=d")


def test_a_task_without_one_label_a_row_has_a_file_without_rows(tmp_path: Path) -> None:
    judged = Judgement(units=1, scores=lambda _: {}, table={"row": [2], "text": ["a"]}, actual=[1.0], predicted=[2.0])
    assert label_errors.write(judged, tmp_path / "found.csv") == 0
    assert label_errors.read(tmp_path / "found.csv") == []
