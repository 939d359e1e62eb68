"""Passes on all cores make what one process makes, in its order; errors are the same, and a killed process is reported."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from itertools import islice

import pytest

from finespun.data.passes import processes
from finespun.data.sources.tables import Line
from finespun.errors import DataError, MachineError
from row_work import numbered


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SECONDS", 0.0)
    monkeypatch.setattr(processes, "MOST_ROWS", 3)


def rows(count: int, *, fails_at: int = 0) -> Iterator[Line]:
    for number in range(1, count + 1):
        if number == fails_at:
            raise DataError(f"row {number} cannot be read")
        yield Line(number, {"text": f"text {number}"})


def test_rows_come_back_in_their_order_from_other_processes() -> None:
    found = [*processes.mapped(numbered, rows(40), 2)]
    assert [(number, text) for number, text, _ in found] == [(number, f"text {number}") for number in range(1, 41)]
    assert os.getpid() not in {process for _, _, process in found}


@pytest.mark.slow
def test_the_first_error_in_the_order_of_the_rows_is_raised() -> None:
    with pytest.raises(DataError, match="row 8 is refused"):
        list(processes.mapped(partial(numbered, refused=8), rows(40, fails_at=9), 2))
    found = processes.mapped(partial(numbered, refused=10), rows(40, fails_at=9), 2)
    assert [number for number, _, _ in islice(found, 8)] == [*range(1, 9)]
    with pytest.raises(DataError, match="row 9 cannot be read"):
        next(found)


def test_a_process_that_is_killed_is_an_error_of_the_machine() -> None:
    with pytest.raises(MachineError, match="a process that worked on rows was killed .*; memory may have run out"):
        list(processes.mapped(partial(numbered, killed=5), rows(40), 2))


def test_batches_grow_on_a_machine_that_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SECONDS", 60.0)
    monkeypatch.setattr(processes, "MOST_ROWS", 16)

    def sizes(lines: Iterator[Line]) -> Iterator[int]:
        batch = list(lines)
        time.sleep(2 * processes.BATCH_SECONDS)  # others are computing
        yield len(batch)

    assert [*processes.mapped(sizes, rows(40), 2)] == [1, 2, 4, 8, 16, 9]


def test_what_ends_at_once_begins_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SECONDS", 60.0)
    assert {process for _, _, process in processes.mapped(numbered, rows(40), 2)} == {os.getpid()}


@pytest.mark.parametrize(("said", "found"), [("1", 1), ("0", None), ("many", None), ("", None)])
def test_the_share_of_a_trial_is_taken_and_nonsense_is_not(
    monkeypatch: pytest.MonkeyPatch, said: str, found: int | None
) -> None:
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    whole = processes.workers_here()
    monkeypatch.setenv("RAYON_NUM_THREADS", said)
    assert processes.workers_here() == (found or whole) > 0
