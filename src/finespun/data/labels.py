"""Which labels the data have: their order, those that look alike, and those that no training row has."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain

from finespun.config.sections import DataConfig
from finespun.data.cells import in_order, label_name, look_alikes
from finespun.data.check_report import Report
from finespun.errors import DataError, did_you_mean, first_of

SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Labels in their order, those of them that have training rows; lines to leave out; split keys moved to training."""

    names: list[str]
    trained: list[str]
    left_out: frozenset[int]
    to_train: frozenset[str]


def labels_of(report: Report, data: DataConfig) -> Labels:
    """Decides on labels that no training row has, as `data.checks.rare_label` and `data.split.cover_labels` say.

    Raises:
        DataError: labels look alike or are rare, and `data.checks` says that this is an error; a label has no row at all.
    """
    _report_look_alikes(report, data)
    _report_joined(report, data)
    _report_blanks(report)
    indicators = data.columns.get("labels")
    if isinstance(indicators, str):
        indicators = None
    names = list(data.labels or dict.fromkeys(map(label_name, indicators or ())) or in_order(report.answers))
    _require_a_row_each(names, report, data)
    rare = [name for name in names if name not in report.in_train]
    if not rare:
        return Labels(names=names, trained=names, left_out=frozenset(), to_train=frozenset())
    if data.split.cover_labels:
        print(f"data.split.cover_labels: the first row of {first_of(rare)} is a training row")  # noqa: T201
        moved = frozenset(report.keys[name] for name in rare)
        return Labels(names=names, trained=names, left_out=frozenset(), to_train=moved)
    lines = frozenset(line for name in rare for line in report.lines[name])
    said = f"{len(lines):,} row{'s' if len(lines) != 1 else ''} with labels that no training row has: {_shown(rare, report)}"
    severity = data.checks.rare_label
    if severity == "error":
        raise DataError(
            f"{data.path}: {said}; set data.split.cover_labels: true to train on one row of each, data.checks.rare_label: drop"
            " to leave these rows and labels out, or warn to keep labels that are never learnt; or add rows"
        )
    print(f"warning: {said}; {'left out' if severity == 'drop' else 'the labels are kept, and never learnt'}")  # noqa: T201
    trained = [name for name in names if name in report.in_train]
    if severity == "warn":
        return Labels(names=names, trained=trained, left_out=frozenset(), to_train=frozenset())
    return Labels(names=trained, trained=trained, left_out=lines, to_train=frozenset())


def _shown(names: list[str], report: Report) -> str:
    shown = ", ".join(_counted(name, report) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _counted(name: str, report: Report) -> str:
    return f"{name!r} ({report.answers[name]}, row {report.first[name]})"


def _require_a_row_each(names: list[str], report: Report, data: DataConfig) -> None:
    absent = [name for name in names if name not in report.answers]
    if absent:
        near = did_you_mean(absent[0], report.answers)
        remedy = "correct data.labels, or leave it out there" if data.labels else "leave it out of data.columns.labels"
        raise DataError(
            f"{report.file}: no row has the label {first_of([*map(repr, absent)])}{near}; the rows have"
            f" {first_of([*map(repr, in_order(report.answers))])}; {remedy}"
        )


def _report_look_alikes(report: Report, data: DataConfig) -> None:
    groups = look_alikes(report.answers)
    if not groups or data.labels:
        return
    said = "; ".join(" and ".join(_counted(name, report) for name in group) for group in groups[:SHOWN])
    message = f"labels that look alike: {said}; write each in one way, or list those that are meant in data.labels"
    if data.checks.lookalike_label == "error":
        raise DataError(f"{data.path}: {message}, or set data.checks.lookalike_label: warn")
    print(f"warning: {message}")  # noqa: T201


def _report_joined(report: Report, data: DataConfig) -> None:
    """Warns about labels that are several of the others with a sign between them."""
    for sign in "" if data.labels else ",;|/ ":
        parts = {name: [part.strip() for part in name.split(sign)] for name in report.answers if sign in name.strip(sign)}
        times = Counter(chain(report.answers, *parts.values()))
        least = all if sign in "/ " else any  # those two are often part of a name
        joined = [name for name, given in parts.items() if least(times[part] > 1 for part in given)]
        if joined:
            said = ", ".join(_counted(name, report) for name in joined[:SHOWN])
            print(  # noqa: T201
                f"warning: labels that seem to be several, with {sign!r} between them: {said}; if they are, set task:"
                f" multi_label and task.delimiter: {sign!r}, else list them in data.labels"
            )


def _report_blanks(report: Report) -> None:
    """Warns about columns where 0 is written and some cells are empty, as where nobody has looked at these rows."""
    mixed = [
        f"{name} ({count:,}, and {report.noes[name]:,} say 0)" for name, count in report.blanks.items() if report.noes[name]
    ]
    if mixed:
        print(  # noqa: T201
            f"warning: empty cells in columns of 0 and 1: {first_of(mixed)}; they are read as 0: where nothing is known"
            " of them, leave the rows out with data.filters: [{column: NAME, drop: ['']}], else write 0"
        )
