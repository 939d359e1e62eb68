"""Hard negatives: those that a brute force finds, no known answer among them, the same on two ranks and after a kill."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
from pydantic import ValidationError
from torch.nn.functional import cross_entropy, normalize

from embedders import TARGET, TASK, batch_of, build, model_of, pairs
from finespun.errors import ConfigError
from finespun.stages import finetune
from finespun.tasks.ranking import mining
from finespun.tasks.ranking.pairs import number_of
from finespun.training.checkpoints import Store
from finespun.training.fit import Fitted
from finespun.training.lightning.callbacks import Saver
from finespun.training.lightning.devices import choose
from recommenders import TASK as RECOMMENDING
from recommenders import data, written
from several import together
from small_run import same_bits, small_config
from tuned import prepared

COLUMNS = {"text": "text", "positive": "positive"}


class KilledError(Exception):
    """Stands for kill -9."""


def rows_of_split() -> list[dict[str, str]]:
    """Twelve pairs; the first text has a second answer, in another spelling a third, and is an answer itself."""
    rows = pairs(12)
    first = rows[0]["text"]
    return [*rows, {"text": first, "positive": rows[5]["positive"].upper()}, {"text": rows[7]["text"], "positive": first}]


def mined(folder: Path, rows: list[dict[str, str]], count: int = 3) -> tuple[Any, Any, pa.Table]:
    """The task and the model after one mining, and the table of the rows."""
    task, model = build(hard_negatives=count), model_of(folder)
    batch, table = batch_of(task, folder, rows)
    task = task.with_miner(pa.table(table), task.encoder(folder))
    assert task.miner is not None
    task.miner.mine(model, epoch=2, progressed=lambda: None)
    return task, model, task.augment(batch, task.encoder(folder), epoch=2, seed=0)


def test_what_is_mined_is_what_a_brute_force_finds(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "ROWS", 5)
    monkeypatch.setattr(mining, "QUERIES", 4)
    rows = rows_of_split()
    task, model, batch = mined(tiny_bert, rows)
    plain = {name: each for name, each in batch.inputs.items() if not name.startswith("mined")}
    with torch.no_grad():
        found = {name: normalize(each, dim=1) for name, each in build().forward(model, batch._replace(inputs=plain)).items()}
    names = [number_of(row["positive"]) for row in rows]
    for place, row in enumerate(rows):
        answers = {number_of(row["text"]), *(number_of(each["positive"]) for each in rows if each["text"] == row["text"])}
        order = (found["positive"] @ found["text"][place]).argsort(descending=True).tolist()
        expected = list(dict.fromkeys(names[each] for each in order if names[each] not in answers))[:3]
        assert batch.inputs["mined_number"].reshape(-1, 3)[place].tolist() == expected
    assert task.miner is not None
    assert len(task.miner.known[0]) == 3  # two answers and the text itself


def test_mined_negatives_are_candidates_of_the_loss_and_no_answer_is(tiny_bert: Path) -> None:
    task, model, batch = mined(tiny_bert, rows_of_split())
    with torch.no_grad():
        vectors = task.forward(model, batch)
        losses = task.losses(vectors, batch, training=True)
        parts = task.in_passes(4).forward(model, batch)
        assert torch.allclose(task.losses(parts, batch, training=True), losses, atol=1e-5)
    candidates = torch.cat([vectors["positive"], vectors["mined"]])
    numbers = torch.cat([batch.targets, batch.inputs["mined_number"]])
    scores = normalize(vectors["text"], dim=1) @ normalize(candidates, dim=1).T / task.temperature
    for row in range(len(losses)):
        kept = (numbers != batch.targets[row]) | (torch.arange(len(numbers)) == row)
        place = kept[:row].sum()
        assert losses[row].item() == pytest.approx(cross_entropy(scores[row][kept], place).item(), abs=1e-5)
    held = batch._replace(counted=4)  # negatives of rows that do not count are nobody's
    with torch.no_grad():
        first = {name: each[: 4 * (len(each) // len(losses))] for name, each in vectors.items()}
        few = task.losses(first, held.those_that_count()._replace(inputs={}), training=True)
        assert torch.allclose(task.losses(vectors, held, training=True)[:4], few, atol=1e-6)


def choice(folder: Path, rows: list[dict[str, str]]) -> Any:
    """What one of two ranks has chosen."""
    mining.ROWS, mining.QUERIES = 5, 4
    dist.init_process_group("gloo")
    task, _, _ = mined(folder, rows)
    assert task.miner is not None
    return task.miner.state_dict()["chosen"].numpy()


@pytest.mark.slow
def test_two_ranks_choose_what_one_chooses(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "ROWS", 5)
    monkeypatch.setattr(mining, "QUERIES", 4)
    alone = mined(tiny_bert, rows_of_split())[0].miner.state_dict()["chosen"].numpy()
    for found in together(2, partial(choice, tiny_bert, rows_of_split())):
        assert np.array_equal(found, alone)


def test_more_than_there_are_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(ConfigError, match=r"task.hard_negatives: 11 asked for, .* has only 10 texts"):
        mined(tiny_bert, rows_of_split(), count=11)
    with pytest.raises(ValidationError, match="hard_negatives: triplet has no place for them"):
        build(hard_negatives=1, loss_function="triplet")


def learnt(folder: Path, config: Any, split: Any, model: Path) -> Fitted:
    """Trains in this process, with the checkpoints of `folder`."""
    folder.mkdir(exist_ok=True)
    return finetune._train(
        config, model, split, choose(config.runtime, "32-true"), Store(folder), features=folder / "features",
        sink=lambda _metrics, _step: None,
    )[0]  # fmt: skip


def killed_and_resumed(folder: Path, config: Any, split: Any, model: Path, saves: int, patch: pytest.MonkeyPatch) -> Fitted:
    save, done = Saver.save, iter(range(1, 1000))

    def save_then_die(self: Saver, trainer: Any) -> None:
        save(self, trainer)
        if next(done) == saves:
            raise KilledError

    patch.setattr(Saver, "save", save_then_die)
    with pytest.raises(KilledError):
        learnt(folder, config, split, model)
    patch.setattr(Saver, "save", save)
    return learnt(folder, config, split, model)


@pytest.mark.slow
def test_embeddings_with_mined_negatives_end_in_the_same_bits_after_a_kill(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"model": {"checkpoint": str(tiny_bert)}, "trainer__batch_size": 8, "runtime__checkpoint_seconds": 0.0}
    config, split = prepared(tmp_path, pairs(40), COLUMNS, task=TARGET | TASK | {"hard_negatives": 2}, **changes)
    whole = learnt(tmp_path / "whole", config, split, tiny_bert)
    for saves in (1, 4, 6):  # inside the first epoch and later ones
        found = killed_and_resumed(tmp_path / f"killed-{saves}", config, split, tiny_bert, saves, monkeypatch)
        assert same_bits(whole, found), saves
    without, _ = prepared(tmp_path, pairs(40), COLUMNS, task=TARGET | TASK, **changes)
    assert not same_bits(whole, learnt(tmp_path / "without", without, split, tiny_bert))


@pytest.mark.slow
def test_recommendation_ends_in_the_same_bits_after_a_kill(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finespun.artifacts import Artifacts
    from finespun.data.prepared import PreparedData
    from finespun.stages.prepare import prepare

    written(tmp_path)
    config = small_config(
        data=data(), task=RECOMMENDING | {"dropout": 0.1}, model={"checkpoint": str(tiny_bert)}, trainer__max_epochs=2,
        trainer__batch_size=16, runtime__checkpoint_seconds=0.0,
    )  # fmt: skip
    prepare(config, Artifacts(project=tmp_path, out=tmp_path), tmp_path / "prepared")
    split = PreparedData(tmp_path / "prepared")
    whole = learnt(tmp_path / "whole", config, split, tiny_bert)
    found = killed_and_resumed(tmp_path / "killed", config, split, tiny_bert, 2, monkeypatch)
    assert same_bits(whole, found)
