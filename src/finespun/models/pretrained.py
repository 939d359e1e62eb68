"""The only door to transformers' Auto classes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from finespun.errors import ModelError, listed

if TYPE_CHECKING:
    import pyarrow as pa

    from finespun.tasks.base import Task

transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its load report speaks of keys; ours speaks of the model
transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")


HEAD_DROPOUTS = ("classifier_dropout", "seq_classif_dropout", "classifier_dropout_prob")  # by architecture


def with_head_dropout(folder: Path, dropout: float | None) -> dict[str, float]:
    """Returns the change to a model's configuration that sets its head's dropout.

    Raises:
        ModelError: the architecture has none.
    """
    if dropout is None:
        return {}
    config = transformers.AutoConfig.from_pretrained(folder)
    names = [name for name in HEAD_DROPOUTS if hasattr(config, name)]
    if not names:
        raise ModelError(f"model.head_dropout: {config.model_type} has no dropout before its head; set it to null")
    return dict.fromkeys(names, dropout)


def load_model(
    folder: Path, *, auto_class: str, options: Mapping[str, Any], new_head: bool = False, trust_remote_code: bool = False
) -> Any:
    """Loads a model with the Auto class that a task names, in float32.

    Args:
        folder: a local folder that transformers saved.
        auto_class: for example `AutoModelForSequenceClassification`.
        options: changes to the model's configuration, for example `num_labels`.
        new_head: let the head begin from random numbers; otherwise every tensor must be in the folder.
        trust_remote_code: run code that comes with the checkpoint.

    Raises:
        ModelError: the folder cannot be read, or lacks weights that it must have.
    """
    try:
        model, report = getattr(transformers, auto_class).from_pretrained(
            folder, **options, dtype="float32", trust_remote_code=trust_remote_code, use_safetensors=True,
            output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{folder}: {auto_class} cannot load it: {reason}; choose another model or task") from error
    missing = set(report["missing_keys"])
    if missing and not new_head:
        raise ModelError(f"{folder}: is no fine-tuned {auto_class}: it lacks {listed(missing)[:200]}; name a fine-tuned model")
    _refuse_random_backbone(folder, model, missing)
    return model


def _refuse_random_backbone(folder: Path, model: Any, missing: set[str]) -> None:
    prefix = model.base_model_prefix + "."
    backbone = {name: p.numel() for name, p in model.named_parameters() if name.startswith(prefix)}
    lost = [name for name in backbone if name in missing and "pooler" not in name]
    if sum(backbone[name] for name in lost) > 0.01 * max(1, sum(backbone.values())):
        raise ModelError(
            f"{folder}: {len(lost)} of the backbone's {len(backbone)} tensors are not in its weights (first: {lost[0]});"
            " training would begin from random numbers; name a checkpoint of this architecture"
        )


def load_processor(auto_class: str, folder: Path, options: Mapping[str, Any]) -> Any:
    """Loads the tokenizer or image processor that lies beside a model, changed by `options`.

    Raises:
        ModelError: there is none that can be read.
    """
    try:
        return getattr(transformers, auto_class).from_pretrained(folder, **options)
    except (OSError, ValueError) as error:
        what = auto_class.removeprefix("Auto")
        raise ModelError(f"{folder}: {what}: none that can be read ({error}); save one beside the model") from error


def require_same_tokens(tokenizer: Any, task: Task, rows: pa.Table, folder: Path) -> None:
    """Makes sure that `prepare`, which reads `tokenizer.json` alone, gave the tokens that users of the model will give.

    Raises:
        ModelError: transformers' tokenizer of the same folder gives other tokens.
    """
    for row in rows.to_pylist():
        tokens = tokenizer(**task.for_processor(row), truncation=True)["input_ids"]
        if tokens != row["input_ids"]:
            raise ModelError(
                f"{folder}: tokenizer.json and AutoTokenizer disagree on row {row['row']} ({row['input_ids'][:8]}... and"
                f" {tokens[:8]}...); save the tokenizer again with AutoTokenizer.from_pretrained(...).save_pretrained(...)"
            )
