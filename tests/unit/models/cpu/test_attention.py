"""Attention on CPUs: torch's where nothing is dropped; put in only while and where the model says the same with it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

from finespun.models.cpu import attention as attention_module
from finespun.models.cpu.attention import ATTENTION, attention, eager_attention, quick_attention
from finespun.models.cpu.dropout import Dropout

Quicken = Callable[[nn.Module, Mapping[str, torch.Tensor]], None]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def bert(**options: float) -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SIZES, vocab_size=50, **options))


def padded() -> dict[str, torch.Tensor]:
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[0, 4:] = mask[1, 6:] = 0
    return {"input_ids": torch.arange(1, 22).reshape(3, 7), "attention_mask": mask}


INPUTS = padded()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_is_torchs_but_for_what_is_dropped(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """With a mask that drops nothing, outputs and gradients are those of torch's kernel."""
    monkeypatch.setattr(attention_module, "kept", lambda shape, p, dtype: torch.ones(shape, dtype=dtype))
    module = nn.Module()
    module.is_causal = False
    torch.manual_seed(0)
    given = [torch.randn(3, 4, 7, 8, dtype=dtype, requires_grad=True) for _ in range(3)]
    lengths = torch.arange(7)[None, None, None, :] < torch.tensor([7, 4, 2])[:, None, None, None]
    for mask in (None, lengths.expand(3, 1, 7, 7)):
        found, theirs = (attention(module, *given, mask, dropout=p, scaling=0.3)[0] for p in (0.1, 0.0))
        assert torch.allclose(found, theirs, atol=1e-6 if dtype is torch.float32 else 2e-2)
        mine, other = (torch.autograd.grad(each.float().square().sum(), given) for each in (found, theirs))
        for one, two in zip(mine, other, strict=True):
            assert torch.allclose(one, two, atol=1e-5 if dtype is torch.float32 else 0.1)


def test_attention_of_another_kind_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_module, "kept", lambda *_: pytest.fail("computed here"))
    query, mask = torch.randn(2, 4, 6, 8), torch.ones(2, 1, 6, 6, dtype=torch.bool)
    causal, shared, plain = nn.Module(), nn.Module(), nn.Module()
    causal.is_causal, shared.num_key_value_groups, shared.is_causal, plain.is_causal = True, 2, False, False
    assert attention(causal, query, query, query, None, dropout=0.1)[0].shape == (2, 6, 4, 8)
    attention(shared, query, query[:, :2], query[:, :2], mask, dropout=0.1)
    attention(plain, query, query, query, mask, dropout=0.1, position_bias=torch.zeros(1, 4, 6, 6))
    attention(plain, query, query, query, torch.zeros(2, 1, 6, 6), dropout=0.1)
    attention(plain, query, query, query, mask, dropout=0.0)


def test_a_whole_model_says_the_same_and_saves_the_same(quicken: Quicken, tmp_path: Path) -> None:
    model = bert()
    before, names = model.eval()(**INPUTS).logits, list(model.state_dict())
    quicken(model, INPUTS)
    assert model.config._attn_implementation == ATTENTION
    assert not any(type(module) is nn.Dropout for module in model.modules())
    assert torch.allclose(model(**INPUTS).logits, before, atol=1e-6)
    assert list(model.state_dict()) == names
    torch.manual_seed(0)
    assert not torch.allclose(model.train()(**INPUTS).logits, before, atol=1e-3), "something is dropped"
    model.save_pretrained(tmp_path)
    assert ATTENTION not in (tmp_path / "config.json").read_text()
    plain = BertForSequenceClassification.from_pretrained(tmp_path).eval()
    assert torch.allclose(plain(**INPUTS).logits, before, atol=1e-6)


def test_training_without_dropout_is_torchs_training(quicken: Quicken) -> None:
    gradients = []
    for change in (lambda *_: None, quicken):
        model = bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        change(model, INPUTS)
        model.train()
        torch.manual_seed(0)
        model(**INPUTS, labels=torch.tensor([0, 1, 1])).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.allclose(mine, theirs, atol=1e-6) for mine, theirs in zip(*gradients, strict=True))


