"""Which rows form which batch: pure functions of (lengths, seed, epoch), so that a run can be taken up anywhere.

The unit is the step: the rows of one optimizer step on all devices together. Ranks and accumulation only cut a step up,
so the effective batch does not depend on how many devices there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK_STEPS = 50  # rows are sorted by length inside blocks of so many steps: little padding, still well mixed

Positions = NDArray[np.int64]


class Part(NamedTuple):
    """The rows of one forward pass on one device; the first `counted` of them count, each with `weight` times its count."""

    rows: Positions
    weight: float
    counted: int


def training_steps(
    lengths: NDArray[np.int32], step_rows: int, seed: int, epoch: int, chances: NDArray[np.float64] | None = None
) -> list[Positions]:
    """Returns the steps of one epoch: each row once, rows of like length together, steps in random order.

    With `chances` (rows,), which add up to 1, as many rows are drawn by them instead, with replacement.

    Rows are shuffled, cut into blocks of `BLOCK_STEPS` steps, sorted by length inside a block and cut into steps; then
    the steps are shuffled (the "mega-batches" of sequence-to-sequence training). Philox makes the draw a function of
    (seed, epoch) alone.
    """
    random = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)))
    order = random.permutation(len(lengths)) if chances is None else random.choice(len(lengths), len(lengths), p=chances)
    block = step_rows * BLOCK_STEPS
    steps: list[Positions] = []
    for start in range(0, len(order), block):
        rows = order[start : start + block]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        steps += [rows[first : first + step_rows] for first in range(0, len(rows), step_rows)]
    return [steps[position] for position in random.permutation(len(steps))]


def sorted_steps(lengths: NDArray[np.int32], step_rows: int) -> list[Positions]:
    """Returns all rows once, longest first: for validation and prediction, where order changes nothing."""
    order = np.argsort(-lengths.astype(np.int64), kind="stable")
    return [order[first : first + step_rows] for first in range(0, len(order), step_rows)]


class Batches:
    """The sampler: an iterable of `Part`, taken up at any batch of any epoch.

    Lightning calls `set_epoch` before each epoch; `resume_at` says where the first one begins.
    """

    def __init__(
        self,
        lengths: NDArray[np.int32],
        *,
        step_rows: int,
        seed: int | None,
        rank: int = 0,
        world_size: int = 1,
        passes: int = 1,
        chances: NDArray[np.float64] | None = None,
        counts: NDArray[np.float64] | None = None,
    ) -> None:
        """With `seed` None the order is that of `sorted_steps`, in every epoch; `chances` as in `training_steps`.

        `counts` (rows,) are what a step's loss is a mean over; None: each row is one.
        """
        self.lengths, self.step_rows, self.seed = lengths, step_rows, seed
        self.rank, self.world_size, self.passes = rank, world_size, passes
        self.chances, self.counts = chances, counts
        self.epoch = self.start = 0

    def set_epoch(self, epoch: int) -> None:
        """A new epoch begins at its first batch."""
        if epoch != self.epoch:
            self.epoch, self.start = epoch, 0

    def resume_at(self, epoch: int, batch: int) -> None:
        """The next iteration begins inside an epoch."""
        self.epoch, self.start = epoch, batch

    def steps(self) -> Sequence[Positions]:
        """The steps of the current epoch."""
        if self.seed is None:
            return sorted_steps(self.lengths, self.step_rows)
        return training_steps(self.lengths, self.step_rows, self.seed, self.epoch, self.chances)

    def padding_share(self) -> float:
        """Returns which share of an epoch's tokens is padding."""
        parts_of_epoch = [part.rows for step in self.steps() for part in self._parts(step)]
        padded = sum(int(self.lengths[rows].max()) * len(rows) for rows in parts_of_epoch)
        return 1 - sum(int(self.lengths[rows].sum()) for rows in parts_of_epoch) / padded

    def _parts(self, step: Positions) -> Iterator[Part]:
        """Cuts a step into this rank's forward passes: contiguous by length over passes, interleaved over ranks.

        A short step may leave nothing for a device; it is then given a row that does not count, so that all stay in step.
        """
        for chunk in np.array_split(step, self.passes):
            mine = chunk[self.rank :: self.world_size]
            yield Part(mine if len(mine) else step[:1], self._weight(step), len(mine))

    def _weight(self, step: Positions) -> float:
        if self.seed is None:
            return 1.0  # nothing trains: the mean is over the whole split
        return 1 / (len(step) if self.counts is None else max(1.0, float(self.counts[step].sum())))

    def __iter__(self) -> Iterator[Part]:
        position = 0
        for step in self.steps():
            for part in self._parts(step):
                if position >= self.start:
                    yield part
                position += 1

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank."""
        return -(-len(self.lengths) // self.step_rows) * self.passes


def balanced_weights(targets: Positions) -> NDArray[np.float64]:
    """Returns a weight for each row, (rows,), so that all labels together weigh the same and the mean is 1."""
    counts = np.bincount(targets)
    present = (counts > 0).sum()
    return np.asarray(len(targets) / (present * counts[targets]), dtype=np.float64)
