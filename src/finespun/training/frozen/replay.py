"""Never computing what is frozen twice: the activations where training begins are computed once, kept, and replayed.

Where a model's embeddings and lowest blocks never train, they are a fixed function of a row (they run in eval mode). Their
output is written once to `.finespun/features/`, named by data, weights and cut; in training, embeddings and frozen blocks are
replaced by modules that pass the replayed activations on. Whether the model then says the same is tried before it is believed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Dataset

from finespun.data.batches import Batches, Part
from finespun.data.loader import BatchLoader
from finespun.errors import ModelError
from finespun.failures import REFUSALS
from finespun.kept import in_one_move
from finespun.strategies.anatomy import Anatomy, dissect, reads_first_token_alone
from finespun.tasks.base import Batch
from finespun.training.frozen.head_inputs import arithmetic, stopped_at
from finespun.training.job import Job

if TYPE_CHECKING:
    from finespun.strategies.base import Group

ROWS_AT_ONCE = 64
TOLERANCE = 1e-4  # of logits, between the whole model and the replayed one


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where training begins: above the lowest `blocks` blocks. `first_token`: nothing above looks at any other token."""

    anatomy: Anatomy
    blocks: int
    first_token: bool
    as_tuple: bool  # what a block returns

    @property
    def name(self) -> str:
        return f"{self.blocks}-blocks{'-first-token' if self.first_token else ''}"


class _Replayed(nn.Module):
    """Stands for a frozen module: passes on what was computed before."""

    def __init__(self, *, as_tuple: bool) -> None:
        super().__init__()
        self.as_tuple = as_tuple

    def forward(self, *args: Any, inputs_embeds: torch.Tensor | None = None, **_: Any) -> Any:
        hidden = inputs_embeds if inputs_embeds is not None else next(a for a in args if torch.is_floating_point(a))
        return (hidden,) if self.as_tuple else hidden


def find_cut(model: nn.Module, groups: Sequence[Group], example: Batch) -> Cut | None:
    """Returns where training begins, or None where nothing can be replayed (or the model, tried, says something else).

    Args:
        model: the whole model, its parameters as before training; it is left in eval mode.
        groups: all that will ever train.
        example: some rows to try it on.
    """
    trained = {id(parameter) for group in groups for parameter in group.parameters.values()}
    try:
        anatomy = dissect(model)
    except ModelError:
        return None
    if any(id(parameter) in trained for parameter in anatomy.embeddings.values()):
        return None
    blocks = 0
    while blocks < len(anatomy.blocks) and not any(id(p) in trained for p in anatomy.blocks[blocks].values()):
        blocks += 1
    return _tried(model.eval(), anatomy, blocks, example) if blocks else None


def _tried(model: nn.Module, anatomy: Anatomy, blocks: int, example: Batch) -> Cut | None:
    with torch.inference_mode():
        expected = model(**example.inputs).logits
        output = _output(model, anatomy, blocks, example)
    cut = Cut(anatomy=anatomy, blocks=blocks, first_token=False, as_tuple=isinstance(output, tuple))
    hidden, mask = _tensor(output).clone().requires_grad_(), example.inputs["attention_mask"]
    narrowed = hidden.shape[1] < mask.shape[1]  # the last block computes its first token alone
    try:
        with replaying(model, cut):
            found = model(inputs_embeds=hidden, attention_mask=mask[:, : hidden.shape[1]]).logits
    except (*REFUSALS, StopIteration):
        return None  # an architecture that is put together in another way
    if found.shape != expected.shape or not torch.allclose(found, expected, atol=TOLERANCE):
        return None
    return replace(cut, first_token=narrowed or reads_first_token_alone(found, hidden))


def capture(model: nn.Module, cut: Cut, batch: Batch) -> torch.Tensor:
    """Returns the output of the highest frozen block, (rows, length, width), computing nothing above it."""
    return _tensor(_output(model, cut.anatomy, cut.blocks, batch))


def _output(model: nn.Module, anatomy: Anatomy, blocks: int, batch: Batch) -> Any:
    return stopped_at(model, model.get_submodule(anatomy.block_names[blocks - 1]), batch, given=False)


def _tensor(output: Any) -> torch.Tensor:
    found: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return found


