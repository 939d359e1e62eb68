"""Passes on this machine, with bars in a terminal; what any kind of pass can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from tqdm import tqdm

from finespun.data.passes import processes
from finespun.data.sources.source import Source
from finespun.data.sources.tables import Line

SECONDS = 1.0
T = TypeVar("T")


class Rows(Protocol):
    """All rows, gone through as often as is asked for."""

    def map(self, function: Callable[[Iterator[Line]], Iterator[T]], what: str = "") -> Iterator[T]:
        """Yields what a function makes of the rows, in their order.

        Args:
            function: is given some rows that follow each other; what it makes of a row is a function of that row.
            what: names the pass in its bar.
        """

    def place(self, number: int) -> tuple[str, int]:
        """Returns the file and line of a row."""


class RowsHere:
    """A source whose passes show how many rows they have read, where one takes over a second; all cores work on those."""

    def __init__(self, source: Source, *, bars: bool = False) -> None:
        self.source, self.disable = source, None if bars else True  # None: where there is no terminal
        self.place = source.place

    def map(self, function: Callable[[Iterator[Line]], Iterator[T]], what: str = "") -> Iterator[T]:
        """Yields what the function makes of all rows; a pass without a name is a short look, and is taken by this process."""
        if not what:
            return function(self.source())
        bar = tqdm(self.source(), desc=what, unit=" rows", delay=SECONDS, disable=self.disable, leave=False)
        return processes.mapped(function, iter(bar), processes.workers_here())
