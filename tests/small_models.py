"""Models that several processes of a test can import."""

from __future__ import annotations

import torch
from torch import nn


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(3, 3), nn.Parameter(torch.tensor(1.0))


class Tied(nn.Module):
    """Two blocks that share a weight, and a head that shares the embeddings'."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings, self.blocks = nn.Embedding(7, 4), nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.head = nn.Linear(4, 7, bias=False)
        self.blocks[1].weight = self.blocks[0].weight
        self.head.weight = self.embeddings.weight
        self.register_buffer("offset", torch.arange(4.0), persistent=False)
