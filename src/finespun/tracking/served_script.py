"""The code inside the MLflow model: it needs transformers, not finespun. MLflow runs this file when it loads the model."""

from typing import Any

import mlflow
import pandas as pd
import torch
from mlflow.pyfunc.model import PythonModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

BATCH = 32


class FinetunedTexts(PythonModel):
    """A column `text` in, columns `label` and `probability` out."""

    def load_context(self, context: Any) -> None:
        """Loads weights and tokenizer."""
        folder = context.artifacts["model"]
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Returns one row a text, in order."""
        texts = [str(text) for text in model_input["text"]]
        best: list[tuple[float, int]] = []
        for start in range(0, len(texts), BATCH):
            batch = self.tokenizer(texts[start : start + BATCH], padding=True, truncation=True, return_tensors="pt")
            with torch.inference_mode():
                chances = self.model(**batch).logits.softmax(dim=-1).max(dim=-1)
            best += zip(chances.values.tolist(), chances.indices.tolist(), strict=True)
        labels = self.model.config.id2label
        return pd.DataFrame({"label": [labels[index] for _, index in best], "probability": [chance for chance, _ in best]})


mlflow.models.set_model(FinetunedTexts())
