"""Which labels the data have: their order, those that look alike, and those that no training row has."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain

import numpy as np

from finespun.config.sections import DataConfig
from finespun.data.cells import in_order, label_name, look_alikes
from finespun.data.check_report import Report
from finespun.data.splits import LEFT_OUT, SPLITS, TRAIN, Codes
from finespun.errors import did_you_mean, first_of

SHOWN = 5
IMBALANCE = 50  # times as many rows


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels in their order, and those of them that have training rows."""

    names: list[str]
    trained: list[str]


def labels_of(report: Report, data: DataConfig, codes: Codes) -> Labels:
    """Decides on labels that no training row has, as `data.checks.rare_label` and `data.split.cover_labels` say.

    Problems are added to the report. `codes`, the split of each row that is kept, change where a label's first row becomes a
    training row, or its rows are left out.
    """
    _report_look_alikes(report, data)
    _report_joined(report, data)
    _report_blanks(report, data)
    indicators = data.columns.get("labels")
    if isinstance(indicators, str):
        indicators = None
    names = list(data.labels or dict.fromkeys(map(label_name, indicators or ())) or in_order(report.answers))
    names = _with_rows(names, report, data)
    _report_imbalance(names, report, data)
    trained = _trained(report, codes)
    rare = [name for name in names if name not in trained]
    if not rare:
        return Labels(names=names, trained=names)
    if data.split.cover_labels:
        print(f"data.split.cover_labels: the first row of {first_of(rare)} is a training row")  # noqa: T201
        for name in rare:
            hashes = report.kept.hashes()
            codes[hashes == hashes[int(report.kept.with_label(name).argmax())]] = TRAIN
        return Labels(names=names, trained=names)
    places = np.flatnonzero(np.any([report.kept.with_label(name) for name in rare], axis=0) & (codes != LEFT_OUT))
    said = f"{len(places):,} row{'s' if len(places) != 1 else ''} with labels that no training row has: {_shown(rare, report)}"
    severity = data.checks.rare_label
    if severity == "error":
        remedy = (
            "; set data.split.cover_labels: true to train on one row of each, data.checks.rare_label: drop"
            " to leave these rows and labels out, or warn to keep labels that are never learnt; or add rows"
        )
        report.say("rare_label", "error", said + remedy)
        return Labels(names=names, trained=[name for name in names if name in trained])
    report.say("rare_label", "warn", f"{said}; {'left out' if severity == 'drop' else 'the labels are kept, and never learnt'}")
    known = [name for name in names if name in trained]
    if severity != "drop":
        return Labels(names=names, trained=known)
    codes[places] = LEFT_OUT
    for place in places.tolist():
        report.dropped.add(report.kept.numbers[place], "rare_label")
    return Labels(names=known, trained=known)


def _trained(report: Report, codes: Codes) -> set[str]:
    kinds = np.unique(np.frombuffer(report.kept.kinds, np.uint32)[codes == TRAIN])
    return {name for kind in kinds for name in report.kept.answers[kind]}


def report_missing(report: Report, data: DataConfig, codes: Codes) -> None:
    """Adds labels with fewer rows than splits, where each split should hold every label."""
    wanted = [code for code, split in enumerate(SPLITS) if getattr(data.split, split)]
    short = []
    for name in in_order(report.answers):
        having = {*codes[report.kept.with_label(name)].tolist()}
        short += [name] if not {*wanted} <= having else []
    if short:
        said = ", ".join(_counted(name, report) for name in short[:SHOWN])
        more = f" and {len(short) - SHOWN} more" if len(short) > SHOWN else ""
        report.say(
            "small_label",
            data.checks.small_label,
            f"labels that some split has no row of: {said}{more}; each needs {len(wanted)} different rows or more: add rows,"
            " leave them out with data.filters, or set data.checks.small_label: warn",
        )


def _shown(names: list[str], report: Report) -> str:
    shown = ", ".join(_counted(name, report) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _counted(name: str, report: Report) -> str:
    return f"{name!r} ({report.answers[name]}, row {report.called(report.first[name])})"


def _with_rows(names: list[str], report: Report, data: DataConfig) -> list[str]:
    """Returns the labels that rows have; others are added to the report."""
    absent = [name for name in names if name not in report.answers]
    if absent:
        near = did_you_mean(absent[0], report.answers)
        remedy = "correct data.labels, or leave it out there" if data.labels else "leave it out of data.columns.labels"
        report.say(
            "unknown_label",
            "error",
            f"no row has the label {first_of([*map(repr, absent)])}{near}; the rows have"
            f" {first_of([*map(repr, in_order(report.answers))])}; {remedy}",
        )
    return [name for name in names if name in report.answers]


def _report_imbalance(names: list[str], report: Report, data: DataConfig) -> None:
    counts = {name: report.answers[name] for name in names}
    if "label" not in data.columns or len(counts) < 2:
        return
    most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[most] >= IMBALANCE * counts[least]:
        report.say(
            "imbalance",
            data.checks.imbalance,
            f"labels are far from balanced: {_counted(most, report)}, {_counted(least, report)}; look at f1_macro, set"
            " trainer.imbalance: class_weights or weighted_sampling, or bring more rows of the rare ones",
        )


def _report_look_alikes(report: Report, data: DataConfig) -> None:
    groups = look_alikes(report.answers)
    if not groups or data.labels:
        return
    said = "; ".join(" and ".join(_counted(name, report) for name in group) for group in groups[:SHOWN])
    message = f"labels that look alike: {said}; write each in one way, or list those that are meant in data.labels"
    severity = data.checks.lookalike_label
    more = ", or set data.checks.lookalike_label: warn" if severity == "error" else ""
    report.say("lookalike_label", severity, message + more)


def _report_joined(report: Report, data: DataConfig) -> None:
    """Warns about labels that are several of the others with a sign between them."""
    for sign in "" if data.labels else ",;|/ ":
        parts = {name: [part.strip() for part in name.split(sign)] for name in report.answers if sign in name.strip(sign)}
        times = Counter(chain(report.answers, *parts.values()))
        least = all if sign in "/ " else any  # those two are often part of a name
        joined = [name for name, given in parts.items() if least(times[part] > 1 for part in given)]
        if joined:
            said = ", ".join(_counted(name, report) for name in joined[:SHOWN])
            report.say(
                "joined_labels",
                data.checks.joined_labels,
                f"labels that seem to be several, with {sign!r} between them: {said}; if they are, set task:"
                f" multi_label and task.delimiter: {sign!r}, else list them in data.labels",
            )


def _report_blanks(report: Report, data: DataConfig) -> None:
    """Warns about columns where 0 is written and some cells are empty, as where nobody has looked at these rows."""
    mixed = [
        f"{name} ({count:,}, and {report.noes[name]:,} say 0)" for name, count in report.blanks.items() if report.noes[name]
    ]
    if mixed:
        report.say(
            "blank_indicator",
            data.checks.blank_indicator,
            f"empty cells in columns of 0 and 1: {first_of(mixed)}; they are read as 0: where nothing is known"
            " of them, leave the rows out with data.filters: [{column: NAME, drop: ['']}], else write 0",
        )
