"""Encoding rows with a model's own tokenizer and writing them as Arrow files. Imports no torch and no transformers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from finespun.config.sections import DataConfig
from finespun.data.check_report import Report
from finespun.data.checks import role_values, split_key
from finespun.data.sources.tables import Line, chunks
from finespun.data.splits import SPLITS, Assigned, normalise, position, split_of
from finespun.errors import DataError, did_you_mean, listed, visible
from finespun.tasks.base import Encoder, Task, Values

Placed = tuple[int, Values, dict[str, str]]  # line number, role -> text, column of `data.slices` -> value
SLICE = "slice/"  # begins the names of columns that `data.slices` keeps


@dataclass(kw_only=True)
class Profile:
    """A small picture of what was written."""

    rows: Counter[str] = field(default_factory=Counter)
    labels: dict[str, Counter[str]] = field(default_factory=lambda: {split: Counter() for split in SPLITS})
    lengths: Counter[int] = field(default_factory=Counter)
    truncated: int = 0
    unit: str = "tokens"
    remarks: dict[str, list[str]] = field(default_factory=dict)  # what is odd about a split's answers

    def without_rows(self) -> dict[str, list[str]]:
        """Returns the labels of the data that a split has no row of, by split."""
        given = set().union(*self.labels.values())
        return {split: sorted(given - {*self.labels[split]}) for split in SPLITS}

    def plain(self, report: Report) -> dict[str, Any]:
        """Returns plain values for `profile.json`."""
        shares = _quantiles(self.lengths, (0.05, 0.5, 0.95, 1.0))
        quantiles = dict(zip(("p5", "p50", "p95", "max"), shares, strict=True))
        mean = sum(length * count for length, count in self.lengths.items()) / max(1, self.lengths.total())
        return {
            "file": report.file,
            "rows_read": report.rows,
            "rows_left_out_by_filter": dict(report.filtered),
            "rows_left_out_by_check": report.counts("drop"),
            "warnings": report.counts("warn"),
            "rows": {split: self.rows[split] for split in SPLITS},
            "labels": {split: dict(sorted(self.labels[split].items())) for split in SPLITS},
            "labels_without_rows": self.without_rows(),
            "remarks": self.remarks,
            self.unit: {"mean": mean, **quantiles, "rows_truncated": self.truncated},
        }


def _quantiles(lengths: Counter[int], shares: Sequence[float]) -> list[float]:
    """Returns quantiles as `numpy.percentile` does, of lengths that are counted."""
    values = np.array(sorted(lengths))
    ends = np.cumsum([lengths[int(value)] for value in values])
    at = [share * (ends[-1] - 1) for share in shares]
    low, high = (values[np.searchsorted(ends, side(at), side="right")] for side in (np.floor, np.ceil))
    return [float(one + (other - one) * (where % 1)) for one, other, where in zip(low, high, at, strict=True)]


class Encoded(NamedTuple):
    """Rows of one split that follow each other, as they are written, and what the profile counts of them."""

    split: str
    rows: int
    batch: pa.RecordBatch
    labels: Counter[str]
    lengths: Counter[int]
    truncated: int


def encode_splits(
    lines: Iterable[Line],
    *,
    data: DataConfig,
    task: Task,
    encoder: Encoder,
    labels: Sequence[str],
    folder: Path,
    left_out: Container[int] = (),
    assigned: Assigned | None = None,
) -> Profile:
    """Splits, encodes and writes rows as `train.arrow`, `val.arrow` and `test.arrow`.

    `assigned` says which split each row is in; without it, a hash does.

    Raises:
        DataError: a split stays empty.
    """
    encoded = encode_each(
        lines, data=data, task=task, encoder=encoder, labels=labels, left_out=left_out, assigned=assigned
    )  # fmt: skip
    return write_splits(encoded, data, task, folder)


def encode_each(
    lines: Iterable[Line], *, data: DataConfig, task: Task, encoder: Encoder, labels: Sequence[str],
    left_out: Container[int] = (), assigned: Assigned | None = None,
) -> Iterator[Encoded]:  # fmt: skip
    """Yields the rows of each split, encoded, in their order; a thread encodes while the next are read."""

    def encoded(split: str, rows: list[Placed]) -> Encoded:
        columns = task.encode([values for _, values, _ in rows], encoder, labels)
        lengths, truncated = Counter(columns["length"].to_pylist()), sum(columns.pop("truncated").to_pylist())
        source = columns.pop("source").to_numpy() if "source" in columns else slice(None)
        numbers = pa.array(np.array([number for number, _, _ in rows])[source], pa.int64())
        kept = {
            f"{SLICE}{name}": pa.array(np.array([said[name] for _, _, said in rows], dtype=object)[source], pa.string())
            for name in data.slices
        }
        batch = pa.RecordBatch.from_pydict({"row": numbers, **columns, **kept})
        counts = Counter(label for _, values, _ in rows for label in task.answers(values))
        return Encoded(split, len(rows), batch, counts, lengths, truncated)

    with ThreadPoolExecutor(1) as thread:
        waiting = None
        for split, rows in _by_split(lines, data, task, left_out, assigned):
            begun = thread.submit(encoded, split, rows)
            if waiting is not None:
                yield waiting.result()
            waiting = begun
        if waiting is not None:
            yield waiting.result()


def write_splits(encoded: Iterable[Encoded], data: DataConfig, task: Task, folder: Path) -> Profile:
    """Writes what `encode_each` yields; the files do not depend on how many rows come at once.

    Raises:
        DataError: a split stays empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    profile = Profile(unit=task.unit)
    with ExitStack() as stack:
        writers: dict[str, _Writer] = {}
        for each in encoded:
            profile.rows[each.split] += each.rows
            profile.labels[each.split].update(each.labels)
            profile.lengths.update(each.lengths)
            profile.truncated += each.truncated
            if each.split not in writers:
                file = stack.enter_context(pa.ipc.new_file(str(folder / f"{each.split}.arrow"), each.batch.schema))
                writers[each.split] = _Writer(file, task.rows_at_once)
            writers[each.split].add(each.batch)
        for writer in writers.values():
            writer.write_rest()
    _require_rows(profile, data)
    return profile


