"""Continuing from a model: each label finds its own row in the head, wherever it stood, and what is new is said to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t

from finespun.models.pretrained import Loaded, load

SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 30}
SEQUENCE, TOKENS = "AutoModelForSequenceClassification", "AutoModelForTokenClassification"
IMAGES = "AutoModelForImageClassification"
INPUTS = {"input_ids": torch.tensor([[5, 6, 7, 8], [9, 4, 3, 2]]), "attention_mask": torch.ones(2, 4, dtype=torch.long)}


def options(labels: list[str], problem_type: str | None = "single_label_classification") -> dict[str, Any]:
    """What a task says of its labels."""
    ids = dict(enumerate(labels))
    return {
        "num_labels": len(labels),
        "id2label": ids,
        "label2id": {n: i for i, n in ids.items()},
        "problem_type": problem_type,
    }


def saved(folder: Path, labels: list[str], kind: str = "bert", auto: str = SEQUENCE, problem_type: str | None = None) -> Any:
    """A model with random numbers in its head, saved as another tool would; None of its biases is 0."""
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 30, "pad_token_id": 0} if kind == "gpt2" else SIZES
    torch.manual_seed(len(labels))
    config = t.AutoConfig.for_model(kind, **sizes, **options(labels, problem_type))
    model = getattr(t, auto).from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(folder)
    return model


def continued(
    folder: Path, labels: list[str], auto: str = SEQUENCE, problem_type: str | None = "single_label_classification"
) -> tuple[Any, Loaded]:
    model, loaded = load(folder, auto_class=auto, options=options(labels, problem_type), new_head=True)
    return model.eval(), loaded


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(**INPUTS).logits
    return found


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "gpt2"])
@pytest.mark.parametrize("old", [["negative", "positive"], ["positive", "negative"], ["spam", "positive", "ham", "negative"]])
def test_a_label_keeps_its_row_wherever_it_stood(tmp_path: Path, kind: str, old: list[str]) -> None:
    before = logits(saved(tmp_path, old, kind))
    model, loaded = continued(tmp_path, ["negative", "positive"])
    assert torch.allclose(logits(model), before[:, [old.index("negative"), old.index("positive")]])
    assert loaded.new == []
    gone = ", 2 left out (spam, ham)" if len(old) > 2 else ""
    assert str(loaded).endswith(f"0 new, 0 left over; head: 2 labels taken by name (negative, positive){gone}")
    assert model.config.id2label == {0: "negative", 1: "positive"}


def test_a_new_label_gets_a_new_row_that_the_seed_draws(tmp_path: Path) -> None:
    before = logits(saved(tmp_path, ["negative", "positive"]))
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model, loaded = continued(tmp_path, ["negative", "neutral", "positive"])
        found.append(logits(model))
        assert torch.allclose(found[-1][:, [0, 2]], before)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert str(loaded).endswith("head: 2 labels taken by name (negative, positive), 1 new (neutral)")


def test_as_many_other_labels_are_not_taken_for_those_that_stood_in_their_places(tmp_path: Path) -> None:
    before = saved(tmp_path, ["negative", "positive"])
    model, loaded = continued(tmp_path, ["ham", "spam"])
    assert loaded.new == ["classifier.weight", "classifier.bias"]
    assert "new head: that of the checkpoint is not taken, for its labels are others (negative, positive)" in str(loaded)
    assert not torch.isclose(model.classifier.weight, before.classifier.weight).any()
    model, loaded = continued(tmp_path, ["positive", "spam"])  # one of two, in the other's place
    assert torch.allclose(logits(model)[:, 0], logits(before)[:, 1])
    assert loaded.new == []


def test_tags_are_matched_with_their_prefixes(tmp_path: Path) -> None:
    before = logits(saved(tmp_path, ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"], auto=TOKENS))
    labels = ["O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER"]
    model, loaded = continued(tmp_path, labels, auto=TOKENS, problem_type=None)
    assert torch.allclose(logits(model)[..., [0, 1, 2, 5, 6]], before[..., [2, 3, 4, 0, 1]])
    assert "5 labels taken by name (O, B-LOC, I-LOC, B-PER, I-PER), 2 new (B-ORG, I-ORG)" in str(loaded)


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_sets_of_labels_and_numbers_are_matched_by_name(tmp_path: Path, problem_type: str) -> None:
    before = logits(saved(tmp_path, ["b", "c", "a"], problem_type=problem_type))
    model, _ = continued(tmp_path, ["a", "b", "d"], problem_type=problem_type)
    assert torch.allclose(logits(model)[:, :2], before[:, [2, 0]])


def test_heads_of_images_are_matched_by_name(tmp_path: Path, tiny_net: Path) -> None:
    pixels = {"pixel_values": torch.rand(2, 3, 32, 32)}
    digits = [str(digit) for digit in range(10)]
    old, _ = load(tiny_net, auto_class=IMAGES, options=options(digits), new_head=True)
    old.save_pretrained(tmp_path)
    model, _ = load(tmp_path, auto_class=IMAGES, options=options(digits[::-1]), new_head=True)
    with torch.inference_mode():
        assert torch.allclose(model.eval()(**pixels).logits, old.eval()(**pixels).logits.flip(1))


def test_labels_without_names_are_taken_by_position_if_there_are_as_many(tmp_path: Path) -> None:
    before = logits(saved(tmp_path, ["LABEL_0", "LABEL_1"]))
    model, loaded = continued(tmp_path, ["negative", "positive"])
    assert torch.allclose(logits(model), before)
    assert "head taken by position, for the checkpoint does not name its labels: negative (LABEL_0), positive (LABEL_1)" in str(
        loaded
    )
    _, loaded = continued(tmp_path, ["negative", "neutral", "positive"])
    assert loaded.new == ["classifier.weight", "classifier.bias"]
    assert "new head" in str(loaded)


def test_a_head_of_texts_is_not_taken_by_position_for_one_of_words(tmp_path: Path) -> None:
    saved(tmp_path, ["LABEL_0", "LABEL_1"])
    _, loaded = continued(tmp_path, ["NOUN", "VERB"], auto=TOKENS, problem_type=None)
    assert loaded.new == ["classifier.weight", "classifier.bias"]


def test_a_model_of_one_label_goes_on(tmp_path: Path) -> None:
    before = logits(saved(tmp_path, ["spam"], problem_type="multi_label_classification"))
    model, _ = continued(tmp_path, ["ham", "spam"], problem_type="multi_label_classification")
    assert torch.allclose(logits(model)[:, 1:], before)


def test_names_may_differ_by_case_blanks_and_unicode_form_where_there_is_no_doubt(tmp_path: Path) -> None:
    before = logits(saved(tmp_path, ["Positive", "cafe\u0301", "spam", "Spam", "1.0", "\ufeffham"]))
    model, loaded = continued(tmp_path, ["caf\u00e9", "positive ", "SPAM", "spam", "1", "ham"])
    assert torch.allclose(logits(model)[:, [0, 1, 3, 4, 5]], before[:, [1, 0, 2, 4, 5]])
    assert (
        "5 labels taken by name (caf\u00e9 (cafe\u0301), positive  (Positive), spam, 1 (1.0), ham (\ufeffham)), 1 new (SPAM)"
        in str(loaded)
    )


@pytest.mark.parametrize(
    ("old", "old_type", "new", "new_type", "why"),
    [
        (["LABEL_0"], None, ["no", "yes"], "single_label_classification", "it gives numbers and not labels"),
        (["LABEL_0"], "regression", ["yes"], "multi_label_classification", "it gives numbers and not labels"),
        (["a", "b"], "regression", ["a", "b"], "single_label_classification", "it gives numbers and not labels"),
        (["a", "b"], "single_label_classification", ["a", "b"], "regression", "it gives labels and not numbers"),
        (["a"], "multi_label_classification", ["a"], "regression", "it gives labels and not numbers"),
    ],
)
def test_numbers_are_not_taken_for_labels(
    tmp_path: Path, old: list[str], old_type: str | None, new: list[str], new_type: str, why: str
) -> None:
    before = saved(tmp_path, old, problem_type=old_type)
    model, loaded = continued(tmp_path, new, problem_type=new_type)
    assert loaded.new == ["classifier.weight", "classifier.bias"]
    assert why in str(loaded)
    assert not torch.isclose(model.classifier.weight[:1], before.classifier.weight[:1]).any()


def test_a_dense_layer_as_wide_as_there_are_labels_is_no_row_of_a_label(tmp_path: Path) -> None:
    labels = [f"label {number}" for number in range(8)]
    before = logits(saved(tmp_path, labels, "roberta"))
    model, _ = continued(tmp_path, labels[::-1])
    assert torch.allclose(logits(model), before.flip(1))


def test_a_checkpoint_without_a_head_says_nothing_of_rows(tmp_path: Path) -> None:
    t.BertModel(t.BertConfig(**SIZES)).save_pretrained(tmp_path)
    _, loaded = continued(tmp_path, ["negative", "positive"])
    assert loaded.head is None
    assert loaded.new == ["classifier.weight", "classifier.bias"]
