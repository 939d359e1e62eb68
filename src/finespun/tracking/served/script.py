"""The code inside the MLflow model, which holds finespun's own code too. MLflow runs this file when it loads the model."""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel


class FineTuned(PythonModel):
    """The columns that the model reads in, its predictions out: those of `finespun predict`."""

    def load_context(self, context: Any) -> None:
        """Loads the model; code that came with its checkpoint runs only if whoever trained it trusted that code."""
        from finespun.evaluation.predictor import Predictor  # noqa: PLC0415  (lies beside this file when served)
        from finespun.evaluation.record import read_record  # noqa: PLC0415

        folder = Path(context.artifacts["model"])
        self.predictor = Predictor(folder, trust_remote_code=read_record(folder).get("trust_remote_code", False))

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Returns one row a row, in order; a row that cannot be predicted says why in a column `error`."""
        return pd.DataFrame(self.predictor.predict(model_input.to_dict("records")))


mlflow.models.set_model(FineTuned())