@contextmanager
def replaying(model: nn.Module, cut: Cut) -> Iterator[None]:
    """Replaces embeddings and frozen blocks while the context lasts."""
    children = {".".join(name.split(".")[: cut.anatomy.depth + 1]) for name in cut.anatomy.embeddings}
    blocks = cut.anatomy.block_names[: cut.blocks]
    kept = {name: model.get_submodule(name) for name in (*sorted(children - {*cut.anatomy.embeddings}), *blocks)}
    for name in kept:
        model.set_submodule(name, _Replayed(as_tuple=cut.as_tuple and name in blocks))
    try:
        yield
    finally:
        for name, module in kept.items():
            model.set_submodule(name, module)


class Features:
    """Activations of one split on disk, mapped: `values` (tokens, width) and where each row begins."""

    def __init__(self, path: Path, starts: NDArray[np.int64]) -> None:
        self.values: NDArray[np.float32] = np.load(path, mmap_mode="r")
        self.starts = starts

    def of(self, row: int) -> NDArray[np.float32]:
        """Returns (tokens, width) of a row."""
        return self.values[self.starts[row] : self.starts[row + 1]]


def compute(model: nn.Module, cut: Cut, loader: BatchLoader, folder: Path) -> Features:
    """Computes a split's activations in eval mode, or opens those that an earlier run with the same inputs has kept."""
    lengths = loader.batches.lengths
    kept = np.ones_like(lengths) if cut.first_token else lengths
    starts = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])

    def fill(partial: Path) -> None:
        values: Any = None
        model.eval()
        with torch.inference_mode():
            for batch in BatchLoader(loader.rows, Batches(lengths, step_rows=ROWS_AT_ONCE, seed=None)):
                hidden = capture(model, cut, batch.to(next(model.parameters()).device)).float().cpu().numpy()
                if values is None:
                    shape = (int(starts[-1]), hidden.shape[-1])
                    values = np.lib.format.open_memmap(partial / "values.npy", mode="w+", dtype=np.float32, shape=shape)
                for row, found in zip(batch.rows.tolist(), hidden, strict=True):
                    values[starts[row] : starts[row + 1]] = found[: kept[row]]
        values.flush()

    return Features(in_one_move(folder, fill, alone=True) / "values.npy", starts)


class FeatureRows(Dataset[Batch]):
    """A split whose batches are replayed activations instead of tokens."""

    def __init__(self, rows: Dataset[Batch], features: Features) -> None:
        self.rows, self.features = rows, features

    def __getitem__(self, part: Part) -> Batch:
        batch = self.rows[part]
        found = [self.features.of(row) for row in part.rows]
        lengths = np.array([len(each) for each in found])
        mask = np.arange(lengths.max()) < lengths[:, None]
        hidden = np.zeros((*mask.shape, self.features.values.shape[1]), dtype=np.float32)
        hidden[mask] = np.concatenate(found)
        inputs = {"inputs_embeds": torch.from_numpy(hidden), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
        return batch._replace(inputs=inputs)


@contextmanager
def replayed(job: Job, loaders: Sequence[BatchLoader], example: Batch) -> Iterator[Sequence[BatchLoader]]:
    """Yields loaders of replayed activations for a model whose frozen part is left out; the same loaders where that cannot be.

    Args:
        job: its model on the device where it computes, and `features`, under which each loader and cut has a folder.
        loaders: of tokens, each of a split of its own.
        example: some rows to try the replayed model on.
    """
    model, precision, cut = job.tuning.model, job.hardware.precision, None
    if job.features and job.task.from_logits and "attention_mask" in example.inputs:
        with arithmetic(model, precision):
            cut = find_cut(model, job.tuning.groups, example)
    if cut is None:
        yield loaders
        return
    assert job.features is not None
    tokens = sum(len(x.batches.lengths) if cut.first_token else int(x.batches.lengths.sum()) for x in loaders)
    size = tokens * model.config.hidden_size * 4 / 1e9  # type: ignore[union-attr, operator]  # transformers' own
    if size > job.config.runtime.feature_cache_gb:
        print(f"frozen part: {size:.1f} GB of activations are more than runtime.feature_cache_gb: computed anew each epoch")  # noqa: T201
        yield loaders
        return
    folder = job.features / cut.name
    print(f"frozen part: {cut.blocks} blocks computed once and replayed ({size:.3f} GB in {folder})", flush=True)  # noqa: T201
    with arithmetic(model, precision):
        features = [compute(model, cut, loader, folder / str(number)) for number, loader in enumerate(loaders)]
    with replaying(model, cut):
        yield [loader.with_rows(FeatureRows(loader.rows, found)) for loader, found in zip(loaders, features, strict=True)]
