"""The model of item recommendation: built from texts, its losses over all items, and items that training never saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from finespun.tasks.inputs.text import TextEncoder

OPTIONS = ("item_vectors", "width", "layers", "heads", "dropout", "max_history")
RESERVED = 2  # tokens before the items
ROWS = 64  # texts of one forward pass
LOGITS = 2**24  # of one chunk of events: 64 MB in single precision
SPREAD = 0.1  # deviation of each number of a vector, at the beginning
RIDGE = 1.0  # of the map from texts to trained vectors, in units of a vector's own square


@dataclass(frozen=True)
class Begun:
    """A model before training; `text` (items, width) is what vectors begin from, `cold` (items,) who has no training event."""

    model: Any
    text: NDArray[np.float32]
    cold: torch.Tensor


def begin(
    encoder_model: Any, items: pa.Table, encoder: TextEncoder, *, item_vectors: str, width: int, layers: int, heads: int,
    dropout: float, max_history: int,
) -> Begun:  # fmt: skip
    """Builds a causal transformer whose tokens are items: transformers' GPT-2, whose embeddings are the items' vectors.

    Those begin from the principal components of the mean-pooled vectors of the items' texts, or from random numbers.
    """
    import torch  # noqa: PLC0415  (configure imports this module and no torch)
    from transformers import GPT2Config, GPT2Model  # noqa: PLC0415

    config = GPT2Config(
        vocab_size=items.num_rows + RESERVED, n_positions=max_history + 1, n_embd=width, n_layer=layers, n_head=heads,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout, pad_token_id=0, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    model = GPT2Model(config)
    weight = vectors(model, all_tokens=True)
    with torch.no_grad():
        if item_vectors == "text":
            found = _components(_texts(encoder_model, items, encoder.pad_token_id), width)
            weight[RESERVED:] = torch.from_numpy(found * SPREAD)
        else:
            weight[RESERVED:] = torch.randn(items.num_rows, width) * SPREAD
        weight[0] = 0
    counts = torch.from_numpy(items["count"].to_numpy().copy())
    return Begun(model, weight[RESERVED:].detach().numpy().copy(), counts == 0)


def _texts(model: Any, items: pa.Table, padding: int) -> NDArray[np.float64]:
    """Returns the mean-pooled vectors of the items' texts, (items, width of the encoder)."""
    import torch  # noqa: PLC0415
    from torch.nn.functional import normalize  # noqa: PLC0415

    from finespun.tasks.inputs.text import pad  # noqa: PLC0415
    from finespun.tasks.ranking.contrastive import pooled  # noqa: PLC0415  (imports torch)

    ids = items["text_ids"].to_pylist()
    order = np.argsort([-len(each) for each in ids], kind="stable")
    found = np.zeros((len(ids), model.config.get_text_config().hidden_size))
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(order), ROWS):
            rows = order[start : start + ROWS]
            tokens, mask = pad([ids[row] for row in rows], padding)
            hidden = model(input_ids=tokens, attention_mask=mask).last_hidden_state
            found[rows] = normalize(pooled(hidden, mask, "mean"), dim=1).double().numpy()
    return found


def _components(vectors: NDArray[np.float64], width: int) -> NDArray[np.float32]:
    """Returns the principal components of vectors, (items, width), of deviation 1 over all; what is beyond them is 0."""
    centred = vectors - vectors.mean(axis=0)
    values, directions = np.linalg.eigh(centred.T @ centred)
    found = centred @ directions[:, np.argsort(-values)[:width]]
    found = np.pad(found, ((0, 0), (0, width - found.shape[1])))
    return np.asarray(found / max(float(found.std()), 1e-12), dtype=np.float32)


def vectors(model: Any, *, all_tokens: bool = False) -> torch.Tensor:
    """Returns the items' vectors, (items, width); or those of all tokens, the reserved ones first."""
    found: torch.Tensor = model.get_input_embeddings().weight
    return found if all_tokens else found[RESERVED:]


