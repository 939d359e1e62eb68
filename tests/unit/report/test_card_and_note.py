"""The model card is one that the hub's own code reads; the note is the verdict in Markdown."""

from __future__ import annotations

import pytest
from huggingface_hub import ModelCard

from finespun.report import card, notes
from reported import HOSTILE, LABELS, facts


def test_the_card_is_valid_and_has_the_results() -> None:
    found = facts()
    parsed = ModelCard(card.render(found.record, found.schema, found.splits))
    assert parsed.data.library_name == "transformers"
    assert parsed.data.pipeline_tag == "text-classification"
    assert parsed.data.base_model == "bert-base-uncased"
    results = {(each.dataset_split, each.metric_type): each.metric_value for each in parsed.data.eval_results}
    assert results["test", "accuracy"] == 0.8
    assert set(results) == {(split, score) for split in ("test", "validation") for score in ("accuracy", "log_loss")}
    assert "| fine-tuned | 0.800 (0.750 to 0.850) |" in parsed.text
    assert "`optimizer.lr`: 0.001" in parsed.text


def test_a_card_without_results_says_where_they_will_be() -> None:
    found = facts()
    parsed = ModelCard(card.render(found.record, found.schema))
    assert parsed.data.eval_results is None
    assert "reports/model_card.md" in parsed.text


def test_what_users_wrote_is_no_markup_of_the_card() -> None:
    found = facts()
    drawn = card.render(found.record, {**found.schema, "labels": [*LABELS, HOSTILE, "a\n---\n# b"]}, found.splits)
    assert "<script>" not in drawn.replace("\\<script\\>", "")
    assert "\n# b" not in drawn
    assert ModelCard(drawn).data.library_name == "transformers"


@pytest.mark.parametrize(
    ("auto_class", "name"),
    [
        ("AutoModelForSequenceClassification", "text-classification"),
        ("AutoModelForTokenClassification", "token-classification"),
        ("AutoModelForImageClassification", "image-classification"),
        ("AutoModelForObjectDetection", "object-detection"),
        ("AutoModel", None),
    ],
)
def test_what_a_model_does_has_the_hubs_name(auto_class: str, name: str | None) -> None:
    assert card.pipeline_tag(auto_class) == name


def test_the_note_begins_with_the_verdict_and_has_the_commands() -> None:
    note = notes.note(facts())
    assert note.startswith("**Accuracy 0.800 (95% interval 0.750 to 0.850) on 200 test rows: 10.0 points better")
    assert "| TF-IDF + logistic regression | 0.700 | 0.600 |" in note
    assert f"git checkout {'c' * 12} && dvc repro" in note
    assert "finespun predict" in note
    assert len(note) < 8000
