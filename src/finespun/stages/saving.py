"""What `finetune` leaves: a folder of transformers' with run.json, history.csv and a model card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from finespun.failures import while_writing
from finespun.kept import file_digest
from finespun.masking import masked
from finespun.report import card
from finespun.training import temperature
from finespun.training.checkpoints import Store, size_of
from finespun.training.fit import Fitted


def save(
    fitted: Fitted, processor: Any, finish: Callable[[Any], None], store: Store, folder: Path, record: dict[str, Any],
    schema: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Writes weights, configuration, processor, history, record and model card; `finish` is what a merged model still needs."""
    model: Any = fitted.tuning.model
    with while_writing(folder, needed=size_of(model.state_dict())):
        folder.mkdir(parents=True, exist_ok=True)
        if fitted.tuning.merge:
            model = fitted.tuning.merge(model, folder)
        finish(model)
        temperature.fold(model)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        if fitted.beside:
            fitted.beside(folder)
        shutil.copyfile(store.folder / "history.csv", folder / "history.csv")
        best = {"best_epoch": fitted.best_epoch, "best_score": fitted.best_score, "steps": fitted.steps}
        weights = {path.name: file_digest(path) for path in sorted(folder.glob("*.safetensors"))}
        whole = record | {"trained": fitted.phases, "weights_files": weights} | best
        (folder / "run.json").write_text(masked(json.dumps(whole, indent=2)) + "\n", encoding="utf-8")
        if schema is not None:
            (folder / "README.md").write_text(masked(card.render(whole, schema)), encoding="utf-8")
