"""Whisper as CTranslate2 keeps it (faster-whisper's `model.bin`): read without CTranslate2, made a transformers folder once.

The format is CTranslate2's `model_spec.py`: a version, the name of a specification, then each variable's name, shape, type and
bytes, and at the end names that stand for others.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finespun.errors import ModelError
from finespun.files import read_json
from finespun.kept import file_digest, in_one_move

if TYPE_CHECKING:
    import torch

FILE = "model.bin"
VERSIONS = (5, 6)
SPECIFICATION = "WhisperSpec"
TYPES: dict[int, Any] = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}  # as CTranslate2 numbers them
MADE_BY = 1  # to be raised with every change that makes other files of the same model
RATE, HOP, WINDOW, POSITIONS = 16_000, 160, 400, 50  # of all Whisper models: hertz, samples, samples, those of a second
REMEDY = "fetch the file again, or take the model's transformers checkpoint"

Variables = dict[str, NDArray[Any]]
# begin and end of CTranslate2's names, and of transformers'
PARTS = {"self_attention": "self_attn", "attention": "encoder_attn"}
NORMS = {"self_attention": "self_attn_layer_norm", "attention": "encoder_attn_layer_norm", "ffn": "final_layer_norm"}
KINDS = {"gamma": "weight", "beta": "bias"}


def is_model(folder: Path) -> bool:
    """Whether a folder holds a Whisper model of CTranslate2."""
    path = folder / FILE
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return SPECIFICATION.encode() in file.read(64)


def processor_folder(folder: Path, store: Path) -> Path:
    """Returns a folder with tokenizer, feature extractor and generation settings in transformers' files, made once.

    Args:
        folder: of the model.
        store: where such folders are kept.

    Raises:
        ModelError: the file is damaged, or no tokenizer.json lies beside it.
    """
    tokenizer = folder / "tokenizer.json"
    if not tokenizer.is_file():
        raise ModelError(f"{folder}: holds {FILE} and no tokenizer.json; copy that of the model from which it was converted")

    def fill(partial: Path) -> None:
        found, numbers = variables(folder / FILE), _numbers(tokenizer)
        said = read_json(folder / "config.json", error=ModelError, remedy=REMEDY)
        bands, places = int(found["encoder/conv1/weight"].shape[1]), len(found["encoder/position_encodings/encodings"])
        seconds = places // POSITIONS
        shutil.copyfile(tokenizer, partial / tokenizer.name)
        made = {
            "tokenizer_config.json": {
                "tokenizer_class": "WhisperTokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
                "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "model_max_length": 1024,
            },
            "preprocessor_config.json": {
                "feature_extractor_type": "WhisperFeatureExtractor", "feature_size": bands,
                "sampling_rate": RATE, "hop_length": HOP, "n_fft": WINDOW, "chunk_length": seconds,
                "n_samples": seconds * RATE, "nb_max_frames": seconds * RATE // HOP, "padding_side": "right",
                "padding_value": 0.0, "return_attention_mask": False, "processor_class": "WhisperProcessor",
            },
            "generation_config.json": _generation(said, numbers, found),
        }  # fmt: skip
        for name, content in made.items():
            (partial / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    digest = file_digest(folder / FILE)[:16] + file_digest(tokenizer)[:16]
    return in_one_move(store / f"ctranslate2-{MADE_BY}-{digest}", fill)


def read(path: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    """Returns transformers' configuration and float32 tensors of a Whisper model of CTranslate2.

    Raises:
        ModelError: the file is damaged, quantised, or of another kind.
    """
    import torch  # noqa: PLC0415
    from transformers import WhisperConfig  # noqa: PLC0415

    found, numbers = variables(path), _numbers(path.parent / "tokenizer.json")
    words, width = found["decoder/embeddings/weight"].shape
    end, start = numbers["<|endoftext|>"], numbers["<|startoftranscript|>"]
    heads = {side: int(found[f"{side}/num_heads"]) for side in ("encoder", "decoder")}
    config = WhisperConfig(
        vocab_size=words, d_model=width, num_mel_bins=found["encoder/conv1/weight"].shape[1],
        encoder_layers=_layers(found, "encoder"), decoder_layers=_layers(found, "decoder"),
        encoder_attention_heads=heads["encoder"], decoder_attention_heads=heads["decoder"],
        encoder_ffn_dim=found["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        decoder_ffn_dim=found["decoder/layer_0/ffn/linear_0/weight"].shape[0],
        max_source_positions=found["encoder/position_encodings/encodings"].shape[0],
        max_target_positions=found["decoder/position_encodings/encodings"].shape[0],
        pad_token_id=end, bos_token_id=end, eos_token_id=end, decoder_start_token_id=start,
        architectures=["WhisperForConditionalGeneration"],
    )  # fmt: skip
    tensors = {new: torch.from_numpy(values.astype(np.float32)) for new, values in _renamed(found)}
    return config, tensors


def variables(path: Path) -> Variables:
    """Returns each variable of a model of CTranslate2 by its name; those that stand for others are left out.

    Raises:
        ModelError: the file is damaged, of another version or kind, or its weights are quantised.
    """
    data = path.read_bytes()
    try:
        found = dict(_parsed(data))
        layers = [found[name] for name in ("encoder/conv1/weight", "decoder/embeddings/weight")]
    except (struct.error, KeyError, ValueError, UnicodeDecodeError) as error:
        raise ModelError(f"{path}: is no whole model of CTranslate2 ({type(error).__name__}: {error}); {REMEDY}") from error
    if any(layer.dtype not in (np.float16, np.float32) for layer in layers):
        raise ModelError(
            f"{path}: its weights are quantised to {layers[1].dtype}; convert the model with --quantization float16"
        )
    return found


def _parsed(data: bytes) -> Iterator[tuple[str, NDArray[Any]]]:
    place = 0

    def take(form: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from(f"<{form}", data, place)
        place += struct.calcsize(f"<{form}")
        return int(value)

    def text() -> str:
        nonlocal place
        length = take("H")
        place += length
        return data[place - length : place].rstrip(b"\0").decode()

    version, kind, _ = take("I"), text(), take("I")
    if version not in VERSIONS or kind != SPECIFICATION:
        raise ValueError(f"{kind or 'something'} of version {version}, not {SPECIFICATION} of version {VERSIONS[-1]}")
    for _ in range(take("I")):
        name = text()
        shape = [take("I") for _ in range(take("B"))]
        dtype, size = take("B"), take("I")
        if dtype not in TYPES:
            raise ValueError(f"{name} has numbers of type {dtype}")
        if place + size > len(data):
            raise ValueError(f"it ends inside {name}")
        yield name, np.frombuffer(data[place : place + size], TYPES[dtype]).reshape(shape)
        place += size


def _layers(found: Variables, side: str) -> int:
    return sum(name.startswith(f"{side}/layer_") and name.endswith("self_attention/linear_0/weight") for name in found)


def _numbers(tokenizer: Path) -> dict[str, int]:
    said = read_json(tokenizer, error=ModelError, remedy=REMEDY)
    return {token["content"]: token["id"] for token in said["added_tokens"]}


def _generation(said: Mapping[str, Any], numbers: Mapping[str, int], found: Variables) -> dict[str, Any]:
    """Returns what transformers' Whisper needs to know to generate, from CTranslate2's config.json and the tokenizer."""
    end, start = numbers["<|endoftext|>"], numbers["<|startoftranscript|>"]
    multilingual = int(found["decoder/embeddings/weight"].shape[0]) >= 51865  # as OpenAI's own code tells
    languages = {
        token: number for token, number in numbers.items() if len(token) in (6, 7) and start < number < numbers["<|translate|>"]
    }
    tasks = {"lang_to_id": languages, "task_to_id": {name: numbers[f"<|{name}|>"] for name in ("transcribe", "translate")}}
    return {
        "alignment_heads": said.get("alignment_heads"), "suppress_tokens": said.get("suppress_ids", []),
        "begin_suppress_tokens": said.get("suppress_ids_begin", []), "bos_token_id": end, "eos_token_id": end,
        "pad_token_id": end, "decoder_start_token_id": start, "no_timestamps_token_id": numbers["<|notimestamps|>"],
        "is_multilingual": multilingual, "prev_sot_token_id": numbers["<|startofprev|>"], "return_timestamps": False,
        "max_length": len(found["decoder/position_encodings/encodings"]), **(tasks if multilingual else {}),
    }  # fmt: skip


def _renamed(found: Variables) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yields transformers' names and what belongs to them; fused projections are cut into queries, keys and values."""
    for name, values in found.items():
        parts = name.split("/")
        side, last = parts[0], KINDS.get(parts[-1], parts[-1])
        if parts[1] == "position_encodings":
            yield f"model.{side}.embed_positions.weight", values
        elif parts[1] == "embeddings":
            yield f"model.{side}.embed_tokens.weight", values
        elif parts[1] in {"conv1", "conv2", "layer_norm"}:
            yield f"model.{side}.{parts[1]}.{last}", values
        elif parts[1].startswith("layer_"):
            yield from _of_layer(f"model.{side}.layers.{parts[1].removeprefix('layer_')}", parts[2:], last, values)


def _of_layer(begin: str, parts: list[str], last: str, values: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    block, layer = parts[0], parts[1]
    if layer == "layer_norm":
        yield f"{begin}.{NORMS[block]}.{last}", values
    elif block == "ffn":
        yield f"{begin}.fc{int(layer[-1]) + 1}.{last}", values
    else:
        fused = {"self_attention": ["qkv", "o"], "attention": ["q", "kv", "o"]}[block][int(layer[-1])]
        names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}
        for each, part in zip(fused, np.split(values, len(fused)), strict=True):
            if not (each == "k" and last == "bias"):  # Whisper's keys have none; CTranslate2 keeps zeros
                yield f"{begin}.{PARTS[block]}.{names[each]}.{last}", part
