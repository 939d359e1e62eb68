"""A fine-tuned classifier of two labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import real_rows
from small_classifier import write_record
from small_run import LABELS


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A classifier of two labels that transformers saved; its head is drawn so that it says both."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    names = dict(enumerate(LABELS))
    model = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=2, id2label=names).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    with torch.no_grad():
        model.classifier.weight.normal_(std=3.0)
        texts = [row["text"] for row in real_rows(40)]
        logits = model(**tokenizer(texts, truncation=True, padding=True, return_tensors="pt")).logits
        margins = (logits[:, 1] - logits[:, 0]).sort().values
        widest = (margins[11:30] - margins[10:29]).argmax() + 10  # no text lies on the border: rounding cannot turn a label
        model.classifier.bias[0] += margins[widest : widest + 2].mean()
    place = tmp_path_factory.mktemp("model") / "finetuned"
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    write_record(place, {"text": "text", "label": "label"})
    return place
