"""What a user did, joined to the user's row as a text: a column that any task of texts reads, the latest event first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from finespun.config.sections import HistoriesConfig
from finespun.data.cells import as_text, is_blank
from finespun.data.sources import opening, tables
from finespun.data.sources.tables import Line
from finespun.data.splits import time_of
from finespun.errors import DataError, did_you_mean, listed, visible

BETWEEN = "; "  # events
NOTHING = "no events"  # of somebody who has done nothing yet


class Done(NamedTuple):
    """An event: when, in which line, and what it says."""

    time: float
    line: int
    text: str


def with_histories(lines: Iterator[Line], histories: HistoriesConfig, name: str, project: Path) -> Iterator[Line]:
    """Yields rows with a column `history`; one that has it already is left as it is.

    Raises:
        DataError: the table of events cannot be read, or it or the rows lack a column.
    """
    events: dict[str, list[Done]] | None = None
    for line in lines:
        if line.error or histories.column in line.row:
            yield line
            continue
        events = read(histories, project) if events is None else events
        yield Line(line.number, {**line.row, histories.column: _history(line, events, histories, name)})


def read(histories: HistoriesConfig, project: Path) -> dict[str, list[Done]]:
    """Returns the events of each user, the latest first.

    Raises:
        DataError: the table cannot be read, lacks a column, or an event has no user or no time.
    """
    found: dict[str, list[Done]] = defaultdict(list)
    columns = [histories.user, *([histories.time] if histories.time is not None else []), *histories.says]
    path = histories.path if opening.is_remote(histories.path) else project / histories.path
    for line in tables.read(path, encoding=histories.encoding, delimiter=histories.delimiter):
        _require(line, map(str, columns), histories.path, "data.histories")
        user = str(as_text(line.row[str(histories.user)])).strip()
        moment = time_of(str(as_text(line.row[str(histories.time)]))) if histories.time is not None else float(line.number)
        said = " ".join(str(as_text(line.row[str(column)])) for column in histories.says).strip()
        place = f"{histories.path}:{line.number}"
        if is_blank(user):
            raise DataError(f"{place}: {histories.user} names no user; write whom the event is of, or remove the row")
        if moment is None:
            raise DataError(f"{place}: {histories.time} is no date or time; write it as 2024-03-31 or 2024-03-31T18:30")
        found[user].append(Done(moment, line.number, said))
    if not found:
        raise DataError(f"{histories.path}: holds no events; put a row into it for each")
    return {user: sorted(events, reverse=True) for user, events in found.items()}


def _history(line: Line, events: dict[str, list[Done]], histories: HistoriesConfig, name: str) -> str:
    """Returns a user's latest events, and nothing of what came after the moment that the row speaks of."""
    needed = [str(histories.of), *([str(histories.before)] if histories.before is not None else [])]
    _require(line, needed, name, "data.histories")
    mine = events.get(str(as_text(line.row[str(histories.of)])).strip(), [])
    if histories.before is not None:
        said = str(as_text(line.row[str(histories.before)]))
        moment = time_of(said)
        if moment is None:
            raise DataError(
                f"{name}:{line.number}: {histories.before} {visible(said)!r} is no date or time,"
                " so nobody knows which events came before; write it as 2024-03-31 or 2024-03-31T18:30"
            )
        mine = [event for event in mine if event.time < moment]
    return BETWEEN.join(event.text for event in mine[: histories.latest]) or NOTHING


def _require(line: Line, columns: Iterable[str], name: str, key: str) -> None:
    missing = next((column for column in columns if column not in line.row), None)
    if missing is not None:
        near = did_you_mean(missing, line.row)
        raise DataError(
            f"{name}:{line.number}: has no column {missing!r} ({key}){near}; it has: {listed(map(visible, line.row))};"
            f" correct {key}"
        )
