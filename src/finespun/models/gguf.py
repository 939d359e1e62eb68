"""Weights and tokenizer from a GGUF file, as llama.cpp and Ollama keep language models: read once, kept as plain numbers.

transformers itself reads the file; what it makes of it cannot be saved as it is, so its parts are taken apart here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finespun.errors import ModelError
from finespun.failures import REFUSALS
from finespun.kept import file_digest, in_one_move
from finespun.masking import one_line

if TYPE_CHECKING:
    import torch

MAGIC = b"GGUF"
MADE_BY = 1  # to be raised with every change that makes another tokenizer of the same file


def tokenizer_folder(path: Path, store: Path) -> Path:
    """Returns a folder with the tokenizer that a GGUF file describes, made once, named by the file's digest.

    Args:
        path: the file.
        store: where such folders are kept.

    Raises:
        ModelError: the file is cut short, no GGUF file, or describes no tokenizer that transformers can build.
    """
    _require_whole(path)

    def fill(partial: Path) -> None:
        from transformers import AutoTokenizer  # noqa: PLC0415  (imports torch, the one time that a file is converted)

        with _refusing(path, "its tokenizer"):
            AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False).save_pretrained(partial)

    return in_one_move(store / f"gguf-{MADE_BY}-{file_digest(path)[:32]}", fill)


def read(path: Path, auto_class: str) -> tuple[Any, dict[str, torch.Tensor]]:
    """Returns the configuration and the tensors of a GGUF file, de-quantised to float32, under transformers' names.

    Tensors that the file does not have (a new head) are left out, and of tensors that share their memory all but the first.

    Raises:
        ModelError: the file is damaged, its architecture is unknown to transformers, or it has no such class.
    """
    _require_whole(path)
    import transformers  # noqa: PLC0415

    with _refusing(path, "its weights"):
        model, report = getattr(transformers, auto_class).from_pretrained(
            path.parent, gguf_file=path.name, dtype="float32", trust_remote_code=False, output_loading_info=True
        )
    config = type(model.config).from_dict(
        {name: value for name, value in model.config.to_dict().items() if name not in {"quantization_config", "_name_or_path"}}
    )
    missing, seen, tensors = {*report["missing_keys"]}, set[int](), dict[str, Any]()
    for name, tensor in model.state_dict().items():
        if name not in missing and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            tensors[name] = tensor
    return config, tensors


def _require_whole(path: Path) -> None:
    with path.open("rb") as file:
        begins = file.read(len(MAGIC))
    if begins != MAGIC:
        raise ModelError(f"{path}: is no GGUF file (it begins with {begins!r}); fetch it again, or correct model.weights")


@contextmanager
def _refusing(path: Path, what: str) -> Iterator[None]:
    """Turns what transformers says of a file into an error of the model's."""
    from huggingface_hub.errors import StrictDataclassError  # noqa: PLC0415

    try:
        yield
    except ImportError as error:
        raise ModelError(f"{path}: GGUF files are read with an extra: pip install 'finespun[gguf]' ({error})") from error
    except (*REFUSALS, ArithmeticError, OSError, StrictDataclassError) as error:
        raise ModelError(
            f"{path}: transformers cannot read {what} ({type(error).__name__}: {one_line(error, 200)}); fetch the file again,"
            " or take the model's own checkpoint (model.checkpoint)"
        ) from error
