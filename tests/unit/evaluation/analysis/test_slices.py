"""Scores of parts of a split equal scikit-learn's on the rows of each part."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import accuracy_score

from finespun.evaluation.analysis.slices import slices, worst_first
from finespun.tasks.base import Judgement
from small_run import small_config

CONFIG = small_config().evaluation


@pytest.fixture(scope="module")
def judged() -> tuple[Judgement, pa.Table]:
    random = np.random.default_rng(0)
    actual, predicted = (np.array(["bad", "good"])[random.integers(0, 2, 200)] for _ in range(2))
    right = actual == predicted

    def scores(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"accuracy": weights @ right / weights.sum(axis=1)}

    numbers = np.arange(200) + 2
    genre = random.choice(["drama", "comedy", ""], 200, p=[0.5, 0.45, 0.05])
    rows = pa.table({"row": numbers, "length": np.repeat([3, 9, 20, 50], 50), "slice/genre": genre})
    table = {"row": rows["row"], "label": actual.tolist()}
    found = Judgement(
        units=200, scores=scores, table=table, actual=actual.tolist(), predicted=predicted.tolist(), classes=("bad", "good")
    )  # fmt: skip
    return found, rows


def test_each_slice_has_its_rows_its_score_and_an_interval(judged: tuple[Judgement, pa.Table]) -> None:
    judgement, rows = judged
    found = slices(judgement, rows, by="accuracy", config=CONFIG)
    names = {(each["by"], each["slice"]) for each in found}
    lengths = {("length", f"{name} quarter") for name in ("shortest", "second", "third", "longest")}
    assert (
        names == {("class", "bad"), ("class", "good"), ("genre", "drama"), ("genre", "comedy"), ("genre", "(empty)")} | lengths
    )
    actual, predicted = np.array(judgement.actual), np.array(judgement.predicted)
    masks = {"class": actual, "genre": np.array([value or "(empty)" for value in rows["slice/genre"].to_pylist()])}
    for each in found:
        mask = masks[each["by"]] == each["slice"] if each["by"] in masks else None
        if mask is not None:
            assert each["units"] == mask.sum()
            assert each["value"] == pytest.approx(accuracy_score(actual[mask], predicted[mask]), abs=1e-6)
        assert each["low"] <= each["value"] <= each["high"]
    assert sum(each["units"] for each in found if each["by"] == "length") == 200


def test_the_worst_come_first(judged: tuple[Judgement, pa.Table]) -> None:
    found = slices(*judged, by="accuracy", config=CONFIG)
    assert worst_first(found, smaller_is_better=False)[0]["value"] == min(each["value"] for each in found)
    assert worst_first(found, smaller_is_better=True)[0]["value"] == max(each["value"] for each in found)


def test_units_that_are_no_rows_have_no_slices(judged: tuple[Judgement, pa.Table]) -> None:
    bare = Judgement(units=3, scores=lambda _: {}, table={}, actual=(), predicted=())
    assert slices(bare, judged[1], by="accuracy", config=CONFIG) == []
