"""`dropped.parquet`: every row that is left out, with the reason; nothing disappears silently."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from finespun.data.check_report import Problem, Report
from finespun.data.sources.tables import chunks

SCHEMA = pa.schema([
    ("file", pa.string()), ("row", pa.int64()), ("reason", pa.string()), ("column", pa.string()), ("value", pa.string()),
])  # fmt: skip


def write_dropped(report: Report, path: Path) -> None:
    """Writes file, row, reason (a filter, a check, the limit), and the column and value that a check complained of."""
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for chunk in chunks(_rows(report)):
            writer.write_table(pa.Table.from_pylist(chunk, SCHEMA))


def _rows(report: Report) -> Iterator[dict[str, object]]:
    """Yields the rows in their order; the problems of each kind are in the order of their rows, and are read along."""
    told = {kind: _of_kind(report, kind) for kind in report.counts("drop")}
    waiting = {kind: next(problems, None) for kind, problems in told.items()}
    for number, reason in report.dropped:
        problem = waiting.get(reason)
        while problem is not None and problem.line < number:
            problem = waiting[reason] = next(told[reason], None)
        mine = problem if problem is not None and problem.line == number else None
        file, line = report.where(number)
        yield {
            "file": file, "row": line, "reason": reason,
            "column": mine.column if mine else None, "value": mine.value if mine else None,
        }  # fmt: skip


def _of_kind(report: Report, kind: str) -> Iterator[Problem]:
    return (each for each in report.problems if each.severity == "drop" and each.kind == kind and each.line)
