"""The fine-tuned model as an MLflow model, from code and safetensors."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

SCRIPT = Path(__file__).with_name("served_script.py")
REQUIREMENTS = ("torch", "transformers", "safetensors", "pandas")


def log_served_model(folder: Path, examples: Sequence[str]) -> None:
    """Logs `folder` under the active run as `model`, with signature and input example."""
    signature = ModelSignature(
        inputs=Schema([ColSpec("string", "text")]),
        outputs=Schema([ColSpec("string", "label"), ColSpec("double", "probability")]),
    )
    mlflow.pyfunc.log_model(
        name="model",
        python_model=str(SCRIPT),
        artifacts={"model": str(folder)},
        signature=signature,
        input_example=pd.DataFrame({"text": list(examples)}),
        pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
    )
