"""Tones in files, and a tiny Whisper that is made from a configuration: as a file of CTranslate2's, and of transformers'."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from finespun.data.audio import wav
from helpers import write_csv

NOTES = {"low": 220.0, "middle": 660.0, "high": 1980.0}
SECONDS = 2  # that the tiny Whisper hears at once
SPECIAL = [
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
    "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
]  # fmt: skip


def tone(hertz: float, *, seconds: float = 1.0, rate: int = 16_000, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int16]]:
    """A tone with some noise, drawn by the seed."""
    random = np.random.default_rng(seed)
    times = np.arange(round(seconds * rate)) / rate
    values = 0.3 * np.sin(2 * np.pi * hertz * times + random.uniform(0, 6)) + 0.02 * random.standard_normal(len(times))
    return np.round(values * 2**15).astype(np.int16)


def tone_files(folder: Path, *, each: int = 8, seconds: float = 0.6, rate: int = 8_000) -> list[dict[str, str]]:
    """Writes WAV files of three notes and lists them in tones.csv: audio, label, and what is said."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for note, (name, hertz) in enumerate(NOTES.items()):
        for number in range(each):
            samples = tone(hertz * (1 + number / 100), seconds=seconds, rate=rate, seed=100 * note + number)
            (folder / f"{name}{number}.wav").write_bytes(wav(samples, rate))
            rows.append({"audio": f"{name}{number}.wav", "label": name, "target": f"a {name} tone"})
    write_csv(folder / "tones.csv", rows)
    return rows


def make_tiny_whisper(folder: Path) -> Any:
    """Writes a Whisper of one layer and 32 dimensions as CTranslate2 would; returns the model itself."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([f"a {name} tone" for name in NOTES] * 20, trainer)
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    numbers = {name: tokenizer.token_to_id(name) for name in SPECIAL}
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=tokenizer.get_vocab_size(), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_source_positions=50 * SECONDS,
        max_target_positions=32, pad_token_id=numbers["<|endoftext|>"], bos_token_id=numbers["<|endoftext|>"],
        eos_token_id=numbers["<|endoftext|>"], decoder_start_token_id=numbers["<|startoftranscript|>"],
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config).eval()
    (folder / "model.bin").write_bytes(as_ctranslate2(model))
    (folder / "config.json").write_text(json.dumps({"suppress_ids": [], "suppress_ids_begin": []}))
    return model


def as_ctranslate2(model: Any, *, version: int = 6, quantised: bool = False) -> bytes:
    """The bytes of `model.bin`, in single precision."""
    state = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    found: dict[str, Any] = {}
    for side in ("encoder", "decoder"):
        heads = np.array(getattr(model.config, f"{side}_attention_heads"), np.int16)
        found[f"{side}/num_heads"] = heads
        found[f"{side}/position_encodings/encodings"] = state[f"model.{side}.embed_positions.weight"]
        found |= _norm(f"{side}/layer_norm", state, f"model.{side}.layer_norm")
        for layer in range(getattr(model.config, f"{side}_layers")):
            found |= _layer(f"{side}/layer_{layer}", state, f"model.{side}.layers.{layer}", decodes=side == "decoder")
    for conv in ("conv1", "conv2"):
        found |= {f"encoder/{conv}/{part}": state[f"model.encoder.{conv}.{part}"] for part in ("weight", "bias")}
    found["decoder/embeddings/weight"] = state["model.decoder.embed_tokens.weight"]
    if quantised:
        found["decoder/embeddings/weight"] = found["decoder/embeddings/weight"].astype(np.int8)
    parts = [struct.pack("<I", version), _text("WhisperSpec"), struct.pack("<II", 3, len(found))]
    for name, values in sorted(found.items()):
        code = {"float32": 0, "int16": 2, "int8": 1}[values.dtype.name]
        parts += [_text(name), struct.pack("<B", values.ndim), struct.pack(f"<{values.ndim}I", *values.shape)]
        parts += [struct.pack("<BI", code, values.nbytes), values.tobytes()]
    return b"".join([*parts, struct.pack("<I", 1), _text("decoder/projection/weight"), _text("decoder/embeddings/weight")])


def _text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def _norm(ours: str, state: dict[str, Any], theirs: str) -> dict[str, Any]:
    return {f"{ours}/gamma": state[f"{theirs}.weight"], f"{ours}/beta": state[f"{theirs}.bias"]}


def _layer(ours: str, state: dict[str, Any], theirs: str, *, decodes: bool) -> dict[str, Any]:
    found = _norm(f"{ours}/ffn/layer_norm", state, f"{theirs}.final_layer_norm")
    for number, name in enumerate(("fc1", "fc2")):
        found |= {f"{ours}/ffn/linear_{number}/{part}": state[f"{theirs}.{name}.{part}"] for part in ("weight", "bias")}
    fused = {"self_attention": ("self_attn", ["q k v", "out"])}
    if decodes:
        fused["attention"] = ("encoder_attn", ["q", "k v", "out"])
    for block, (name, linears) in fused.items():
        found |= _norm(f"{ours}/{block}/layer_norm", state, f"{theirs}.{name}_layer_norm")
        for number, letters in enumerate(linears):
            for part in ("weight", "bias"):
                keys = [f"{theirs}.{name}.{letter}_proj.{part}" for letter in letters.split()]
                width = state[f"{theirs}.{name}.q_proj.bias"].shape[0]
                values = [state.get(key, np.zeros(width, np.float32)) for key in keys]  # keys have no bias
                found[f"{ours}/{block}/linear_{number}/{part}"] = np.concatenate(values)
    return found
