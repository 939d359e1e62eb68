"""Checking every row before anything is written: one report of all problems, each with file, row, value and remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from finespun.config.sections import DataConfig
from finespun.data.cells import (
    NOTATION,
    NUMBER,
    Unclear,
    as_text,
    is_list,
    label_name,
    read_list,
    stand_in,
    unseen_characters,
    yes_or_no,
)
from finespun.data.check_report import KEPT, Problem, Report, short
from finespun.data.sources.tables import Line, Row
from finespun.data.splits import GIVEN, given_split, hashed, normalise, time_of
from finespun.errors import DataError, did_you_mean, listed, visible
from finespun.tasks.base import Problem as Found
from finespun.tasks.base import Task, Values, main_role, roles_of

LONG_NAME = 40  # characters; longer ones in a header are rather texts


def role_values(row: Row, columns: Mapping[str, str | Sequence[str]], task: Task) -> dict[str, Any]:
    """Returns role -> text of a row, or a list of them where a column holds lists or several columns make up a role.

    A missing value is the empty text. A list that stands in a cell as text is read where the task reads lists; labels are
    spelt as they are compared (`cells.label_name`); a role that columns of 0 and 1 make up is the names of those that say 1.
    """
    found: dict[str, Any] = {
        role: as_text(row[column]) if isinstance(column, str) else [as_text(row[each]) for each in column]
        for role, column in columns.items()
    }
    roles = roles_of(task)
    for role in (each for each, how in roles.items() if how.indicators):
        if role in found and not isinstance(columns[role], str):
            found[role] = _indicated(columns[role], found[role])
    for role in (each for each, how in roles.items() if how.lists):
        if isinstance(found.get(role), str) and is_list(found[role]):
            with suppress(ValueError):  # `problems_of` reports what cannot be read
                found[role] = as_text(read_list(found[role]))
    return found | {role: _spelt(found[role]) for role, how in task.answer_roles.items() if role in found and not how.verbatim}


def _indicated(columns: Sequence[str], cells: Sequence[Any]) -> list[Any]:
    """Returns the names of columns that say yes; an `Unclear` for each that says neither yes nor no, for the report."""
    said = [
        (column, yes_or_no(cell) if isinstance(cell, str) else None, cell) for column, cell in zip(columns, cells, strict=True)
    ]
    return [
        Unclear(column, cell) if answer is None else label_name(column) for column, answer, cell in said if answer is not False
    ]


def _spelt(value: Any) -> Any:
    if isinstance(value, list):
        return [_spelt(each) for each in value]
    if isinstance(value, dict):
        return {name: _spelt(each) if name == "label" else each for name, each in value.items()}
    return label_name(value) if isinstance(value, str) else value


def named_columns(columns: Mapping[str, str | Sequence[str]]) -> list[tuple[str, str]]:
    """Returns role and column of each column; several may make up a role."""
    return [(role, each) for role, given in columns.items() for each in ([given] if isinstance(given, str) else given)]


def problems_of(values: Values, task: Task, labels: Sequence[str] | None) -> Iterator[Found]:
    """Yields everything wrong with one row; a task is not asked about lists where it expects texts."""
    roles = roles_of(task)
    nested = [
        (role, kind)
        for role, value in values.items()
        if (kind := _unexpected(value, lists=role in roles and roles[role].lists)) is not None
    ]
    nested += [
        (role, 'is written as a list or an object, and is none that can be read; write it as JSON: ["first", "second"]')
        for role, how in task.answer_roles.items()
        if not how.verbatim
        if isinstance(values.get(role), str) and NOTATION.fullmatch(values[role]) and values[role] not in (labels or ())
        if role not in dict(nested) and not is_list(values[role])
    ]
    for role, kind in nested:
        yield "unexpected_list", role, kind
    if not nested:
        yield from task.problems(values, labels)


def _unexpected(value: Any, *, lists: bool) -> str | None:
    """Returns what is wrong with a value that is no text, or is a text only to look at."""
    if isinstance(value, bytes) or (isinstance(value, list) and any(isinstance(each, bytes) for each in value)):
        return "is bytes that are not UTF-8; write text (of an image: its path)"
    if isinstance(value, dict) or (isinstance(value, list) and not lists):
        if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
            return "is an image inside the table; write it into a file, and its path here"
        kind = "an object" if isinstance(value, dict) else "a list"
        return f"is {kind}, where one text is needed; write one, or name one column in data.columns"
    if isinstance(value, str) and lists and is_list(value):
        try:
            read_list(value)
        except ValueError as error:
            return f'looks like a list, and {error}; write it as JSON: ["first", "second"]'
    return None


class Checked(NamedTuple):
    """What one row says, looked at by itself: what workers hand back, in the order of the rows."""

    number: int
    problems: Sequence[Problem] = ()
    filtered: str = ""  # the rule of `data.filters` that leaves it out
    columns: tuple[str, ...] | None = None  # those that it has, where some are missing
    indicators: Mapping[str, str] | None = None  # cells of columns of 0 and 1
    content: int | None = None  # a hash; None: the row is not kept
    shown: str = ""  # what it is known by in messages
    target: str = ""
    answers: Sequence[str] = ()
    group: int | None = None
    time: float | None = None
    given: int | None = None


def check_rows(
    lines: Iterable[Line], data: DataConfig, task: Task, place: Callable[[int], tuple[str, int]] | None = None
) -> Report:  # fmt: skip
    """Looks at every row once; `place` says which file and line a row's number is.

    Raises:
        DataError: a column is missing, or there is no row.
    """
    return collected(check_each(lines, data, task), data, task, place)


def check_each(lines: Iterable[Line], data: DataConfig, task: Task) -> Iterator[Checked]:
    """Yields what each row says by itself: a function of the row alone, so that it does not matter who looks at which rows."""
    needed = _needed(data)
    several = [data.columns[role] for role, how in roles_of(task).items() if how.indicators and role in data.columns]
    indicators = [column for given in several if not isinstance(given, str) for column in given]
    for line in lines:
        if not needed <= line.row.keys():
            yield Checked(line.number, columns=tuple(line.row))
            continue
        given = ((rule, str(as_text(line.row[rule.column]))) for rule in data.filters)
        reason = next((f"{rule.column}={value}" for rule, value in given if value in rule.drop), None)
        if reason:
            yield Checked(line.number, filtered=reason)
            continue
        found = _check_row(line.number, role_values(line.row, data.columns, task), data, task)
        if indicators:
            found = found._replace(indicators={column: str(as_text(line.row[column])).strip() for column in indicators})
        yield found


def collected(
    rows: Iterable[Checked], data: DataConfig, task: Task, place: Callable[[int], tuple[str, int]] | None = None
) -> Report:  # fmt: skip
    """Puts together what rows say by themselves, in their order, and finds those that are there twice.

    Raises:
        DataError: a column is missing, or there is no row.
    """
    report = Report(file=data.name, place=place)
    needed = _needed(data)
    for row in rows:
        if not report.rows and row.columns is not None:
            _require_columns(row.columns, data)
        report.rows += 1
        if row.columns is not None:
            report.problems += _holes(row.number, row.columns, needed)
        elif row.filtered:
            report.filter_out(row.number, row.filtered)
        else:
            if row.indicators is not None:
                report.add_indicators(row.indicators)
            _collect(row, data, task, report)
    if not report.rows:
        raise DataError(f"{data.name}: holds no rows; put your rows into it")
    report.kept.complete()
    return report


def _needed(data: DataConfig) -> set[str]:
    return {column for _, column in named_columns(data.columns)} | {rule.column for rule in data.filters}


def _check_row(number: int, values: Values, data: DataConfig, task: Task) -> Checked:
    """Returns what is wrong with a row, and, if it may be kept, what it is compared by."""
    found = [_problem(number, values[role], kind, role, remedy, data) for kind, role, remedy in _problems(values, data, task)]
    if not all(each.severity in KEPT for each in found):
        return Checked(number, found)
    role, seed = main_role(task), data.split.seed
    return Checked(
        number,
        found,
        content=hashed(normalise(task.content(values)), seed),
        shown=_joined(values[role]),
        target=_target_of(values, task),
        answers=task.answers(values),
        group=hashed(str(values["group"]), seed) if "group" in values else None,
        time=time_of(str(values["time"])) or 0.0 if "time" in values else None,
        given=given_split(str(values["split"])) or 0 if "split" in values else None,
    )


def _problems(values: Values, data: DataConfig, task: Task) -> Iterator[Found]:
    found = [*problems_of(values, task, data.labels)]
    yield from found or _stand_ins(values, data.labels)
    yield from _split_problems(values, data)
    yield from _unseen(values, task)


def _problem(number: int, value: Any, kind: str, role: str, remedy: str, data: DataConfig) -> Problem:
    severity = getattr(data.checks, kind, "error")
    column = _joined(data.columns[role])
    return Problem(kind=kind, severity=severity, line=number, column=column, value=_joined(value), remedy=remedy)


def _joined(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _collect(row: Checked, data: DataConfig, task: Task, report: Report) -> None:
    """Adds what is wrong with a row to the report, and the row to those that are kept, if it is."""
    found = row.problems
    if row.content is not None:
        role = main_role(task)
        repeats = [
            _problem(row.number, row.shown, kind, role, remedy, data)
            for kind, remedy in _repeats(row.content, row, task, report)
        ]
        if all(each.severity in KEPT for each in repeats):
            report.keep(row.number, row.content, row.target, row.answers, (row.group, row.time, row.given))
        found = [*found, *repeats] if repeats else found
    if found:
        report.add(found)


def split_key(values: Values, task: Task) -> str:
    """Returns what decides a row's split: its group where there is one, else its normalised content."""
    return str(values["group"]) if "group" in values else normalise(task.content(values))


