"""`dropped.parquet`: every row that is left out, with the reason; nothing disappears silently."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from finespun.data.check_report import Report
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
    found = {(each.line, each.kind): each for each in report.problems if each.severity == "drop"}
    for number, reason in sorted(report.dropped):
        file, line = report.where(number)
        problem = found.get((number, reason))
        yield {
            "file": file, "row": line, "reason": reason,
            "column": problem.column if problem else None, "value": problem.value if problem else None,
        }  # fmt: skip
