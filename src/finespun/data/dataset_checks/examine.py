"""Examining a data set: every row, then the whole; what `prepare` and `finespun check` both do before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finespun.config.sections import DataConfig
from finespun.data.check_report import Problem, Report, short
from finespun.data.checks import check_rows, role_values
from finespun.data.dataset_checks import leakage, near_duplicates, tokens
from finespun.data.dataset_checks.labels import Labels, labels_of, report_missing
from finespun.data.sources.tables import Line
from finespun.data.splits import LEFT_OUT, SPLITS, TRAIN, Codes, assign, leaks
from finespun.tasks.base import Encoder, Task, Values

Read = Callable[[], Iterator[Line]]
HELD_OUT, TRAINED = 2_000, 8_000  # rows that are looked at in pairs: the first in the order of a hash


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What was found, the labels, and the split of each row that is kept."""

    report: Report
    labels: Labels
    codes: Codes


def examine(read: Read, data: DataConfig, task: Task, encoder: Encoder | None) -> Examined:
    """Reads every row once, and some of them again.

    Args:
        read: goes through the rows anew each time.
        data: the section.
        task: what rows mean.
        encoder: of the task; None where there is no checkpoint to read it from.

    Raises:
        DataError: the rows cannot be read, or lack columns.
    """
    report = check_rows(read(), data, task, getattr(read, "place", None))
    codes = assign(report.kept, data)
    if not len(codes):
        return Examined(report=report, labels=Labels(names=[], trained=[]), codes=codes)
    if data.split_by in {"group", "time", "given"}:
        _report_leaks(read, data, report, codes)
    if data.split_by == "stratified":
        report_missing(report, data, codes)
    if not (codes == TRAIN).any():
        rows = f"{int((codes != LEFT_OUT).sum())} usable rows leave no row in the split train"
        report.say("empty_split", "error", f"{rows}; bring more rows, raise its share, or split otherwise")
        return Examined(report=report, labels=Labels(names=[], trained=[]), codes=codes)
    labels = labels_of(report, data, codes)
    sample = _sampled(read, data, task, report, codes)
    near_duplicates.check(sample, data, task, report)
    leakage.check(sample, data, task, report)
    tokens.check(sample, data, task, encoder, report)
    return Examined(report=report, labels=labels, codes=codes)


@dataclass(frozen=True)
class Sampled:
    """A row that is looked at again."""

    number: int
    split: str
    row: dict[str, object]
    values: Values


def _sampled(read: Read, data: DataConfig, task: Task, report: Report, codes: Codes) -> list[Sampled]:
    """Returns rows of both sides of the splits: all of small data, of large ones those whose hash is lowest."""
    hashes, chosen = np.frombuffer(report.kept.contents, np.uint64), []
    for mine, most in ((codes == TRAIN, TRAINED), ((codes != TRAIN) & (codes != LEFT_OUT), HELD_OUT)):
        chosen.append(_lowest(hashes, mine, most))
    split = {report.kept.numbers[place]: SPLITS[codes[place]] for place in np.concatenate(chosen).tolist()}
    found, last = [], max(split, default=0)
    for line in read():
        if line.number in split:
            found.append(Sampled(line.number, split[line.number], line.row, role_values(line.row, data.columns, task)))
        if line.number >= last:
            break
    return found


def _lowest(hashes: NDArray[np.uint64], mine: NDArray[np.bool_], most: int) -> NDArray[np.int64]:
    """Returns the places of the rows with the lowest hashes; those that cannot be among them are not sorted."""
    count = int(mine.sum())
    below = min(2.0 * most / max(1, count), 1.0) * 2.0**64
    places = np.flatnonzero(mine & (hashes < below)) if count > 4 * most else np.flatnonzero(mine)
    return places[np.argsort(hashes[places], kind="stable")[:most]]


def _report_leaks(read: Read, data: DataConfig, report: Report, codes: Codes) -> None:
    """Adds rows that two splits share; where `drop` is said, those that would be trained on are left out."""
    numbers, severity = report.kept.numbers, data.checks.leak
    found = {numbers[place]: (place, first) for place, first in leaks(report.kept, codes)}
    if not found:
        return
    column = str(data.columns[next(iter(data.columns))])
    for line in read():
        if line.number not in found:
            continue
        place, first = found[line.number]
        other = f"row {report.called(numbers[first])} in {SPLITS[codes[first]]}"
        remedy = f"is in {SPLITS[codes[place]]}, and as {other}; remove one, or set data.checks.leak: drop to leave out the one"
        remedy += " that is trained on"
        value = short(str(line.row[column])) if column in line.row else ""
        problem = Problem(kind="leak", severity=severity, line=line.number, column=column, value=value, remedy=remedy)
        report.add([problem])
    if severity == "drop":
        codes[[place for place, _ in found.values()]] = LEFT_OUT
