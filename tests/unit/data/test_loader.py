"""The loader: the right rows, padded, and no more than those."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from finespun.data.batches import Batches
from finespun.data.loader import BatchLoader, RowReader, Rows
from finespun.data.prepared import PreparedData
from finespun.tasks.base import Batch
from finespun.tasks.inputs.text import TextEncoder
from finespun.tasks.text_classification import TextClassification

TASK = TextClassification(max_length=8, label_smoothing=0.0, monitor="val/accuracy", monitor_mode="max")


def table(rows: int, chunk: int) -> pa.Table:
    ids = [[number] * (1 + number % 5) for number in range(rows)]
    columns = {"input_ids": ids, "length": [len(one) for one in ids], "target": [number % 2 for number in range(rows)]}
    whole = pa.table({**columns, "length": pa.array(columns["length"], pa.int32())})
    return pa.Table.from_batches(whole.to_batches(max_chunksize=chunk))


@pytest.mark.parametrize("chunk", [4, 30])
def test_rows_come_in_the_order_asked_across_chunks(chunk: int) -> None:
    rows = np.array([17, 3, 3, 29, 0, 11])
    source = table(30, chunk)
    others = {
        "text": pa.array(f"row {number}" for number in range(30)),
        "pixels": pa.array(bytes([number]) for number in range(30)),
        "boxes": pa.array([[[number, 1]] for number in range(30)]),
        "scores": pa.array([[number / 2] for number in range(30)], pa.list_(pa.float32())),
        "flags": pa.array([[number % 2 == 0] for number in range(30)]),
        "holes": pa.array([[number, None] for number in range(30)]),
        "gaps": pa.array([number if number % 2 else None for number in range(30)]),
    }
    for name, column in others.items():
        source = source.append_column(name, column)
    columns = pickle.loads(pickle.dumps(RowReader(source.slice(0, 30))))  # as a worker is given it
    for name, found in columns.take(rows).items():
        assert [one.tolist() if isinstance(one, np.ndarray) else one for one in found] == source[name].take(rows).to_pylist()
    later = RowReader(source.slice(10)).take(rows[rows >= 11] - 10)
    assert [one[0] for one in later["input_ids"]] == rows[rows >= 11].tolist(), "of a slice"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says whose memory is whose")
def test_an_epoch_holds_batches_in_memory_and_not_the_file(tmp_path: Path) -> None:
    size, length, chunks = 2_000, 4_000, 6  # 32 MB a chunk, 192 in all
    ids = pa.ListArray.from_arrays(np.arange(0, size * length + 1, length, dtype=np.int32), np.ones(size * length, np.int32))
    batch = pa.record_batch({
        "input_ids": ids, "length": pa.array([length] * size, pa.int32()), "target": pa.array([0] * size, pa.int64()),
    })  # fmt: skip
    with pa.ipc.new_file(str(tmp_path / "train.arrow"), batch.schema) as file:
        for _ in range(chunks):
            file.write_batch(batch)
    del ids, batch
    before, held = pa.total_allocated_bytes(), _anonymous()
    opened = PreparedData(tmp_path).open("train")
    assert pa.total_allocated_bytes() - before < 1e6, "opening reads nothing"
    batches = Batches(opened["length"].to_numpy(), step_rows=50, seed=1)
    seen = sum(batch.counted for batch in BatchLoader(Rows(opened, TASK, TextEncoder(None, 0)), batches))
    assert seen == size * chunks
    assert _anonymous() - held < 50e6


def _anonymous() -> int:
    """Bytes of memory that are no file's."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def test_batches_are_padded_and_masked() -> None:
    source = table(30, 4)
    loader = BatchLoader(
        Rows(source, TASK, TextEncoder(None, 99)), Batches(source["length"].to_numpy(), step_rows=7, seed=None)
    )
    seen = []
    for batch in loader:
        ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
        assert ids.shape == mask.shape == (batch.counted, int(mask.sum(1).max()))
        assert torch.all(ids[mask == 0] == 99)
        assert torch.equal(ids[:, 0], batch.rows)
        assert torch.equal(batch.targets, batch.rows % 2)
        seen += batch.rows.tolist()
    assert sorted(seen) == list(range(30))


def test_a_loader_with_workers_gives_the_same_batches_and_can_be_taken_up() -> None:
    source = table(30, 4)

    def rows(workers: int, done: int) -> list[list[int]]:
        loader = BatchLoader(
            Rows(source, TASK, TextEncoder(None, 0)),
            Batches(source["length"].to_numpy(), step_rows=4, seed=1),
            num_workers=workers,
        )
        loader.load_state_dict({"epoch": 2, "batch": done})
        loader.batches.set_epoch(2)
        return [batch.rows.tolist() for batch in loader]

    assert rows(2, 3) == rows(0, 0)[3:]


def test_the_position_that_is_saved_is_the_one_that_training_set() -> None:
    source = table(30, 4)
    loader = BatchLoader(Rows(source, TASK, TextEncoder(None, 0)), Batches(source["length"].to_numpy(), step_rows=4, seed=1))
    next(iter(loader))
    assert loader.state_dict() == {"epoch": 0, "batch": 0}
    loader.position = {"epoch": 1, "batch": 5}
    assert loader.state_dict() == {"epoch": 1, "batch": 5}


def test_rows_weigh_what_their_label_does_and_a_filler_weighs_nothing() -> None:
    source = table(5, 4)
    row_weights = np.array([1.0, 3.0, 1.0, 3.0, 1.0])
    batches = Batches(source["length"].to_numpy(), step_rows=5, seed=2, world_size=2, rank=1, passes=3)
    found = list(BatchLoader(Rows(source, TASK, TextEncoder(None, 0), row_weights), batches))
    for batch in found:
        expected = row_weights[batch.rows.numpy()] / 5
        expected[batch.counted :] = 0
        assert np.allclose(batch.weights.numpy(), expected)
    assert [batch.counted for batch in found] == [1, 1, 0]


def test_a_batch_moves_as_a_whole() -> None:
    numbers = torch.arange(3)
    moved = Batch({"input_ids": numbers}, numbers, numbers, numbers.float(), 2).to(torch.device("meta"))
    assert {each.device.type for each in (*moved.inputs.values(), moved.targets, moved.rows, moved.weights)} == {"meta"}
    assert (list(moved.inputs), moved.counted) == (["input_ids"], 2)
