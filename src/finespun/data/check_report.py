"""What checking found: problems, each of a row, and counts of labels and of what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from finespun.data.cells import as_text, yes_or_no
from finespun.data.sources.tables import Row

SHOWN = 5  # problems of each kind that a terminal shows


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One wrong row. `kind` is a field of the section `data.checks`, or what is an error whatever that section says."""

    kind: str
    severity: str
    line: int
    column: str
    value: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.line}: {self.column} {short(self.value)!r}: {self.remedy}"


def short(value: str) -> str:
    """Returns a value as a message shows it."""
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
    lines: dict[str, list[int]] = field(default_factory=dict)  # of the labels that no training row has
    first: dict[str, int] = field(default_factory=dict)  # the line where a label is first seen
    keys: dict[str, str] = field(default_factory=dict)  # of each label, what decides the split of its first row
    in_train: set[str] = field(default_factory=set)
    blanks: Counter[str] = field(default_factory=Counter)  # empty cells of columns of 0 and 1
    noes: Counter[str] = field(default_factory=Counter)  # their cells that say 0

    def add_answers(self, line: int, answers: Sequence[str], key: str, split: str) -> None:
        """Counts the labels of a row that falls into `split` by its `key`."""
        self.answers.update(answers)
        for answer in answers:
            self.first.setdefault(answer, line)
            self.keys.setdefault(answer, key)
            if split == "train":
                self.in_train.add(answer)
                self.lines.pop(answer, None)
            elif answer not in self.in_train:
                self.lines.setdefault(answer, []).append(line)

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
            lines.append(f"{kind.replace('_', ' ')}: {count} row{'s' if count != 1 else ''}")
            lines += [f"  {self.file}:{problem}" for problem in mine[:SHOWN]]
            if count > SHOWN:
                lines.append(f"  ... and {count - SHOWN} more")
        return "\n".join(lines)
