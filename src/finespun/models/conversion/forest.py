"""A random forest as a transformers model: the trees are tensors, and stand where a model's last linear layer stood.

Saved models carry a copy of this file: plain transformers loads them with `trust_remote_code=True`, and without it where
`finespun.models.conversion.forest` was imported. So nothing of finespun is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
)

AUTO_CLASSES = (AutoModelForImageClassification, AutoModelForSequenceClassification)
Kind = Literal["label", "labels", "numbers"]  # what the leaves hold: shares of labels, a chance a label, numbers
LEAST = 1e-6  # of a share: logits must be finite


class ForestConfig(PreTrainedConfig):
    """The model under the trees (`base`, its configuration; `auto_class`, its class) and how many trees and nodes there are."""

    model_type = "finespun_forest"

    base: dict[str, Any] | None = None
    auto_class: str = ""
    layer: str = ""  # the linear layer of `base` that the trees stand for
    kind: str = "label"
    trees: int = 0
    nodes: int = 0
    depth: int = 0
    outputs: int = 0
    auto_map: dict[str, str] | None = None  # which classes of the copy of this file transformers takes for which Auto class


class Forest(nn.Module):
    """Trees side by side: every row walks down all of them at once, `depth` steps.

    Node n sends a row to `branches[n, 0]` where its feature `feature[n]` is at most `threshold[n]`, else to `branches[n, 1]`;
    a leaf sends it to itself. `values` (nodes, outputs) are averaged over the leaves that a row ends in.
    """

    def __init__(self, *, kind: str, trees: int, nodes: int, depth: int, outputs: int) -> None:
        super().__init__()
        self.kind, self.depth = kind, depth
        self.roots: torch.Tensor
        self.feature: torch.Tensor
        self.threshold: torch.Tensor
        self.branches: torch.Tensor
        self.values: torch.Tensor
        self.register_buffer("roots", torch.zeros(trees, dtype=torch.int64))
        self.register_buffer("feature", torch.zeros(nodes, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(nodes))
        self.register_buffer("branches", torch.zeros(nodes, 2, dtype=torch.int64))
        self.register_buffer("values", torch.zeros(nodes, outputs))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Returns logits (rows, outputs) whose softmax or sigmoid is the forest's own answer, or numbers."""
        features = features.float()
        node = self.roots.expand(len(features), -1)
        for _ in range(self.depth):
            right = features.gather(1, self.feature[node]) > self.threshold[node]
            node = self.branches[node, right.long()]
        answer = self.values[node].mean(dim=1)
        if self.kind == "numbers":
            return answer
        return answer.clamp(LEAST, 1).log() if self.kind == "label" else answer.logit(LEAST)


class ForestForLabels(PreTrainedModel):
    """A model whose last linear layer is a forest."""

    config_class = ForestConfig
    base_model_prefix = "backbone"

    def __init__(self, config: ForestConfig) -> None:
        super().__init__(config)
        base = AutoConfig.for_model(**(config.base or {}))
        self.backbone = getattr(transformers, config.auto_class).from_config(base, trust_remote_code=False)
        sizes = {name: getattr(config, name) for name in ("kind", "trees", "nodes", "depth", "outputs")}
        self.backbone.set_submodule(config.layer, Forest(**sizes))
        self.post_init()

    def forward(self, **inputs: Any) -> Any:
        """Answers as the model under the trees does: with `logits`."""
        return self.backbone(**inputs)


def grown(model: Any, layer: str, *, auto_class: str, kind: str, depth: int, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Returns a model with a forest of those tensors in place of one of its layers; the model given is used up."""
    sizes: dict[str, Any] = {"trees": len(tensors["roots"]), "nodes": len(tensors["feature"]), "depth": depth}
    sizes |= {"kind": kind, "outputs": tensors["values"].shape[1]}
    forest = Forest(**sizes)
    forest.load_state_dict(dict(tensors))
    answers = {name: getattr(model.config, name) for name in ("id2label", "label2id", "problem_type")}
    config = ForestConfig(
        base=model.config.to_dict(), auto_class=auto_class, layer=layer, auto_map=AUTO_MAP, **sizes, **answers
    )  # fmt: skip
    with torch.device("meta"):
        whole = ForestForLabels(config)
    model.set_submodule(layer, forest.to(model.device))
    whole.backbone = model
    return whole.eval()


AutoConfig.register(ForestConfig.model_type, ForestConfig, exist_ok=True)
for _auto_class in AUTO_CLASSES:
    _auto_class.register(ForestConfig, ForestForLabels, exist_ok=True)
ForestForLabels.register_for_auto_class(AutoModel.__name__)  # lets save_pretrained copy this file
AUTO_MAP = {"AutoConfig": "forest.ForestConfig"} | {each.__name__: "forest.ForestForLabels" for each in AUTO_CLASSES}
