"""Written answers through training: full and by adapters, cut up and killed, and learnt by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml

from finespun.config import targets
from finespun.data.encode import encode_splits
from finespun.data.prepared import PreparedData
from finespun.data.sources.tables import Line
from finespun.errors import ConfigError
from finespun.evaluation.predict import predict_split
from finespun.models.pretrained import load_model
from finespun.training.checkpoints import Store
from finespun.training.fit import Fitted, fit
from finespun.training.lightning.callbacks import Saver
from finespun.training.lightning.devices import choose
from helpers import ROOT
from small_run import STEADY, same_bits, small_config
from writers import GENERATION, TASK, pairs

SEQ2SEQ = {
    **TASK, "_target_": "finespun.tasks.seq2seq.Seq2Seq", "source_language": None, "target_language": None, "prompt": "{text}",
    "generation": GENERATION | {"max_new_tokens": 30}, "max_target_length": 30,
}  # fmt: skip
LORA = yaml.safe_load((ROOT / "conf" / "strategy" / "lora.yaml").read_text())


class KilledError(BaseException):
    """Stands for kill -9."""


def config_of(task: dict[str, Any], **changes: Any) -> Any:
    split = {"train": 0.7, "val": 0.2, "test": 0.1, "seed": 1}
    data = {"path": "pairs.csv", "columns": {"text": "text", "target": "target"}, "split": split}
    return small_config(task=task, data=data, **{"trainer__max_epochs": 1, "trainer__batch_size": 8, **changes})


def prepare(folder: Path, config: Any, model: Path, rows: list[dict[str, str]]) -> PreparedData:
    task = targets.build("task", config.task)
    encode_splits(
        (Line(number, row) for number, row in enumerate(rows, 2)), data=config.data, task=task, encoder=task.encoder(model),
        labels=["target"], folder=folder, left_out=set(),
    )  # fmt: skip
    (folder / "schema.json").write_text('{"labels": ["target"]}')
    return PreparedData(folder)


def train(store: Path, config: Any, folder: Path, prepared: PreparedData) -> tuple[Fitted, Any, Any]:
    task = targets.build("task", config.task)
    encoder = task.encoder(folder)
    torch.manual_seed(config.seed)
    model = load_model(folder, auto_class=task.auto_class, options=task.model_options(["target"]), new_head=True)
    task.equip(model, encoder, folder)
    store.mkdir(parents=True, exist_ok=True)
    found = fit(
        config=config, tuning=targets.build("strategy", config.strategy).tune(model), task=task, prepared=prepared,
        encoder=encoder, hardware=choose(config.runtime, "32-true"), store=Store(store), sink=lambda _metrics, _step: None,
    )  # fmt: skip
    return found, task, encoder


@pytest.mark.parametrize("strategy", ["full", "lora", "dora"])
def test_a_killed_run_ends_in_the_same_bits(
    strategy: str, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {} if strategy == "full" else {"strategy": {**LORA, "rank": 4, "magnitude": strategy == "dora"}}
    config = config_of(TASK, **changes)
    prepared = prepare(tmp_path / "prepared", config, tiny_llama, pairs(50))
    whole, *_ = train(tmp_path / "whole", config, tiny_llama, prepared)
    saves, save = [], Saver.save

    def killing(self: Saver, *given: Any, **options: Any) -> None:
        save(self, *given, **options)
        saves.append(1)
        if len(saves) == 3:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Saver, "save", killing)
        with pytest.raises(KilledError):
            train(tmp_path / "killed", config, tiny_llama, prepared)
    assert same_bits(whole, train(tmp_path / "killed", config, tiny_llama, prepared)[0])
    trained = [name for group in whole.tuning.groups for name in group.parameters]
    assert all("lora_" in name for name in trained) == (strategy != "full")
    assert any("magnitude" in name for name in trained) == (strategy == "dora")


def test_the_gradient_is_that_of_the_mean_over_tokens_however_a_step_is_cut_up(tiny_llama: Path, tmp_path: Path) -> None:
    config = config_of(TASK, **STEADY)
    prepared = prepare(tmp_path / "prepared", config, tiny_llama, pairs(50))
    assert len({*prepared.open("train")["target"].combine_chunks().value_lengths().to_pylist()}) > 3
    whole, cut = (
        train(tmp_path / str(rows), config_of(TASK, runtime__device_batch_size=rows, **STEADY), tiny_llama, prepared)[0]
        for rows in (None, 3)
    )
    for name, ours in whole.tuning.model.state_dict().items():
        assert torch.allclose(ours, cut.tuning.model.state_dict()[name], atol=1e-5), name


def test_what_needs_logits_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    config = config_of(TASK, trainer__r_drop=0.5)
    prepared = prepare(tmp_path / "prepared", config, tiny_llama, pairs(50))
    with pytest.raises(ConfigError, match="r_drop: this task's loss is its model's own"):
        train(tmp_path / "run", config, tiny_llama, prepared)


def test_an_encoder_decoder_learns_fifty_pairs_by_heart(tiny_bart: Path, tmp_path: Path) -> None:
    """Greedy decoding gives all 50 targets back: targets, decoder inputs, padding and the end are where they belong."""
    config = config_of(
        SEQ2SEQ, trainer__max_epochs=40, trainer__batch_size=10, optimizer__lr=1e-2, runtime__checkpoint_seconds=1e6
    )  # fmt: skip
    rows = pairs(50)
    prepared = prepare(tmp_path / "prepared", config, tiny_bart, rows)
    for split in ("train", "val"):  # all rows, on both sides
        encoded = targets.build("task", config.task)
        columns = encoded.encode(rows, encoded.encoder(tiny_bart), ["target"])
        columns.pop("truncated")
        table = pa.table({"row": pa.array(range(50), pa.int64()), **columns})
        with pa.ipc.new_file(str(prepared.path(split)), table.schema) as writer:
            writer.write_table(table)
    found, task, encoder = train(tmp_path / "run", config, tiny_bart, prepared)
    outputs = predict_split(
        model=found.tuning.model, task=task, encoder=encoder, prepared=prepared, split="val", runtime=config.runtime
    )  # fmt: skip
    assert outputs is not None
    texts = [answer["generated_text"] for answer in task.predictions(prepared.open("val"), outputs, [], top_k=1)]
    assert texts == [row["target"] for row in rows]
