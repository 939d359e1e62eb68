"""The only door to transformers' Auto classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from finespun.errors import ModelError, listed
from finespun.failures import REFUSALS
from finespun.masking import one_line
from finespun.models import heads, positions
from finespun.models.conversion import mobilenet_backbone as _backbone  # noqa: F401  (registers it with AutoBackbone)
from finespun.models.conversion import module as _module  # noqa: F401  (registers modules of the user's own with the Auto classes)
from finespun.models.conversion.forest import ForestForLabels

if TYPE_CHECKING:
    import pyarrow as pa

    from finespun.tasks.base import Task
    from finespun.tasks.inputs.image_encoder import ImageEncoder

transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # its load report speaks of keys; ours speaks of the model
transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

UNREADABLE = (*REFUSALS, ArithmeticError, ImportError, OSError, SafetensorError, StrictDataclassError)
COUNTER = "num_batches_tracked"  # of batch norms: no weight, and old files have none
HEADS = ("classifier.", "projector.")  # of Whisper that classifies: it has its encoder and these, and no base model
LOST_SHARE = 0.01  # of the backbone's numbers that may be new
TRUST = "if you trust it, set model.trust_remote_code: true (finespun predict: --trust-remote-code)"
HEAD_DROPOUTS = ("classifier_dropout", "seq_classif_dropout", "classifier_dropout_prob")  # by architecture


def with_head_dropout(folder: Path, dropout: float | None, *, trust_remote_code: bool = False) -> dict[str, float]:
    """Returns the change to a model's configuration that sets its head's dropout.

    Raises:
        ModelError: the architecture has none.
    """
    if dropout is None:
        return {}
    config = load_processor("AutoConfig", folder, {}, trust_remote_code=trust_remote_code)
    names = [name for name in HEAD_DROPOUTS if hasattr(config, name)]
    if not names:
        raise ModelError(f"model.head_dropout: {config.model_type} has no dropout before its head; set it to null")
    return dict.fromkeys(names, dropout)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What became of a checkpoint's tensors: how many the model took; names of its own that are new, and of those left over.

    `head` says which rows of the checkpoint's head were taken for which labels, where it has one.
    """

    matched: int
    new: list[str]
    left_over: list[str]
    head: heads.Rows | None = None
    changes: Sequence[str] = ()

    def __str__(self) -> str:
        new = f"{len(self.new)} new" + (f" ({_first(self.new)})" if self.new else "")
        left = f"{len(self.left_over)} left over" + (f" ({_first(self.left_over)})" if self.left_over else "")
        return "; ".join(
            [f"{self.matched} tensors matched, {new}, {left}", *([str(self.head)] if self.head else []), *self.changes]
        )


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def load_model(
    folder: Path, *, auto_class: str, options: Mapping[str, Any], new_head: bool = False, trust_remote_code: bool = False
) -> Any:
    """Loads a model with the Auto class that a task names, in float32: `load` without its report."""
    return load(
        folder, auto_class=auto_class, options=options, new_head=new_head, trust_remote_code=trust_remote_code
    )[0]  # fmt: skip


def load(
    folder: Path,
    *,
    auto_class: str,
    options: Mapping[str, Any],
    new_head: bool = False,
    allow_partial: bool = False,
    trust_remote_code: bool = False,
) -> tuple[Any, Loaded]:
    """Loads a model with the Auto class that a task names, in float32, and says what became of the tensors.

    Args:
        folder: a local folder that transformers saved.
        auto_class: for example `AutoModelForSequenceClassification`.
        options: changes to the model's configuration, for example `num_labels`.
        new_head: let the head begin from random numbers where the folder's has no row for a label; otherwise every tensor must
            be in the folder.
        allow_partial: let more than 1 % of the backbone begin from random numbers.
        trust_remote_code: run code that comes with the checkpoint.

    Raises:
        ModelError: the folder cannot be read, lacks weights that it must have, holds numbers that are none, or (asked for a new
            head) is a model that cannot be trained further.
    """
    if not folder.is_dir():
        raise ModelError(f"{folder}: there is no such folder; `dvc repro finetune` makes models/finetuned")
    read = partial(
        getattr(transformers, auto_class).from_pretrained, folder, dtype="float32", trust_remote_code=trust_remote_code,
        use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True,
    )  # fmt: skip
    try:
        model, report = read(**options)
    except UNREADABLE as error:  # a configuration's values go through much code of other people's
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        remedy = TRUST if "contains custom code" in reason else "mend or fetch its files again, or choose another model or task"
        raise ModelError(f"{folder}: {auto_class} cannot load it: {reason}; {remedy}") from error
    if new_head and isinstance(model, ForestForLabels):
        raise ModelError(
            f"{folder}: is a random forest on a model and cannot be trained further; take the checkpoint that it was grown on"
        )
    model = _without_pooler(model) if auto_class == "AutoModel" else model
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith(COUNTER)}
    unlike = {name: (ours, theirs) for name, theirs, ours in report["mismatched_keys"]}
    shapes = positions.without_cut(folder, tensors, unlike)
    new = [name for name in tensors if name in shapes or name in report["missing_keys"]]
    if new and not new_head:
        raise ModelError(f"{folder}: is no fine-tuned {auto_class}: it lacks {listed(new)[:200]}; name a fine-tuned model")
    head = None
    if new_head and "id2label" in options:
        checkpoint = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        labels, missing = [*options["id2label"].values()], {*report["missing_keys"]}
        head, held = heads.take_rows(model, checkpoint, labels, missing=missing, again=lambda: _undisturbed(read)) or (
            None,
            set(),
        )
        if head:
            new = [name for name in tensors if (name in held and head.all_new) or (name in new and name not in held)]
    loaded = Loaded(matched=len(tensors) - len(new), new=new, left_over=sorted(report["unexpected_keys"]), head=head)
    if not allow_partial:
        _refuse_random_backbone(folder, model, loaded, shapes)
    _refuse_broken_numbers(folder, tensors)
    return model, loaded