def hidden(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Returns what the model makes of each event, (rows, length, width)."""
    given = {name: inputs[name] for name in ("input_ids", "attention_mask", "position_ids")}
    found: torch.Tensor = model(**given, use_cache=False).last_hidden_state
    return found


def last(found: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Returns what is made of the last event, (rows, width)."""
    import torch  # noqa: PLC0415

    return found[torch.arange(len(found), device=found.device), mask.sum(dim=1) - 1]


def losses_and_places(
    model: Any, inputs: Mapping[str, torch.Tensor], targets: torch.Tensor, *, cold: torch.Tensor | None, leave_out: bool
) -> dict[str, torch.Tensor]:  # fmt: skip
    """Returns each row's mean loss and the place of its target among all items that training saw, (rows,) each.

    In training, each event is a target, and the place is 0; otherwise the last alone is, and the place is counted from 1.
    """
    import torch  # noqa: PLC0415
    from torch.nn.functional import cross_entropy  # noqa: PLC0415

    found, mask = hidden(model, inputs), inputs["attention_mask"]
    items = vectors(model)
    never = None if cold is None else cold.to(items.device)
    if model.training:
        following = torch.cat([inputs["input_ids"][:, 1:], inputs["input_ids"][:, :1]], dim=1) - RESERVED
        rows = torch.arange(len(found), device=found.device)
        following[rows, mask.sum(dim=1) - 1] = targets
        there = mask.bool()
        losses = found.new_zeros(mask.shape, dtype=torch.float32).masked_scatter(
            there, _chunked(found[there], items, following[there], never)
        )
        return {"losses": losses.sum(dim=1) / mask.sum(dim=1), "places": torch.zeros_like(targets)}
    scores = (last(found, mask) @ items.T).float()
    if never is not None:
        scores = scores.masked_fill(never & (torch.arange(len(items), device=items.device) != targets[:, None]), -torch.inf)
    losses = cross_entropy(scores, targets, reduction="none")
    own = scores.gather(1, targets[:, None])
    if leave_out:
        scores = _without(scores, inputs["seen"])
    return {"losses": losses, "places": (scores > own).sum(dim=1) + 1}


def _chunked(
    queries: torch.Tensor, items: torch.Tensor, targets: torch.Tensor, never: torch.Tensor | None
) -> torch.Tensor:  # fmt: skip
    """Returns the cross-entropy of each event, (events,); logits of one chunk at a time, computed again for the gradient."""
    import torch  # noqa: PLC0415
    from torch.nn.functional import cross_entropy  # noqa: PLC0415
    from torch.utils.checkpoint import checkpoint  # noqa: PLC0415

    def losses(some: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        scores = (some @ items.T).float()
        scores = scores if never is None else scores.masked_fill(never, -torch.inf)
        return cross_entropy(scores, wanted, reduction="none")

    size = max(1, LOGITS // len(items))
    if len(queries) <= size:
        return losses(queries, targets)
    parts = zip(torch.split(queries, size), torch.split(targets, size), strict=True)
    return torch.cat([checkpoint(losses, *part, use_reentrant=False) for part in parts])


def _without(scores: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Returns scores with -inf for items of the history."""
    import torch  # noqa: PLC0415

    known = seen >= 0
    left_out = torch.zeros_like(scores, dtype=torch.bool)
    rows = torch.arange(len(seen), device=seen.device)[:, None].expand_as(seen)
    left_out[rows[known], seen[known]] = True
    return scores.masked_fill(left_out, -torch.inf)


def placed_by_text(found: NDArray[np.float32], text: NDArray[np.float32], cold: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Returns vectors, (items, width): of items without a training event, what ridge regression makes of their texts."""
    if not cold.any() or cold.all():
        return found
    known, wanted = text[~cold].astype(np.float64), found[~cold].astype(np.float64)
    bias = wanted.mean(axis=0)
    square = known.T @ known
    square += RIDGE * np.trace(square) / len(square) * np.eye(len(square)) / 100
    mapped = np.linalg.solve(square, known.T @ (wanted - bias))
    placed = found.copy()
    placed[cold] = text[cold] @ mapped + bias
    return placed
