"""Training: same inputs, same bits, however often it was cut short; the step is what the configuration says."""

from __future__ import annotations

import csv
import os
import signal
import traceback
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from torch.utils._python_dispatch import TorchDispatchMode

from finespun.errors import ConfigError, DivergedError, InterruptError, MachineError
from finespun.models.cpu import kernels
from finespun.strategies.base import Group, Tuning
from finespun.tasks.answers.one_label import OneLabel
from finespun.tasks.base import Batch
from finespun.training import fit as fit_module
from finespun.training.checkpoints import Store
from finespun.training.fit import Fitted
from finespun.training.lightning.callbacks import Saver
from helpers import ROOT
from small_run import Train, same_bits

STEPS_AN_EPOCH = 6
HEAD = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "strategy" / "head.yaml"))


class KilledError(Exception):
    """Stands for kill -9: nothing of ours is called after it."""


@pytest.fixture
def kill_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ends the process's training right after the n-th checkpoint, or lets it be (0)."""
    save = Saver.save

    def arm(saves: int) -> None:
        done = iter(range(1, 10_000))

        def save_then_die(self: Saver, trainer: Any) -> None:
            save(self, trainer)
            if next(done) == saves:
                raise KilledError

        monkeypatch.setattr(Saver, "save", save_then_die)

    return arm