class _Writer:
    """Writes rows in batches of one size, however they come."""

    def __init__(self, file: pa.RecordBatchFileWriter, size: int) -> None:
        self.file, self.size = file, size
        self.waiting: list[pa.RecordBatch] = []
        self.rows = 0  # that wait

    def add(self, batch: pa.RecordBatch) -> None:
        self.waiting.append(batch)
        self.rows += batch.num_rows
        if self.rows >= self.size:
            rows = pa.concat_batches(self.waiting)
            whole = rows.num_rows - rows.num_rows % self.size
            for start in range(0, whole, self.size):
                self._write(rows.slice(start, self.size))
            self.waiting = [rows.slice(whole)] if whole < rows.num_rows else []
            self.rows -= whole

    def write_rest(self) -> None:
        if self.waiting:
            self._write(pa.concat_batches(self.waiting))

    def _write(self, rows: pa.RecordBatch) -> None:
        self.file.write_batch(pa.concat_batches([rows]))


def _by_split(
    lines: Iterable[Line], data: DataConfig, task: Task, left_out: Container[int], assigned: Assigned | None
) -> Iterator[tuple[str, list[Placed]]]:
    for chunk in chunks(lines, task.rows_at_once):
        parts: dict[str, list[Placed]] = {split: [] for split in SPLITS}
        for line in chunk:
            split = assigned.of(line.number) if assigned else ""
            if split is None or line.number in left_out:
                continue
            values = role_values(line.row, data.columns, task)
            split = split or split_of(split_key(values, task), data.split)
            parts[split].append((line.number, values, _slices(line, data)))
        yield from ((split, rows) for split, rows in parts.items() if rows)


def _slices(line: Line, data: DataConfig) -> dict[str, str]:
    """Returns what a row says in the columns that slices are made of.

    Raises:
        DataError: it has no such column.
    """
    missing = [name for name in data.slices if name not in line.row]
    if missing:
        near = did_you_mean(missing[0], line.row)
        raise DataError(
            f"{data.name}: data.slices: has no column {missing[0]!r}{near}; it has: {listed(map(visible, line.row))}"
        )
    return {name: str(line.row[name] or "").strip() for name in data.slices}


def beyond_limit(
    lines: Iterable[Line], data: DataConfig, task: Task, left_out: Container[int] = (), assigned: Assigned | None = None
) -> set[int]:
    """Returns the lines of training rows beyond `data.limit`.

    Rows are ranked by a hash of seed and content, so smaller limits are nested in larger ones and other splits stay whole.
    """
    if data.limit is None:
        return set()
    ranked: dict[str, list[tuple[float, int]]] = {}
    for line in lines:
        split = assigned.of(line.number) if assigned else ""
        if split not in {"", "train"} or line.number in left_out:
            continue
        values = role_values(line.row, data.columns, task)
        if split or split_of(split_key(values, task), data.split) == "train":
            group = ", ".join(sorted(set(task.answers(values)))) if data.limit.per_label else ""
            ranked.setdefault(group, []).append((position(normalise(task.content(values)), data.split.seed + 1), line.number))
    kept = data.limit.per_label or data.limit.rows
    return {number for rows in ranked.values() for _, number in sorted(rows)[kept:]}


def _require_rows(profile: Profile, data: DataConfig) -> None:
    empty = [split for split in SPLITS if not profile.rows[split]]
    if empty:
        raise DataError(
            f"{data.name}: {sum(profile.rows.values())} usable rows leave no row in the split {listed(empty)};"
            " bring more rows, raise its share in data.split, or set data.split.by: stratified, which divides few rows evenly"
        )