def _split_problems(values: Values, data: DataConfig) -> Iterator[Found]:
    """Yields why a row cannot be put into a split, where a column says which."""
    if "split" in values and given_split(str(values["split"])) is None:
        yield "unknown_split", "split", f"names no split; write one of {listed(GIVEN)}"
    if data.split_by == "time" and time_of(str(values["time"])) is None:
        yield "bad_time", "time", "is no date or time; write it as 2024-03-31 or 2024-03-31T18:30, or as a number"


def _unseen(values: Values, task: Task) -> Iterator[Found]:
    """Yields texts with control characters, or characters that nobody sees."""
    for role, how in task.input_roles.items():
        value = values.get(role)
        if how.needed and isinstance(value, str) and not value.isprintable():
            names = unseen_characters(value)
            if names:
                yield (
                    "control_character",
                    role,
                    f"holds {listed(names)}, which nobody sees; remove them where they are no part of it",
                )


def _require_columns(have: Sequence[str], data: DataConfig) -> None:
    needed = [(f"data.columns.{role}", column) for role, column in named_columns(data.columns)]
    needed += [("data.filters", rule.column) for rule in data.filters]
    cut = ""
    if len(have) == 1:  # nothing divided the header
        cut = (
            "; a .tsv is divided by tabs: call it .csv to set data.delimiter"
            if data.name.endswith(".tsv")
            else " or data.delimiter"
        )
    if [*have] == ["file", "folder"]:
        cut += "; it is a folder of images, for task: image_classification and columns: {image: file, label: folder}"
    table = data.format == "csv" or Path(data.name).suffix.lower() in (".csv", ".tsv")
    likely = table and any(len(column) > LONG_NAME or NUMBER.fullmatch(column) for column in have)
    if likely or (table and not any(column in have or did_you_mean(column, have) for _, column in needed)):
        cut += "; if the first line is a row already, write a line of column names above it"
    names = listed(map(visible, have))
    problems = [
        f"{data.name}: has no column {column!r} ({key}){did_you_mean(column, have)}; it has: {names}; correct {key}{cut}"
        for key, column in needed
        if column not in have
    ]
    if problems:
        raise DataError("\n".join(problems))


