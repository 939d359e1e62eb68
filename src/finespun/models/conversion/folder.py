"""Weights from anywhere become, once, a transformers folder named by their content: `.finespun/weights/DIGEST/`.

The folder holds config.json, model.safetensors, the tokenizer or image processor, and origin.json: digests of its sources.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import save_file
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from finespun.config.sections import GGUF, KERAS, ModelConfig, Target
from finespun.errors import ModelError, did_you_mean, listed
from finespun.failures import REFUSALS
from finespun.kept import file_digest, in_one_move
from finespun.masking import one_line
from finespun.models import ctranslate2, gguf
from finespun.models.adapters import merged
from finespun.models.addresses import (
    PICKLED,
    SAFE,
    base_of,
    checkpoint_folder,
    is_adapter,
    processor_files,
    processor_folder,
    require_consent,
    store,
    weights_digest,
    weights_file,
)
from finespun.models.conversion import layouts
from finespun.models.conversion import mobilenet_backbone as _backbone  # noqa: F401  (registers it with AutoBackbone)
from finespun.models.conversion.module import AUTO_MAP, ModuleConfig, build
from finespun.models.conversion.weights import Tensors, read, renamed, shards

MADE_BY = 2  # to be raised with every change that makes other folders of the same files


def ready(model: ModelConfig, project: Path, *, auto_class: str) -> Path:
    """Returns a local folder that transformers can load without any pickle: the checkpoint's own, or what is made of it.

    Args:
        model: the section `model`.
        project: relative paths are relative to it.
        auto_class: of the task; it says which class of an architecture the weights are for.

    Raises:
        ModelError: weights, architecture or tokenizer are not there, do not fit each other, or are not what `sha256` says.
    """
    folder = checkpoint_folder(model, project) if model.checkpoint else None
    if folder:
        require_consent(folder, trusted=model.trust_remote_code, remedy="set model.trust_remote_code: true")
    if folder and is_adapter(folder):
        return _with_base(model, folder, project, auto_class)
    if folder and list(folder.glob(SAFE)) and not (model.tokenizer or model.processor):
        _require_digest(model, sorted(folder.glob("model*.safetensors")))
        return folder
    if model.from_scratch:
        return _untrained(model, project, auto_class)
    path = _weights_in(folder) if folder else weights_file(model, project)
    files = sorted({path, *shards(path)})
    _require_digest(model, files)
    beside = processor_folder(model, project)
    processor = [*processor_files(beside), *beside.glob("generation_config.json")]
    read_too = [*files, *processor, *([folder / "config.json"] if folder else [])]
    made = store(project, "weights") / _name(model, read_too, auto_class)
    return in_one_move(made, lambda partial: _make(partial, model, path, processor, auto_class))


def _untrained(model: ModelConfig, project: Path, auto_class: str) -> Path:
    """Returns the folder of an architecture without a tensor: all are drawn when it is loaded, by the seed of the run."""
    processor = processor_files(processor_folder(model, project))
    config = architecture(model.config or {})
    made = store(project, "weights") / _name(model, processor, auto_class)
    return in_one_move(made, lambda partial: _write(partial, config, {}, processor, []))


def _with_base(model: ModelConfig, folder: Path, project: Path, auto_class: str) -> Path:
    """Returns the folder of an adapter merged with what it was trained on."""
    base = ready(base_of(folder, model), project, auto_class=auto_class)
    files = sorted(folder.glob("adapter_*"))
    _require_digest(model, [path for path in files if path.name.startswith("adapter_model")])
    processor = processor_files(processor_folder(model, project))

    def fill(partial: Path) -> None:
        config, tensors = merged(folder, base, auto_class=auto_class, trust_remote_code=model.trust_remote_code)
        _write(partial, config, tensors, processor, files)

    name = f"{_name(model, [*files, *processor], auto_class)[:16]}{weights_digest(base)[:16]}"
    return in_one_move(store(project, "weights") / name, fill)


def _weights_in(folder: Path) -> Path:
    if ctranslate2.is_model(folder):
        return folder / ctranslate2.FILE
    plain = folder / "model.safetensors"  # beside which there may be others, in half precision
    found = [*([plain] if plain.is_file() else []), *sorted(folder.glob(SAFE)), *sorted(folder.glob(PICKLED))]
    if not found:
        raise ModelError(
            f"model.checkpoint: {folder}: holds neither model.safetensors nor pytorch_model.bin; name another folder, or say"
            " model.config and model.weights"
        )
    return next((path for path in found if path.name.endswith(".index.json")), found[0])


def _make(folder: Path, model: ModelConfig, path: Path, processor: list[Path], auto_class: str) -> None:
    if path.name.endswith(KERAS):
        config, tensors = _of_keras(path, model.cut)
    elif path.suffix == GGUF:
        config, tensors = gguf.read(path, auto_class)
    elif path.name == ctranslate2.FILE and ctranslate2.is_model(path.parent):
        config, tensors = ctranslate2.read(path)
    elif model.module:
        config, tensors = _of_module(model.module, path, model)
    else:
        config, tensors = _of_transformers(model, path, auto_class)
    _write(folder, config, tensors, processor, sorted({path, *shards(path)}))


def _write(folder: Path, config: Any, tensors: Tensors, processor: list[Path], sources: list[Path]) -> None:
    own = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}  # safetensors takes no shared memory
    save_file(own, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    for each in processor:
        shutil.copyfile(each, folder / each.name)
    files = {each.name: file_digest(each) for each in sources}
    (folder / "origin.json").write_text(json.dumps(files, indent=2) + "\n", encoding="utf-8")


def _of_transformers(model: ModelConfig, path: Path, auto_class: str) -> tuple[Any, Tensors]:
    trust, saved = model.trust_remote_code, transformers.AutoConfig.from_pretrained
    try:
        config = architecture(model.config) if model.config else saved(path.parent, trust_remote_code=trust)
        with torch.device("meta"):
            empty = getattr(transformers, auto_class).from_config(config, trust_remote_code=trust)
    except (*REFUSALS, ArithmeticError, OSError, ImportError, StrictDataclassError) as error:
        raise ModelError(f"{path}: {auto_class} has no such architecture: {one_line(error)}") from error
    shapes = {name: tensor.shape for name, tensor in empty.state_dict().items()}
    if isinstance(model.mapping, str) and model.mapping in layouts.LAYOUTS:
        layouts.padded_alike(config, model.mapping)
        return config, layouts.in_transformers_names(read(path), model.mapping, config, shapes, path)
    return config, renamed(read(path), model.mapping, shapes, f"{empty.base_model_prefix}.", path)


def _of_module(module: Target, path: Path, model: ModelConfig) -> tuple[Any, Tensors]:
    try:
        whole = build(module.target, module.options)
    except (ImportError, TypeError, ValueError) as error:
        raise ModelError(
            f"model.module: {error}; name a class of torch.nn.Module that is installed, and its options"
        ) from error
    shapes = {name: tensor.shape for name, tensor in whole.state_dict().items()}
    tensors = renamed(read(path), model.mapping, shapes, "", path)
    name, linear = _head(whole, model.cut)
    config = ModuleConfig(
        target=module.target, options=module.options, cut=name, hidden_size=linear.in_features, auto_map=AUTO_MAP
    )  # fmt: skip
    computed = {name: buffer for name, buffer in whole.named_buffers() if name not in whole.state_dict()}
    kept = {f"backbone.{each}": tensor for each, tensor in (computed | tensors).items() if not each.startswith(f"{name}.")}
    return config, kept


def _head(module: nn.Module, cut: str | None) -> tuple[str, nn.Linear]:
    linear = {name: each for name, each in module.named_modules() if isinstance(each, nn.Linear) and name}
    name = cut or next(reversed(linear), "")
    if name not in linear:
        raise ModelError(
            f"model.cut: {type(module).__name__} has no linear layer {name!r}{did_you_mean(name, linear)} that the new head"
            f" could stand for; it has: {listed(linear)}"
        )
    return name, linear[name]


def _of_keras(path: Path, cut: str | None) -> tuple[Any, Tensors]:
    from finespun.models.conversion import keras_backbone  # noqa: PLC0415  (Keras is an extra)

    options, tensors, width = keras_backbone.read(path, cut)
    target = f"{keras_backbone.__name__}.{keras_backbone.KerasBackbone.__name__}"
    config = ModuleConfig(target=target, options=options, hidden_size=width, auto_map=AUTO_MAP)
    return config, {f"backbone.{name}": tensor for name, tensor in tensors.items()}


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
        raise ModelError(f"model.config: {kind} does not accept it: {one_line(error)}") from error


def empty_model(config: Any, auto_class: str, *, trust_remote_code: bool = False) -> Any:
    """Returns a model of a configuration of transformers that takes no memory: its tensors have shapes and no numbers.

    Raises:
        ModelError: there is no such architecture.
    """
    try:
        with torch.device("meta"):
            return getattr(transformers, auto_class).from_config(config, trust_remote_code=trust_remote_code)
    except (*REFUSALS, ArithmeticError, ImportError) as error:
        raise ModelError(f"model.config: {auto_class} has no such architecture: {one_line(error)}") from error


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


def _name(model: ModelConfig, files: list[Path], auto_class: str) -> str:
    """A digest of all that a made folder depends on."""
    said = model.model_dump(mode="json", by_alias=True, include={"config", "module", "mapping", "cut"})
    how = [MADE_BY, transformers.__version__, {path.name: file_digest(path) for path in files}, said, auto_class]
    return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()[:32]
