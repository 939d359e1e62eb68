"""Where a transformers model has its embeddings, its blocks and its head: what strategies speak of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finespun.errors import ConfigError, ModelError
from finespun.strategies.base import Group

if TYPE_CHECKING:
    import torch
    from torch import nn

    Parameters = dict[str, nn.Parameter]


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """Parameters of a model by full name, from bottom to top.

    `embeddings` come before the first block; `top` is what the backbone has after the last (a pooler, a final norm);
    `head` is outside the backbone, whose own name has `depth` parts.
    """

    embeddings: Parameters
    blocks: list[Parameters]
    block_names: list[str]
    top: Parameters
    head: Parameters
    depth: int

    @property
    def above_blocks(self) -> Parameters:
        """Everything after the last block: what a linear probe trains."""
        return self.top | self.head


def dissect(model: nn.Module) -> Anatomy:
    """Finds the blocks: the largest list of modules inside the backbone (stages, in a convolutional net).

    Convolutions after the last of them are the topmost block: a head reads what is pooled (not that of a segmenter). Of a
    detector that block is all between its net and the layers that name and place boxes; RT-DETR has these inside its decoder,
    and so all above its net is its head.

    Raises:
        ModelError: the model has no backbone with a list of blocks.
    """
    backbone: Any = getattr(model, "base_model", model)
    prefix = next((f"{name}." for name, module in model.named_modules() if module is backbone and name), "")
    lists = [
        (name, module)
        for name, module in backbone.named_modules()
        if type(module).__name__ in {"ModuleList", "Sequential"} and len(module) > 1 and _size(module)
    ]
    bare = backbone is model and hasattr(model, "base_model")  # as a text's vector is read off: blocks without a head
    if not lists or (backbone is model and not bare):
        raise ModelError(
            f"strategy: {type(model).__name__} has no backbone with a list of blocks; take strategy: full, which needs none"
        )
    name, blocks = max(lists, key=lambda pair: _size(pair[1]))
    names = [f"{prefix}{name}.{child}" for child, _ in blocks.named_children()]
    found: list[Parameters] = [{} for _ in names]
    before: Parameters = {}
    after: Parameters = {}
    head: Parameters = {}
    for full, parameter in model.named_parameters():
        inside = next((position for position, block in enumerate(names) if full.startswith(f"{block}.")), None)
        if inside is not None:
            found[inside][full] = parameter
        elif not full.startswith(prefix):
            head[full] = parameter
        else:
            (after if any(found) else before)[full] = parameter
    convolution = next((full for full, each in after.items() if each.ndim == 4 and full.endswith(".weight")), None)
    if type(model).__name__.endswith("ForSemanticSegmentation"):  # MobileNetV2's head does not read its last convolution
        convolution = None
    if convolution and not head and not bare:  # a detector whose outputs are made inside its decoder
        head, after = after, {}
    elif convolution:
        names.append(_outside(names, convolution))
        found.append(after)
        after = {}
    return Anatomy(embeddings=before, blocks=found, block_names=names, top=after, head=head, depth=prefix.count("."))


def _outside(names: list[str], parameter: str) -> str:
    """The outermost module that holds a parameter and no block."""
    parts = parameter.split(".")
    paths = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    return next(path for path in paths if not any(name.startswith(f"{path}.") for name in names))


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def layers(anatomy: Anatomy, *, scale: float = 1.0, decay: float = 1.0, head_lr_scale: float = 1.0) -> list[Group]:
    """Returns a group a layer, bottom to top; each layer down has `decay` times the rate of the one above it."""
    depth = len(anatomy.blocks)
    groups = [Group(name="embeddings", parameters=anatomy.embeddings, lr_scale=scale * decay ** (depth + 1))]
    groups += [
        Group(name=f"block_{position}", parameters=block, lr_scale=scale * decay ** (depth - position))
        for position, block in enumerate(anatomy.blocks)
    ]
    groups.append(Group(name="head", parameters=anatomy.above_blocks, lr_scale=scale * head_lr_scale))
    return [group for group in groups if group.parameters]


def require_blocks(asked: int, anatomy: Anatomy, option: str) -> None:
    """Makes sure that a model has as many blocks as an option names.

    Raises:
        ConfigError: it has fewer.
    """
    if asked > len(anatomy.blocks):
        raise ConfigError([f"strategy.{option}: {asked} asked for, the model has {len(anatomy.blocks)} blocks; lower it"])


def reads_first_token_alone(logits: torch.Tensor, tokens: torch.Tensor) -> bool:
    """Whether logits depend on the first of each row's `tokens` (rows, length, width) and on no other: by the gradient.

    False where that cannot be seen: rows of one token, a head of zeros, logits that depend on none of them.
    """
    import torch  # noqa: PLC0415  (configure imports this module and no torch)

    if tokens.shape[1] < 2 or not logits.requires_grad:
        return False
    weights = torch.linspace(1, 2, logits.numel(), device=logits.device).view_as(logits)
    (gradient,) = torch.autograd.grad((logits * weights).sum(), tokens, allow_unused=True)
    return gradient is not None and bool(gradient[:, :1].any()) and not bool(gradient[:, 1:].any())
