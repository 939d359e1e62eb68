"""Batches: each row once an epoch, order a function of seed and epoch, the step independent of the devices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finespun.data.batches import Batches, balanced_weights, sorted_steps, training_steps

LENGTHS = st.lists(st.integers(1, 80), min_size=1, max_size=400).map(lambda values: np.array(values, dtype=np.int32))
ROWS = st.integers(1, 40)
SEEDS = st.integers(0, 2**32 - 1)


@given(LENGTHS, ROWS, SEEDS, st.integers(0, 50))
def test_each_row_comes_once_an_epoch(lengths: np.ndarray, rows: int, seed: int, epoch: int) -> None:
    steps = training_steps(lengths, rows, seed, epoch)
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(lengths)))
    assert max(len(step) for step in steps) <= rows
    assert sum(len(step) < rows for step in steps) <= 1


@given(LENGTHS, ROWS, SEEDS, st.integers(0, 50))
def test_the_order_is_a_function_of_seed_and_epoch(lengths: np.ndarray, rows: int, seed: int, epoch: int) -> None:
    np.random.seed(epoch)  # noqa: NPY002  (global state must not matter)
    first = training_steps(lengths, rows, seed, epoch)
    np.random.seed(epoch + 1)  # noqa: NPY002
    again = training_steps(lengths, rows, seed, epoch)
    assert [step.tolist() for step in first] == [step.tolist() for step in again]


def test_epochs_and_seeds_differ() -> None:
    lengths = np.arange(1, 301, dtype=np.int32)
    orders = {tuple(np.concatenate(training_steps(lengths, 8, seed, epoch)).tolist()) for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


@given(LENGTHS, st.integers(1, 32), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_ranks_and_passes_together_see_each_row_of_a_step_once(
    lengths: np.ndarray, rows: int, world: int, passes: int, shuffled: bool
) -> None:
    seed = 3 if shuffled else None
    ranks = [
        list(Batches(lengths, step_rows=rows, seed=seed, rank=rank, world_size=world, passes=passes)) for rank in range(world)
    ]
    whole = Batches(lengths, step_rows=rows, seed=seed)
    assert {len(parts) for parts in ranks} == {len(whole) * passes}
    assert len(Batches(lengths, step_rows=rows, seed=seed, world_size=world, passes=passes)) == len(whole) * passes
    for number, step in enumerate(whole.steps()):
        parts = [part for rank in ranks for part in rank[number * passes : (number + 1) * passes]]
        counted = np.concatenate([part.rows[: part.counted] for part in parts])
        assert sorted(counted.tolist()) == sorted(step.tolist())
        whole_weight = 1 if shuffled else len(step)  # where nothing trains, the mean is over the split
        assert abs(sum(part.weight * part.counted for part in parts) - whole_weight) < 1e-9
        assert all(len(part.rows) for part in parts)


@given(LENGTHS, ROWS, SEEDS, st.integers(0, 5), st.integers(0, 60))
def test_an_epoch_can_be_taken_up_anywhere(lengths: np.ndarray, rows: int, seed: int, epoch: int, done: int) -> None:
    whole, resumed = (Batches(lengths, step_rows=rows, seed=seed) for _ in range(2))
    whole.set_epoch(epoch)
    resumed.resume_at(epoch, done)
    resumed.set_epoch(epoch)  # as Lightning does, also on a restart
    assert [p.rows.tolist() for p in list(whole)[done:]] == [p.rows.tolist() for p in resumed]
    resumed.set_epoch(epoch + 1)
    assert len(list(resumed)) == len(resumed)


def test_grouping_by_length_pads_little() -> None:
    lengths = np.random.Generator(np.random.Philox(1)).lognormal(3.2, 0.6, 5000).clip(3, 128).astype(np.int32)

    def padded(steps: list[np.ndarray]) -> int:
        return sum(int(lengths[step].max()) * len(step) for step in steps)

    grouped = padded(training_steps(lengths, 32, 0, 0))
    random_order = padded(np.array_split(np.random.Generator(np.random.Philox(2)).permutation(5000), 157))
    assert grouped < 1.1 * lengths.sum() < random_order
    assert padded(sorted_steps(lengths, 32)) < 1.05 * lengths.sum()


def test_balanced_weights_give_each_label_the_same_say() -> None:
    targets = np.array([0] * 90 + [1] * 9 + [3])
    weights = balanced_weights(targets)
    assert weights.mean() == pytest.approx(1)
    totals = [weights[targets == label].sum() for label in (0, 1, 3)]
    assert totals == pytest.approx([100 / 3] * 3)


def test_weighted_sampling_draws_rare_rows_as_often_as_common_ones() -> None:
    targets = np.array([0] * 950 + [1] * 50)
    weights = balanced_weights(targets)
    lengths = np.full(1000, 5, dtype=np.int32)
    drawn = np.concatenate([np.concatenate(training_steps(lengths, 10, 0, epoch, weights / 1000)) for epoch in range(20)])
    assert len(drawn) == 20_000
    assert targets[drawn].mean() == pytest.approx(0.5, abs=0.02)


def test_the_padding_share_is_that_of_the_batches() -> None:
    lengths = np.array([1, 2, 4, 4, 8], dtype=np.int32)
    batches = Batches(lengths, step_rows=2, seed=None)  # 8 and 4, 4 and 2, 1
    assert batches.padding_share() == pytest.approx(1 - 19 / (16 + 8 + 1))
