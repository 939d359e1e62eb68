"""Losses of pairs of vectors, over the whole optimizer step: on all ranks and in however many passes a step is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.functional import cosine_similarity, cross_entropy, normalize
from torch.utils.checkpoint import checkpoint

from finespun.tasks.ranking.pairs import MINED, SCORED

Inputs = dict[str, torch.Tensor]


def pooled(hidden: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """Returns one vector a row, (rows, width), of token vectors (rows, length, width) and their mask (rows, length).

    `mean` of the tokens that are there, `cls` the first of them, `last` the last: for models that read left to right.
    """
    if how == "mean":
        shown = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * shown).sum(dim=1) / shown.sum(dim=1).clamp(min=1e-9)
    rows = torch.arange(len(hidden), device=hidden.device)
    place = mask.int().argmax(dim=1) if how == "cls" else mask.shape[1] - 1 - mask.flip(1).int().argmax(dim=1)
    return hidden[rows, place]


def in_chunks(encode: Callable[[Inputs], torch.Tensor], inputs: Inputs, chunks: int) -> torch.Tensor:
    """Encodes rows in so many chunks, whose activations are computed again when gradients need them.

    Memory holds the activations of one chunk alone, while the loss sees all rows: gradient caching (Gao et al., "Scaling Deep
    Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021), by means of activation checkpointing.
    """
    rows = len(next(iter(inputs.values())))
    size = -(-rows // max(1, chunks))
    if size >= rows:
        return encode(inputs)
    parts = [{name: each[start : start + size] for name, each in inputs.items()} for start in range(0, rows, size)]
    if not torch.is_grad_enabled():
        return torch.cat([encode(part) for part in parts])
    return torch.cat([checkpoint(encode, part, use_reentrant=False) for part in parts])


class _Gather(torch.autograd.Function):
    """All ranks' rows, and gradients that each rank gives to another's rows."""

    @staticmethod
    def forward(_: Any, mine: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, mine.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(_: Any, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        return total[dist.get_rank()]


def gathered(mine: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Returns the rows of all ranks, (all rows, ...), and where this rank's begin; ranks may have other numbers of rows."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return mine, 0
    sizes = [torch.zeros(1, dtype=torch.int64, device=mine.device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(mine)], device=mine.device))
    counts = [int(size) for size in sizes]
    padded = torch.cat([mine, mine.new_zeros((max(counts) - len(mine), *mine.shape[1:]))])
    parts = _Gather.apply(padded)  # type: ignore[no-untyped-call]
    rows = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
    return rows, sum(counts[: dist.get_rank()])


def info_nce(
    queries: torch.Tensor, candidates: torch.Tensor, own: torch.Tensor, *, known: torch.Tensor, others: torch.Tensor,
    scale: float,
) -> torch.Tensor:  # fmt: skip
    """Returns each query's cross-entropy of its own candidate among all, (queries,).

    InfoNCE (van den Oord et al., 2018) with in-batch negatives, sentence-transformers' MultipleNegativesRankingLoss, except
    that a candidate that is the same item as the query's own is no negative of it.

    Args:
        queries: (queries, width).
        candidates: (candidates, width): the positives of all ranks, then their negatives.
        own: (queries,): where each query's own is among them.
        known: (queries,): a number for the item that is each query's own.
        others: (candidates,): the same of each candidate.
        scale: cosines are multiplied by it: one over the temperature.
    """
    scores = normalize(queries.float(), dim=1) @ normalize(candidates.float(), dim=1).T * scale
    same = known[:, None] == others[None, :]
    same[torch.arange(len(own), device=own.device), own] = False
    return cross_entropy(scores.masked_fill(same, -torch.inf), own, reduction="none")


def cosent(cosines: torch.Tensor, targets: torch.Tensor, *, scale: float) -> torch.Tensor:
    """Returns one loss of all pairs: each pair of pairs should be in the order of its targets (CoSENT, Su, 2022).

    Args:
        cosines: (pairs,).
        targets: (pairs,), in any unit: only their order counts.
        scale: as in `info_nce`.
    """
    scores = cosines.float() * scale
    wrong = scores[:, None] - scores[None, :]  # [i, j]: how far i is above j
    ordered = targets[:, None] < targets[None, :]
    found = wrong.masked_fill(~ordered, -torch.inf).flatten()
    return torch.logsumexp(torch.cat([found.new_zeros(1), found]), dim=0)


def triplet(
    queries: torch.Tensor, positives: torch.Tensor, negatives: torch.Tensor, *, margin: float
) -> torch.Tensor:  # fmt: skip
    """Returns by how much each negative is nearer than the positive and a margin, in cosines, (rows,)."""
    near, far = (cosine_similarity(queries.float(), each.float(), dim=1) for each in (positives, negatives))
    return (far - near + margin).clamp(min=0)


def step_losses(
    vectors: dict[str, torch.Tensor], targets: torch.Tensor, *, counted: int, loss_function: str, temperature: float,
    margin: float,
) -> torch.Tensor:  # fmt: skip
    """Returns the loss of each row of a step, (rows,); of `cosent`, that of all ranks' rows, as often.

    Args:
        vectors: (rows, width) by side, and the numbers of negatives; of those mined, as many of each row.
        targets: (rows,): the numbers of positives, or how alike each pair is.
        counted: so many rows count; one that only keeps a device busy is nobody's negative.
        loss_function: as in `conf/task/text_embedding.yaml`.
        temperature: of `info_nce` and `cosent`.
        margin: of `triplet`.
    """
    texts, positives = vectors["text"], vectors["positive"]
    if loss_function == "triplet":
        return triplet(texts, positives, vectors["negative"], margin=margin)
    if loss_function in SCORED:
        cosines = cosine_similarity(texts.float(), positives.float(), dim=1)
        if loss_function == "cosine":
            return (cosines - targets) ** 2
        every, goals = (gathered(each[:counted])[0] for each in (cosines, targets))
        return cosent(every, goals, scale=1 / temperature).expand(len(texts))
    candidates, first = gathered(positives[:counted])
    others = gathered(targets[:counted])[0]
    for name in ("negative", MINED):
        if name in vectors:
            many = counted * len(vectors[name]) // len(texts)
            candidates = torch.cat([candidates, gathered(vectors[name][:many])[0]])
            others = torch.cat([others, gathered(vectors[f"{name}_number"][:many])[0]])
    own = torch.arange(len(texts), device=texts.device)
    own = torch.where(own < counted, own + first, 0)
    return info_nce(texts, candidates, own, known=targets, others=others, scale=1 / temperature)