def _without_pooler(model: Any) -> Any:
    """Takes off a bare backbone what BERT's pretraining had above the first token: no task reads it, nothing would train it."""
    if getattr(model, "pooler", None) is not None:
        model.pooler = None
    return model


def _undisturbed(read: Callable[[], Any]) -> Any:
    """Loads a model without drawing any of the random numbers that the one before it drew from."""
    with torch.random.fork_rng(devices=[]):
        return read()[0]


def _refuse_random_backbone(folder: Path, model: Any, loaded: Loaded, shapes: Mapping[str, Any]) -> None:
    alone = model.base_model is model  # it is a backbone, or a backbone in pieces beside a head
    prefix = "" if alone else model.base_model_prefix + "."
    backbone = {name: tensor.numel() for name, tensor in model.state_dict().items() if name.startswith(prefix)}
    lost = [name for name in loaded.new if name in backbone and "pooler" not in name]
    lost = [name for name in lost if not (alone and name.startswith(HEADS))]
    share = sum(backbone[name] for name in lost) / max(1, sum(backbone.values()))
    if share <= LOST_SHARE:
        return
    first = next((name for name in lost if name in shapes), lost[0])
    why = f"it is {list(shapes[first][1])} in the file, {list(shapes[first][0])} in the model; " if first in shapes else ""
    unused = f"; the file has, for example, {loaded.left_over[0]}" if loaded.left_over else ""
    raise ModelError(
        f"{folder}: {len(lost)} of the backbone's {len(backbone)} tensors ({share:.0%} of its numbers) are not in its weights"
        f" (first: {first}; {why}training would begin from random numbers{unused}); name a checkpoint of this"
        " architecture, correct model.config or model.mapping, or set model.allow_partial: true"
    )


def _refuse_broken_numbers(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise ModelError(
            f"{folder}: {len(broken)} tensors hold NaN or infinity (first: {broken[0]}): the run that made them diverged, or"
            " the file is damaged; take an earlier checkpoint or fetch it again"
        )


def load_processor(auto_class: str, folder: Path, options: Mapping[str, Any], *, trust_remote_code: bool = False) -> Any:
    """Loads the tokenizer, image processor or configuration of a model, changed by `options`; its code runs only if trusted.

    Raises:
        ModelError: there is none that can be read.
    """
    try:
        return getattr(transformers, auto_class).from_pretrained(folder, trust_remote_code=trust_remote_code, **options)
    except UNREADABLE as error:
        what, reason = auto_class.removeprefix("Auto"), one_line(error)
        remedy = TRUST if "contains custom code" in reason else "save one beside the model"
        raise ModelError(f"{folder}: {what}: none that can be read ({reason}); {remedy}") from error


def require_same_pixels(processor: Any, encoder: ImageEncoder, folder: Path) -> None:
    """Makes sure that `prepare`, which reads `preprocessor_config.json` alone, gives the numbers that users of the model will.

    Raises:
        ModelError: transformers' image processor of the same folder makes other numbers of two made-up images.
    """
    for width, height in ((301, 211), (37, 90)):
        made = np.random.Generator(np.random.Philox(key=width)).integers(0, 256, (height, width, 3), dtype=np.uint8)
        theirs = np.asarray(processor(images=made, input_data_format="channels_last")["pixel_values"][0])
        pixels = encoder.pixels(Image.fromarray(made))[None]
        ours = encoder.values(pixels, [encoder.filled((width, height))])[0].transpose(2, 0, 1)
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, atol=1e-5):
            far = (
                f"by {np.abs(ours - theirs).max():.3g}" if ours.shape == theirs.shape else f"{theirs.shape}, here {ours.shape}"
            )
            raise ModelError(
                f"{folder}: {type(processor).__name__} does something that prepare does not know: other pixel values ({far});"
                " describe its steps as those of a ViTImageProcessor in model.processor"
            )


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
