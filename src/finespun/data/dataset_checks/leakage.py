"""What predicts the label perfectly: the label's own name in the text, a text's first word, another column."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from finespun.config.sections import DataConfig
from finespun.data.cells import as_text
from finespun.data.check_report import Report
from finespun.data.checks import named_columns
from finespun.data.splits import normalise
from finespun.tasks.base import Task

if TYPE_CHECKING:
    from finespun.data.dataset_checks.examine import Sampled

FEWEST = 30  # rows; of fewer, chance does as much
REPEATED = 5  # rows that a value stands for on average, or it tells nothing
ALWAYS = 0.98


def check(sample: Sequence[Sampled], data: DataConfig, task: Task, report: Report) -> None:
    """Adds what gives the label away, in the sample."""
    labelled = [(each, task.answers(each.values)[0]) for each in sample if "label" in each.values]
    if "label" not in data.columns or len(labelled) < FEWEST or len({label for _, label in labelled}) < 2:
        return
    if "text" in data.columns:
        _check_text([(normalise(task.content(each.values)), label) for each, label in labelled], data, report)
    used = {column for _, column in named_columns(data.columns)} | {rule.column for rule in data.filters}
    for column in [name for name in labelled[0][0].row if name not in used]:
        if _decides((str(as_text(each.row.get(column))), label) for each, label in labelled):
            report.say(
                "leakage",
                "note",
                f"the column {column!r} says the label of every row: good that the model does not read it; keep it out of"
                " data.columns and of the texts",
            )


def _check_text(rows: Sequence[tuple[str, str]], data: DataConfig, report: Report) -> None:
    names = {label: f" {normalise(label)} " for _, label in rows}
    padded = [(f" {' '.join(_words(text))} ", label) for text, label in rows]
    own = sum(names[label] in text for text, label in padded) / len(padded)
    others = sum(any(name in text for label, name in names.items() if label != mine) for text, mine in padded) / len(padded)
    column = data.columns["text"]
    if own >= ALWAYS and others <= 1 - ALWAYS:
        report.say(
            "leakage",
            data.checks.leakage,
            f"the column {column!r} holds the label's own name in {own:.0%} of the rows; if new texts will not, remove it",
        )
    elif _decides((_words(text)[0] if _words(text) else "", label) for text, label in rows):
        report.say(
            "leakage",
            data.checks.leakage,
            f"the first word of {column!r} says the label of every row; if it was put there with the label, remove it",
        )


def _words(text: str) -> list[str]:
    return "".join(each if each.isalnum() else " " for each in text).split()


def _decides(pairs: Iterable[tuple[Any, str]]) -> bool:
    """Whether a value stands for one label each, often enough not to be by chance."""
    labels: dict[Any, set[str]] = defaultdict(set)
    rows = 0
    for value, label in pairs:
        labels[value].add(label)
        rows += 1
        if len(labels[value]) > 1:
            return False
    return len(labels) > 1 and rows >= REPEATED * len(labels)
