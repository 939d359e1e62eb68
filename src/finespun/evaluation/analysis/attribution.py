"""Which words of a text made a model's prediction: integrated gradients (Sundararajan et al., 2017), checked by deletion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finespun.data.checks import problems_of, role_values
from finespun.errors import DataError, MachineError, ModelError
from finespun.evaluation.predictor import Predictor

STEPS = 32  # of the integral
RANDOM_ORDERS = 8  # that a deletion curve is compared with
DELETIONS = 10  # points of a deletion curve


@dataclass(frozen=True, kw_only=True)
class Explained:
    """A prediction and what each token gave to it: the scores add up to its log-odds less those of an empty text.

    `deletion` and `random` are the areas under the probability while tokens are deleted, the most important first and in random
    orders: an explanation that is no better than random says nothing.
    """

    label: str
    probability: float
    tokens: tuple[str, ...]
    scores: tuple[float, ...]
    deletion: float
    random: float
    spread: float

    @property
    def holds(self) -> bool:
        """Whether deleting what is said to matter matters more than deleting anything."""
        return self.deletion < self.random - self.spread


def explain(predictor: Predictor, row: dict[str, Any]) -> Explained:
    """Explains the predicted label of one row of text.

    Raises:
        MachineError: captum is not installed.
        ModelError: the model does not give one label to a text.
        DataError: the row cannot be predicted.
    """
    task, model = predictor.task, predictor.model
    if task.auto_class != "AutoModelForSequenceClassification" or [*task.answer_roles] != ["label"]:
        raise ModelError(f"explanations are of models that give one label to a text; this one is for {type(task).__name__}")
    values = role_values(row, predictor.columns, task)
    problem = next(problems_of(values, task, None), None)
    if problem:
        raise DataError(f"{predictor.columns[problem[1]]} {problem[2]}")
    columns = {name: array.to_pylist() for name, array in task.encode([values], predictor.encoder, None).items()}
    inputs, _ = task.collate(columns, predictor.encoder)
    inputs = {name: tensor.to(predictor.device) for name, tensor in inputs.items()}
    ids = inputs.pop("input_ids")
    free = torch.tensor([token not in special_ids(predictor) for token in ids[0].tolist()])
    chances = _chances(predictor, ids, inputs)
    best = int(chances[0].argmax())
    scores = attributions(model, ids, inputs, target=best, blank=torch.where(free, predictor.encoder.pad_token_id, ids))
    order = [place for place in np.argsort(-scores).tolist() if free[place]]

    def without(deleted: list[int]) -> float:
        kept = ids.clone()
        kept[0, deleted] = predictor.encoder.pad_token_id
        return float(_chances(predictor, kept, inputs)[0, best])

    area, random, spread = deletion_check(order, without)
    tokens = [predictor.encoder.tokenizer.id_to_token(token) for token in ids[0].tolist()]
    places = [place for place in range(len(tokens)) if free[place]]
    return Explained(
        label=predictor.labels[best], probability=float(chances[0, best]), tokens=tuple(tokens[place] for place in places),
        scores=tuple(float(scores[place]) for place in places), deletion=area, random=random, spread=spread,
    )  # fmt: skip


def special_ids(predictor: Predictor) -> set[int]:
    """Returns the tokens that stand in every text: they are neither explained nor deleted."""
    tokenizer = predictor.encoder.tokenizer
    return {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}


def _chances(predictor: Predictor, ids: torch.Tensor, more: dict[str, torch.Tensor]) -> NDArray[np.float64]:
    with torch.inference_mode():
        logits = predictor.model(input_ids=ids, **more).logits
    return np.asarray(predictor.task.outputs(logits.float().cpu().numpy()))


def attributions(
    model: Any, ids: torch.Tensor, more: dict[str, torch.Tensor], *, target: int, blank: torch.Tensor, steps: int = STEPS
) -> NDArray[np.float64]:  # fmt: skip
    """Returns what each token adds to a label's log-odds, (tokens,), beside a text of `blank` tokens.

    A label's own logit says nothing by itself: of the two of a logistic regression one is always 0.
    """
    try:
        from captum.attr import LayerIntegratedGradients  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise MachineError("captum is not installed, which explains predictions: pip install 'finespun[explain]'") from error

    def log_odds(tokens: torch.Tensor) -> torch.Tensor:
        named = {name: tensor.expand(len(tokens), -1) for name, tensor in more.items()}
        logits: torch.Tensor = model(input_ids=tokens, **named).logits
        others = torch.arange(logits.shape[1], device=logits.device) != target
        return logits[:, target] - logits[:, others].logsumexp(dim=1)

    method = LayerIntegratedGradients(log_odds, model.get_input_embeddings())
    found = method.attribute(ids, baselines=blank.reshape(1, -1), n_steps=steps, internal_batch_size=16)
    return np.asarray(found.sum(dim=-1)[0].detach().double().cpu().numpy())


def deletion_check(order: list[int], without: Callable[[list[int]], float]) -> tuple[float, float, float]:
    """Returns the area under the deletion curve of an order, and the mean and the deviation of random orders' areas."""
    random = np.random.Generator(np.random.Philox(key=0))
    areas = [_area([*random.permutation(order).tolist()], without) for _ in range(RANDOM_ORDERS)]
    return _area(order, without), float(np.mean(areas)), float(np.std(areas))


def _area(order: list[int], without: Callable[[list[int]], float]) -> float:
    counts = np.unique(np.linspace(0, len(order), DELETIONS + 1).round().astype(int))
    return float(np.mean([without(order[:count]) for count in counts]))
