"""System metrics: sampled while a run trains, by MLflow's names, only where the setting asks for it."""

from __future__ import annotations

import time
from typing import Any

from finespun.tracking.system_metrics import sample, watched
from small_run import small_config


class Kept:
    """A run that keeps what is logged."""

    def __init__(self, recorded: dict[str, set[int]]) -> None:
        self.outbox: Any = type("Outbox", (), {"recorded": recorded})
        self.points: list[tuple[int, dict[str, float]]] = []

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.points.append((step, metrics))


def test_nothing_is_sampled_unless_asked_for() -> None:
    kept: Any = Kept({})
    with watched(kept, small_config().runtime, every=0.001):
        time.sleep(0.02)
    assert kept.points == []


def test_samples_go_on_counting_where_an_earlier_process_stopped() -> None:
    kept: Any = Kept({"system/cpu_utilization_percentage": {0, 1, 2}})
    with watched(kept, small_config(runtime__system_metrics=True).runtime, every=0.01):
        time.sleep(0.05)
    assert len(kept.points) >= 2, "one at least while it runs, and one at the end"
    assert [step for step, _ in kept.points] == list(range(3, 3 + len(kept.points)))


def test_a_sample_has_plausible_numbers_under_mlflows_prefix() -> None:
    found = sample()
    assert all(name.startswith("system/") for name in found)
    assert 0 < found["system/system_memory_usage_percentage"] <= 100
    assert found["system/process_memory_usage_megabytes"] > 1
