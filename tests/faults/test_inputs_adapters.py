"""Folders that hold an adapter, or a tokenizer of words alone: merged with their base, or said what to do, which then works."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers as t

from finespun.config.sections import ModelConfig
from finespun.errors import ModelError
from finespun.models.addresses import processor_folder
from finespun.models.conversion.folder import ready
from finespun.models.pretrained import load
from finespun.tasks.inputs.text import TextEncoder
from helpers import make_tiny_bert

AUTO = "AutoModelForSequenceClassification"
PROMPT = {"peft_type": "PROMPT_TUNING", "task_type": "SEQ_CLS", "num_virtual_tokens": 2, "base_model_name_or_path": "base"}
IDS = torch.tensor([[2, 17, 25, 31, 3], [2, 44, 91, 12, 3]])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_tiny_bert(tmp_path / "base")


def adapter(folder: Path, base: Path, *, labels: int = 3, named: str | None = "base", task: str = "SEQ_CLS") -> Any:
    """Saves an adapter of drawn numbers and returns the model with it."""
    torch.manual_seed(1)
    model = getattr(t, AUTO).from_pretrained(base, num_labels=labels)
    config = peft.LoraConfig(task_type=task, r=2, target_modules=["query", "value"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    adapted.save_pretrained(folder)
    edit(folder, base_model_name_or_path=named)
    return adapted.eval()


def edit(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def section(**values: Any) -> ModelConfig:
    return ModelConfig.model_validate({"checkpoint": "adapter", **values})


@pytest.mark.parametrize("labels", [2, 3])
def test_an_adapter_is_merged_with_its_base(labels: int, base: Path, tmp_path: Path) -> None:
    whole = adapter(tmp_path / "adapter", base, labels=labels)
    folder = ready(section(), tmp_path, auto_class=AUTO)
    model, loaded = load(folder, auto_class=AUTO, options={})
    assert loaded.new == loaded.left_over == []
    with torch.inference_mode():
        assert torch.allclose(model(input_ids=IDS).logits, whole(input_ids=IDS).logits, atol=1e-6)
        plain = getattr(t, AUTO).from_pretrained(base, num_labels=labels)(input_ids=IDS).logits
    assert not torch.allclose(model(input_ids=IDS).logits, plain, atol=1e-3)
    assert (folder / "tokenizer.json").is_file()
    assert ready(section(), tmp_path, auto_class=AUTO) == folder


def test_an_adapter_without_a_head_leaves_it_to_be_drawn(base: Path, tmp_path: Path) -> None:
    adapter(tmp_path / "adapter", base, task="FEATURE_EXTRACTION")
    folder = ready(section(), tmp_path, auto_class=AUTO)
    loaded = load(folder, auto_class=AUTO, options={"num_labels": 2}, new_head=True)[1]
    assert loaded.new == ["classifier.weight", "classifier.bias"]


def test_another_adapter_or_another_base_is_merged_anew(base: Path, tmp_path: Path) -> None:
    adapter(tmp_path / "adapter", base)
    first = ready(section(), tmp_path, auto_class=AUTO)
    make_tiny_bert(tmp_path / "other")
    model = t.BertModel.from_pretrained(base)
    torch.nn.init.normal_(model.embeddings.word_embeddings.weight)
    model.save_pretrained(tmp_path / "other")
    edit(tmp_path / "adapter", base_model_name_or_path="other")
    assert ready(section(), tmp_path, auto_class=AUTO) != first


def test_its_tokenizer_is_its_own_or_that_of_the_base(base: Path, tmp_path: Path) -> None:
    adapter(tmp_path / "adapter", base)
    assert processor_folder(section(), tmp_path) == base
    t.AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "adapter")
    assert processor_folder(section(), tmp_path) == tmp_path / "adapter"


def test_an_adapter_that_does_not_name_its_base_says_where_to_write_it(base: Path, tmp_path: Path) -> None:
    adapter(tmp_path / "adapter", base, named=None)
    for call in (lambda: ready(section(), tmp_path, auto_class=AUTO), lambda: processor_folder(section(), tmp_path)):
        with pytest.raises(
            ModelError, match=r"does not name the model it was trained on; .* base_model_name_or_path into adapter_c"
        ):
            call()
    edit(tmp_path / "adapter", base_model_name_or_path="base")  # as advised
    ready(section(), tmp_path, auto_class=AUTO)


@pytest.mark.parametrize(
    ("spoil", "telling"),
    [
        (lambda f: edit(f, base_model_name_or_path="./nowhere"), "./nowhere: there is no such folder"),
        (lambda f: edit(f, base_model_name_or_path=str(f)), "names the adapter itself"),
        (lambda f: (f / "adapter_config.json").write_text(json.dumps(PROMPT)), "cannot be merged"),
        (lambda f: edit(f, target_modules=["query"]), "tensors are only in one of them"),
        (lambda f: edit(f, target_modules=["query", "value", "key"]), "tensors are only in one of them"),
        (lambda f: edit(f, r=3), "cannot be merged"),
        (lambda f: edit(f, target_modules=["nothing"]), "cannot be merged"),
        (lambda f: (f / "adapter_config.json").write_text("{"), "adapter_config.json: is damaged or cut short"),
        (lambda f: (f / "adapter_config.json").write_text(""), "adapter_config.json: is empty"),
        (lambda f: (f / "adapter_model.safetensors").unlink(), "is an adapter without adapter_model.safetensors"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"1234567890"), "is no whole safetensors file"),
    ],
)
def test_what_cannot_be_merged_says_why(spoil: Any, telling: str, base: Path, tmp_path: Path) -> None:
    adapter(tmp_path / "adapter", base)
    spoil(tmp_path / "adapter")
    with pytest.raises(ModelError, match=re.escape(telling)):
        ready(section(), tmp_path, auto_class=AUTO)
    assert not list((tmp_path / ".finespun" / "weights").glob("*"))


@pytest.mark.slow
def test_a_tokenizer_of_words_alone_says_how_to_make_a_fast_one(base: Path) -> None:
    words = sorted(t.AutoTokenizer.from_pretrained(base).get_vocab().items(), key=lambda pair: pair[1])
    (base / "tokenizer.json").unlink()
    (base / "vocab.txt").write_text("".join(f"{word}\n" for word, _ in words), encoding="utf-8")
    (base / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    with pytest.raises(ModelError, match=r"has no tokenizer.json") as raised:
        TextEncoder.read(base)
    command = re.search(r'python -c "(.*)"', str(raised.value))
    assert command
    subprocess.run([sys.executable, "-c", command.group(1)], check=True)
    assert TextEncoder.read(base).tokenizer.encode("the movie").tokens[0] == "[CLS]"
