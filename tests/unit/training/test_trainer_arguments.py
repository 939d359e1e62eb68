"""What YAML says to Lightning's Trainer reaches it, and killed runs still end in the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import own_callbacks
from finespun.errors import ConfigError
from finespun.training.lightning.callbacks import Saver
from small_run import Train, same_bits

OWN: dict[str, Any] = {
    "trainer__callbacks": [{"_target_": "own_callbacks.Count", "every": 2}], "runtime__allow_targets": ["own_callbacks."]
}  # fmt: skip


class KilledError(Exception):
    """Stands for kill -9."""


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ({"limit_train_batches": 2}, 6),
        ({"limit_train_batches": 0.5}, 9),
        ({"max_steps": 7}, 7),
        ({"val_check_interval": 3}, 18),
    ],
)
def test_arguments_count_in_the_schedule_and_survive_a_kill(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], steps: int
) -> None:
    rates: list[float] = []
    sink: Any = lambda metrics, _step: rates.extend(metrics.get(name) for name in ["train/learning_rate"] if name in metrics)  # noqa: E731
    whole = train(tmp_path / "whole", trainer__lightning=arguments, sink=sink)
    assert whole.steps == steps
    assert rates[-1] == pytest.approx(1e-3 / steps, rel=0.25), "the schedule ends with the run"
    save, done = Saver.save, iter(range(1, 100))

    def save_then_die(self: Saver, trainer: Any) -> None:
        save(self, trainer)
        if next(done) == 4:
            raise KilledError

    monkeypatch.setattr(Saver, "save", save_then_die)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", trainer__lightning=arguments)
    assert same_bits(whole, train(tmp_path / "killed", trainer__lightning=arguments))


def test_a_callback_of_the_users_own_runs(train: Train, tmp_path: Path) -> None:
    own_callbacks.counted.clear()
    train(tmp_path / "run", **OWN)
    assert own_callbacks.counted == [0, 2, 4] * 3


def test_the_profiler_is_shown(train: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = train(tmp_path / "plain")
    with caplog.at_level("INFO"):
        profiled = train(tmp_path / "profiled", runtime__lightning={"profiler": "simple"})
    assert same_bits(whole, profiled)
    assert "run_training_epoch" in caplog.text


def test_a_value_that_lightning_refuses_is_a_problem_of_the_configuration(train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="limit_train_batches"):
        train(tmp_path / "run", trainer__lightning={"limit_train_batches": -3})
