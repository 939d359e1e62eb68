"""GGUF files: weights and tokenizer become a transformers folder, once; what is none is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from finespun.config.sections import ModelConfig
from finespun.errors import ModelError
from finespun.models.addresses import processor_folder
from finespun.models.conversion.folder import ready
from helpers import real_rows
from writers import make_gguf

CLASS = "AutoModelForCausalLM"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    return make_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", tiny_llama)


def test_a_gguf_file_gives_the_model_that_it_was_made_of(written: Path, tiny_llama: Path, tmp_path: Path) -> None:
    made = ready(ModelConfig(weights=str(written)), tmp_path, auto_class=CLASS)
    ours, theirs = (AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (made, tiny_llama))
    tokenizer, original = (AutoTokenizer.from_pretrained(folder) for folder in (made, tiny_llama))
    for row in real_rows(20):
        ids = original(row["text"], add_special_tokens=False)["input_ids"]
        assert tokenizer(row["text"], add_special_tokens=False)["input_ids"] == ids
        with torch.inference_mode():
            given = torch.tensor([ids])
            torch.testing.assert_close(ours(given).logits, theirs(given).logits, atol=2e-3, rtol=0)  # of half precision
    assert tokenizer.eos_token == "</s>"
    assert "quantization_config" not in json.loads((made / "config.json").read_text())
    assert list(json.loads((made / "origin.json").read_text())) == ["model.gguf"]
    assert made == ready(ModelConfig(weights=str(written)), tmp_path, auto_class=CLASS)


def test_its_tokenizer_is_made_once(written: Path, tmp_path: Path) -> None:
    config = ModelConfig(weights=str(written))
    folder = processor_folder(config, tmp_path)
    before = (folder / "tokenizer.json").stat().st_mtime_ns
    assert processor_folder(config, tmp_path) == folder
    assert (folder / "tokenizer.json").stat().st_mtime_ns == before


def test_a_tokenizer_of_elsewhere_goes_before_its_own(written: Path, tiny_llama: Path, tmp_path: Path) -> None:
    config = ModelConfig(weights=str(written), tokenizer=str(tiny_llama))
    assert processor_folder(config, tmp_path) == tiny_llama


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", r"is no GGUF file \(it begins with b''\)"),
        (b"PK\x03\x04 a zip", "is no GGUF file .*; fetch it again"),
        (b"GGUF" + bytes(40), "transformers cannot read its tokenizer"),
        (None, "transformers cannot read its (tokenizer|weights)"),
    ],
    ids=["empty", "another file", "a header alone", "cut short"],
)
def test_what_is_no_whole_gguf_file_is_refused(content: bytes | None, said: str, written: Path, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    whole = written.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(ModelError, match=said):
        ready(ModelConfig(weights=str(path)), tmp_path, auto_class=CLASS)


def test_another_digest_is_refused(written: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="model.sha256: .* it is another file, or damaged"):
        ready(ModelConfig(weights=str(written), sha256="0" * 64), tmp_path, auto_class=CLASS)


def test_a_cut_is_for_other_weights() -> None:
    with pytest.raises(ValueError, match="cut is for a module or Keras weights"):
        ModelConfig(weights="model.gguf", cut="head")
