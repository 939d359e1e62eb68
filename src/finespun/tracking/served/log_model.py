"""The fine-tuned model as an MLflow model, from code and safetensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import AnyType, Array

from finespun.data.images import INLINE

SCRIPT = Path(__file__).with_name("script.py")
CODE = Path(__file__).parents[2]
REQUIREMENTS = (
    "torch", "transformers", "tokenizers", "safetensors", "numpy", "pandas", "pillow", "pyarrow", "pydantic", "omegaconf",
    "regex", "tqdm",
)  # fmt: skip


def log_served_model(folder: Path, examples: Sequence[Mapping[str, Any]], answers: Sequence[Mapping[str, Any]]) -> None:
    """Logs `folder` under the active run as `model`; its signature is that of some examples and their answers."""
    given = pd.DataFrame(list(examples))
    mlflow.pyfunc.log_model(
        name="model",
        python_model=str(SCRIPT),
        artifacts={"model": str(folder)},
        code_paths=[str(CODE)],
        signature=_signature(given, pd.DataFrame(list(answers))),
        input_example=given,
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
    )


def _signature(given: pd.DataFrame, answers: pd.DataFrame) -> ModelSignature:
    """Returns the signature of some rows and their predictions; where rows have lists (words), a text will do, too.

    An image may be a text (a path, base64, data:image/...) or the bytes of a file.
    """
    found = infer_signature(given, answers)
    pictures = {name for name in given if str(given[name].iloc[0]).startswith(INLINE)}
    columns = [
        ColSpec(AnyType(), each.name) if isinstance(each.type, Array) or each.name in pictures else each
        for each in found.inputs
    ]
    return ModelSignature(inputs=Schema(columns), outputs=found.outputs)
