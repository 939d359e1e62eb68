"""The door to transformers' feature extractors of sound: tasks give them samples, and get the model's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finespun.errors import ModelError
from finespun.failures import REFUSALS
from finespun.masking import one_line


def feature_extractor(folder: Path, changes: Mapping[str, Any]) -> Any:
    """Loads the feature extractor of a checkpoint, changed by `changes`.

    Raises:
        ModelError: there is none that can be read.
    """
    from transformers import AutoFeatureExtractor  # noqa: PLC0415  (imports torch; prepare asks for none)

    try:
        return AutoFeatureExtractor.from_pretrained(folder, **changes)  # type: ignore[no-untyped-call]
    except (*REFUSALS, OSError, ImportError) as error:
        raise ModelError(f"{folder}: none of transformers' feature extractors can be made of it ({one_line(error)})") from error
