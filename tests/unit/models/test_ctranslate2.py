"""Whisper from CTranslate2's format: the same weights and texts, a folder made once; what is no such model is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForAudioClassification, AutoProcessor, WhisperForConditionalGeneration

from finespun.config.sections import ModelConfig
from finespun.errors import ModelError
from finespun.models.addresses import processor_folder
from finespun.models.conversion.folder import ready
from finespun.models.pretrained import load
from speakers import as_ctranslate2, make_tiny_whisper

CLASS = "AutoModelForSpeechSeq2Seq"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("ctranslate2") / "model"
    return make_tiny_whisper(folder), folder


def test_weights_and_texts_are_those_of_the_model_that_was_converted(made: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = made
    found = ready(ModelConfig(checkpoint=str(folder)), tmp_path, auto_class=CLASS)
    ours = WhisperForConditionalGeneration.from_pretrained(found).eval()
    theirs = model.state_dict()
    assert ours.state_dict().keys() == theirs.keys()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name], msg=name)
    processor = AutoProcessor.from_pretrained(found)
    given = processor(torch.randn(16_000).numpy(), sampling_rate=16_000, return_tensors="pt")
    assert given["input_features"].shape == (1, 80, 200)  # two seconds, as the model hears at once
    settings = json.loads((found / "generation_config.json").read_text())
    assert settings["no_timestamps_token_id"] == processor.tokenizer.convert_tokens_to_ids("<|notimestamps|>")
    assert (settings["is_multilingual"], settings["max_length"]) == (False, 32)
    assert found == ready(ModelConfig(checkpoint=str(folder)), tmp_path, auto_class=CLASS)


def test_its_encoder_classifies_and_shorter_inputs_take_the_first_positions(made: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = made
    found = ready(ModelConfig(checkpoint=str(folder)), tmp_path, auto_class="AutoModelForAudioClassification")
    options = {"num_labels": 2, "max_source_positions": 50}
    short, loaded = load(found, auto_class="AutoModelForAudioClassification", options=options, new_head=True)
    whole = model.model.encoder.embed_positions.weight
    torch.testing.assert_close(short.encoder.embed_positions.weight, whole[:50])
    assert {name.partition(".")[0] for name in loaded.new} == {"projector", "classifier"}
    assert short(torch.zeros(1, 80, 100)).logits.shape == (1, 2)
    assert AutoModelForAudioClassification.from_pretrained(found).config.max_source_positions == 100


def changed(folder: Path, into: Path, **files: bytes | None) -> Path:
    into.mkdir()
    for path in folder.iterdir():
        content = files.get(path.stem, path.read_bytes())
        if content is not None:
            (into / path.name).write_bytes(content)
    return into


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("cut short", "is no whole model of CTranslate2 .*it ends inside"),
        ("another version", "WhisperSpec of version 99, not WhisperSpec of version 6"),
        ("without tokenizer", "holds model.bin and no tokenizer.json; copy that of the model"),
        ("quantised", "its weights are quantised to int8; convert the model with --quantization float16"),
    ],
)
def test_what_is_no_whole_model_is_refused(kind: str, said: str, made: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = made
    whole = (folder / "model.bin").read_bytes()
    files: dict[str, bytes | None] = {
        "cut short": {"model": whole[: len(whole) // 2]}, "another version": {"model": as_ctranslate2(model, version=99)},
        "without tokenizer": {"tokenizer": None}, "quantised": {"model": as_ctranslate2(model, quantised=True)},
    }[kind]  # fmt: skip
    bad = changed(folder, tmp_path / "bad", **files)
    with pytest.raises(ModelError, match=said):
        processor_folder(ModelConfig(checkpoint=str(bad)), tmp_path)


def test_another_digest_is_refused(made: tuple[Any, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="model.sha256: .* it is another file, or damaged"):
        ready(ModelConfig(checkpoint=str(made[1]), sha256="0" * 64), tmp_path, auto_class=CLASS)
