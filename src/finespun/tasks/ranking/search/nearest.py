"""Exact nearest neighbours by dot product, in blocks: memory stays bounded, however many items there are."""

from __future__ import annotations

import torch

SCORES = 2**24  # of one block of queries and items: 64 MB in single precision
QUERIES = 1024  # of one block


def nearest(
    queries: torch.Tensor, items: torch.Tensor, count: int, *, without: list[torch.Tensor] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Returns the scores and positions of the items with the largest dot products, (queries, count), the largest first.

    Args:
        queries: (queries, width).
        items: (items, width), on the CPU or the queries' device; blocks are moved there.
        count: how many; fewer where there are fewer items.
        without: positions of items that a query must not be given, one tensor a query; their scores are -inf.
    """
    count = min(count, len(items))
    found = [
        _block(queries[start : start + QUERIES], items, count, without[start : start + QUERIES] if without else None)
        for start in range(0, len(queries), QUERIES)
    ]
    if not found:
        empty = queries.new_empty((0, count))
        return empty, empty.long()
    return torch.cat([scores for scores, _ in found]), torch.cat([places for _, places in found])


def _block(
    queries: torch.Tensor, items: torch.Tensor, count: int, without: list[torch.Tensor] | None
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    size = max(count, SCORES // max(1, len(queries)))
    best = queries.new_empty((len(queries), 0))
    places = best.long()
    for start in range(0, len(items), size):
        scores = queries @ items[start : start + size].to(queries.device).T
        if without is not None:
            _leave_out(scores, without, start)
        found = scores.topk(min(count, scores.shape[1]), dim=1)
        best = torch.cat([best, found.values], dim=1)
        places = torch.cat([places, found.indices + start], dim=1)
        best, kept = best.topk(min(count, best.shape[1]), dim=1)
        places = places.gather(1, kept)
    return best, places


def _leave_out(scores: torch.Tensor, without: list[torch.Tensor], start: int) -> None:
    """Sets scores of a block, whose first item is `start`, to -inf where an item must not be given."""
    rows = torch.repeat_interleave(torch.arange(len(without)), torch.tensor([len(each) for each in without]))
    columns = torch.cat(without) - start if len(rows) else rows
    inside = (columns >= 0) & (columns < scores.shape[1])
    scores[rows[inside].to(scores.device), columns[inside].to(scores.device)] = -torch.inf
