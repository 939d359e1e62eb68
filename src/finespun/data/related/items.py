"""The items of a ranking: the rows of `data.items`, checked, and the table of all items that `prepare` writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from finespun.config.sections import DataConfig, ItemsConfig
from finespun.data.cells import as_text, is_blank
from finespun.data.checks import named_columns
from finespun.data.prepared import ITEMS, PreparedData
from finespun.data.sources.source import Source
from finespun.data.splits import SPLITS
from finespun.errors import DataError, did_you_mean, listed, visible
from finespun.tasks.base import Encoder, Task

BETWEEN = ", "  # texts of several columns
MOST = 10  # problems that are shown


def source_of(items: ItemsConfig, project: Path) -> Source:
    """Returns the table of items as a source of rows."""
    given = items.model_dump(include={"path", "columns", "format", "delimiter", "encoding"})
    return Source(DataConfig.model_validate(given), project)


def item_rows(items: ItemsConfig, project: Path) -> Iterator[dict[str, str]]:
    """Yields role -> text of each item; texts of several columns are joined.

    Raises:
        DataError: the table cannot be read, lacks a column, or holds items without a name or text, or one twice.
    """
    source = source_of(items, project)
    named, first = named_columns(items.columns), dict[str, int]()
    problems: list[str] = []
    for line in source():
        missing = next(((role, column) for role, column in named if column not in line.row), None)
        if missing:
            near = did_you_mean(missing[1], line.row)
            raise DataError(
                f"{items.path}:{line.number}: has no column {missing[1]!r} (data.items.columns.{missing[0]}){near}; it has:"
                f" {listed(map(visible, line.row))}; correct data.items.columns"
            )
        values = {role: _joined(line.row, columns) for role, columns in items.columns.items()}
        problems += [f"{items.path}:{line.number}: {problem}" for problem in _problems(values, items, first, line.number)]
        yield values
    if not first and not problems:
        raise DataError(f"{items.path}: holds no items; put a row into it for each item")
    if problems:
        more = f"\nand {len(problems) - MOST:,} more" if len(problems) > MOST else ""
        raise DataError("data.items: rows need mending before training\n" + "\n".join(problems[:MOST]) + more)


def _joined(row: dict[str, Any], columns: str | Sequence[str]) -> str:
    given = [columns] if isinstance(columns, str) else columns
    texts = [as_text(row[column]) for column in given]
    return BETWEEN.join(", ".join(map(str, text)) if isinstance(text, list) else str(text) for text in texts if text)


def _problems(values: dict[str, str], items: ItemsConfig, first: dict[str, int], number: int) -> Iterator[str]:
    for role, text in values.items():
        if is_blank(text):
            named = items.columns[role]
            yield (
                f"{listed([named] if isinstance(named, str) else named)} is empty; write the item's {role}, or remove the row"
            )
    name = values.get("item", values.get("text", ""))
    if name in first and not is_blank(name):
        yield f"is {name[:60]!r} once more (row {first[name]:,}); name each item once"
    first.setdefault(name, number)


def item_names(source: Source) -> list[str]:
    """Returns the names of all items, each once: those of `data.items`, then others in the order of the rows' histories."""
    items = source.declared.items
    listed_items = [row["item"] for row in item_rows(items, source.project)] if items else []
    done = (name for line in source() for name in (*line.row["history"], line.row["item"]))
    found = dict.fromkeys([*listed_items, *done])
    unknown = len(found) - len(listed_items)
    if items and unknown:
        print(f"warning: {unknown:,} of {len(found):,} items of events are not in {items.path}: nothing is known of them")  # noqa: T201
    return [*found]


def write_items(task: Task, encoder: Encoder, source: Source, labels: Sequence[str], prepared: PreparedData) -> None:
    """Writes the items that a task ranks; of another task, a table without rows.

    Raises:
        DataError: there is nothing to rank.
    """
    table = pa.table({"row": pa.array([], pa.int64())})
    if task.ranks:
        items = source.declared.items
        more = list(item_rows(items, source.project)) if items else []
        table = task.items([prepared.open(split) for split in SPLITS], more, encoder, labels)
        if table.num_rows <= 1:
            raise DataError(f"{source.declared.name}: names {table.num_rows} item, and a ranking needs two; bring more rows")
    with pa.OSFile(str(prepared.path(ITEMS)), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=task.rows_at_once)
