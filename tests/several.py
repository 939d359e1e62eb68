"""Several processes of one training run: what torchrun would start, without its imports.

They are forked from a server that has imported everything and computed nothing: a fork of the test's own process hangs
in OpenMP as soon as that process has computed with two threads.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["finespun.training.fit", "finespun.training.lightning.sharding", "several"])


def together(processes: int, work: Callable[[], Any], *, seconds: float = 240) -> list[Any]:
    """Returns what `work` returns in each process (something to be pickled), or the traceback of the first that failed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    packed, ends, children = _packed(work), [], []
    for rank in range(processes):
        mine, theirs = _SERVER.Pipe(duplex=False)
        children.append(_SERVER.Process(target=_child, args=(theirs, packed, rank, processes, port)))
        children[-1].start()
        theirs.close()
        ends.append(mine)
    try:
        found = [_received(end, seconds) for end in ends]
    finally:
        for child in children:
            child.kill()
            child.join()
    failed = [each for each in found if isinstance(each, str) and each.startswith("Traceback")]
    assert not failed, failed[0]
    return found


def _packed(work: Callable[[], Any]) -> bytes:
    """Returns the function and what it closes over; the modules of the tests travel by value, for nobody can import them."""
    tests = [module for name, module in list(sys.modules.items()) if name.startswith("tests.") and hasattr(module, "__file__")]
    for module in tests:
        cloudpickle.register_pickle_by_value(module)
    return bytes(cloudpickle.dumps(work))


def _received(end: Connection, seconds: float) -> Any:
    assert end.poll(seconds), f"a process is silent after {seconds} s"
    try:
        return end.recv()
    except EOFError:
        return "Traceback: ended without a word"


def _child(end: Connection, packed: bytes, rank: int, processes: int, port: int) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    faulthandler.enable(sys.__stderr__)  # of a crash in a library, the test shows the place
    try:
        end.send(cloudpickle.loads(packed)())
    except BaseException:  # noqa: BLE001  (whatever it is, the test shows it)
        end.send(traceback.format_exc())
    end.close()
    os._exit(0)
