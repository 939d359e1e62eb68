"""Hard negatives: before each epoch, the items of the training split that the model finds nearest to each query, wrongly.

ANCE (Xiong et al., "Approximate Nearest Neighbor Negative Contrastive Learning for Dense Text Retrieval", ICLR 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import normalize

from finespun.errors import ConfigError
from finespun.tasks.base import Batch
from finespun.tasks.inputs.text import pad
from finespun.tasks.ranking.contrastive import gathered
from finespun.tasks.ranking.search.nearest import QUERIES, nearest

ROWS = 64  # of one forward pass
Rows = NDArray[np.int64]  # places in a split, or among its items
Encode = Callable[[Any, dict[str, torch.Tensor]], torch.Tensor]  # model, ids and mask -> vectors (rows, width)


class HardNegatives:
    """What is hard for each row of the training split: `chosen`, (rows, count), places among the distinct positives.

    No row is given a positive of any row with its text, nor its own text. Before `mine` was called, each has the longest items,
    so that a rehearsal needs as much memory as training will.
    """

    def __init__(
        self, train: pa.Table, numbers: Sequence[int], *, count: int, encode: Encode, padding: int
    ) -> None:  # fmt: skip
        """`numbers` (rows,) say which texts are the same, as `target` says it of positives; `padding` is a token.

        Raises:
            ConfigError: a row has fewer than `count` items that are no answer to it.
        """
        targets = train["target"].to_numpy()
        self.items, first = np.unique(targets, return_index=True)  # numbers of the distinct positives
        self.tokens = {name: _tokens(train, name) for name in ("input_ids", "positive_ids")}
        self.first, self.padding, self.count, self.encode, self.epoch = first, padding, count, encode, -1
        lengths = [np.diff(offsets) for _, offsets in self.tokens.values()]
        self.lengths = lengths[0], lengths[1][first]
        self.known = _known(np.asarray(numbers, dtype=np.int64), targets, self.items)
        fewest = len(self.items) - max(map(len, self.known))
        if fewest < count:
            problem = f"{count} asked for, and a row of the training split has only {fewest} texts that are no answer to it"
            raise ConfigError([f"task.hard_negatives: {problem}; lower it"])
        longest = torch.from_numpy(np.argsort(-self.lengths[1], kind="stable")[:count].copy())
        self.chosen = longest.expand(len(targets), count)

    def mine(self, model: nn.Module, *, epoch: int, progressed: Callable[[], None]) -> None:
        """Chooses by the model as it is; all ranks at once, each a share, to the same choice on any number of them.

        Args:
            model: it is left in eval mode.
            epoch: for which one is chosen.
            progressed: is called after each part of the work.
        """
        device = next(model.parameters()).device
        model.eval()

        def vectors_of(rows: Rows, column: str) -> torch.Tensor:
            ids, mask = pad(self._taken(rows, column), self.padding)
            found = self.encode(model, {"input_ids": ids.to(device), "attention_mask": mask.to(device)})
            progressed()
            return normalize(found.float(), dim=1)

        with torch.no_grad():
            queries = _shared(self.lengths[0], ROWS, device, lambda rows: vectors_of(rows, "input_ids"))
            items = _shared(self.lengths[1], ROWS, device, lambda rows: vectors_of(self.first[rows], "positive_ids"))

            def hardest(rows: Rows) -> torch.Tensor:
                left_out = [torch.from_numpy(self.known[row]) for row in rows]
                found = nearest(queries[torch.from_numpy(rows).to(device)], items, self.count, without=left_out)[1]
                progressed()
                return found

            self.chosen = _shared(np.zeros(len(queries), np.int32), QUERIES, device, hardest).cpu()
        self.epoch = epoch

    def _taken(self, rows: Rows, column: str) -> list[Any]:
        values, offsets = self.tokens[column]
        return [values[offsets[row] : offsets[row + 1]] for row in rows]

    def added(self, batch: Batch) -> Batch:
        """Returns a batch with the negatives of its rows: `mined_...`, (rows * count, ...), those of a row together."""
        places = self.chosen[batch.rows.cpu()].flatten().numpy()
        ids, mask = pad(self._taken(self.first[places], "positive_ids"), self.padding)
        more = {"input_ids": ids, "attention_mask": mask, "number": torch.from_numpy(self.items[places])}
        device = batch.targets.device
        return batch._replace(inputs=batch.inputs | {f"mined_{name}": each.to(device) for name, each in more.items()})

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: inside an epoch the model is no longer the one that chose."""
        return {"epoch": self.epoch, "chosen": self.chosen.int()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on with what was chosen before a run was cut short."""
        self.epoch, self.chosen = state["epoch"], state["chosen"].long()


def _tokens(table: pa.Table, column: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Returns the tokens of all rows, one after the other, and where each row begins."""
    chunks = table[column].chunks
    whole = chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)
    return whole.values.to_numpy(), whole.offsets.to_numpy()


def _known(texts: Rows, targets: Rows, items: Rows) -> list[Rows]:
    """Returns, a row, the places of items that are an answer to its text, or that text itself."""
    places = np.searchsorted(items, targets)
    answers: dict[int, set[int]] = {}
    for text, place in zip(texts.tolist(), places.tolist(), strict=True):
        answers.setdefault(text, set()).add(place)
    own = np.searchsorted(items, texts).clip(max=len(items) - 1)
    for text, place in zip(texts.tolist(), own.tolist(), strict=True):
        if items[place] == text:
            answers[text].add(place)
    arrays = {text: np.array(sorted(found), dtype=np.int64) for text, found in answers.items()}
    return [arrays[text] for text in texts.tolist()]


def _shared(
    lengths: NDArray[np.int32], size: int, device: torch.device, compute: Callable[[Rows], torch.Tensor]
) -> torch.Tensor:
    """Returns what `compute` makes of rows, (rows, ...), in their order, each rank having computed a share.

    What is computed at once is the same on any number of ranks, and so are the bits. All ranks compute equally often, some of
    them a part twice, for a model in shards needs them all.
    """
    alone = not (dist.is_available() and dist.is_initialized())
    rank, ranks = (0, 1) if alone else (dist.get_rank(), dist.get_world_size())
    order = np.argsort(lengths, kind="stable")
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    mine = [parts[turn % len(parts)] for turn in range(rank, -(-len(parts) // ranks) * ranks, ranks)]
    rows = gathered(torch.from_numpy(np.concatenate(mine)).to(device))[0]
    found = gathered(torch.cat([compute(part) for part in mine]))[0]
    whole = torch.empty((len(order), *found.shape[1:]), dtype=found.dtype, device=device)
    whole[rows] = found
    return whole
