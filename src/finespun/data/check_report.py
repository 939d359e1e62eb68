"""What checking found: problems of rows and of the whole, counts of labels, the rows that are kept and those left out."""

from __future__ import annotations

import os
import pickle
import tempfile
import weakref
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, Any, Self

import numpy as np

from finespun.data.cells import yes_or_no
from finespun.data.row_table import RowTable

SHOWN = 5  # problems of each kind that a terminal shows
IN_MEMORY = 10_000  # problems
KEPT = ("warn", "note")  # severities of problems whose rows are kept
WHY = {  # kind of problem -> why it matters
    "empty_text": "there is nothing to learn from, or to answer",
    "unknown_label": "a label that is not listed is usually a misspelt one",
    "bad_target": "what is to be learnt cannot be read",
    "bad_image": "it cannot be decoded",
    "bad_audio": "it cannot be heard",
    "duplicate": "a row counts as often as it is there",
    "conflicting_labels": "one of them is wrong, and the model is taught both",
    "control_character": "tokenizers make other tokens of a word that looks the same",
    "leak": "scores of a split that was trained on are too good",
    "near_duplicate": "scores of a split that was nearly trained on are too good",
    "small_label": "a split without a label says nothing of it",
    "rare_label": "what no training row has is never learnt",
    "imbalance": "a model that always gives the common label looks good",
    "leakage": "the model would learn this instead of the task",
    "cut_off": "what is cut off is not read",
    "unknown_tokens": "the model sees one and the same token for all of them",
    "lookalike_label": "they are learnt as different labels",
    "joined_labels": "each combination is learnt as a label of its own",
    "blank_indicator": "where nothing is known, 0 is learnt",
    "no_value": "it is learnt as a text or a label",
    "bytes_as_text": "the notation is learnt with the text",
    "missing_column": "a column that is named is read of every row",
    "unknown_split": "the row belongs nowhere",
    "bad_time": "the row has no place in the order",
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong with a row, or (line 0) with the whole. `kind` is a field of `data.checks`, or always an error."""

    kind: str
    severity: str
    line: int
    column: str
    value: str
    remedy: str


def short(value: str) -> str:
    """Returns a value as a message shows it."""
    return value if len(value) <= 60 else value[:57] + "..."


class Problems:
    """Problems in the order in which they were found; of very many, those after the first lie in a file without a name."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()  # severity, kind
        self._first: list[Problem] = []
        self._more: IO[bytes] | None = None

    def __len__(self) -> int:
        return self.counts.total()

    def __iter__(self) -> Iterator[Problem]:
        yield from self._first
        place = 0
        while self._more is not None and len(self._first) < len(self):
            self._more.seek(place)
            try:
                problem = pickle.load(self._more)  # noqa: S301  (we wrote it)
            except EOFError:
                return
            place = self._more.tell()
            yield problem

    def __iadd__(self, problems: Iterable[Problem]) -> Self:
        for problem in problems:
            self.append(problem)
        return self

    def append(self, problem: Problem) -> None:
        """Takes a problem."""
        self.counts[problem.severity, problem.kind] += 1
        if len(self._first) < IN_MEMORY:
            self._first.append(problem)
            return
        if self._more is None:
            self._more = tempfile.TemporaryFile()  # noqa: SIM115  (it goes with us)
            weakref.finalize(self, self._more.close)
        self._more.seek(0, os.SEEK_END)
        pickle.dump(problem, self._more)


@dataclass(kw_only=True)
class LeftOut:
    """Rows that are left out, by reason: nothing disappears without being listed."""

    numbers: array[int] = field(default_factory=lambda: array("I"))
    reasons: array[int] = field(default_factory=lambda: array("H"))
    names: list[str] = field(default_factory=list)

    def add(self, number: int, reason: str) -> None:
        """Takes a row."""
        if reason not in self.names:
            self.names.append(reason)
        self.numbers.append(number)
        self.reasons.append(self.names.index(reason))

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """Yields rows with the reason, in the order of the rows."""
        order = np.argsort(np.frombuffer(self.numbers, np.uint32), kind="stable")
        return ((self.numbers[place], self.names[self.reasons[place]]) for place in order)


@dataclass(kw_only=True)
class Report:
    """What checking found: counts of all, the problems, and the rows that are kept."""

    file: str
    place: Callable[[int], tuple[str, int]] | None = None  # a row's number -> its file and line; None: there is one file
    rows: int = 0
    filtered: Counter[str] = field(default_factory=Counter)
    problems: Problems = field(default_factory=Problems)
    dropped: LeftOut = field(default_factory=LeftOut)
    kept: RowTable = field(default_factory=RowTable)
    answers: Counter[str] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)  # the line where a label is first seen
    blanks: Counter[str] = field(default_factory=Counter)  # empty cells of columns of 0 and 1
    noes: Counter[str] = field(default_factory=Counter)  # their cells that say 0

    def where(self, number: int) -> tuple[str, int]:
        """Returns the file and line of a row."""
        return self.place(number) if self.place and number else (self.file, number)

    def called(self, number: int) -> str:
        """Returns what messages call a row: its line, and its file where there are several."""
        file, line = self.where(number)
        return f"{line}" if file == self.file else f"{line} of {file}"

    @property
    def left_out(self) -> set[int]:
        """Rows that a filter or a check leaves out."""
        return {*self.dropped.numbers}

    def filter_out(self, line: int, reason: str) -> None:
        """Counts and leaves out a row."""
        self.filtered[reason] += 1
        self.dropped.add(line, f"filter {reason}")

    def add(self, problems: Sequence[Problem]) -> None:
        """Takes the problems of one row, which may leave it out."""
        self.problems += problems
        drop = next((each for each in problems if each.severity == "drop"), None)
        if drop:
            self.dropped.add(drop.line, drop.kind)

    def say(self, kind: str, severity: str, remedy: str) -> None:
        """Takes something wrong with the whole."""
        self.problems.append(Problem(kind=kind, severity=severity, line=0, column="", value="", remedy=remedy))

    def keep(
        self, line: int, content: int, target: str, answers: Sequence[str],
        split: tuple[int | None, float | None, int | None],
    ) -> None:  # fmt: skip
        """Takes a row that is kept; `split` are its group, its time and the split that it names, where the data have them."""
        group, time, given = split
        self.kept.add(line, content=content, target=target, answers=answers)
        if group is not None:
            self.kept.keys.append(group)
        if time is not None:
            self.kept.times.append(time)
        if given is not None:
            self.kept.given.append(given)
        self.answers.update(answers)
        for answer in answers:
            self.first.setdefault(answer, line)

    def add_indicators(self, cells: Mapping[str, str]) -> None:
        """Counts what says no in columns of 0 and 1: nothing at all, or a 0."""
        self.blanks.update(column for column, cell in cells.items() if not cell)
        self.noes.update(column for column, cell in cells.items() if cell and yes_or_no(cell) is False)

    def counts(self, severity: str) -> dict[str, int]:
        """Returns the number of problems by kind."""
        return {kind: count for (mine, kind), count in self.problems.counts.items() if mine == severity}

    def text(self, severity: str) -> str:
        """Returns the problems of one severity for a terminal, a few of each kind."""
        counts = self.counts(severity)
        rows: dict[str, list[Problem]] = {kind: [] for kind in counts}
        whole: dict[str, list[str]] = {kind: [] for kind in counts}
        for each in self.problems if counts else ():
            if each.severity == severity and not each.line:
                whole[each.kind].append(each.remedy)
            elif each.severity == severity and len(rows[each.kind]) < SHOWN:
                rows[each.kind].append(each)
        lines = []
        for kind, count in counts.items():
            lines += [*whole[kind], *self._listed(kind, rows[kind], count - len(whole[kind]))]
            if count > SHOWN:
                lines.append(f"  ... and {count - SHOWN} more")
        return "\n".join(lines)

    def plain(self) -> dict[str, Any]:
        """Returns plain values for JSON: all problems, each with why it matters."""
        problems = []
        for each in self.problems:
            file, line = self.where(each.line)
            problems.append({"file": file, **asdict(each), "line": line, "why": WHY.get(each.kind, "")})
        return {
            "file": self.file,
            "rows": self.rows,
            "kept": len(self.kept),
            "left_out": dict(Counter(reason for _, reason in self.dropped)),
            "labels": dict(self.answers.most_common()),
            "counts": {severity: self.counts(severity) for severity in ("error", "warn", "note", "drop")},
            "problems": problems,
        }

    def _listed(self, kind: str, first: Sequence[Problem], count: int) -> list[str]:
        """Returns a line for problems of rows with their number, then each of the first."""
        why = f" ({WHY[kind]})" if kind in WHY else ""
        head = [f"{kind.replace('_', ' ')}: {count} row{'s' if count != 1 else ''}{why}"] if count else []
        return [*head, *map(self._line, first)]

    def _line(self, problem: Problem) -> str:
        file, line = self.where(problem.line)
        return f"  {file}:{line}: {problem.column} {short(problem.value)!r}: {problem.remedy}"
