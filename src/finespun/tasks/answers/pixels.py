"""Masks as tensors: logits at the masks' size, what is counted of each image, the Dice loss. Imports torch only when called."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

IGNORED = 255  # of a target: transformers' `semantic_loss_ignore_index`; a pixel that losses and scores skip
SMOOTH = 1.0  # pixels that are added to both sides of Dice's fraction
NEAR = 0.0075  # of an image's diagonal: boundaries that are so close together meet (Csurka et al., 2013)


def upsampled(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Returns logits (rows, classes, height, width) of the targets' size, as transformers' losses make them."""
    from torch.nn import functional  # noqa: PLC0415

    return functional.interpolate(logits.float(), size=targets.shape[-2:], mode="bilinear", align_corners=False)


def confusion(found: torch.Tensor, targets: torch.Tensor, count: int) -> torch.Tensor:
    """Returns (rows, classes, classes), how many pixels of each class (first) are predicted as each (second)."""
    import torch  # noqa: PLC0415

    rows = torch.arange(len(targets), device=targets.device)[:, None, None]
    places = (rows * count + targets) * count + found
    pairs = torch.bincount(places[targets != IGNORED], minlength=len(targets) * count * count)
    return pairs.reshape(len(targets), count, count)


def dice_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Returns one minus the mean Dice coefficient of the classes that each row has, (rows,) (Milletari et al., 2016)."""
    from torch.nn import functional  # noqa: PLC0415

    known = (targets != IGNORED)[:, None]
    chances = logits.softmax(1) * known
    actual = functional.one_hot(targets.where(targets != IGNORED, 0), logits.shape[1]).permute(0, 3, 1, 2) * known
    both, total = (each.flatten(2).sum(2) for each in (chances * actual, chances + actual))
    there = actual.flatten(2).any(2).float()
    return (1 - ((2 * both + SMOOTH) / (total + SMOOTH) * there).sum(1) / there.sum(1).clamp(min=1)) * there.any(1)


def boundaries(found: torch.Tensor, targets: torch.Tensor, count: int) -> torch.Tensor:
    """Returns (rows, classes, 4), pixels on boundaries: predicted ones that meet a true one, all; true ones that are met, all.

    A pixel is on the boundary of its class if one of its eight neighbours has another class; pixels that nobody has labelled
    are neither. Boundaries meet within NEAR of the diagonal, along both axes.
    """
    import torch  # noqa: PLC0415

    known = targets != IGNORED
    reach = max(1, round(NEAR * math.hypot(*targets.shape[-2:])))
    counts = torch.zeros((len(targets), count, 4), dtype=torch.int64, device=targets.device)
    there = torch.bincount(torch.cat([found[known], targets[known]]), minlength=count)
    for label in there.nonzero()[:, 0].tolist():
        edges = [_edge(each == label, known) for each in (found, targets)]
        for place, (mine, other) in enumerate((edges, edges[::-1])):
            counts[:, label, 2 * place] = (mine & _spread(other, reach)).flatten(1).sum(1)
            counts[:, label, 2 * place + 1] = mine.flatten(1).sum(1)
    return counts


def _edge(mask: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    return mask & known & _spread(~mask & known, 1)


def _spread(mask: torch.Tensor, reach: int) -> torch.Tensor:
    """Returns which pixels have one of the mask within `reach` pixels along both axes."""
    from torch.nn import functional  # noqa: PLC0415

    return functional.max_pool2d(mask[:, None].float(), 2 * reach + 1, stride=1, padding=reach)[:, 0] > 0
