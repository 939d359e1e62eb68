"""A tag a word through training: targets of any length, with every strategy, replayed or computed, killed or whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from finespun.config import targets
from finespun.data.encode import encode_splits
from finespun.data.prepared import PreparedData
from finespun.data.sources.tables import read
from finespun.errors import ConfigError
from finespun.models.pretrained import load_model, load_processor, require_same_tokens
from finespun.tasks.inputs.text import TextEncoder
from finespun.training.checkpoints import Store
from finespun.training.fit import Fitted, fit
from finespun.training.lightning.callbacks import Saver
from finespun.training.lightning.devices import choose
from helpers import ROOT
from small_run import STEADY, same_bits, small_config

ENTITIES = ROOT / "tests" / "data" / "entities.conll"
LABELS = ["O", *(f"{prefix}-{kind}" for kind in ("DATE", "LOC", "ORG", "PER") for prefix in "BI")]


def config_of(**changes: Any) -> Any:
    changes = {"runtime__checkpoint_seconds": 1e6, "trainer__max_epochs": 2, **changes}
    task = yaml.safe_load((ROOT / "conf" / "task" / "token_classification.yaml").read_text())
    return small_config(
        data__columns={"text": 1, "tags": 2}, data__labels=None, task={**task, "max_length": 16, "stride": 5}, **changes
    )


def shipped(name: str, **changes: Any) -> dict[str, Any]:
    return {**yaml.safe_load((ROOT / "conf" / "strategy" / f"{name}.yaml").read_text()), **changes}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> PreparedData:
    folder, config = tmp_path_factory.mktemp("tags"), config_of()
    encode_splits(
        read(ENTITIES), data=config.data, task=targets.build("task", config.task), encoder=TextEncoder.read(tiny_bert),
        labels=LABELS, folder=folder, left_out=set(),
    )  # fmt: skip
    (folder / "schema.json").write_text(f'{{"labels": {LABELS}}}'.replace("'", '"'))
    return PreparedData(folder)


@pytest.fixture
def train(prepared: PreparedData, tiny_bert: Path) -> Any:
    def go(folder: Path, *, features: Path | None = None, **changes: Any) -> Fitted:
        config = config_of(**changes)
        task = targets.build("task", config.task)
        torch.manual_seed(config.seed)
        model = load_model(tiny_bert, auto_class=task.auto_class, options=task.model_options(LABELS), new_head=True)
        folder.mkdir(parents=True, exist_ok=True)
        return fit(
            config=config, tuning=targets.build("strategy", config.strategy).tune(model), task=task, prepared=prepared,
            encoder=TextEncoder.read(tiny_bert), hardware=choose(config.runtime, "32-true"), store=Store(folder),
            sink=lambda _metrics, _step: None, features=features,
        )  # fmt: skip

    return go


def test_long_sentences_are_windows_and_the_saved_tokenizer_agrees(prepared: PreparedData, tiny_bert: Path) -> None:
    task = targets.build("task", config_of().task)
    split = prepared.open("train")
    examples = prepared.examples("train", 20)
    assert len(set(split["row"].to_pylist())) < split.num_rows - 20
    assert examples.num_rows == len(set(examples["row"].to_pylist())) == 20
    assert None not in examples["text"].to_pylist()
    require_same_tokens(
        load_processor("AutoTokenizer", tiny_bert, task.processor_options(task.encoder(tiny_bert))), task, examples, tiny_bert
    )


STRATEGIES = ["full", "llrd", "gradual", "lp_ft", "last_n", "head", "lora", "reinit_top"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_trains(train: Any, tmp_path: Path, strategy: str) -> None:
    changes = {"blocks": 1} if strategy == "last_n" else {}
    found = train(tmp_path / "a", strategy=shipped(strategy, **changes), task__monitor="val/loss", task__monitor_mode="min")
    assert found.steps >= 20
    assert 0 < found.best_score < 2.2, "the loss of guessing among nine tags is 2.197"


@pytest.mark.parametrize("strategy", [shipped("head"), shipped("last_n", blocks=1)], ids=["head", "last_n"])
def test_replayed_and_computed_training_end_in_the_same_weights(
    train: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], strategy: dict[str, Any]
) -> None:
    computed = train(tmp_path / "a", strategy=strategy, **STEADY)
    replayed = train(tmp_path / "b", strategy=strategy, **STEADY, features=tmp_path / "features")
    assert "blocks computed once and replayed" in capsys.readouterr().out
    ours, theirs = replayed.tuning.model.state_dict(), computed.tuning.model.state_dict()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6, rtol=0) for name in theirs)
    assert replayed.best_score == pytest.approx(computed.best_score, abs=1e-6)


def test_a_killed_run_ends_in_the_same_bits(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    often = {"runtime__checkpoint_seconds": 0.0, "trainer__max_epochs": 1}
    whole = train(tmp_path / "whole", **often)
    save, done = Saver.save, iter(range(1, 1000))

    def save_then_die(self: Saver, trainer: Any) -> None:
        save(self, trainer)
        if next(done) == 7:
            raise FileNotFoundError

    monkeypatch.setattr(Saver, "save", save_then_die)
    with pytest.raises(FileNotFoundError):
        train(tmp_path / "killed", **often)
    monkeypatch.setattr(Saver, "save", save)
    assert same_bits(whole, train(tmp_path / "killed", **often))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"strategy": shipped("features")}, "features are one vector a row, .*an answer for each token.*; take strategy: head"),
        ({"trainer__imbalance": "class_weights"}, "class_weights needs one label a row, .*; set it to ignore"),
        ({"trainer__imbalance": "weighted_sampling"}, "weighted_sampling needs one label a row"),
    ],
)
def test_what_makes_no_sense_for_tags_is_refused(train: Any, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        train(tmp_path / "a", **changes)
