"""Adapters that peft saved: what is merged with the model that they were trained on becomes a checkpoint like any other."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError

from finespun.errors import ModelError
from finespun.masking import one_line
from finespun.models.conversion.weights import Tensors, read
from finespun.models.heads import label_tensors

INSIDE = "base_model.model."  # what peft puts before every name


def merged(folder: Path, base: Path, *, auto_class: str, trust_remote_code: bool) -> tuple[Any, Tensors]:
    """Returns configuration and tensors of a base model with an adapter merged into it; a head that neither has is left out.

    Args:
        folder: with `adapter_config.json` and the adapter's weights.
        base: folder of the model that it was trained on.
        auto_class: of the task.
        trust_remote_code: run code that comes with the base.

    Raises:
        ModelError: the adapter is of a kind that cannot be merged, is damaged, or was trained on another model.
    """
    from peft import PeftModel, get_peft_model_state_dict  # noqa: PLC0415  (1 s that only adapters need pay)

    held = read(_weights(folder))
    kept = {name.removeprefix(INSIDE): tensor for name, tensor in held.items()}
    load = getattr(transformers, auto_class).from_pretrained
    options = {"trust_remote_code": trust_remote_code, "use_safetensors": True, "dtype": "float32"}
    try:
        model, report = load(base, **options, output_loading_info=True)
        labels = _labels(model, kept)
        if labels != model.config.num_labels:
            options |= {"num_labels": labels, "ignore_mismatched_sizes": True}
            model, report = load(base, **options, output_loading_info=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tensors that are missing, which is an error here
            adapted: Any = PeftModel.from_pretrained(model, str(folder))
        wrong = _unmatched(get_peft_model_state_dict(adapted, save_embedding_layers=False), held, model)
        whole = adapted.merge_and_unload()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        reason = one_line(error)
        raise ModelError(
            f"{folder}: is an adapter that cannot be merged with {base}: {reason}; name the merged model instead"
            " (merge_and_unload, then save_pretrained)"
        ) from error
    if wrong:
        raise ModelError(
            f"{folder}: is an adapter of another model than {base}: {len(wrong)} tensors are only in one of them (first:"
            f" {wrong[0]}); correct base_model_name_or_path in its adapter_config.json"
        )
    drawn = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])} - kept.keys()
    return whole.config, {name: tensor for name, tensor in whole.state_dict().items() if name not in drawn}


def _unmatched(expected: Mapping[str, Any], held: Mapping[str, Any], model: Any) -> list[str]:
    """Returns the tensors that the adapter should have and has not, or has and nobody takes; embeddings may be among them."""
    own = {f"{INSIDE}{name}" for name in model.state_dict()}
    return sorted((expected.keys() - held.keys()) | (held.keys() - expected.keys() - own))


def _weights(folder: Path) -> Path:
    found = [folder / name for name in ("adapter_model.safetensors", "adapter_model.bin") if (folder / name).is_file()]
    if not found:
        raise ModelError(f"{folder}: is an adapter without adapter_model.safetensors; fetch that file too")
    return found[0]


def _labels(model: Any, kept: Mapping[str, Any]) -> int:
    """Returns how many labels the adapter's own head has, or the base's where it has none."""
    found = [kept[name].shape[dimension] for name, dimension in label_tensors(model).items() if name in kept]
    return int(found[0]) if found else int(model.config.num_labels)
