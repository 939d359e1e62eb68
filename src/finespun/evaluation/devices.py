"""Answering on several devices: rank zero reads and writes, each device answers a chunk of rows at a time.

The chunks are those of one device, so each row is computed beside the same rows: the answers are the same, in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed as dist

from finespun.data.sources.tables import chunks
from finespun.training.lightning.heartbeat import at_rest
from finespun.training.lightning.launching import rank, world_size

Chunk = TypeVar("Chunk")
Answers = list[dict[str, Any]]
PATIENCE = timedelta(days=7)  # standard input may keep rank zero, and so all, waiting


def shared(given: Iterable[Chunk], answer: Callable[[Chunk], Answers]) -> Iterator[tuple[Chunk, Answers]]:
    """Yields each chunk with its answers, in order; for rank zero, while the others `help_rank_zero`."""
    devices = world_size()
    if devices == 1:
        yield from ((chunk, answer(chunk)) for chunk in given)
        return
    _connect()
    for together in chunks(given, devices):
        found: list[Any] = [None] * devices
        try:
            found[0] = answer(_dealt([*together, *[None] * (devices - len(together))]))
        finally:
            dist.gather_object(found[0], found)
        yield from zip(together, found, strict=False)
        at_rest()


def help_rank_zero(answer: Callable[[Any], Answers]) -> None:
    """Answers what rank zero deals out, until it `releases`."""
    _connect()
    while True:
        at_rest()
        chunk = _dealt(None)
        if chunk is Ellipsis:
            return
        found: Answers | None = None
        try:
            found = answer(chunk) if chunk is not None else []
        finally:
            dist.gather_object(found, None)


def release() -> None:
    """Lets the others end, on rank zero; those that have ended, with or without an error, are not waited for."""
    if dist.is_initialized() and rank() == 0:
        with suppress(RuntimeError):
            _dealt([...] * world_size())


def _connect() -> None:
    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=PATIENCE)


def _dealt(given: list[Any] | None) -> Any:
    """Returns this process's part of what rank zero deals out."""
    mine = [None]
    dist.scatter_object_list(mine, given)
    return mine[0]
