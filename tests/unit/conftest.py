"""A small fine-tuning run that can be cut short anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from finespun.config import targets
from finespun.data.encode import encode_splits
from finespun.data.prepared import PreparedData
from finespun.data.sources.tables import Line
from finespun.models.pretrained import load_model
from finespun.strategies.base import Tuning
from finespun.tasks.inputs.text import TextEncoder
from finespun.training.checkpoints import Store
from finespun.training.fit import Fitted, fit
from finespun.training.lightning.devices import choose
from finespun.training.lightning.sharding import from_rank_zero
from helpers import real_rows
from small_run import LABELS, Train, small_config


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> PreparedData:
    """Some 90 training rows, encoded."""
    folder = tmp_path_factory.mktemp("prepared")
    config = small_config()
    lines = (Line(number, row) for number, row in enumerate(real_rows(120), 2) if row["sentiment"] in LABELS)
    encode_splits(
        lines, data=config.data, task=targets.build("task", config.task), encoder=TextEncoder.read(tiny_bert),
        labels=LABELS, folder=folder, left_out=set(),
    )  # fmt: skip
    (folder / "schema.json").write_text('{"labels": ["negative", "positive"]}')
    return PreparedData(folder)


@pytest.fixture
def train(prepared: PreparedData, tiny_bert: Path) -> Train:
    """Trains in a store; the same call again takes the run up."""

    def go(
        folder: Path, *, sink: Any = lambda _metrics, _step: None, dropout: float | None = None, features: Path | None = None,
        **changes: Any,
    ) -> Fitted:  # fmt: skip
        config = small_config(**changes)
        task = targets.build("task", config.task)
        torch.manual_seed(config.seed)
        options = task.model_options(LABELS)
        if dropout is not None:
            options |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        hardware = choose(config.runtime, config.trainer.precision)
        store = Store(folder)
        folder.mkdir(parents=True, exist_ok=True)

        def begin() -> Tuning:
            model = load_model(tiny_bert, auto_class=task.auto_class, options=options, new_head=True)
            return targets.build("strategy", config.strategy).tune(model)

        tuning = from_rank_zero(begin, hardware)
        return fit(
            config=config, tuning=tuning, task=task, prepared=prepared, encoder=TextEncoder.read(tiny_bert),
            hardware=hardware, store=store, sink=sink, features=features,
        )  # fmt: skip

    return go
