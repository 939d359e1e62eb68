"""Each strategy changes exactly what it says, when it says; the others stay bit-identical."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from finespun.config import targets
from finespun.errors import ConfigError, ModelError
from finespun.models.pretrained import load_model
from finespun.strategies.anatomy import dissect
from finespun.strategies.full import Full
from finespun.strategies.gradual import Gradual
from finespun.strategies.last_n import LastN
from finespun.strategies.reinit_top import ReinitTop
from finespun.training.lightning.callbacks import Saver
from finespun.training.phases import begin_epoch, describe, freeze_all_but
from helpers import ROOT
from small_run import Train, same_bits, small_config

AUTO = "AutoModelForSequenceClassification"


def shipped(name: str, **changes: Any) -> dict[str, Any]:
    """The options of conf/strategy/NAME.yaml."""
    return {**yaml.safe_load((ROOT / "conf" / "strategy" / f"{name}.yaml").read_text()), **changes}


def fresh(tiny_bert: Path) -> torch.nn.Module:
    torch.manual_seed(3)
    return load_model(tiny_bert, auto_class=AUTO, options={"num_labels": 2}, new_head=True)


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


EMBEDDINGS = "bert.embeddings"
BLOCKS = ("bert.encoder.layer.0.", "bert.encoder.layer.1.")
TOP = ("bert.pooler", "classifier")


@pytest.mark.parametrize(
    ("strategy", "trained"),
    [
        (shipped("full"), (EMBEDDINGS, *BLOCKS, *TOP)),
        (shipped("head"), TOP),
        (shipped("head", train_pooler=False), ("classifier",)),
        (shipped("last_n", blocks=1), (BLOCKS[1], *TOP)),
        (shipped("last_n", blocks=0), TOP),
        (shipped("last_n", blocks=1, freeze_embeddings=False), (EMBEDDINGS, BLOCKS[1], *TOP)),
        (shipped("llrd"), (EMBEDDINGS, *BLOCKS, *TOP)),
        (shipped("lp_ft"), (EMBEDDINGS, *BLOCKS, *TOP)),
        (shipped("gradual", blocks_per_epoch=1), (BLOCKS[1], *TOP)),  # two epochs: the embeddings' turn never comes
        (shipped("gradual", blocks_per_epoch=3), (EMBEDDINGS, *BLOCKS, *TOP)),
        (shipped("reinit_top"), (EMBEDDINGS, *BLOCKS, *TOP)),
    ],
    ids=lambda value: value["_target_"].rpartition(".")[2] if isinstance(value, dict) else None,
)
def test_exactly_the_intended_parameters_change(
    train: Train, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: dict[str, Any],
    trained: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.setattr(Saver, "load_best", lambda *_: None)  # the last epoch's weights, not the best's
    before = {name: p.clone() for name, p in fresh(tiny_bert).state_dict().items()}
    fitted = train(tmp_path, strategy=strategy, trainer__max_epochs=2, optimizer__lr=1e-2)
    fitted_names = changed(before, fitted.tuning.model.state_dict())
    unused = {"bert.embeddings.position_embeddings.weight", "bert.embeddings.token_type_embeddings.weight"}
    intended = {name for name in before if name.startswith(trained)}
    assert fitted_names <= intended
    assert intended - fitted_names <= unused


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_adapters_train_alone_and_merge_into_plain_transformers(
    train: Train, tiny_bert: Path, tmp_path: Path, name: str
) -> None:
    from transformers import AutoModelForSequenceClassification

    before = {key: p.clone() for key, p in fresh(tiny_bert).state_dict().items()}
    fitted = train(tmp_path / "store", strategy=shipped(name, rank=4), trainer__max_epochs=2, optimizer__lr=1e-2)
    adapted = fitted.tuning.model.eval()
    base = {key.removeprefix("base_model.model.").replace(".base_layer", ""): p for key, p in adapted.state_dict().items()}
    kept = {key for key in before if key in base}
    assert {key for key in kept if not torch.equal(before[key], base[key])} == set()
    assert len(kept) >= len(before) - 2  # all but the head, which peft keeps under a name of its own
    ids = torch.randint(5, 900, (4, 12))
    logits = adapted(input_ids=ids).logits
    assert fitted.tuning.merge is not None
    merged = fitted.tuning.merge(adapted, tmp_path / "model")
    merged.save_pretrained(tmp_path / "model")  # type: ignore[operator]
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    assert torch.allclose(plain(input_ids=ids).logits, logits, atol=1e-5)
    assert changed(before, plain.state_dict()), "something was learned"
    assert (tmp_path / "model" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("name", ["gradual", "lp_ft", "lora"])
@pytest.mark.parametrize("saves", [4, 8, 13])
def test_a_run_killed_while_unfreezing_ends_in_the_same_bits(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, saves: int
) -> None:
    options: dict[str, Any] = {"strategy": shipped(name), "trainer__max_epochs": 3}
    if name == "gradual":
        options["strategy"]["blocks_per_epoch"] = 1
    whole = train(tmp_path / "whole", **options)
    save, done = Saver.save, iter(range(1, 1000))

    def save_then_die(self: Saver, trainer: Any) -> None:
        save(self, trainer)
        if next(done) == saves:
            raise KeyboardInterrupt

    monkeypatch.setattr(Saver, "save", save_then_die)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(tmp_path / "killed", **options)
    monkeypatch.setattr(Saver, "save", save)
    assert same_bits(whole, train(tmp_path / "killed", **options))


def test_frozen_parts_are_in_eval_mode_and_trained_ones_are_not(tiny_bert: Path) -> None:
    model = fresh(tiny_bert)
    groups = Gradual(blocks_per_epoch=1, layer_decay=1.0, head_lr_scale=1.0).tune(model).groups
    freeze_all_but(model, groups)
    for epoch, training in enumerate([(False, False, False), (False, False, True), (False, True, True), (True, True, True)]):
        begin_epoch(model, groups, epoch)
        dropouts = (model.bert.embeddings.dropout, *(layer.output.dropout for layer in model.bert.encoder.layer))
        assert tuple(dropout.training for dropout in dropouts) == training
        assert model.dropout.training
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert any(name.startswith(EMBEDDINGS) for name in trained) == training[0]


def test_phases_are_told_with_counts(tiny_bert: Path) -> None:
    model = fresh(tiny_bert)
    groups = Gradual(blocks_per_epoch=2, layer_decay=1.0, head_lr_scale=1.0).tune(model).groups
    lines = describe(model, groups, max_epochs=2)
    total = sum(p.numel() for p in model.parameters())
    assert lines[0].startswith("epoch 0: head: 1,122 of")
    assert lines[1].startswith("epoch 1: block_0, block_1, head:")
    everything = f"epoch 2: embeddings, block_0, block_1, head: {total:,} of {total:,} parameters (100.0%)"
    assert lines[2] == f"{everything} (never reached: trainer.max_epochs is 2)"


def test_rates_fall_layer_by_layer(tiny_bert: Path) -> None:
    config = small_config(strategy=shipped("llrd", layer_decay=0.5, lr_scale=8.0, head_lr_scale=2.0))
    scales = {g.name: g.lr_scale for g in targets.build("strategy", config.strategy).tune(fresh(tiny_bert)).groups}
    assert scales == {"embeddings": 1.0, "block_0": 2.0, "block_1": 4.0, "head": 16.0}


def test_reinitialised_blocks_are_new_and_the_rest_is_not(tiny_bert: Path) -> None:
    before = {name: p.clone() for name, p in fresh(tiny_bert).state_dict().items()}
    model = fresh(tiny_bert)
    ReinitTop(blocks=1, layer_decay=1.0).tune(model)
    weights = {name for name in before if name.startswith((BLOCKS[1], "bert.pooler")) and name.endswith("weight")}
    assert changed(before, model.state_dict()) == {name for name in weights if "LayerNorm" not in name}


def test_more_blocks_than_there_are_is_an_error(tiny_bert: Path) -> None:
    with pytest.raises(ConfigError, match=r"strategy.blocks: 3 asked for, the model has 2 blocks"):
        LastN(blocks=3, freeze_embeddings=True, layer_decay=1.0, head_lr_scale=1.0).tune(fresh(tiny_bert))


def test_a_model_without_blocks_is_an_error() -> None:
    with pytest.raises(ModelError, match="take strategy: full"):
        dissect(torch.nn.Sequential(torch.nn.Linear(2, 2)))


def test_training_nothing_is_an_error(tiny_bert: Path) -> None:
    model = fresh(tiny_bert)
    with pytest.raises(ConfigError, match="trains no parameter of this model"):
        freeze_all_but(model, [])
    late = [
        type(group)(**{**group.__dict__, "from_epoch": 1}) for group in Full(regression_head_lr_scale=10).tune(model).groups
    ]
    with pytest.raises(ConfigError, match="trains no parameter in the first epoch"):
        freeze_all_but(model, late)


@pytest.mark.parametrize(
    ("auto", "config"),
    [
        ("DistilBertForSequenceClassification", {"dim": 32, "hidden_dim": 64, "n_layers": 3, "n_heads": 2}),
        ("RobertaForSequenceClassification", {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}),
        ("ElectraForSequenceClassification", {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}),
        ("ViTForImageClassification", {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}),
        ("ConvNextForImageClassification", {"hidden_sizes": [8, 16, 32], "depths": [1, 1, 1], "num_stages": 3}),
    ],
)
def test_blocks_of_other_architectures_are_found(auto: str, config: dict[str, Any]) -> None:
    import transformers

    kind = getattr(transformers, auto)
    model = kind(kind.config_class(**config))
    anatomy = dissect(model)
    assert len(anatomy.blocks) == 3
    everything = [anatomy.embeddings, *anatomy.blocks, anatomy.top, anatomy.head]
    names = [name for part in everything for name in part]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert anatomy.head
    assert all(anatomy.blocks)
