"""What the machine does while a run trains: MLflow shows it on a page of its own (`runtime.system_metrics: true`)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import psutil

from finespun.config.sections import RuntimeConfig
from finespun.tracking.client import Run

EVERY_SECONDS = 5.0
MEGABYTE = 1e6


@contextmanager
def watched(run: Run, runtime: RuntimeConfig, *, every: float = EVERY_SECONDS) -> Iterator[None]:
    """Logs the use of processors, memory and disk inside the context, if the setting asks for it."""
    if not (runtime.system_metrics and runtime.tracking):
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(run, ended, every), name="system metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _watch(run: Run, ended: threading.Event, every: float) -> None:
    taken = run.outbox.recorded.get("system/cpu_utilization_percentage", set())
    step = max(taken, default=-1) + 1  # a run that is taken up goes on counting
    psutil.cpu_percent()  # the first call says nothing: it begins to count
    while True:
        stop = ended.wait(every)
        run.log(sample(), step)
        step += 1
        if stop:
            return


def sample() -> Mapping[str, float]:
    """Returns what the machine uses now, by MLflow's own names."""
    memory, disk = psutil.virtual_memory(), psutil.disk_usage("/")
    found = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / MEGABYTE,
        "system/system_memory_usage_percentage": memory.percent,
        "system/process_memory_usage_megabytes": psutil.Process().memory_info().rss / MEGABYTE,
        "system/disk_usage_percentage": disk.percent,
    }
    return found | _gpu()


def _gpu() -> dict[str, float]:
    import torch  # noqa: PLC0415  (whoever trains has imported it)

    if not torch.cuda.is_available():
        return {}
    free, total = torch.cuda.mem_get_info()
    return {
        "system/gpu_0_memory_usage_megabytes": (total - free) / MEGABYTE,
        "system/gpu_0_memory_usage_percentage": 100 * (total - free) / total,
    }
