"""Long passes on all cores: this process reads the rows, others work on batches of them; what they make comes back in order."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from threading import Thread
from typing import Any, TypeVar

import pyarrow as pa

from finespun.cores import cores
from finespun.data.sources.tables import Line
from finespun.errors import FinespunError, MachineError
from finespun.masking import one_line

SECONDS = 1.0  # of CPU time in this process, after which starting others is worth its half second
BATCH_SECONDS = 0.05  # of CPU time in a batch: on a busy machine, by the clock, batches of one row would seem long
MOST_ROWS = 2048  # in a batch
MOST_WORKERS = 32
T = TypeVar("T")
Function = Callable[[Iterator[Line]], Iterator[T]]


def workers_here() -> int:
    """Returns how many processes of work this one may begin; 1 where it is itself one of many."""
    if multiprocessing.current_process().daemon:
        return 1  # which must have no children
    mine = cores()
    said = os.environ.get("RAYON_NUM_THREADS", "")  # a trial of a sweep has its share; as for Rayon, 0 and nonsense say nothing
    return min(mine, (int(said) if said.isdecimal() else 0) or mine, MOST_WORKERS)


def mapped(function: Function[T], lines: Iterator[Line], workers: int) -> Iterator[T]:
    """Yields what a function makes of the rows, in their order: begun here, and, if it takes long, gone on with by processes.

    Raises:
        FinespunError: what the function, or reading, raised: the first in the order of the rows.
        MachineError: a process was killed.
    """
    if workers == 1:
        yield from function(lines)
        return
    size, end = 1, time.process_time() + SECONDS
    while (began := time.process_time()) < end:
        first = next(lines, None)
        if first is None:
            return
        made = list(function(chain([first], islice(lines, size - 1))))
        if time.process_time() - began < BATCH_SECONDS:
            size = min(2 * size, MOST_ROWS)
        yield from made
    yield from _by_processes(function, lines, workers, size)


def _by_processes(function: Function[T], lines: Iterator[Line], workers: int, size: int) -> Iterator[T]:
    way = "forkserver" if sys.platform == "linux" else "spawn"
    context: Any = multiprocessing.get_context(way)
    if way == "forkserver":
        context.set_forkserver_preload([__name__, "finespun.tasks.base"])
    pool = ProcessPoolExecutor(workers, context, _begin, (pickle.dumps(function),))
    try:
        for future in _ahead(_batches(lines, size), lambda batch: pool.submit(_work, batch), workers + 1):
            yield from future.result()
    except BrokenProcessPool as error:
        remedy = "memory may have run out (look at `dmesg`); set RAYON_NUM_THREADS=1 in the environment to use one process"
        raise MachineError(f"a process that worked on rows was killed ({one_line(error)}); {remedy}") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _batches(lines: Iterator[Line], size: int) -> Iterator[list[tuple[Any, ...]]]:
    """Yields rows that follow each other; where reading fails, those before it first."""
    batch: list[tuple[Any, ...]] = []
    try:
        for line in lines:
            batch.append((line.number, line.row, line.error))
            if len(batch) == size:
                yield batch
                batch = []
    except FinespunError:
        yield batch
        raise
    yield batch


def _ahead(batches: Iterator[T], submit: Callable[[T], Future[Any]], most: int) -> Iterator[Future[Any]]:
    """Yields what was begun, in order, while at most so many more wait; an error of reading comes after what was read."""
    waiting: deque[Future[Any]] = deque()
    try:
        for batch in batches:
            waiting.append(submit(batch))
            if len(waiting) > most:
                yield waiting.popleft()
    except FinespunError:
        yield from waiting
        raise
    yield from waiting


_function: Function[Any]


def _begin(packed: bytes) -> None:
    """Begins a process of work: it ends with the one that began it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that began it
    Thread(target=_end_with_parent, daemon=True).start()
    os.environ |= dict.fromkeys(("RAYON_NUM_THREADS", "OMP_NUM_THREADS"), "1")  # each core has a process
    pa.set_memory_pool(pa.system_memory_pool())
    global _function  # noqa: PLW0603  (of this process, for all batches)
    _function = pickle.loads(packed)  # noqa: S301  (of the process that began it)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(batch: Sequence[tuple[Any, ...]]) -> list[Any]:
    return list(_function(Line(*each) for each in batch))
