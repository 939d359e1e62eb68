"""Lightning's DDP on several nodes, which need not share a disk: rank zero alone reads checkpoints, and hands them round."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.strategies import DDPStrategy


class FarCopies(DDPStrategy):
    """Copies of the model on devices of several nodes."""

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Returns what rank zero has read, on each rank."""
        read = super().load_checkpoint(checkpoint_path, weights_only) if self.is_global_zero else None
        sent = [read]
        dist.broadcast_object_list(sent, device=torch.device("cpu") if dist.get_backend() == "gloo" else self.root_device)
        assert sent[0] is not None
        return sent[0]
