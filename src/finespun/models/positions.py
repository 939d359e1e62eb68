"""Tables of positions that are longer in a checkpoint than a model for shorter inputs needs: their first rows are taken."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open

TABLES = ("embed_positions.weight",)

Shapes = Mapping[str, tuple[torch.Size, torch.Size]]  # name -> shape in the model, shape in the checkpoint


def without_cut(folder: Path, tensors: Mapping[str, torch.Tensor], shapes: Shapes) -> Shapes:
    """Fills tables of positions of a model, and returns the shapes that still do not fit.

    Args:
        folder: of the checkpoint.
        tensors: the model's own, by name.
        shapes: those that differ from the checkpoint's.
    """
    cut = {name for name, (ours, theirs) in shapes.items() if _is_cut(name, ours, theirs)}
    for path in sorted(folder.glob("model*.safetensors")) if cut else ():
        with safe_open(path, "pt") as file:
            for known in file.keys():  # noqa: SIM118  (it is no mapping)
                name = next((each for each in cut if known.endswith(each) or each.endswith(known)), None)
                if name is not None:
                    with torch.no_grad():
                        tensors[name].copy_(file.get_slice(known)[: tensors[name].shape[0]])
    return {name: both for name, both in shapes.items() if name not in cut}


def _is_cut(name: str, ours: torch.Size, theirs: torch.Size) -> bool:
    return name.endswith(TABLES) and len(ours) == len(theirs) and ours[1:] == theirs[1:] and ours[0] < theirs[0]
