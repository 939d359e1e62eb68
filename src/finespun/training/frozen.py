"""Never computing what is frozen twice: the activations where training begins are computed once, kept, and replayed.

Where a model's embeddings and lowest blocks never train, they are a fixed function of a row (they run in eval mode). Their
output is written once to `.finespun/features/`, named by data, weights and cut; in training, embeddings and frozen blocks are
replaced by modules that pass the replayed activations on. Whether the model then says the same is tried before it is believed.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
from finespun.strategies.anatomy import Anatomy, dissect
from finespun.tasks.base import Batch
from finespun.training.entering import arithmetic

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


class _CapturedError(Exception):
    """Ends a forward pass where the frozen part ends."""


def find_cut(model: nn.Module, groups: Sequence[Group], example: Batch) -> Cut | None:
    """Returns where training begins, or None where nothing can be replayed (or the model, tried, says something else).

    Args:
        model: the whole model, its parameters as before training.
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
    if not blocks:
        return None
    for first_token in (True, False) if blocks == len(anatomy.blocks) else (False,):
        cut = Cut(anatomy=anatomy, blocks=blocks, first_token=first_token)
        if _says_the_same(model, cut, example):
            return cut
    return None


def _says_the_same(model: nn.Module, cut: Cut, example: Batch) -> bool:
    model.eval()
    with torch.inference_mode():
        expected = model(**example.inputs).logits
        hidden, mask = capture(model, cut, example), example.inputs["attention_mask"]
        if cut.first_token:
            hidden, mask = hidden[:, :1], mask[:, :1]
        with replaying(model, cut):
            try:
                found = model(inputs_embeds=hidden, attention_mask=mask).logits
            except (RuntimeError, TypeError, ValueError, StopIteration):
                return False  # an architecture that is put together in another way
    return found.shape == expected.shape and bool(torch.allclose(found, expected, atol=TOLERANCE))


def capture(model: nn.Module, cut: Cut, batch: Batch) -> torch.Tensor:
    """Returns the output of the highest frozen block, (rows, length, width), computing nothing above it."""
    found: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)
        raise _CapturedError

    handle = model.get_submodule(cut.anatomy.block_names[cut.blocks - 1]).register_forward_hook(keep)
    try:
        model(**batch.inputs)
    except _CapturedError:
        pass
    finally:
        handle.remove()
    return found[0]


@contextmanager
def replaying(model: nn.Module, cut: Cut) -> Iterator[None]:
    """Replaces embeddings and frozen blocks while the context lasts."""
    names = sorted({_module_of(model, name) for name in cut.anatomy.embeddings})
    names += cut.anatomy.block_names[: cut.blocks]
    kept = {name: model.get_submodule(name) for name in names}
    as_tuple = _blocks_return_tuples(model, cut)
    for name in names:
        model.set_submodule(name, _Replayed(as_tuple=as_tuple and name in cut.anatomy.block_names))
    try:
        yield
    finally:
        for name, module in kept.items():
            model.set_submodule(name, module)


def _module_of(model: nn.Module, parameter: str) -> str:
    """The child of the backbone that holds a parameter, by its full name."""
    backbone: Any = getattr(model, "base_model", model)
    prefix = next((f"{name}." for name, module in model.named_modules() if module is backbone and name), "")
    return prefix + parameter.removeprefix(prefix).split(".")[0]


def _blocks_return_tuples(model: nn.Module, cut: Cut) -> bool:
    block = model.get_submodule(cut.anatomy.block_names[0])
    annotation = str(inspect.signature(block.forward).return_annotation)
    return annotation.lower().startswith("tuple")


class Features:
    """Activations of one split on disk, mapped: `values` (tokens, width) and where each row begins."""

    def __init__(self, folder: Path) -> None:
        self.values: NDArray[np.float32] = np.load(folder / "values.npy", mmap_mode="r")
        self.starts: NDArray[np.int64] = np.load(folder / "starts.npy")

    def of(self, row: int) -> NDArray[np.float32]:
        """Returns (tokens, width) of a row."""
        return self.values[self.starts[row] : self.starts[row + 1]]


def compute(model: nn.Module, cut: Cut, loader: BatchLoader, folder: Path) -> Features:
    """Computes a split's activations in eval mode, or opens those that an earlier run with the same inputs has kept."""
    if not (folder / "starts.npy").exists():  # written last
        folder.mkdir(parents=True, exist_ok=True)
        lengths = loader.batches.lengths
        kept = np.ones_like(lengths) if cut.first_token else lengths
        starts = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])
        partial = folder / f"values.{os.getpid()}.npy"
        values: Any = None
        model.eval()
        with torch.inference_mode():
            for batch in BatchLoader(loader.rows, Batches(lengths, step_rows=ROWS_AT_ONCE, seed=None)):
                hidden = capture(model, cut, batch.to(next(model.parameters()).device)).float().cpu().numpy()
                if values is None:
                    shape = (int(starts[-1]), hidden.shape[-1])
                    values = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
                for row, found in zip(batch.rows.tolist(), hidden, strict=True):
                    values[starts[row] : starts[row + 1]] = found[: kept[row]]
        values.flush()
        partial.replace(folder / "values.npy")
        partial = folder / f"starts.{os.getpid()}.npy"  # trials beside this one may be computing the same
        np.save(partial, starts)
        partial.replace(folder / "starts.npy")
    return Features(folder)


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
def replayed(
    model: nn.Module,
    groups: Sequence[Group],
    loaders: Sequence[BatchLoader],
    *,
    example: Batch | None,
    folder: Path,
    gigabytes: float,
    precision: str,
) -> Iterator[Sequence[BatchLoader]]:
    """Yields loaders of replayed activations for a model whose frozen part is left out; the same loaders where that cannot be.

    Args:
        model: on the device where it computes.
        groups: all that will ever train.
        loaders: of tokens, each of a split of its own.
        example: some rows to try the replayed model on; None: nothing is to be kept.
        folder: where activations are kept, named by data and weights; a folder a loader and cut is made in it.
        gigabytes: the most that activations may take.
        precision: of training, so that what is replayed is what would be computed.
    """
    with arithmetic(model, precision):
        cut = find_cut(model, groups, example) if example and "attention_mask" in example.inputs else None
    if cut is None:
        yield loaders
        return
    tokens = sum(len(x.batches.lengths) if cut.first_token else int(x.batches.lengths.sum()) for x in loaders)
    size = tokens * model.config.hidden_size * 4 / 1e9  # type: ignore[union-attr, operator]  # transformers' own
    if size > gigabytes:
        print(f"frozen part: {size:.1f} GB of activations are more than runtime.feature_cache_gb: computed anew each epoch")  # noqa: T201
        yield loaders
        return
    print(f"frozen part: {cut.blocks} blocks computed once and replayed ({size:.3f} GB in {folder / cut.name})", flush=True)  # noqa: T201
    with arithmetic(model, precision):
        features = [compute(model, cut, loader, folder / cut.name / str(number)) for number, loader in enumerate(loaders)]
    with replaying(model, cut):
        yield [loader.with_rows(FeatureRows(loader.rows, found)) for loader, found in zip(loaders, features, strict=True)]
