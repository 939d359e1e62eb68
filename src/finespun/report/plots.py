"""Pictures of an evaluation, and the same as CSV for `dvc plots`."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from finespun.config.sections import ReportConfig
from finespun.data.writing import CsvWriter
from finespun.tasks.base import Judgement

INK, ACCENT = "#1f2937", "#2563eb"
NUMBERED, NAMED = 30, 100  # labels: with more there is no room for each pair's number, or each label's name


def confusion(actual: Sequence[str], predicted: Sequence[str], labels: Sequence[str], *, folder: Path, title: str) -> None:
    """Writes `confusion.csv` (one line a row) and `confusion.png`."""
    with (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
        CsvWriter(file).rows([("actual", "predicted"), *zip(actual, predicted, strict=True)])
    index = {label: position for position, label in enumerate(labels)}
    counts = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(counts, ([index[a] for a in actual], [index[p] for p in predicted]), 1)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = 2.6 + 0.55 * min(len(labels), NUMBERED)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the actual label", fraction=0.046)
    numbered = counts if len(labels) <= NUMBERED else counts[:0]
    for (row, column), count in np.ndenumerate(numbered):
        text = f"{count}\n{shares[row, column]:.1%}" if len(labels) <= 10 else str(count)
        axes.text(column, row, text, ha="center", va="center", color="white" if shares[row, column] > 0.5 else INK)
    named = range(0, len(labels), -(-len(labels) // NAMED))
    axes.set_xticks(named, labels[:: named.step], rotation=45 if len(labels) > 4 else 0, parse_math=False)
    axes.set_yticks(named, labels[:: named.step], parse_math=False)
    axes.set(xlabel="predicted", ylabel="actual")
    axes.set_title(title, parse_math=False)
    _save(figure, folder / "confusion.png")


def scatter(actual: NDArray[np.float64], predicted: NDArray[np.float64], *, folder: Path, title: str) -> None:
    """Writes `confusion.png`, a point a row, and `confusion.csv` with both numbers in ten ranges of the actual ones."""
    edges = np.unique(np.quantile(actual, np.linspace(0, 1, 11)))
    names = [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges)] or [f"{edges[0]:.3g}"]
    ranges = [np.searchsorted(edges[1:-1], values, side="right").tolist() for values in (actual, predicted)]
    with (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
        pairs = [(names[a], names[p]) for a, p in zip(*ranges, strict=True)]
        CsvWriter(file).rows([("actual", "predicted"), *pairs])
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.scatter(actual, predicted, s=8, alpha=0.4, color=ACCENT, linewidths=0)
    bounds = [float(min(actual.min(), predicted.min())), float(max(actual.max(), predicted.max()))]
    axes.plot(bounds, bounds, color=INK, linewidth=0.8, linestyle="--")
    axes.set(xlabel="actual", ylabel="predicted", aspect="equal")
    axes.set_title(title, parse_math=False)
    _save(figure, folder / "confusion.png")


def training(history: Sequence[Mapping[str, str]], *, folder: Path, monitor: str, title: str) -> None:
    """Writes `training.csv` (a line a step, metrics as columns) and `training.png`."""
    names = sorted({row["name"] for row in history} - {"epoch"})
    by_step: dict[int, dict[str, str]] = {}
    for row in history:
        by_step.setdefault(int(row["step"]), {})[row["name"]] = row["value"]
    for found in by_step.values():
        if monitor in found:
            found["monitored"] = found[monitor]
    with (folder / "training.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", *names, "monitored"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows({"step": step, **values} for step, values in sorted(by_step.items()))

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title, parse_math=False)
    losses, watched = figure.subplots(1, 2)
    steps, values = _series(by_step, "train/loss")
    losses.plot(steps, values, color=ACCENT, alpha=0.25, linewidth=0.8)
    if len(values):
        losses.plot(steps, _smooth(values), color=ACCENT, label="train (smoothed)")
    losses.plot(*_series(by_step, "val/loss"), color="#dc2626", marker="o", label="val")
    losses.set(xlabel="step", ylabel="loss", ylim=(0, None))
    losses.legend(frameon=False)
    watched.plot(*_series(by_step, monitor), color="#059669", marker="o")
    watched.set(xlabel="step", ylabel=monitor)
    _save(figure, folder / "training.png")


def evaluation(
    *, judged: Judgement, history: Sequence[Mapping[str, str]], monitor: str, folder: Path, config: ReportConfig
) -> None:  # fmt: skip
    """Draws everything of `evaluate`."""
    if judged.classes:
        confusion(judged.actual, judged.predicted, judged.classes, folder=folder, title=config.confusion_title)
    else:
        scatter(np.asarray(judged.actual), np.asarray(judged.predicted), folder=folder, title=config.confusion_title)
    training(history, folder=folder, monitor=monitor, title=config.training_title)


def _series(by_step: Mapping[int, Mapping[str, str]], name: str) -> tuple[list[int], list[float]]:
    found = [(step, float(values[name])) for step, values in sorted(by_step.items()) if name in values]
    return [step for step, _ in found], [value for _, value in found]


def _smooth(values: Sequence[float]) -> list[float]:
    window = max(1, len(values) // 20)
    padded = np.pad(np.asarray(values), (window // 2, window - 1 - window // 2), mode="edge")
    return [float(value) for value in np.convolve(padded, np.ones(window) / window, mode="valid")]


def _save(figure: Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    figure.set_canvas(FigureCanvasAgg(figure))
    figure.savefig(path, metadata={"Software": None}, bbox_inches="tight")
