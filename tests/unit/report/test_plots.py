"""Pictures and the tables behind them: every row counted, every step kept."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from finespun.config.sections import ReportConfig
from finespun.report import plots
from finespun.tasks.base import Judgement

ACTUAL = ["no"] * 5 + ["yes"] * 4 + ["maybe"]
PREDICTED = ["no"] * 4 + ["yes"] * 6
LABELS = ["maybe", "no", "yes"]
PNG = b"\x89PNG\r\n\x1a\n"
HISTORY = [
    {"step": str(step), "epoch": "0", "name": name, "value": repr(value), "time": "0.0"}
    for step, name, value in (
        *((step, "train/loss", 1 / step) for step in range(1, 61)),
        *((step, "epoch", step / 30 - 1) for step in (30, 60)),
        *((step, "val/loss", 0.5) for step in (30, 60)),
        (30, "val/f1_macro", 0.6),
        (60, "val/f1_macro", 0.8),
    )
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    figures: list[Figure] = []
    save = plots._save

    def keep(figure: Figure, path: Path) -> None:
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "_save", keep)
    return figures


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_confusion_counts_every_row(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.confusion(ACTUAL, PREDICTED, LABELS, folder=tmp_path, title="Where it errs")
    listed = [(row["actual"], row["predicted"]) for row in rows(tmp_path / "confusion.csv")]
    assert listed == list(zip(ACTUAL, PREDICTED, strict=True))
    [figure] = drawn
    axes = figure.axes[0]
    texts = [text.get_text().split("\n") for text in axes.texts]
    counts = Counter(listed)
    assert [int(count) for count, _ in texts] == [counts[pair] for pair in itertools.product(LABELS, LABELS)]
    assert texts[4] == ["4", "80.0%"]  # no, taken for no
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("Where it errs", "predicted", "actual")
    assert [label.get_text() for label in axes.get_yticklabels()] == LABELS
    assert (tmp_path / "confusion.png").read_bytes().startswith(PNG)


def test_a_label_that_never_occurs_and_twelve_labels_are_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    labels = [f"label {number}" for number in range(12)]
    plots.confusion(labels[:11], labels[1:], labels, folder=tmp_path, title="many")
    assert [text.get_text() for text in drawn[0].axes[0].texts].count("1") == 11
    assert np.isfinite(drawn[0].axes[0].images[0].get_array()).all()
    assert imread(tmp_path / "confusion.png").std() > 0


def test_a_thousand_labels_make_a_picture_of_bounded_size(tmp_path: Path, drawn: list[Figure]) -> None:
    labels = [f"label {number}" for number in range(1000)]
    plots.confusion(labels[:9], labels[1:10], labels, folder=tmp_path, title="many")
    axes = drawn[0].axes[0]
    assert len(axes.texts) == 0
    assert [label.get_text() for label in axes.get_yticklabels()] == labels[::10]
    assert max(imread(tmp_path / "confusion.png").shape) < 3000


def judged(actual: list[Any], predicted: list[Any], classes: list[str]) -> Judgement:
    return Judgement(units=len(actual), scores=lambda _: {}, table={}, actual=actual, predicted=predicted, classes=classes)


def test_numbers_are_drawn_as_points_and_counted_in_ranges(tmp_path: Path, drawn: list[Figure]) -> None:
    actual = [float(number) for number in range(100)]
    predicted = [value + 1 for value in actual]
    config = ReportConfig(confusion_title="c", training_title="t")
    plots.evaluation(judged=judged(actual, predicted, []), history=HISTORY, monitor="val/loss", folder=tmp_path, config=config)
    found = rows(tmp_path / "confusion.csv")
    assert len(found) == 100
    assert len({row["actual"] for row in found}) == 10
    assert sum(row["actual"] == row["predicted"] for row in found) == 91  # the last of nine ranges steps over
    points = drawn[0].axes[0].collections[0].get_offsets()
    assert np.asarray(points).tolist() == [[a, p] for a, p in zip(actual, predicted, strict=True)]


def test_training_keeps_every_step_and_metric(tmp_path: Path, drawn: list[Figure]) -> None:
    plots.training(HISTORY, folder=tmp_path, monitor="val/f1_macro", title="How it learned")
    found = rows(tmp_path / "training.csv")
    assert list(found[0]) == ["step", "train/loss", "val/f1_macro", "val/loss", "monitored"]
    assert all(row["monitored"] == row["val/f1_macro"] for row in found)
    assert [int(row["step"]) for row in found] == list(range(1, 61))
    assert [float(row["train/loss"]) for row in found] == [1 / step for step in range(1, 61)]
    assert {row["step"]: row["val/f1_macro"] for row in found if row["val/f1_macro"]} == {"30": "0.6", "60": "0.8"}
    losses, watched = drawn[0].axes
    lines: dict[str, Any] = {str(line.get_label()): line for line in losses.lines}
    assert lines["val"].get_xdata() == pytest.approx([30, 60])
    smooth = lines["train (smoothed)"].get_ydata()
    assert len(smooth) == 60
    assert smooth[29] == pytest.approx(np.mean([1 / 29, 1 / 30, 1 / 31]))
    assert watched.lines[0].get_ydata() == pytest.approx([0.6, 0.8])
    assert watched.get_ylabel() == "val/f1_macro"
    assert (tmp_path / "training.png").read_bytes().startswith(PNG)


def test_a_run_of_one_step_is_drawn(tmp_path: Path) -> None:
    plots.training(HISTORY[:1], folder=tmp_path, monitor="val/loss", title="short")
    assert rows(tmp_path / "training.csv") == [{"step": "1", "train/loss": "1.0", "monitored": ""}]
    assert (tmp_path / "training.png").read_bytes().startswith(PNG)


def test_the_same_results_make_the_same_bytes_and_a_title_makes_others(tmp_path: Path) -> None:
    def draw(name: str, title: str) -> dict[str, bytes]:
        folder = tmp_path / name
        folder.mkdir()
        plots.evaluation(
            judged=judged(ACTUAL, PREDICTED, LABELS), history=HISTORY, monitor="val/loss", folder=folder,
            config=ReportConfig(confusion_title=title, training_title="t"),
        )  # fmt: skip
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first, again, other = draw("1", "one"), draw("2", "one"), draw("3", "two")
    assert set(first) == {"confusion.csv", "confusion.png", "training.csv", "training.png"}
    assert first == again
    assert {name for name in first if first[name] != other[name]} == {"confusion.png"}
