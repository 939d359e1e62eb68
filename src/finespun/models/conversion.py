"""Weights from anywhere become, once, a transformers folder named by their content: `.finespun/weights/DIGEST/`.

The folder holds config.json, model.safetensors, the tokenizer or image processor, and origin.json, which says what it is from.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from finespun.config.sections import KERAS, ModelConfig
from finespun.errors import ModelError, did_you_mean
from finespun.models.addresses import PICKLED, SAFE, file_digest, in_one_move, processor_files, resolve, store, weights_file
from finespun.models.weights import read, renamed, shards

MADE_BY = 1  # to be raised with every change that makes other folders of the same files


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model's tensors are, and the transformers architecture that they are for."""

    path: Path
    config: Any  # of transformers
    mapping: str | Mapping[str, str] = "exact"

    @property
    def files(self) -> list[Path]:
        return sorted({self.path, *shards(self.path)})


def ready(model: ModelConfig, project: Path, *, auto_class: str) -> Path:
    """Returns a local folder that transformers can load without any pickle: the checkpoint's own, or what is made of it.

    Args:
        model: the section `model`.
        project: relative paths are relative to it.
        auto_class: of the task; it says which class of an architecture the weights are for.

    Raises:
        ModelError: weights, architecture or tokenizer are not there, do not fit each other, or are not what `sha256` says.
    """
    folder = resolve(model, project, weights=True) if model.checkpoint else None
    if folder and list(folder.glob(SAFE)) and not (model.tokenizer or model.processor):
        _require_digest(model, sorted(folder.glob("model*.safetensors")))
        return folder
    source = _of_checkpoint(folder, model) if folder else _of_file(model, project)
    _require_digest(model, source.files)
    processor = processor_files(resolve(model, project, weights=False))
    made = store(project, "weights") / _name(source, processor, auto_class)
    return in_one_move(made, lambda partial: _make(partial, source, processor, auto_class))


def _of_checkpoint(folder: Path, model: ModelConfig) -> Source:
    found = [*sorted(folder.glob(SAFE)), *sorted(folder.glob(PICKLED))]
    whole = next((path for path in found if path.name.endswith(".index.json")), found[0] if found else None)
    if whole is None:
        raise ModelError(
            f"model.checkpoint: {folder}: holds neither model.safetensors nor pytorch_model.bin; name another folder, or say"
            " model.config and model.weights"
        )
    config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=model.trust_remote_code)
    return Source(path=whole, config=config)


def _of_file(model: ModelConfig, project: Path) -> Source:
    path = weights_file(model, project)
    assert model.config is not None
    if path.name.endswith(KERAS):
        raise ModelError(f"model.weights: {path}: Keras weights are for no architecture of transformers; leave config out")
    return Source(path=path, config=architecture(model.config), mapping=model.mapping)


def architecture(values: Mapping[str, Any]) -> Any:
    """Returns transformers' configuration of an architecture.

    Raises:
        ModelError: there is no such `model_type`, or it has no such values.
    """
    kind = str(values["model_type"])
    if kind not in CONFIG_MAPPING:
        raise ModelError(
            f"model.config.model_type: transformers has no {kind!r}{did_you_mean(kind, CONFIG_MAPPING.keys())};"
            " its documentation lists them"
        )
    plain = CONFIG_MAPPING[kind]()
    for name in values:
        if not hasattr(plain, name):
            raise ModelError(f"model.config.{name}: {kind} has no such value{did_you_mean(name, plain.to_dict())}")
    try:
        return transformers.AutoConfig.for_model(
            kind, **{name: value for name, value in values.items() if name != "model_type"}
        )
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ModelError(f"model.config: {kind} does not accept it: {' '.join(str(error).split())[:300]}") from error


def _require_digest(model: ModelConfig, files: list[Path]) -> None:
    if model.sha256 is None:
        return
    lines = [f"{path.name}:{file_digest(path)}" for path in files]
    digest = lines[0].rpartition(":")[2] if len(lines) == 1 else hashlib.sha256("\n".join(lines).encode()).hexdigest()
    if digest != model.sha256:
        raise ModelError(
            f"model.sha256: {files[0]} has the digest {digest}, not {model.sha256}: it is another file, or damaged; fetch it"
            " again, or correct model.sha256"
        )


def _name(source: Source, processor: list[Path], auto_class: str) -> str:
    """A digest of all that a made folder depends on."""
    files = {path.name: file_digest(path) for path in (*source.files, *processor)}
    how = [MADE_BY, transformers.__version__, files, source.config.to_json_string(), source.mapping, auto_class]
    return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()[:32]


def _make(folder: Path, source: Source, processor: list[Path], auto_class: str) -> None:
    found = read(source.path)
    with torch.device("meta"):
        model = getattr(transformers, auto_class).from_config(source.config)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    base = f"{model.base_model_prefix}."
    tensors = renamed(found.tensors, source.mapping, expected, base, source.path)
    own = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}  # safetensors takes no shared memory
    save_file(own, folder / "model.safetensors", metadata={"format": "pt"})
    source.config.save_pretrained(folder)
    for path in processor:
        shutil.copyfile(path, folder / path.name)
    origin = {
        "files": {path.name: file_digest(path) for path in source.files},
        "under": found.under,
        "tensors": len(found.tensors),
        "mapping": source.mapping,
    }
    (folder / "origin.json").write_text(json.dumps(origin, indent=2) + "\n", encoding="utf-8")
