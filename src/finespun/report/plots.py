"""Pictures of an evaluation, and the same as CSV for `dvc plots`."""

from __future__ import annotations

import csv
import itertools
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from finespun.config.sections import ReportConfig
from finespun.data.writing import CsvWriter
from finespun.report.lettering import lettering
from finespun.tasks.base import Judgement

INK, ACCENT = "#1f2937", "#2563eb"
NUMBERED, NAMED, DRAWN = 30, 100, 1000  # labels: with more there is no room for each pair's number, each name, each label


def confusion(
    actual: Sequence[str], predicted: Sequence[str], labels: Sequence[str], *, folder: Path, title: str,
    without_rows: Sequence[str] = (),
) -> None:  # fmt: skip
    """Writes `confusion.csv` (one line a row) and `confusion.png`."""
    with (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
        CsvWriter(file).rows([("actual", "predicted"), *zip(actual, predicted, strict=True)])
    common = {label for label, _ in Counter([*actual, *predicted]).most_common(DRAWN)}
    shown = [label for label in labels if len(labels) <= DRAWN or label in common]
    counts = _counts(actual, predicted, shown)
    with lettering(title, *labels) as letters:
        called = dict(zip(labels, letters.names(labels), strict=True))
        names = [called[label] for label in shown]
        ends = [" (no rows)" if label in without_rows else "" for label in shown]
        longest = max(len(name) + len(end) for name, end in zip(names, ends, strict=True))
        side = 2.6 + 0.55 * min(len(shown), NUMBERED)
        figure = Figure(figsize=(side + 1 + 0.07 * longest, side + 0.07 * longest), layout="constrained")
        axes = figure.add_subplot()
        _shade(axes, counts)
        named = range(0, len(shown), -(-len(shown) // NAMED))
        size = 10 if len(shown) <= 2 * NUMBERED else 7
        axes.set_yticks(named, [names[at] + ends[at] for at in named], parse_math=False, fontsize=size)
        turned: dict[str, Any] = {"rotation": 45 if len(shown) <= NUMBERED else 90, "ha": "right", "rotation_mode": "anchor"}
        flat = len(shown) * max(map(len, names)) * 0.09 < side - 1
        axes.set_xticks(named, [names[at] for at in named], parse_math=False, fontsize=size, **({} if flat else turned))
        axes.set(xlabel="predicted", ylabel="actual")
        axes.set_title(letters.title(title, round(side * 8)), parse_math=False)
        _explain(axes, names, of=len(labels), width=round(side * 10))
        _save(figure, folder / "confusion.png")


def _counts(actual: Sequence[str], predicted: Sequence[str], labels: Sequence[str]) -> NDArray[np.int64]:
    """Returns how many rows of each label (rows) were taken for each (columns)."""
    index = {label: position for position, label in enumerate(labels)}
    pairs = [(index[a], index[p]) for a, p in zip(actual, predicted, strict=True) if a in index and p in index]
    counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(counts, ([a for a, _ in pairs], [p for _, p in pairs]), 1)
    return counts


def _shade(axes: Axes, counts: NDArray[np.int64]) -> None:
    """Draws shares of the actual label as shades of blue, and the numbers where there is room for them."""
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.figure.colorbar(image, ax=axes, label="share of the actual label", fraction=0.046)
    for (row, column), count in np.ndenumerate(counts if len(counts) <= NUMBERED else counts[:0]):
        text = f"{count}\n{shares[row, column]:.1%}" if len(counts) <= 10 else str(count)
        axes.text(column, row, text, ha="center", va="center", color="white" if shares[row, column] > 0.5 else INK)


def _explain(axes: Axes, names: Sequence[str], *, of: int, width: int) -> None:
    """Says below the picture what is not the whole name, or not there."""
    notes = []
    if any(name.startswith("#") for name in names):
        notes.append("#n is the n-th of the labels in details.json: its name is cut, or no font here has its letters")
    if of > len(names):
        notes.append(f"the {len(names):,} most frequent of {of:,} labels")
    if notes:
        note = "\n".join(line for each in notes for line in textwrap.wrap(each, width))
        axes.set_xlabel(f"predicted\n\n{note}")


def scatter(actual: NDArray[np.float64], predicted: NDArray[np.float64], *, folder: Path, title: str) -> None:
    """Writes `confusion.png`, a point a row, and `confusion.csv` with both numbers in ten ranges of the actual ones."""
    edges = np.unique(np.quantile(actual, np.linspace(0, 1, 11)))
    names = [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges)] or [f"{edges[0]:.3g}"]
    ranges = [np.searchsorted(edges[1:-1], values, side="right").tolist() for values in (actual, predicted)]
    with (folder / "confusion.csv").open("w", newline="", encoding="utf-8") as file:
        pairs = [(names[a], names[p]) for a, p in zip(*ranges, strict=True)]
        CsvWriter(file).rows([("actual", "predicted"), *pairs])
    with lettering(title) as letters:
        figure = Figure(figsize=(5, 5), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(letters.title(title, 45), parse_math=False)
    axes.scatter(actual, predicted, s=8, alpha=0.4, color=ACCENT, linewidths=0)
    bounds = [float(min(actual.min(), predicted.min())), float(max(actual.max(), predicted.max()))]
    axes.plot(bounds, bounds, color=INK, linewidth=0.8, linestyle="--")
    axes.set(xlabel="actual", ylabel="predicted", aspect="equal")
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

    with lettering(title) as letters:
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        figure.suptitle(letters.title(title, 100), parse_math=False)
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
        confusion(
            judged.actual, judged.predicted, judged.classes, folder=folder, title=config.confusion_title,
            without_rows=judged.without_rows,
        )  # fmt: skip
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
