"""The layer of a model with a row for each label: found, and its rows taken from a fine-tuned model by the labels' names."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from finespun.data.cells import folded
from finespun.errors import first_of
from finespun.models.conversion.forest import ForestForLabels

UNNAMED = re.compile(r"LABEL_\d+")  # what transformers calls labels that nobody has named
REGRESSION = "regression"  # transformers' problem_type of numbers


def label_tensors(model: Any) -> dict[str, int]:
    """Returns the tensors that have a row for each label (they grow with one label more), and in which of their dimensions."""
    config = copy.deepcopy(model.config)
    config.num_labels = model.config.num_labels + 1
    with torch.device("meta"):
        larger = type(model)(config).state_dict()
    return {
        name: next(dim for dim, pair in enumerate(zip(tensor.shape, larger[name].shape, strict=True)) if pair[0] != pair[1])
        for name, tensor in model.state_dict().items()
        if tensor.shape != larger[name].shape
    }


def output_layer(model: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Returns weights (outputs, ...) and biases (outputs,) that logits are a linear function of, None where there are none.

    Those of a forest are one and the same: the numbers in its leaves, (outputs, nodes).
    """
    tensors = model.state_dict()
    if isinstance(model, ForestForLabels):
        values = tensors[f"{model.base_model_prefix}.{model.config.layer}.values"].T
        return values, values
    dims = label_tensors(model)
    layers = {name.rpartition(".")[0] for name in dims}
    if len(dims) != 2 or len(layers) != 1 or any(dims.values()) or type(model.get_submodule(*layers)) is not nn.Linear:
        return None
    weight, bias = (tensors[f"{next(iter(layers))}.{name}"] for name in ("weight", "bias"))
    return weight, bias


def rescale(layer: tuple[torch.Tensor, torch.Tensor], factor: torch.Tensor, shift: torch.Tensor) -> None:
    """Changes an output layer so that its logits become `logits * factor + shift`, (outputs,) each in double precision."""
    weight, bias = layer
    weight.copy_(weight.double() * factor[:, None])
    if bias is weight:
        bias.add_(shift[:, None])
    else:
        bias.copy_(bias.double() * factor + shift)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Where the rows of a new head come from: for each label, the row of the checkpoint's head, None for a new one."""

    old: Sequence[str]
    new: Sequence[str]
    taken: Sequence[int | None]
    by_position: bool = False
    why_new: str = "its labels are others"

    @property
    def all_new(self) -> bool:
        """Whether nothing is taken."""
        return all(row is None for row in self.taken)

    @property
    def unchanged(self) -> bool:
        """Whether the head is the checkpoint's as it stands."""
        return list(self.taken) == list(range(len(self.old)))

    def __str__(self) -> str:
        old = [f"{name} ({self.old[row]})" if self.old[row] != name else name for name, row in self._pairs]
        if not old:
            return f"new head: that of the checkpoint is not taken, for {self.why_new} ({first_of(self.old, 3)})"
        if self.by_position:
            return f"head taken by position, for the checkpoint does not name its labels: {first_of(old)}; compare the order"
        parts = [f"{len(old)} label{'s' * (len(old) != 1)} taken by name ({first_of(old)})"]
        new = [name for name, row in zip(self.new, self.taken, strict=True) if row is None]
        gone = [name for row, name in enumerate(self.old) if row not in self.taken]
        parts += [f"{len(each)} {what} ({first_of(each)})" for what, each in (("new", new), ("left out", gone)) if each]
        return f"head: {', '.join(parts)}"

    @property
    def _pairs(self) -> list[tuple[str, int]]:
        return [(name, row) for name, row in zip(self.new, self.taken, strict=True) if row is not None]


def _match(config: Any, labels: Sequence[str], model: Any) -> Rows:
    """Returns where the rows for `labels` are in the head of a checkpoint with this configuration.

    Names are compared as they stand, then without case, blanks and Unicode form, where that leaves no doubt. Labels without
    names are taken by position if there are as many and the model is of the same class.
    """
    problem_type = model.config.problem_type
    old = [str(config.id2label.get(row, f"LABEL_{row}")) for row in range(config.num_labels)]
    numbers = config.problem_type == REGRESSION if config.problem_type else config.num_labels == 1
    if numbers != (problem_type == REGRESSION) and (numbers or config.problem_type):
        kinds = ("labels", "numbers") if problem_type == REGRESSION else ("numbers", "labels")
        why = f"it gives {kinds[0]} and not {kinds[1]}"
        return Rows(old=old, new=labels, taken=[None] * len(labels), why_new=why)
    exact, alike = _places(old, str), _places(old, folded)
    doubtful = {name for name, count in Counter(map(folded, labels)).items() if count > 1}
    taken = [
        exact.get(name, alike.get(folded(name)) if folded(name) not in doubtful else None) for name in labels
    ]  # fmt: skip
    alike_as_a_whole = len(old) == len(labels) and type(model).__name__ in (config.architectures or [type(model).__name__])
    if alike_as_a_whole and all(row is None for row in taken) and all(map(UNNAMED.fullmatch, old)):
        return Rows(old=old, new=labels, taken=list(range(len(old))), by_position=True)
    return Rows(old=old, new=labels, taken=taken)


def _places(names: Sequence[str], key: Callable[[str], str]) -> dict[str, int]:
    """Returns where each name stands that stands there once."""
    keys = [key(name) for name in names]
    counts = Counter(keys)
    return {name: place for place, name in enumerate(keys) if counts[name] == 1}


def take_rows(
    model: Any, checkpoint: Any, labels: Sequence[str], *, missing: AbstractSet[str], again: Callable[[], Any]
) -> tuple[Rows, set[str]] | None:
    """Gives each label of a loaded model its own row of the checkpoint's head; the rows of others are drawn anew.

    Args:
        model: as transformers loaded it, for `labels`: the head by position, or drawn where the numbers of labels differ.
        checkpoint: its configuration, as it was saved.
        labels: of the model.
        missing: names of tensors that the checkpoint has not.
        again: loads the model with the checkpoint's own head.

    Returns:
        the rows and the names of the tensors that hold them; None where the checkpoint has no head.
    """
    outside = [name for name in model.state_dict() if not name.startswith(f"{model.base_model_prefix}.")]
    if missing >= {*outside}:
        return None
    dims = {name: dim for name, dim in label_tensors(model).items() if name not in missing}
    if not dims:
        return None
    rows = _match(checkpoint, labels, model)
    if not rows.unchanged:
        whole = model if len(rows.old) == len(labels) else again()
        _fill(model, rows, {name: tensor.clone() for name, tensor in whole.state_dict().items() if name in dims}, dims)
    return rows, {*dims}


def _fill(model: Any, rows: Rows, old: Mapping[str, torch.Tensor], dims: Mapping[str, int]) -> None:
    tensors = model.state_dict()
    spread = getattr(model.config, "initializer_range", None) or 0.02
    with torch.no_grad():
        for name, dim in dims.items():
            tensor = tensors[name]
            nn.init.zeros_(tensor) if tensor.ndim == 1 else nn.init.normal_(tensor, std=spread)
            for place, row in enumerate(rows.taken):
                if row is not None:
                    tensor.select(dim, place).copy_(old[name].select(dim, row))
