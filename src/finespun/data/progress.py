"""Progress bars of passes over rows: shown in a terminal, where a pass takes over a second."""

from __future__ import annotations

from collections.abc import Iterator

from tqdm import tqdm

from finespun.data.sources.source import Source
from finespun.data.sources.tables import Line

SECONDS = 1.0


class WithBar:
    """A source whose passes show how many rows they have read."""

    def __init__(self, source: Source, what: str, *, bars: bool) -> None:
        self.source, self.what, self.disable = source, what, None if bars else True  # None: where there is no terminal
        self.place = source.place

    def __call__(self) -> Iterator[Line]:
        """Yields all rows."""
        return iter(tqdm(self.source(), desc=self.what, unit=" rows", delay=SECONDS, disable=self.disable, leave=False))