def steps_recorded(folder: Path) -> list[int]:
    with (folder / "history.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["name"] == "train/loss"]


def killed_once(train: Train, kill_after: Any, folder: Path, *, saves: int, **options: Any) -> Fitted:
    """Trains until the n-th checkpoint, dies there, and trains again to the end."""
    kill_after(saves)
    with pytest.raises(KilledError):
        train(folder, **options)
    kill_after(0)
    return train(folder, **options)


def test_two_clean_runs_end_in_the_same_bits(train: Train, tmp_path: Path) -> None:
    first, second = train(tmp_path / "a"), train(tmp_path / "b")
    assert same_bits(first, second)
    assert first.best_score == second.best_score
    assert not same_bits(first, train(tmp_path / "c", seed=4))


@pytest.mark.parametrize("saves", [1, 3, 5, 6, 8, 10, 11, 15])
def test_a_killed_run_ends_in_the_same_bits(train: Train, kill_after: Any, tmp_path: Path, saves: int) -> None:
    whole = train(tmp_path / "whole")
    resumed = killed_once(train, kill_after, tmp_path / "killed", saves=saves)
    assert same_bits(whole, resumed)
    assert (whole.best_epoch, whole.best_score, whole.steps) == (resumed.best_epoch, resumed.best_score, resumed.steps)
    assert steps_recorded(tmp_path / "killed") == steps_recorded(tmp_path / "whole") == list(range(1, whole.steps + 1))


@pytest.mark.parametrize("options", [{"runtime__num_workers": 2}, {"runtime__device_batch_size": 5}])
def test_so_does_one_with_workers_or_accumulation_killed_twice(
    train: Train, kill_after: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    whole = train(tmp_path / "whole", **options)
    for saves in (2, 6):
        kill_after(saves)
        with pytest.raises(KilledError):
            train(tmp_path / "killed", **options)
    kill_after(0)
    assert same_bits(whole, train(tmp_path / "killed", **options))


def test_a_damaged_checkpoint_is_passed_over_and_the_bits_stay(
    train: Train, kill_after: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(tmp_path / "whole")
    kill_after(9)
    with pytest.raises(KilledError):
        train(tmp_path / "killed")
    newest, older, *_ = Store(tmp_path / "killed").states()
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(damaged)
    kill_after(0)
    assert same_bits(whole, train(tmp_path / "killed"))
    output = capsys.readouterr().out
    assert f"{newest}: is damaged (its sha256 is not the one written beside it)" in output
    assert f"taking up {older.name}" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_checkpoint_and_has_its_exit_code(train: Train, tmp_path: Path, number: int) -> None:
    whole = train(tmp_path / "whole", runtime__checkpoint_seconds=1e6)
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}

    def interrupt(metrics: dict[str, float], step: int) -> None:
        if "val/loss" in metrics and step == STEPS_AN_EPOCH:
            os.kill(os.getpid(), number)

    with pytest.raises(InterruptError, match="a checkpoint is saved") as caught:
        train(tmp_path / "stopped", sink=interrupt, runtime__checkpoint_seconds=1e6)
    assert {each: signal.getsignal(each) for each in handlers} == handlers, "afterwards they mean what they meant before"
    assert caught.value.exit_code == 128 + number
    assert Store(tmp_path / "stopped").states()
    assert same_bits(whole, train(tmp_path / "stopped", runtime__checkpoint_seconds=1e6))


@pytest.mark.parametrize("saves", [1, 2, 4])
def test_epochs_of_one_step_are_taken_up_too(train: Train, kill_after: Any, tmp_path: Path, saves: int) -> None:
    options: dict[str, Any] = {"trainer__batch_size": 1000, "trainer__max_epochs": 6, "trainer__ema_decay": 0.5}
    whole = train(tmp_path / "whole", **options)
    assert whole.steps == 6
    resumed = killed_once(train, kill_after, tmp_path / "killed", saves=saves, **options)
    assert same_bits(whole, resumed)
    assert (whole.best_epoch, whole.best_score) == (resumed.best_epoch, resumed.best_score)
    assert steps_recorded(tmp_path / "killed") == steps_recorded(tmp_path / "whole") == list(range(1, 7))


@pytest.mark.parametrize(("epochs", "place"), [(2, "from state-000000006.ckpt"), (1, "from the beginning")])
def test_a_signal_after_the_last_step_says_what_is_saved(train: Train, tmp_path: Path, epochs: int, place: str) -> None:
    def interrupt(metrics: dict[str, float], step: int) -> None:
        if "val/loss" in metrics and step == epochs * STEPS_AN_EPOCH:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptError, match=f"after the last step; start again to go on {place}"):
        train(tmp_path, sink=interrupt, trainer__max_epochs=epochs, runtime__checkpoint_seconds=1e6)


def test_the_step_does_not_depend_on_how_it_is_cut_up(train: Train, tmp_path: Path) -> None:
    whole = train(tmp_path / "a", dropout=0.0)
    for rows in (1, 5, 16):
        cut = train(tmp_path / f"{rows}", dropout=0.0, runtime__device_batch_size=rows)
        for ours, theirs in zip(whole.tuning.model.parameters(), cut.tuning.model.parameters(), strict=True):
            assert torch.allclose(ours, theirs, atol=2e-5)
        assert cut.steps == whole.steps


def test_the_best_epoch_is_kept_and_patience_ends_the_run(train: Train, tmp_path: Path) -> None:
    scores: dict[int, float] = {}
    fitted = train(
        tmp_path, sink=lambda metrics, step: scores.update({step: metrics["val/loss"]}) if "val/loss" in metrics else None,
        optimizer__lr=0.02, trainer__max_epochs=30, trainer__early_stopping_patience=2,
    )  # fmt: skip
    values = list(scores.values())
    assert fitted.best_score == min(values)
    assert len(values) == fitted.best_epoch + 1 + 2 < 30


def test_a_loss_that_is_not_a_number_ends_the_run(train: Train, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"train/loss is nan .*lower optimizer.lr") as caught:
        train(tmp_path, optimizer__lr=1e18, trainer__gradient_clip_norm=None, scheduler__warmup_ratio=0.0)
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("alone", [False, True], ids=["whole", "head-alone"])
def test_a_metric_that_is_never_a_number_ends_the_run(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: bool
) -> None:
    loss = OneLabel.loss

    def broken_in_validation(self: OneLabel, *told: torch.Tensor, training: bool = False) -> torch.Tensor:
        return loss(self, *told, training=training) * (1.0 if training else float("nan"))

    monkeypatch.setattr(OneLabel, "loss", broken_in_validation)
    with pytest.raises(DivergedError, match="val/loss was never a number; lower optimizer.lr or take another task.monitor"):
        train(tmp_path, strategy=HEAD, features=tmp_path / "features" if alone else None, trainer__max_epochs=1)


def test_an_optimizer_that_refuses_its_options_is_named(train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"torch.optim.SGD refuses .*Nesterov"):
        train(tmp_path, optimizer={"_target_": "torch.optim.SGD", "lr": 0.1, "nesterov": True})


def test_metrics_are_recorded_for_every_step(train: Train, tmp_path: Path) -> None:
    seen: dict[str, int] = {}

    def count(metrics: dict[str, float], step: int) -> None:
        for name in metrics:
            seen[name] = seen.get(name, 0) + 1

    fitted = train(tmp_path, sink=count)
    assert {seen[f"train/{name}"] for name in ("loss", "learning_rate", "gradient_norm")} == {fitted.steps}
    assert seen["train/samples_per_second"] >= 3
    assert {seen[f"val/{name}"] for name in ("loss", "accuracy", "f1_macro")} == {3}


def shipped(group: str) -> list[Any]:
    """The options of each file of a config group."""
    files = sorted((ROOT / "conf" / group).glob("*.yaml"))
    assert files
    return [pytest.param(OmegaConf.to_container(OmegaConf.load(file)), id=file.stem) for file in files]


@pytest.mark.parametrize("optimizer", shipped("optimizer"))
def test_each_shipped_optimizer_learns(train: Train, tmp_path: Path, optimizer: dict[str, Any]) -> None:
    losses: list[float] = []
    train(
        tmp_path, optimizer={**optimizer, "lr": max(optimizer["lr"], 2e-2)}, trainer__max_epochs=8,
        sink=lambda metrics, _step: losses.append(metrics["train/loss"]) if "train/loss" in metrics else None,
    )  # fmt: skip
    assert sum(losses[-6:]) < sum(losses[:6])


@pytest.mark.parametrize("scheduler", shipped("scheduler"))
def test_each_shipped_schedule_moves_the_rate_and_survives_a_kill(
    train: Train, kill_after: Any, tmp_path: Path, scheduler: dict[str, Any]
) -> None:
    rates: dict[int, float] = {}
    options: dict[str, Any] = {"scheduler": scheduler, "trainer__max_epochs": 4, "optimizer__lr": 0.02}
    whole = train(
        tmp_path / "whole", **options,
        sink=lambda metrics, step: rates.update({step: metrics["train/learning_rate"]}) if "train/loss" in metrics else None,
    )  # fmt: skip
    assert len({round(rate, 9) for rate in rates.values()}) > 1
    assert same_bits(whole, killed_once(train, kill_after, tmp_path / "killed", saves=9, **options))


def test_gradient_checkpointing_changes_no_result(train: Train, tmp_path: Path) -> None:
    plain = train(tmp_path / "a")
    assert same_bits(plain, train(tmp_path / "b", runtime__gradient_checkpointing=True))


def test_gradient_checkpointing_is_refused_where_a_model_has_none(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BertForSequenceClassification

    monkeypatch.setattr(BertForSequenceClassification, "supports_gradient_checkpointing", False)
    with pytest.raises(ConfigError, match="gradient_checkpointing: BertForSequenceClassification cannot .*; set it to false"):
        train(tmp_path, runtime__gradient_checkpointing=True)


@pytest.mark.parametrize("imbalance", ["class_weights", "weighted_sampling"])
def test_imbalance_is_met_and_survives_a_kill(train: Train, kill_after: Any, tmp_path: Path, imbalance: str) -> None:
    whole = train(tmp_path / "whole", trainer__imbalance=imbalance)
    assert not same_bits(whole, train(tmp_path / "other"))
    assert same_bits(whole, killed_once(train, kill_after, tmp_path / "killed", saves=7, trainer__imbalance=imbalance))


@pytest.mark.parametrize("features", [False, True], ids=["all trains", "head alone"])
def test_two_answers_to_a_row_are_made_to_agree_and_survive_a_kill(
    train: Train, kill_after: Any, tmp_path: Path, features: bool
) -> None:
    options: dict[str, Any] = {"dropout": 0.3, "trainer__r_drop": 20.0}
    if features:
        strategy = yaml.safe_load((ROOT / "conf" / "strategy" / "head.yaml").read_text())
        options |= {"strategy": strategy, "features": tmp_path / "features"}
    whole = train(tmp_path / "whole", **options)
    assert not same_bits(whole, train(tmp_path / "plain", **options | {"trainer__r_drop": None}))
    assert same_bits(whole, killed_once(train, kill_after, tmp_path / "killed", saves=9, **options))


def test_two_answers_that_cannot_differ_are_refused(train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.r_drop: what trains has no dropout"):
        train(tmp_path / "dropped", dropout=0.0, trainer__r_drop=1.0)
    strategy = yaml.safe_load((ROOT / "conf" / "strategy" / "features.yaml").read_text())
    with pytest.raises(ConfigError, match=r"trainer\.r_drop: strategy features takes no steps"):
        train(tmp_path / "solved", strategy=strategy, trainer__r_drop=1.0)


def test_looking_for_dropout_moves_no_statistics() -> None:
    class Net(torch.nn.Sequential):
        def forward(self, features: torch.Tensor) -> Any:
            return SimpleNamespace(logits=super().forward(features))

    for dropout in (0.0, 0.5):
        model = Net(torch.nn.BatchNorm1d(4), torch.nn.Dropout(dropout))
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        groups = [Group(name="all", parameters=dict(model.named_parameters()))]
        tried = Batch({"features": torch.randn(8, 4)}, torch.zeros(8), torch.arange(8), torch.ones(8), 8)
        assert fit_module._drops(Tuning(model=model, groups=groups), tried) is bool(dropout)
        assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_averaged_weights_are_what_is_validated_and_kept_and_survive_a_kill(
    train: Train, kill_after: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole", trainer__ema_decay=0.8)
    assert not same_bits(whole, train(tmp_path / "plain"))
    assert same_bits(whole, killed_once(train, kill_after, tmp_path / "killed", saves=9, trainer__ema_decay=0.8))
    scores: list[float] = []
    slow = train(  # an average that hardly moves: the model that is validated is still the first one
        tmp_path / "slow", trainer__ema_decay=0.999999, optimizer__lr=0.02,
        sink=lambda metrics, _step: scores.append(metrics["val/loss"]) if "val/loss" in metrics else None,
    )  # fmt: skip
    assert max(scores) - min(scores) < 1e-3
    assert slow.best_score == min(scores)


def test_compiling_on_request_changes_no_more_than_last_digits(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[dict[str, Any]] = []
    compile_module = torch.nn.Module.compile

    def traced_only(self: torch.nn.Module, **options: Any) -> None:
        compiled.append(options)
        compile_module(self, backend="eager", **options)  # its own backend takes a minute

    monkeypatch.setattr(torch.nn.Module, "compile", traced_only)
    quickened: list[torch.nn.Module] = []
    for name in ("drop_quickly", "quick_attention"):  # what is compiled has torch's dropout and attention
        monkeypatch.setattr(kernels, name, lambda model, *_: quickened.append(model) or nullcontext())
    plain = train(tmp_path / "plain", trainer__max_epochs=1).tuning.model.state_dict()
    assert not compiled
    assert len(quickened) == 3, "dropout of the model, then of its tried rows, and attention"
    train(tmp_path / "off", trainer__max_epochs=1, runtime__cpu_kernels=False)
    assert len(quickened) == 3
    found = train(tmp_path / "compiled", trainer__max_epochs=1, trainer__compile=True).tuning.model.state_dict()
    assert compiled == [{"dynamic": True}]
    assert len(quickened) == 3
    assert found.keys() == plain.keys()
    assert all(torch.allclose(found[name], plain[name], atol=1e-5) for name in plain)


def test_compiling_without_a_compiler_says_what_is_missing(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="trainer.compile: no-such-compiler is not there"):
        train(tmp_path / "a", trainer__compile=True)


class Waits(TorchDispatchMode):
    """Counts what would wait for a device: values taken to Python, other than by transformers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.count = 0
        for name in ("tolist", "cpu", "numpy"):
            monkeypatch.setattr(torch.Tensor, name, self.counted(getattr(torch.Tensor, name)))

    def counted(self, method: Any) -> Any:
        def count_and_call(*args: Any, **kwargs: Any) -> Any:
            self.count += self.ours()
            return method(*args, **kwargs)

        return count_and_call

    @staticmethod
    def ours() -> bool:
        names = [frame.filename for frame in reversed(traceback.extract_stack())]
        asker = next(name for name in names if name != __file__ and "site-packages/torch/" not in name)
        return "site-packages/transformers/" not in asker

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.count += self.ours()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"strategy": HEAD}], ids=["whole", "head-alone"])
def test_no_step_waits_for_the_device(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Twice the steps of an epoch wait no more often: values are taken when they are written, many steps at once."""
    found = {}
    for rows in (16, 8):  # of a step
        with monkeypatch.context() as patches, Waits(patches) as waits:
            folder = tmp_path / str(rows)
            steps = train(
                folder, features=folder / "features", trainer__max_epochs=1, trainer__batch_size=rows,
                runtime__checkpoint_seconds=1e9, **options,
            ).steps  # fmt: skip
        found[steps] = waits.count
    few, many = sorted(found)
    assert many >= 2 * few - 1
    assert found[few] > 0, "the validation's values, at least, are taken"
    assert found[many] == found[few]
