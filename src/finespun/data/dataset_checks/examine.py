"""Examining a data set: every row, then the whole; what `prepare` and `finespun check` both do before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from finespun.config.sections import DataConfig
from finespun.data.check_report import Problem, Report, short
from finespun.data.checks import check_each, collected, role_values
from finespun.data.dataset_checks import leakage, near_duplicates, tokens
from finespun.data.dataset_checks.labels import Labels, labels_of, report_missing
from finespun.data.passes.here import Rows
from finespun.data.sources.tables import Line
from finespun.data.splits import LEFT_OUT, SPLITS, TRAIN, Codes, assign, leaks
from finespun.tasks.base import Encoder, Task, Values

HELD_OUT, TRAINED = 2_000, 8_000  # rows that are looked at in pairs: the first in the order of a hash


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What was found, the labels, and the split of each row that is kept."""

    report: Report
    labels: Labels
    codes: Codes


def examine(rows: Rows, data: DataConfig, task: Task, encoder: Encoder | None) -> Examined:
    """Reads every row once, and some of them again.

    Args:
        rows: are gone through anew each time.
        data: the section.
        task: what rows mean.
        encoder: of the task; None where there is no checkpoint to read it from.

    Raises:
        DataError: the rows cannot be read, or lack columns.
    """
    each = rows.map(partial(check_each, data=data, task=task), "checking")
    report = collected(each, data, task, rows.place)
    codes = assign(report.kept, data)
    if not len(codes):
        return Examined(report=report, labels=Labels(names=[], trained=[]), codes=codes)
    if data.split_by in {"group", "time", "given"}:
        _report_leaks(rows, data, report, codes)
    if data.split_by == "stratified":
        report_missing(report, data, codes)
    if not (codes == TRAIN).any():
        usable = f"{int((codes != LEFT_OUT).sum())} usable rows leave no row in the split train"
        report.say("empty_split", "error", f"{usable}; bring more rows, raise its share, or split otherwise")
        return Examined(report=report, labels=Labels(names=[], trained=[]), codes=codes)
    labels = labels_of(report, data, codes)
    sample = _sampled(rows, data, task, report, codes)
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


def _sampled(rows: Rows, data: DataConfig, task: Task, report: Report, codes: Codes) -> list[Sampled]:
    """Returns rows of both sides of the splits: all of small data, of large ones so many, chosen by their hash."""
    hashes, chosen = np.frombuffer(report.kept.contents, np.uint64), []
    for mine, most in ((codes == TRAIN, TRAINED), ((codes != TRAIN) & (codes != LEFT_OUT), HELD_OUT)):
        chosen.append(_chosen(hashes, mine, most))
    split = {report.kept.numbers[place]: SPLITS[codes[place]] for place in np.concatenate(chosen).tolist()}
    lines = rows.map(partial(_of_numbers, numbers=frozenset(split)))
    return [Sampled(line.number, split[line.number], line.row, role_values(line.row, data.columns, task)) for line in lines]


def _of_numbers(lines: Iterator[Line], numbers: frozenset[int]) -> Iterator[Line]:
    """Yields the rows of these numbers, and reads no further than the last."""
    last = max(numbers, default=0)
    for line in lines:
        if line.number in numbers:
            yield line
        if line.number >= last:
            return


def _chosen(hashes: NDArray[np.uint64], mine: NDArray[np.bool_], most: int) -> NDArray[np.int64]:
    """Returns the places of at most so many rows: those that come first by bits of the hash that decide on no split."""
    places = np.flatnonzero(mine)
    if len(places) <= most:
        return places
    order = hashes[places].byteswap()  # the split goes by the highest bits: in one split they are much the same
    return places[np.argpartition(order, most)[:most]]


def _report_leaks(rows: Rows, data: DataConfig, report: Report, codes: Codes) -> None:
    """Adds rows that two splits share; where `drop` is said, those that would be trained on are left out."""
    numbers, severity = report.kept.numbers, data.checks.leak
    found = {numbers[place]: (place, first) for place, first in leaks(report.kept, codes)}
    if not found:
        return
    column = str(data.columns[next(iter(data.columns))])
    for line in rows.map(partial(_of_numbers, numbers=frozenset(found))):
        place, first = found[line.number]
        other = f"row {report.called(numbers[first])} in {SPLITS[codes[first]]}"
        remedy = f"is in {SPLITS[codes[place]]}, and as {other}; remove one, or set data.checks.leak: drop to leave out the one"
        remedy += " that is trained on"
        value = short(str(line.row[column])) if column in line.row else ""
        problem = Problem(kind="leak", severity=severity, line=line.number, column=column, value=value, remedy=remedy)
        report.add([problem])
    if severity == "drop":
        codes[[place for place, _ in found.values()]] = LEFT_OUT
