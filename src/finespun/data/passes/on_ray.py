"""Passes over a Ray cluster, by Ray Data: each file is a shard; what is made of the rows comes back in their order.

The bits are those of one machine, because what is made of a row is a function of that row alone (`checks.check_each`,
`encode.encode_each`), and files are written here, in batches of one size.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

import finespun
from finespun.data.sources.source import Source
from finespun.data.sources.tables import Line
from finespun.errors import FinespunError, MachineError
from finespun.masking import one_line

T = TypeVar("T")
BLOCK = 4_000_000  # bytes that are sent at once
REMEDY = "look at `ray status`, or set runtime.prepare_with: local"


class RowsOnRay:
    """A source whose files are gone through by the workers of a cluster; they must be able to open them by the same names."""

    def __init__(self, source: Source) -> None:
        """Connects to the cluster that RAY_ADDRESS names, or starts one on this machine; counts the rows of each file.

        Raises:
            MachineError: Ray is not installed, or the cluster cannot be reached.
            DataError: a file cannot be read.
        """
        _connect()
        self.source, self.place = source, source.place
        _ = source.data  # found once, here
        self.starts = [0] * len(source.parts)
        ends = [*self.map(_last_number)]
        self.starts = [sum(ends[:place]) for place in range(len(ends))]
        source.starts = self.starts

    def map(self, function: Callable[[Iterator[Line]], Iterator[T]], what: str = "") -> Iterator[T]:  # noqa: ARG002  (no bar)
        """Yields what the function makes of the rows of each file, in their order.

        Raises:
            FinespunError: what the function, or reading, raised: the first in the order of the rows.
            MachineError: the cluster failed.
        """
        import ray  # noqa: PLC0415  (an extra)

        shards = ray.data.from_items(
            [{"place": place, "start": start} for place, start in enumerate(self.starts)], override_num_blocks=len(self.starts)
        )
        worked: Any = partial(_worked, source=self.source, function=function)
        blocks = shards.map_batches(worked, batch_size=1, batch_format="pyarrow")
        try:
            for block in blocks.iter_batches(batch_size=None, batch_format="pyarrow"):
                for packed in block["made"]:
                    made = pickle.loads(packed.as_py())  # noqa: S301  (of our own workers)
                    if isinstance(made, FinespunError):
                        raise made
                    yield made
        except ray.exceptions.RayError as error:
            raise MachineError(f"runtime.prepare_with: ray: the cluster failed ({one_line(error)}); {REMEDY}") from error


def _worked(shard: pa.Table, source: Source, function: Callable[[Iterator[Line]], Iterator[Any]]) -> Iterator[pa.Table]:
    """Yields blocks of what the function makes of one file; an error of the user's comes last, as what it is."""
    [row] = shard.to_pylist()
    waiting: list[bytes] = []
    size = 0
    for made in _caught(function(source.part(row["place"], row["start"]))):
        waiting.append(pickle.dumps(made))
        size += len(waiting[-1])
        if size > BLOCK:
            yield pa.table({"made": pa.array(waiting, pa.binary())})
            waiting, size = [], 0
    yield pa.table({"made": pa.array(waiting, pa.binary())})


def _caught(made: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from made
    except FinespunError as error:
        yield error


def _last_number(lines: Iterator[Line]) -> Iterator[int]:
    """Yields the number of the last row of a file: how far the next file's numbers are moved on."""
    last = 0
    for line in lines:
        last = line.number
    yield last


def _connect() -> None:
    """Connects to Ray, unless this process is; workers run the code of this process.

    Raises:
        MachineError: it is not installed, or cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: PLC0415  (an extra)
        import ray.data  # noqa: PLC0415
    except ImportError as error:
        raise MachineError(
            f"runtime.prepare_with: ray: is not installed ({one_line(error, 100)}); pip install 'finespun[ray]'"
        ) from error
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS", "")
        code = str(Path(finespun.__file__).parent)
        try:
            _knock(address)
            ray.init(
                runtime_env={"py_modules": [code]}, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
            )
        except (OSError, RuntimeError, ValueError) as error:
            where = address or "this machine"
            remedy = "correct RAY_ADDRESS, or unset it: then a cluster of this machine is started"
            raise MachineError(f"runtime.prepare_with: ray: no cluster at {where} ({one_line(error)}); {remedy}") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False


def _knock(address: str) -> None:
    """Raises an OSError where nobody listens: Ray would end this process."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()
