"""What checking found: problems of rows and of the whole, counts of labels, the rows that are kept and those left out."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from finespun.data.cells import as_text, yes_or_no
from finespun.data.row_table import RowTable
from finespun.data.sources.tables import Row

SHOWN = 5  # problems of each kind that a terminal shows
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
        return ((number, self.names[reason]) for number, reason in zip(self.numbers, self.reasons, strict=True))


@dataclass(kw_only=True)
class Report:
    """What checking found: counts of all, the problems, and the rows that are kept."""

    file: str
    place: Callable[[int], tuple[str, int]] | None = None  # a row's number -> its file and line; None: there is one file
    rows: int = 0
    filtered: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
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

    def count_answers(self, line: int, answers: Sequence[str]) -> None:
        """Counts the labels of a row that is kept."""
        self.answers.update(answers)
        for answer in answers:
            self.first.setdefault(answer, line)

    def add_indicators(self, row: Row, columns: Sequence[str]) -> None:
        """Counts what says no in columns of 0 and 1: nothing at all, or a 0."""
        said = {column: str(as_text(row[column])).strip() for column in columns}
        self.blanks.update(column for column, cell in said.items() if not cell)
        self.noes.update(column for column, cell in said.items() if cell and yes_or_no(cell) is False)

    def counts(self, severity: str) -> dict[str, int]:
        """Returns the number of problems by kind."""
        return dict(Counter(p.kind for p in self.problems if p.severity == severity))

    def text(self, severity: str) -> str:
        """Returns the problems of one severity for a terminal, a few of each kind."""
        lines = []
        for kind, count in self.counts(severity).items():
            mine = [p for p in self.problems if p.kind == kind and p.severity == severity]
            why = f" ({WHY[kind]})" if kind in WHY else ""
            lines += self._listed(kind.replace("_", " "), mine, why)
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

    def _listed(self, name: str, problems: Sequence[Problem], why: str) -> list[str]:
        """Returns a line for problems of rows with their number, then each of the first; others stand by themselves."""
        rows = [each for each in problems if each.line]
        head = [f"{name}: {len(rows)} row{'s' if len(rows) != 1 else ''}{why}"] if rows else []
        whole = [each.remedy for each in problems if not each.line]
        return [*whole, *head, *map(self._line, rows[:SHOWN])]

    def _line(self, problem: Problem) -> str:
        file, line = self.where(problem.line)
        return f"  {file}:{line}: {problem.column} {short(problem.value)!r}: {problem.remedy}"
