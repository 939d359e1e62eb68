"""Events of users as rows: what a user did, in the order of time, and what came next; each row knows its split."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finespun.config.sections import SPLIT_OF_PATH, EventsConfig, Split
from finespun.data.cells import as_text, is_blank, look_alikes, number_problem
from finespun.data.sources.tables import Line
from finespun.data.splits import time_of
from finespun.errors import DataError, did_you_mean, first_of, listed, visible

MOST = 10  # problems that are shown
FEWEST = 20  # events, of which it is odd that each has a user of its own


class Events(NamedTuple):
    """Events in the order of their users and of time: (events,) each."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    times: NDArray[np.float64]
    lines: NDArray[np.int64]
    names: list[str]  # of items
    called: list[str]  # what users are called
    notes: list[str]


def sequences(lines: Iterator[Line], events: EventsConfig, split: Split, name: str) -> Iterator[Line]:
    """Yields a row for each event that is learnt to be, or must be, predicted last: `user`, `history`, `item` and its split.

    `last`: of each user the last event is of the test split, the one before it of validation, and what came before trains.
    `time`: what was before a moment trains; the first event of each user after it is of validation, after a later one of the
    test split. A history holds what was before, and nothing else.

    Raises:
        DataError: a column is missing, or a row says no user, no item or no time.
    """
    found = read_events(lines, events, name)
    ends = np.flatnonzero(np.diff(found.users, append=-1)) + 1
    starts = np.concatenate([[0], ends[:-1]])
    cuts = np.quantile(found.times, [split.train, split.train + split.val]) if events.split == "time" else None
    asked: list[tuple[int, int, str]] = []  # event, where its user's begin, split
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        targets = _last(start, end) if cuts is None else _by_time(found.times, start, end, cuts)
        asked += [(event, start, part) for event, part in targets]
    names = np.array(found.names, dtype=object)
    for event, start, part in sorted(asked, key=lambda each: found.lines[each[0]]):
        row = {
            "user": found.called[found.users[event]],
            "history": names[found.items[start:event]].tolist(),
            "item": names[found.items[event]],
            SPLIT_OF_PATH: part,
        }
        yield Line(int(found.lines[event]), row)


def _last(start: int, end: int) -> list[tuple[int, str]]:
    """Returns which events of a user are of which split; of two, none validates, and one alone trains."""
    count = end - start
    if count == 1:
        return [(start, "train")]
    test = [(end - 1, "test")]
    return [(start, "train"), *test] if count == 2 else [(end - 3, "train"), (end - 2, "val"), *test]


def _by_time(times: NDArray[np.float64], start: int, end: int, cuts: NDArray[np.float64]) -> list[tuple[int, str]]:
    first, second = (start + int(np.searchsorted(times[start:end], cut, side="left")) for cut in cuts)
    found = [(first - 1, "train")] if first > start else []
    found += [(first, "val")] if first < second else []
    return found + ([(second, "test")] if second < end else [])


def read_events(lines: Iterator[Line], events: EventsConfig, name: str) -> Events:
    """Reads all events and sorts them.

    Raises:
        DataError: as `sequences`.
    """
    columns = {
        role: str(column)
        for role, column in (("user", events.user), ("item", events.item), ("time", events.time), ("weight", events.weight))
        if column is not None
    }
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    kept: list[tuple[int, int, float, int]] = []
    problems: list[str] = []
    light = 0
    for line in lines:
        _require(line, columns, name)
        cells = {role: str(as_text(line.row[column])).strip() for role, column in columns.items()}
        wrong = [f"{name}:{line.number}: {columns[role]} {visible(cells[role])!r} {said}" for role, said in _wrong(cells)]
        problems += wrong
        if wrong:
            continue
        if "weight" in cells and events.at_least is not None and float(cells["weight"]) < events.at_least:
            light += 1
            continue
        moment = (time_of(cells["time"]) or 0.0) if "time" in cells else 0.0
        user, item = users.setdefault(cells["user"], len(users)), items.setdefault(cells["item"], len(items))
        kept.append((user, item, moment, line.number))
    _refuse(problems, name)
    _require_ids(kept, users, items, events, name)
    who, what, when, where = (np.array(column) for column in zip(*kept, strict=True))
    order = np.lexsort((where, when, who))
    notes = [
        *_notes(who, what, when, [*items]),
        *([f"{light:,} events were left out by data.events.at_least"] if light else []),
    ]
    return Events(
        who[order], what[order], when[order].astype(np.float64), where[order], [*items], [*users], notes
    )  # fmt: skip


def _require(line: Line, columns: dict[str, str], name: str) -> None:
    missing = next(((role, column) for role, column in columns.items() if column not in line.row), None)
    if missing:
        near = did_you_mean(missing[1], line.row)
        raise DataError(
            f"{name}:{line.number}: has no column {missing[1]!r} (data.events.{missing[0]}){near}; it has:"
            f" {listed(map(visible, line.row))}; correct data.events"
        )


def _wrong(cells: dict[str, str]) -> Iterator[tuple[str, str]]:
    for role in ("user", "item"):
        if is_blank(cells[role]):
            yield role, f"names no {role}; write it, or remove the row"
    if "time" in cells and time_of(cells["time"]) is None:
        yield "time", "is no date or time; write it as 2024-03-31 or 2024-03-31T18:30, or as a number"
    problem = number_problem(cells["weight"]) if "weight" in cells else None
    if problem:
        yield "weight", problem


def _refuse(problems: list[str], name: str) -> None:
    if problems:
        more = f"\nand {len(problems) - MOST:,} more" if len(problems) > MOST else ""
        raise DataError(f"{name}: events need mending before training\n" + "\n".join(problems[:MOST]) + more)


def _require_ids(kept: list[Any], users: dict[str, int], items: dict[str, int], events: EventsConfig, name: str) -> None:
    if not kept:
        raise DataError(f"{name}: holds no events; put a row into it for each, or lower data.events.at_least")
    if len(items) == 1:
        raise DataError(
            f"{name}: all events are of the item {next(iter(items))!r}; a ranking needs two; correct data.events.item"
        )
    if len(users) == len(kept):
        raise DataError(
            f"{name}: each of {len(kept):,} events has a user of its own, so there is no history; is {events.user!r} the id of"
            " a row? name the column of users in data.events.user"
        )
    if len(items) == len(kept) >= FEWEST:
        raise DataError(
            f"{name}: each of {len(kept):,} events has an item of its own, so nothing can be learnt of any; is {events.item!r}"
            " the id of a row? name the column of items in data.events.item"
        )


def _notes(
    users: NDArray[np.int64], items: NDArray[np.int64], times: NDArray[np.float64], names: list[str]
) -> Iterator[str]:  # fmt: skip
    """Yields what is odd about events, and no mistake for sure."""
    single = int((np.bincount(users) == 1).sum())
    if single:
        yield f"{single:,} of {int(users.max()) + 1:,} users have one event, which trains what comes first and tests nothing"
    later = times > time.time()
    if later.any():
        yield f"{int(later.sum()):,} events are in the future (the last at {times.max():g}); are times in milliseconds?"
    repeated = sum(count - 1 for count in Counter(zip(users.tolist(), items.tolist(), times.tolist(), strict=True)).values())
    if repeated and times.any():
        yield f"{repeated:,} events are there twice: the same user, item and time"
    alike = look_alikes(names)
    if alike:
        yield f"items that differ by case or blanks alone: {first_of([' and '.join(each) for each in alike], 3)}; are they one?"
