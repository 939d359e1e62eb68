"""Work on rows for other processes, which import it by its name."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

from finespun.data.sources.tables import Line
from finespun.errors import DataError


def numbered(lines: Iterator[Line], *, refused: int = 0, killed: int = 0) -> Iterator[tuple[int, str, int]]:
    """Yields number, text and process of rows; refuses a row, or is killed by one."""
    for line in lines:
        if line.number == refused:
            raise DataError(f"row {refused} is refused")
        if line.number == killed:
            os.kill(os.getpid(), signal.SIGKILL)
        yield line.number, line.row["text"], os.getpid()
