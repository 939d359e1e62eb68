"""FSDP2 on CPU processes: the numbers of one device, whatever holds the shards, and checkpoints that any of them takes up."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from omegaconf import OmegaConf
from torch import nn

from finespun.errors import ConfigError
from finespun.strategies.base import Group, Tuning
from finespun.training.checkpoints import Store
from finespun.training.lightning.callbacks import Saver
from finespun.training.lightning.devices import choose
from finespun.training.lightning.launching import rank
from finespun.training.lightning.sharding import Shards, from_rank_zero, whole
from helpers import ROOT
from several import together
from small_models import Scaled, Tied
from small_run import STEADY, Train, small_config

RUN = {"dropout": 0.0, "trainer__batch_size": 15, "trainer__max_epochs": 3, "runtime__checkpoint_seconds": 1e6, **STEADY}
CLOSE = 1e-5
OPTIMIZERS = ("SGD", "Adam", "RMSprop", "NAdam", "RAdam", "Adagrad", "Adamax", "Adadelta", "ASGD")
SLOW = pytest.mark.slow
PLATEAU = {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"}


def strategy(name: str) -> Any:
    return OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "strategy" / f"{name}.yaml"))


def optimizer(name: str) -> dict[str, Any]:
    return {"_target_": f"torch.optim.{name}", "lr": 1e-3}


def curve(folder: Path, *names: str) -> dict[tuple[str, int], float]:
    """What was recorded of each step."""
    names = names or ("train/loss", "train/gradient_norm", "val/loss", "val/accuracy")
    with (folder / "history.csv").open() as file:
        return {(row["name"], int(row["step"])): float(row["value"]) for row in csv.DictReader(file) if row["name"] in names}


def trained(
    train: Train, folder: Path, processes: int, kind: str, *, die_after: int | None = None, **changes: Any
) -> dict[str, Any]:
    """Trains on so many devices and returns what rank zero has in the end: weights by name, and the best epoch.

    With `die_after`, each process dies after so many checkpoints.
    """
    options = {**RUN, "runtime__devices": processes, "runtime__strategy": kind, **changes}

    def work() -> Any:
        with dying_after(die_after):
            fitted = train(folder, **options)
        state = {name: tensor.numpy() for name, tensor in fitted.tuning.model.state_dict().items() if not tensor.is_meta}
        trains = [group.from_epoch for group in fitted.tuning.groups]
        return None if rank() and kind == "fsdp" else {**state, "best": fitted.best_epoch, "groups": trains}

    return work() if processes == 1 else together(processes, work)[0]


@contextmanager
def dying_after(checkpoints: int | None) -> Iterator[None]:
    save, done = Saver.save, itertools.count(1)

    def save_then_die(self: Saver, trainer: Any) -> None:
        save(self, trainer)
        if next(done) == checkpoints:
            raise KeyError("killed")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Saver, "save", save_then_die)
        yield


def same(one: dict[str, Any], other: dict[str, Any], atol: float = CLOSE) -> bool:
    return one.keys() == other.keys() and all(np.allclose(one[name], other[name], atol=atol) for name in one)


def assert_same_curve(one: Path, other: Path, atol: float = CLOSE) -> None:
    ours, theirs = curve(one), curve(other)
    assert len(ours) > 40, "each step, and each epoch"
    assert ours.keys() == theirs.keys()
    far = {point: (value, theirs[point]) for point, value in ours.items() if abs(value - theirs[point]) > atol}
    assert not far


@pytest.mark.parametrize(
    ("processes", "kind"), [(2, "ddp"), (2, "fsdp"), pytest.param(4, "ddp", marks=SLOW), pytest.param(4, "fsdp", marks=SLOW)]
)
def test_several_devices_have_the_loss_curve_of_one(train: Train, tmp_path: Path, processes: int, kind: str) -> None:
    one = trained(train, tmp_path / "one", 1, "ddp")
    many = trained(train, tmp_path / "many", processes, kind)
    assert same(one, many)
    assert_same_curve(tmp_path / "one", tmp_path / "many")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"strategy": strategy("gradual")}, id="gradual"),
        pytest.param({"strategy": strategy("lora") | {"dropout": 0.0}}, id="lora"),
        pytest.param({"strategy": strategy("dora") | {"dropout": 0.0}}, id="dora", marks=SLOW),
        pytest.param({"strategy": strategy("head")}, id="head", marks=SLOW),
        pytest.param({"strategy": strategy("llrd")}, id="llrd", marks=SLOW),
        pytest.param({"runtime__device_batch_size": 3}, id="accumulation", marks=SLOW),
        pytest.param({"runtime__gradient_checkpointing": True}, id="gradient-checkpointing", marks=SLOW),
        pytest.param({"trainer__imbalance": "class_weights", "trainer__gradient_clip_norm": None}, id="no-clip", marks=SLOW),
        pytest.param({"trainer__precision": "bf16-mixed"}, id="bf16", marks=SLOW),
        pytest.param({"optimizer__fused": False, "scheduler": PLATEAU}, id="plateau", marks=SLOW),
        pytest.param({"runtime__num_workers": 1, "trainer__early_stopping_patience": 0}, id="workers", marks=SLOW),
        pytest.param({"trainer__lightning": {"limit_train_batches": 3, "limit_val_batches": 1}}, id="limits", marks=SLOW),
        pytest.param({"runtime__lightning": {"detect_anomaly": True}, "strategy": strategy("lp_ft")}, id="lp-ft", marks=SLOW),
        *(pytest.param({"optimizer": optimizer(name)}, id=name, marks=SLOW) for name in OPTIMIZERS),
    ],
)
def test_what_else_may_be_set_works_with_shards(train: Train, tmp_path: Path, changes: dict[str, Any]) -> None:
    half = changes.get("trainer__precision") == "bf16-mixed"
    one = trained(train, tmp_path / "one", 1, "ddp", **changes)
    many = trained(train, tmp_path / "many", 2, "fsdp", **changes)
    assert same(one, many, 1e-2 if half else 1e-4)
    if changes.get("strategy") != strategy("head"):  # one device would train it without Lightning, and record fewer points
        assert_same_curve(tmp_path / "one", tmp_path / "many", 2e-2 if half else 1e-4)


@pytest.mark.parametrize(
    ("first", "then", "kind"),
    [
        ((2, "ddp"), (2, "fsdp"), "gradual"),
        ((2, "fsdp"), (1, "ddp"), "full"),
        pytest.param((2, "fsdp"), (2, "fsdp"), "gradual", marks=SLOW),
        pytest.param((2, "fsdp"), (2, "ddp"), "gradual", marks=SLOW),
        pytest.param((1, "ddp"), (3, "fsdp"), "full", marks=SLOW),
        pytest.param((4, "fsdp"), (2, "fsdp"), "full", marks=SLOW),
    ],
)
def test_a_killed_run_goes_on_with_other_devices(
    train: Train, tmp_path: Path, first: tuple[int, str], then: tuple[int, str], kind: str
) -> None:
    options = {"strategy": {**strategy(kind), **({"regression_head_lr_scale": 1.0} if kind == "full" else {})}}
    options["runtime__checkpoint_seconds"] = 0.0
    whole = trained(train, tmp_path / "whole", 1, "ddp", **options)
    with pytest.raises((KeyError, AssertionError), match="killed"):
        trained(train, tmp_path / "killed", *first, die_after=10, **options)
    assert Store(tmp_path / "killed").newest()
    assert same(whole, trained(train, tmp_path / "killed", *then, **options))
    assert_same_curve(tmp_path / "whole", tmp_path / "killed")


def test_two_passes_of_a_row_with_other_dropout_work_with_shards(train: Train, tmp_path: Path) -> None:
    many = trained(train, tmp_path, 2, "fsdp", trainer__r_drop=1.0, dropout=0.1)
    assert many["best"] >= 0
    assert all(np.isfinite(list(curve(tmp_path).values())))


@pytest.mark.parametrize("name", ["Adafactor", pytest.param("Rprop", marks=SLOW)])
def test_an_optimizer_that_cannot_take_a_step_of_shards_is_refused(train: Train, tmp_path: Path, name: str) -> None:
    def work() -> str:
        options = RUN | {"runtime__devices": 2, "runtime__strategy": "fsdp", "optimizer": optimizer(name)}
        with pytest.raises(ConfigError) as found:
            train(tmp_path, **options)
        return str(found.value)

    for message in together(2, work):
        assert f"optimizer: torch.optim.{name} cannot take a step of a model in shards (aten." in message
        assert "take adamw, adam or sgd, or set runtime.strategy: ddp" in message


def config_problem(**changes: Any) -> str:
    with pytest.raises(ConfigError) as found:
        small_config(runtime__strategy="fsdp", runtime__devices=2, **changes)
    return str(found.value)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [({"trainer__ema_decay": 0.9}, {"trainer__ema_decay": None}), ({"trainer__compile": True}, {"trainer__compile": False})],
)
def test_what_needs_the_whole_model_is_refused(changes: dict[str, Any], remedy: dict[str, Any]) -> None:
    message = config_problem(**changes)
    assert "runtime.strategy is fsdp" in message
    assert "or runtime.strategy: ddp" in message
    assert small_config(runtime__strategy="fsdp", **remedy)
    assert small_config(runtime__strategy="ddp", **changes)


def test_half_precision_with_a_scaler_is_refused() -> None:
    runtime = small_config(runtime__strategy="fsdp", runtime__devices=2).runtime
    with pytest.raises(ConfigError, match="set trainer.precision: 32-true or bf16-mixed"):
        choose(runtime, "16-mixed")
    assert choose(runtime, "bf16-mixed").sharded
    assert not choose(small_config(runtime__strategy="fsdp").runtime, "16-mixed").sharded, "one device has no shards"


@pytest.mark.parametrize(
    ("model", "reason"),
    [(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), "running statistics"), (Scaled(), "has scale, a single number")],
)
def test_a_model_whose_results_shards_would_change_is_refused(model: nn.Module, reason: str) -> None:
    hardware = choose(small_config(runtime__strategy="fsdp", runtime__devices=2).runtime)

    def work() -> str:
        with pytest.raises(ConfigError) as found:
            Shards(from_rank_zero(lambda: Tuning(model=model, groups=()), hardware), hardware)
        return str(found.value)

    for message in together(2, work):
        assert reason in message
        assert "set runtime.strategy: ddp" in message


def test_rank_zero_alone_reads_and_gets_the_whole_back(tmp_path: Path) -> None:
    hardware = choose(small_config(runtime__strategy="fsdp", runtime__devices=3).runtime)

    def read() -> Tuning:
        (tmp_path / f"read-by-{rank()}").touch()
        torch.manual_seed(1)
        model = Tied()
        return Tuning(model=model, groups=[Group(name="head", parameters={"blocks.0.bias": model.blocks[0].bias})])

    def work() -> Any:
        given = from_rank_zero(read, hardware)
        outlined = all(parameter.is_meta for parameter in given.model.parameters())
        shards = Shards(given, hardware, release=True)
        [group] = shards.tuning.groups
        assert group.parameters["blocks.0.bias"] is dict(shards.tuning.model.named_parameters())["blocks.0.bias"]
        held = sum(p.to_local().numel() for p in shards.tuning.model.parameters())
        back = shards.whole().model
        tied = back.head.weight is back.embeddings.weight and back.blocks[0].weight is back.blocks[1].weight
        state = {} if rank() else {name: tensor.numpy() for name, tensor in back.state_dict().items()}
        return outlined, held, tied, state, back.offset.tolist()

    found = together(3, work)
    torch.manual_seed(1)
    whole = Tied()
    assert [path.name for path in tmp_path.iterdir()] == ["read-by-0"]
    assert [each[0] for each in found] == [False, True, True]
    assert sum(each[1] for each in found) == sum(parameter.numel() for parameter in whole.parameters())
    assert max(each[1] for each in found) < 30, "7 x 4 + 4 x 4 + 2 x 4 numbers, in shares of rows"
    assert all(each[2] for each in found)
    assert all(each[4] == whole.offset.tolist() for each in found)
    assert all(np.array_equal(found[0][3][name], tensor.numpy()) for name, tensor in whole.state_dict().items())


SMALL = {"vocab_size": 60, "num_labels": 3, "max_position_embeddings": 32, "pad_token_id": 0, "eos_token_id": 2}
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
BART = {f"{part}_{name}": 2 for part in ("encoder", "decoder") for name in ("layers", "attention_heads")}
ARCHITECTURES: dict[str, tuple[dict[str, Any], int]] = {  # its options, how many blocks are gathered one at a time
    "bert": (BERT, 2),
    "albert": (BERT | {"embedding_size": 8}, 0),  # its blocks share their weights
    "llama": (BERT | {"num_key_value_heads": 1}, 2),  # positions in a buffer that no file holds
    "bart": (BART | {"d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}, 4),
    "t5": ({"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0}, 4),
    "gpt2": ({"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}, 2),
    "deberta-v2": (BERT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, 2),
    "modernbert": (BERT, 2),
}


def without_dropout(kind: str) -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SMALL, **ARCHITECTURES[kind][0])
    for name, value in list(vars(config).items()):
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    return transformers.AutoModelForSequenceClassification.from_config(config).train()


def two_steps(model: Any) -> torch.Tensor:
    inputs = {
        "input_ids": torch.tensor([[5, 6, 7, 8, 2], [9, 3, 4, 6, 2]]),
        "attention_mask": torch.ones(2, 5, dtype=torch.long),
    }
    for _ in range(2):
        logits: torch.Tensor = model(**inputs).logits
        (logits * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    return logits.detach()


@pytest.mark.filterwarnings("ignore:.*returned a view tensor")  # of T5, which adds nothing to it in place
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_architectures_have_the_gradients_of_the_whole_model(kind: str) -> None:
    hardware = choose(small_config(runtime__strategy="fsdp", runtime__devices=2).runtime)
    plain = without_dropout(kind)
    expected = two_steps(plain).numpy()
    gradients = {name: p.grad.numpy() for name, p in plain.named_parameters() if p.grad is not None}

    def work() -> Any:
        shards = Shards(from_rank_zero(lambda: Tuning(model=without_dropout(kind), groups=()), hardware), hardware)
        logits = two_steps(shards.tuning.model).numpy()
        parameters = shards.tuning.model.named_parameters()
        return logits, {name: whole(p.grad).numpy() for name, p in parameters if p.grad is not None}, len(shards.units)

    logits, found, units = together(2, work)[0]
    assert units == ARCHITECTURES[kind][1]
    assert np.allclose(logits, expected, atol=1e-5)
    assert found.keys() == gradients.keys()
    assert all(np.allclose(found[name], gradients[name], atol=1e-4) for name in gradients)
