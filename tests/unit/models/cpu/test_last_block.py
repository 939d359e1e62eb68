"""The last block computes what is read of it, where the model, tried, says the same; gradients are those of the whole block."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.bert.modeling_bert import BertLayer

from finespun.models.cpu import attention as attention_module
from finespun.strategies.anatomy import dissect, reads_first_token_alone

Quicken = Callable[[nn.Module, Mapping[str, torch.Tensor]], None]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {**SIZES, "vocab_size": 50, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.2}


def inputs() -> dict[str, torch.Tensor]:
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[0, 4:] = mask[1, 6:] = 0
    return {"input_ids": torch.arange(3, 24).reshape(3, 7), "attention_mask": mask}


def last_block(model: PreTrainedModel) -> nn.Module:
    return model.get_submodule(dissect(model).block_names[-1])


def lengths_seen(module: nn.Module, model: PreTrainedModel) -> set[int]:
    seen: set[int] = set()
    handle = module.register_forward_hook(lambda _module, given, _output: seen.add(given[0].shape[1]))
    model(**inputs())
    handle.remove()
    return seen


MODELS = [
    pytest.param(BertForSequenceClassification, BertConfig(**TEXT), id="bert"),
    pytest.param(RobertaForSequenceClassification, RobertaConfig(**TEXT, pad_token_id=1), id="roberta"),
    pytest.param(ElectraForSequenceClassification, ElectraConfig(**TEXT, embedding_size=32), id="electra"),
    pytest.param(
        DistilBertForSequenceClassification,
        DistilBertConfig(
            dim=32,
            n_layers=2,
            n_heads=4,
            hidden_dim=64,
            vocab_size=50,
            dropout=0.0,
            attention_dropout=0.0,
            seq_classif_dropout=0.0,
        ),
        id="distilbert",
    ),
]


@pytest.mark.parametrize(("kind", "config"), MODELS)
def test_one_token_goes_through_the_last_block_and_gradients_stay(
    quicken: Quicken, kind: type[PreTrainedModel], config: BertConfig | RobertaConfig | ElectraConfig | DistilBertConfig
) -> None:
    found = []
    for change in (lambda *_: None, quicken):
        torch.manual_seed(0)
        model = kind(config)
        change(model, inputs())
        model.train()
        output = model(**inputs(), labels=torch.tensor([0, 1, 1]))
        output.loss.backward()
        found.append((output.logits, *(p.grad for p in model.parameters() if p.grad is not None)))
    assert all(torch.allclose(mine, theirs, atol=1e-5) for mine, theirs in zip(*found, strict=True))
    norms = [module for module in last_block(model).modules() if isinstance(module, nn.LayerNorm)]
    keys = [module for name, module in last_block(model).named_modules() if name.endswith(("key", "k_lin"))]
    assert lengths_seen(norms[-1], model) == {1}
    assert lengths_seen(keys[0], model) == {7}


def test_with_attention_dropped_the_chances_are_one_querys(quicken: Quicken, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    real = attention_module.kept
    monkeypatch.setattr(attention_module, "kept", lambda shape, p, dtype: shapes.append(tuple(shape)) or real(shape, p, dtype))
    model = BertForSequenceClassification(BertConfig(**TEXT | {"attention_probs_dropout_prob": 0.5}))
    quicken(model, inputs())
    model.train()(**inputs()).logits.sum().backward()
    assert shapes == [(3, 4, 7, 7), (3, 4, 1, 7)]


class ReadsAll(BertForSequenceClassification):
    """Reads the mean of all tokens, which sentence encoders do."""

    def forward(self, **given: torch.Tensor) -> object:  # type: ignore[override]
        output = super().forward(**given, output_hidden_states=True)
        output.logits = self.classifier(output.hidden_states[-1].mean(dim=1))
        return output


def zero_head(model: BertForSequenceClassification) -> BertForSequenceClassification:
    nn.init.zeros_(model.classifier.weight)
    return model


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: ReadsAll(BertConfig(**TEXT)), id="mean of all tokens"),
        pytest.param(
            lambda: RobertaPreLayerNormForSequenceClassification(
                RobertaPreLayerNormConfig(**SIZES, vocab_size=50, pad_token_id=1)
            ),
            id="norms before attention, which at first change next to nothing",
        ),
        pytest.param(lambda: zero_head(ReadsAll(BertConfig(**TEXT))), id="mean of all tokens, a head of zeros"),
        pytest.param(lambda: BertForTokenClassification(BertConfig(**TEXT)), id="an answer a token"),
        pytest.param(
            lambda: Qwen2ForSequenceClassification(Qwen2Config(**SIZES, vocab_size=50, pad_token_id=0, num_key_value_heads=2)),
            id="last token",
        ),
    ],
)
def test_a_model_that_reads_more_than_the_first_token_is_left_whole(quicken: Quicken, model: object) -> None:
    made = model()  # type: ignore[operator]
    before = made.eval()(**inputs()).logits
    quicken(made, inputs())
    assert torch.allclose(made(**inputs()).logits, before, atol=1e-5)
    assert not last_block(made)._forward_pre_hooks
    assert 7 in lengths_seen(next(m for m in last_block(made).modules() if not list(m.children())), made)


def test_keys_made_from_what_a_norm_returns_are_seen_to_differ(quicken: Quicken) -> None:
    """A block that norms before its attention: the projections are not given what the block is given."""
    model = ViTForImageClassification(ViTConfig(**SIZES, image_size=16, patch_size=8, initializer_range=0.2))
    images = {"pixel_values": torch.randn(2, 3, 16, 16)}
    before = model.eval()(**images).logits
    quicken(model, images)
    assert torch.allclose(model(**images).logits, before, atol=1e-5)
    assert not last_block(model)._forward_pre_hooks


def test_rows_of_one_token_show_nothing() -> None:
    tokens = torch.randn(3, 1, 4, requires_grad=True)
    assert not reads_first_token_alone(tokens.sum(dim=(1, 2)), tokens)


def test_another_token_that_is_read_is_seen() -> None:
    tokens = torch.randn(3, 2, 4, requires_grad=True)
    assert reads_first_token_alone(tokens[:, 0], tokens)
    assert not reads_first_token_alone(tokens[:, 0] + 0.01 * tokens[:, 1], tokens)
    assert not reads_first_token_alone(tokens[:, 1], tokens)


def test_an_answer_that_depends_on_no_token_shows_nothing() -> None:
    tokens = torch.randn(3, 2, 4, requires_grad=True)
    assert not reads_first_token_alone(torch.ones(3, 2), tokens)
    assert not reads_first_token_alone(torch.ones(3, 2, requires_grad=True), tokens)


def test_a_block_that_is_given_its_tokens_by_another_name_is_left_whole(
    quicken: Quicken, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = BertForSequenceClassification(BertConfig(**TEXT))
    block, forward = last_block(model), BertLayer.forward
    monkeypatch.setattr(
        BertLayer, "forward", lambda self, *given, x=None, **options: forward(self, *([x] if given == () else given), **options)
    )
    call = nn.Module.__call__
    monkeypatch.setattr(
        type(block),
        "__call__",
        lambda self, hidden, mask=None, *_, **options: call(self, x=hidden, attention_mask=mask, **options),
    )
    quicken(model, inputs())
    assert not block._forward_pre_hooks
    assert 7 in lengths_seen(next(m for m in block.modules() if not list(m.children())), model)