def test_recomputed_activations_drop_the_same(quicken: Quicken) -> None:
    """Gradient checkpointing restores torch's generator: the gradients are those without it."""
    gradients = []
    for recompute in (False, True):
        model = bert()
        quicken(model, INPUTS)
        model.train()
        if recompute:
            model.activation_checkpointing_enable()
        torch.manual_seed(0)
        model(**INPUTS, labels=torch.tensor([0, 1, 1])).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*gradients, strict=True))


def test_attention_drops_too(quicken: Quicken) -> None:
    model = bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.5)
    quicken(model, INPUTS)
    before = model(**INPUTS).logits
    assert not torch.allclose(model.train()(**INPUTS).logits, before, atol=1e-5)


def test_images_too(quicken: Quicken) -> None:
    model = ViTForImageClassification(ViTConfig(**SIZES, image_size=16, patch_size=8, attention_probs_dropout_prob=0.1))
    images = {"pixel_values": torch.randn(2, 3, 16, 16)}
    quicken(model, images)
    model.train()(**images).logits.sum().backward()
    assert model.config._attn_implementation == ATTENTION


def test_a_model_that_minds_the_name_of_its_attention_keeps_it(quicken: Quicken, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = BertForSequenceClassification.forward

    def by_name(self: BertForSequenceClassification, attention_mask: torch.Tensor, **inputs: torch.Tensor) -> object:
        mask = attention_mask if self.config._attn_implementation == "sdpa" else torch.ones_like(attention_mask)
        return forward(self, attention_mask=mask, **inputs)

    monkeypatch.setattr(BertForSequenceClassification, "forward", by_name)
    model = bert(initializer_range=0.5)
    quicken(model, INPUTS)
    assert model.config._attn_implementation == "sdpa"
    assert any(type(module) is Dropout for module in model.modules())


def test_so_does_one_that_knows_no_other_name(quicken: Quicken, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = BertForSequenceClassification.forward

    def by_name(self: BertForSequenceClassification, **inputs: torch.Tensor) -> object:
        return {"sdpa": forward}[self.config._attn_implementation](self, **inputs)

    monkeypatch.setattr(BertForSequenceClassification, "forward", by_name)
    model = bert()
    quicken(model, INPUTS)
    assert model.config._attn_implementation == "sdpa"
    model.train()(**INPUTS).logits.sum().backward()


@pytest.mark.parametrize("error", [AttributeError, AssertionError, KeyError, NotImplementedError])
def test_whatever_a_model_cannot_do_with_it_is_undone(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    forward = BertForSequenceClassification.forward

    def by_name(self: BertForSequenceClassification, **inputs: torch.Tensor) -> object:
        if self.config._attn_implementation == ATTENTION:
            raise error
        return forward(self, **inputs)

    monkeypatch.setattr(BertForSequenceClassification, "forward", by_name)
    model = bert()
    with quick_attention(model, INPUTS):
        assert model.config._attn_implementation == "sdpa"


def test_nothing_is_left_of_it_afterwards() -> None:
    model = bert()
    before = model.eval()(**INPUTS).logits
    with quick_attention(model, INPUTS):
        assert model.config._attn_implementation == ATTENTION
        assert any(module._forward_pre_hooks for module in model.modules())
        copy.deepcopy(model)(**INPUTS)  # as averaging weights does
    assert model.config._attn_implementation == "sdpa"
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    assert torch.equal(pickle.loads(pickle.dumps(model))(**INPUTS).logits, before)


def test_a_language_models_plain_products_are_the_fused_kernel_while_it_trains() -> None:
    torch.manual_seed(0)
    shape = {"num_key_value_heads": 2, "vocab_size": 50, "pad_token_id": 0}
    model = LlamaForCausalLM(LlamaConfig(**SIZES, **shape))
    real = INPUTS["attention_mask"].bool()

    def found() -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        logits = model(**INPUTS).logits[real]
        logits.square().sum().backward()
        return logits.detach(), model.model.embed_tokens.weight.grad.clone()

    fused = found()
    with eager_attention(model, on=True):
        assert model.config._attn_implementation == "eager"
        plain = found()
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(fused, plain, strict=True))
    assert model.config._attn_implementation == "sdpa"
    with eager_attention(model, on=False):
        assert model.config._attn_implementation == "sdpa"
