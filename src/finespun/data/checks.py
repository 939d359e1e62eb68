"""Checking every row before anything is written: one report of all problems, each with file, row, value and remedy."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from finespun.config.sections import DataConfig, Filter
from finespun.data.sources import Line, Row
from finespun.data.splits import normalise
from finespun.errors import DataError, did_you_mean, listed

SHOWN = 5  # problems of each kind that a terminal shows


class Checkable(Protocol):
    """What checking needs of a task."""

    roles: tuple[str, ...]
    answer_roles: tuple[str, ...]

    def content(self, values: Mapping[str, Any]) -> str: ...
    def answers(self, values: Mapping[str, Any]) -> Sequence[str]: ...
    def problems(self, values: Mapping[str, Any], labels: Sequence[str] | None) -> Iterator[tuple[str, str, str]]: ...


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One wrong row. `kind` is a field of the section `data.checks`."""

    kind: str
    severity: str
    line: int
    column: str
    value: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.line}: {self.column} {_short(self.value)!r}: {self.remedy}"


def _short(value: str) -> str:
    return value if len(value) <= 60 else value[:57] + "..."


@dataclass(kw_only=True)
class Report:
    """What checking found: counts of all, the problems, and the lines to leave out."""

    file: str
    rows: int = 0
    filtered: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    left_out: set[int] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)

    def counts(self, severity: str) -> dict[str, int]:
        """Returns the number of problems by kind."""
        return dict(Counter(p.kind for p in self.problems if p.severity == severity))

    def text(self, severity: str) -> str:
        """Returns the problems of one severity for a terminal, a few of each kind."""
        lines = []
        for kind, count in self.counts(severity).items():
            mine = [p for p in self.problems if p.kind == kind and p.severity == severity]
            lines.append(f"{kind.replace('_', ' ')}: {count} row{'s' if count != 1 else ''}")
            lines += [f"  {self.file}:{problem}" for problem in mine[:SHOWN]]
            if count > SHOWN:
                lines.append(f"  ... and {count - SHOWN} more")
        return "\n".join(lines)


def role_values(row: Row, columns: Mapping[str, str | Sequence[str]]) -> dict[str, Any]:
    """Returns role -> text of a row, or a list of them where a column holds lists or several columns make up a role.

    A missing value is the empty text.
    """
    return {
        role: as_text(row[column]) if isinstance(column, str) else [as_text(row[each]) for each in column]
        for role, column in columns.items()
    }


def as_text(value: Any) -> Any:
    """Returns a value as text; lists (arrays of NumPy's, in a DataFrame) stay lists of texts; objects in them stay objects."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list | tuple):
        return [each if isinstance(each, dict) else as_text(each) for each in value]
    return "" if value is None else str(value)


def is_filtered(row: Row, filters: Iterable[Filter]) -> str | None:
    """Returns `column=value` of the filter that leaves a row out, or None."""
    for rule in filters:
        if str(row[rule.column]) in rule.drop:
            return f"{rule.column}={row[rule.column]}"
    return None


def check_rows(lines: Iterable[Line], data: DataConfig, task: Checkable) -> Report:
    """Looks at every row once.

    Raises:
        DataError: a column is missing, or there is no row.
    """
    report = Report(file=data.path)
    seen: dict[bytes, tuple[int, str]] = {}
    for line in lines:
        if not report.rows:
            _require_columns(line, data)
        report.rows += 1
        reason = is_filtered(line.row, data.filters)
        if reason:
            report.filtered[reason] += 1
            report.left_out.add(line.number)
            continue
        values = role_values(line.row, data.columns)
        found = [*task.problems(values, data.labels)] or [*_repeats(line.number, values, task, seen)]
        for kind, role, remedy in found:
            severity = getattr(data.checks, kind)
            column, value = data.columns[role], values[role]
            column = column if isinstance(column, str) else ", ".join(column)
            value = value if isinstance(value, str) else ", ".join(map(str, value))
            report.problems.append(
                Problem(kind=kind, severity=severity, line=line.number, column=column, value=value, remedy=remedy)
            )
            if severity == "drop":
                report.left_out.add(line.number)
        if line.number not in report.left_out:
            report.answers.update(task.answers(values))
    if not report.rows:
        raise DataError(f"{data.path}: holds a header but no rows; put your rows into it")
    return report


def _require_columns(line: Line, data: DataConfig) -> None:
    have = list(line.row)
    needed = [
        (f"data.columns.{role}", column)
        for role, given in data.columns.items()
        for column in ([given] if isinstance(given, str) else given)
    ]
    needed += [("data.filters", rule.column) for rule in data.filters]
    problems = [
        f"{data.path}: has no column {column!r} ({key}){did_you_mean(column, have)}; it has: {listed(have)}"
        for key, column in needed
        if column not in have
    ]
    if problems:
        raise DataError("\n".join(problems))


def _repeats(
    number: int, values: Mapping[str, Any], task: Checkable, seen: dict[bytes, tuple[int, str]]
) -> Iterator[tuple[str, str, str]]:
    key = hashlib.blake2b(normalise(task.content(values)).encode(), digest_size=12).digest()
    target = "; ".join(str(values[role]) for role in task.answer_roles if role in values)
    first_line, first_target = seen.setdefault(key, (number, target))
    if first_line == number:
        return
    role = task.roles[0]
    if target != first_target:
        told, first_told = _short(target), _short(first_target)
        remedy = f"same {role} as row {first_line} but labelled {told!r}, not {first_told!r}; correct one of them"
        yield "conflicting_labels", role, f"{remedy}, or set data.checks.conflicting_labels: drop"
    else:
        yield "duplicate", role, f"same {role} and label as row {first_line}; remove one, or set data.checks.duplicate: drop"
