"""What is frozen is computed once: the same weights at the end, and never where it would be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from finespun.strategies.anatomy import dissect
from finespun.strategies.full import Full
from finespun.strategies.gradual import Gradual
from finespun.strategies.head import Head
from finespun.strategies.last_n import LastN
from finespun.tasks.base import Batch
from finespun.training.frozen import replay
from finespun.training.frozen.replay import find_cut
from finespun.training.lightning.callbacks import Saver
from helpers import ROOT
from small_run import STEADY, Train


def shipped(name: str, **changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load((ROOT / "conf" / "strategy" / f"{name}.yaml").read_text()), **changes}


CACHED = [shipped("head", train_pooler=False), shipped("last_n", blocks=1)]


@pytest.mark.parametrize("strategy", CACHED, ids=["head", "last_n"])
def test_replayed_and_computed_training_end_in_the_same_weights(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str], strategy: dict[str, Any]
) -> None:
    options: dict[str, Any] = {
        "strategy": strategy,
        **STEADY,
        "trainer__max_epochs": 3,
        "trainer__ema_decay": 0.5,
    }  # EMA: Lightning's loop
    computed = train(tmp_path / "a", **options)
    assert "frozen part" not in capsys.readouterr().out
    replayed = train(tmp_path / "b", features=tmp_path / "features", **options)
    assert "blocks computed once and replayed" in capsys.readouterr().out
    ours, theirs = replayed.tuning.model.state_dict(), computed.tuning.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6, rtol=0) for name in ours)
    assert replayed.best_epoch == computed.best_epoch
    assert replayed.best_score == pytest.approx(computed.best_score, abs=1e-6)


def test_a_second_run_computes_nothing_again_and_a_killed_one_is_taken_up(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"strategy": shipped("last_n", blocks=1), "features": tmp_path / "features"}
    first = train(tmp_path / "a", **options)
    computed: list[int] = []
    original = replay.capture
    monkeypatch.setattr(replay, "capture", lambda *arguments: (computed.append(1), original(*arguments))[1])
    save, done = Saver.save, iter(range(1, 1000))

    def save_then_die(self: Saver, trainer: Any) -> None:
        save(self, trainer)
        if next(done) == 8:
            raise FileNotFoundError

    monkeypatch.setattr(Saver, "save", save_then_die)
    with pytest.raises(FileNotFoundError):
        train(tmp_path / "b", **options)
    monkeypatch.setattr(Saver, "save", save)
    resumed = train(tmp_path / "b", **options)
    assert not computed
    ours, theirs = resumed.tuning.model.state_dict(), first.tuning.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_too_much_is_computed_anew(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path / "a", strategy=shipped("last_n", blocks=1), features=tmp_path / "f", runtime__feature_cache_gb=1e-9)
    assert "are more than runtime.feature_cache_gb: computed anew each epoch" in capsys.readouterr().out
    assert not (tmp_path / "f").exists()


def batch() -> Batch:
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    inputs = {"input_ids": torch.randint(5, 90, (2, 4)), "attention_mask": mask}
    return Batch(inputs, torch.zeros(2), torch.arange(2), torch.ones(2), 2)


def model(kind: str = "Bert", **config: Any) -> torch.nn.Module:
    import transformers

    classes = getattr(transformers, f"{kind}ForSequenceClassification")
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 100}
    return classes(classes.config_class(**{**sizes, "pad_token_id": 0, **config}))


HEAD = Head(train_pooler=True, head_lr_scale=1.0)


@pytest.mark.parametrize(
    ("strategy", "blocks", "first_token"),
    [
        (HEAD, 3, True),
        (LastN(blocks=1, freeze_embeddings=True, layer_decay=1.0, head_lr_scale=1.0), 2, False),
        (LastN(blocks=1, freeze_embeddings=False, layer_decay=1.0, head_lr_scale=1.0), None, None),
        (LastN(blocks=3, freeze_embeddings=True, layer_decay=1.0, head_lr_scale=1.0), None, None),
        (Gradual(blocks_per_epoch=1, layer_decay=1.0, head_lr_scale=1.0), None, None),
        (Full(regression_head_lr_scale=10), None, None),
    ],
)
def test_only_what_never_trains_is_cut_off(strategy: Any, blocks: int | None, first_token: bool | None) -> None:
    whole = model()
    cut = find_cut(whole, strategy.tune(whole).groups, batch())
    assert (cut and cut.blocks, cut and cut.first_token) == (blocks, first_token)


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "Electra", "XLMRoberta"])
def test_other_architectures_are_cut_too(kind: str) -> None:
    whole = model(kind)
    before = {name: p.clone() for name, p in whole.state_dict().items()}
    cut = find_cut(whole, HEAD.tune(whole).groups, batch())
    assert cut is not None
    assert cut.blocks == 3
    assert whole.state_dict().keys() == before.keys()


def test_a_model_that_says_something_else_when_replayed_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model()
    groups = HEAD.tune(whole).groups
    original = replay._tensor
    monkeypatch.setattr(replay, "_tensor", lambda output: original(output) + 1.0)
    assert find_cut(whole, groups, batch()) is None
    assert len(dissect(whole).blocks) == 3, "everything is back in its place"


def test_a_new_head_of_zeros_does_not_hide_that_all_tokens_are_read() -> None:
    whole = model()
    pooler = whole.base_model.pooler
    pooler.register_forward_pre_hook(lambda _module, given: (given[0].mean(dim=1, keepdim=True),))
    torch.nn.init.zeros_(whole.classifier.weight)
    cut = find_cut(whole, HEAD.tune(whole).groups, batch())
    assert cut is not None
    assert not cut.first_token


def test_a_parameter_beside_the_modules_of_a_backbone_is_no_bug_of_ours() -> None:
    from transformers import XLNetConfig, XLNetForSequenceClassification

    config = XLNetConfig(d_model=32, n_layer=2, n_head=2, d_inner=64, vocab_size=100, pad_token_id=0)
    whole = XLNetForSequenceClassification(config)
    assert "transformer.mask_emb" in dissect(whole).embeddings
    find_cut(whole, HEAD.tune(whole).groups, batch())
    assert whole.base_model.word_embedding.weight is whole.state_dict(keep_vars=True)["transformer.word_embedding.weight"]