def _holes(number: int, have: Sequence[str], needed: set[str]) -> Iterator[Problem]:
    remedy = f"is not in this row, which has: {listed(have)}; write it, as null where there is nothing to say"
    for column in sorted(needed - {*have}):
        yield Problem(kind="missing_column", severity="error", line=number, column=column, value="", remedy=remedy)


def _stand_ins(values: Values, labels: Sequence[str] | None) -> Iterator[Found]:
    """Yields texts and labels that stand for something else; names in `data.labels` are what they are."""
    for role, value in values.items():
        for each in value if isinstance(value, list) and role in ("label", "labels") else [value]:
            found = stand_in(each) if isinstance(each, str) and each not in (labels or ()) else None
            if found:
                yield found[0], role, found[1]


def _target(value: Any, role: str, task: Task, values: Values) -> str:
    """Returns a row's answer as it is compared: labels in any order and notation are the same labels."""
    return ", ".join(sorted(task.answers(values))) if role in ("label", "labels") else str(value).strip()


def _target_of(values: Values, task: Task) -> str:
    return "; ".join(_target(values[role], role, task, values) for role in task.answer_roles if role in values)


def _repeats(content: int, row: Checked, task: Task, report: Report) -> Iterator[tuple[str, str]]:
    first = report.kept.first(content)
    if first is None:
        return
    role, line = main_role(task), report.called(report.kept.numbers[first])
    if task.several_answers and not report.kept.same_target(first, row.target):
        return
    if not report.kept.same_target(first, row.target):
        names = report.kept.answers[report.kept.kinds[first]]
        first_target = f", not {short(', '.join(names))!r}" if names else ""
        remedy = f"same {role} as row {line} but labelled {short(row.target)!r}{first_target}; correct one of them"
        yield "conflicting_labels", f"{remedy}, or set data.checks.conflicting_labels: drop"
    else:
        yield "duplicate", f"same {role} and label as row {line}; remove one, or set data.checks.duplicate: drop"
