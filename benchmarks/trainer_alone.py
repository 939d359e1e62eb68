"""One run of `transformers.Trainer` on prepared data, with its defaults but for the batch of 32: an arm of accuracy.py.

python benchmarks/trainer_alone.py SEED EPOCHS PREPARED FOLDER [ARGUMENT=VALUE ...]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from against_trainer import BATCH, fresh_model, weights
from sklearn.metrics import accuracy_score, log_loss
from transformers import AutoTokenizer, Trainer, TrainingArguments

from finespun.data.prepared import PreparedData
from finespun.tasks.base import softmax


def rows_of(prepared: Path, split: str) -> list[dict[str, Any]]:
    """A prepared split as Trainer wants it."""
    table = PreparedData(prepared).open(split)
    pairs = zip(table["input_ids"].to_pylist(), table["target"].to_pylist(), strict=True)
    return [{"input_ids": ids, "attention_mask": [1] * len(ids), "labels": label} for ids, label in pairs]


def main() -> None:
    """Trains, predicts validation and test split, writes scores.json."""
    seed, epochs, prepared, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    others = {name: json.loads(value) for name, value in (each.split("=") for each in sys.argv[5:])}
    transformers.set_seed(seed)
    settings = TrainingArguments(
        output_dir=str(folder), num_train_epochs=epochs, seed=seed, save_strategy="no", report_to="none", disable_tqdm=True,
        use_cpu=True, **({"per_device_train_batch_size": BATCH} | others),
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(weights())
    trainer = Trainer(
        model=fresh_model(seed), args=settings, train_dataset=rows_of(prepared, "train"), processing_class=tokenizer
    )
    trainer.train()
    found: dict[str, float] = {}
    for split in ("val", "test"):
        rows = rows_of(prepared, split)
        targets = np.array([row["labels"] for row in rows])
        chances = softmax(trainer.predict(rows).predictions)
        found |= {f"{split}/accuracy": accuracy_score(targets, chances.argmax(axis=1))}
        found |= {f"{split}/log_loss": log_loss(targets, chances)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
