"""The door to transformers' feature extractors of sound: tasks give them samples, and get the model's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finespun.errors import ModelError
from finespun.failures import REFUSALS
from finespun.masking import one_line

if TYPE_CHECKING:
    import torch


def feature_extractor(folder: Path, changes: Mapping[str, Any]) -> Any:
    """Loads the feature extractor of a checkpoint, changed by `changes`; code that lies in the folder is never run.

    Raises:
        ModelError: there is none that can be read.
    """
    from transformers import AutoFeatureExtractor  # noqa: PLC0415  (imports torch; prepare asks for none)

    try:
        return AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=False, **changes)  # type: ignore[no-untyped-call]
    except (*REFUSALS, OSError, ImportError) as error:
        raise ModelError(f"{folder}: none of transformers' feature extractors can be made of it ({one_line(error)})") from error


def features(
    extractor: Any, samples: Sequence[NDArray[np.floating[Any]]], *, rate: int, fixed: bool
) -> dict[str, torch.Tensor]:
    """Returns a model's inputs, (rows, ...) each, in full precision also where the model computes in half of it.

    Args:
        extractor: of transformers.
        samples: (samples,) of each row, from -1 to 1.
        rate: samples a second.
        fixed: whether all rows are as long as the extractor's own window; otherwise as long as the longest.
    """
    import torch  # noqa: PLC0415

    padding = "max_length" if fixed else True
    with torch.autocast("cpu", enabled=False):
        return dict(extractor(samples, sampling_rate=rate, return_tensors="pt", padding=padding))
