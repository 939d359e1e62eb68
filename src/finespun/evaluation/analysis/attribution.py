"""What of a text or an image made a prediction: integrated gradients (Sundararajan et al., 2017), checked by deletion."""

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
from finespun.tasks.base import Task

STEPS = 32  # of the integral
RANDOM_ORDERS = 8  # that a deletion curve is compared with
DELETIONS = 10  # points of a deletion curve
FIELDS = 8  # of an image, down and across
EXPLAINED = ("AutoModelForSequenceClassification", "AutoModelForImageClassification")


@dataclass(frozen=True, kw_only=True)
class Explained:
    """A prediction and what each token, or each field of an image, gave to it.

    `scores` add up to the log-odds less those of an empty input. `tokens` are words' parts; of an image they are none, and
    `scores` are the fields of `grid`, (rows, columns), row by row. `deletion` and `random` are the areas under the
    probability while parts are deleted, the most important first and in random orders, `spread` the deviation of the latter:
    an explanation that is no better than random says nothing.
    """

    label: str
    probability: float
    tokens: tuple[str, ...]
    scores: tuple[float, ...]
    deletion: float
    random: float
    spread: float
    grid: tuple[int, int] | None = None

    @property
    def holds(self) -> bool:
        """Whether deleting what is said to matter matters more than deleting anything."""
        return self.deletion < self.random - self.spread


def can_explain(task: Task) -> bool:
    """Whether predictions of a task can be explained: it gives one label to a text or an image."""
    return task.auto_class in EXPLAINED and [*task.answer_roles] == ["label"]


def explain(predictor: Predictor, row: dict[str, Any]) -> Explained:
    """Explains the predicted label of one row.

    Raises:
        MachineError: captum is not installed.
        ModelError: the model does not give one label to a text or an image.
        DataError: the row cannot be predicted.
    """
    task = predictor.task
    if not can_explain(task):
        name = type(task).__name__
        raise ModelError(f"explanations are of models that give one label to a text or an image; this one is for {name}")
    values = role_values(row, predictor.columns, task)
    problem = next(problems_of(values, task, None), None)
    if problem:
        raise DataError(f"{predictor.columns[problem[1]]} {problem[2]}")
    columns = {name: array.to_pylist() for name, array in task.encode([values], predictor.encoder, None).items()}
    inputs, _ = task.collate(columns, predictor.encoder)
    inputs = {name: tensor.to(predictor.device) for name, tensor in inputs.items()}
    return _of_image(predictor, inputs) if "pixel_values" in inputs else _of_text(predictor, inputs)


def _of_text(predictor: Predictor, inputs: dict[str, torch.Tensor]) -> Explained:
    ids = inputs.pop("input_ids")
    free = torch.tensor([token not in special_ids(predictor) for token in ids[0].tolist()])
    chances = _chances(predictor, input_ids=ids, **inputs)
    best = int(chances[0].argmax())
    blank = torch.where(free, predictor.encoder.pad_token_id, ids)
    scores = attributions(predictor.model, ids, inputs, target=best, blank=blank)
    places = [place for place in range(ids.shape[1]) if free[place]]

    def without(deleted: list[int]) -> float:
        kept = ids.clone()
        kept[0, deleted] = predictor.encoder.pad_token_id
        return float(_chances(predictor, input_ids=kept, **inputs)[0, best])

    tokens = [predictor.encoder.tokenizer.id_to_token(token) for token in ids[0].tolist()]
    return _checked(predictor, chances[0], scores[places], places, without, tokens=tuple(tokens[place] for place in places))


def _of_image(predictor: Predictor, inputs: dict[str, torch.Tensor]) -> Explained:
    """Fields are deleted by giving them the image's mean colour."""
    pixels = inputs["pixel_values"]
    blank = pixels.mean(dim=(2, 3), keepdim=True).expand_as(pixels)
    chances = _chances(predictor, pixel_values=pixels)
    best = int(chances[0].argmax())
    grid = min(FIELDS, pixels.shape[2]), min(FIELDS, pixels.shape[3])
    fields = field_numbers(pixels.shape[2], pixels.shape[3], grid)
    heat = pixel_attributions(predictor.model, pixels, target=best, blank=blank)
    scores = np.bincount(fields.ravel(), weights=heat.ravel(), minlength=grid[0] * grid[1]).astype(np.float64)

    def without(deleted: list[int]) -> float:
        gone = torch.from_numpy(np.isin(fields, deleted)).to(pixels.device)
        return float(_chances(predictor, pixel_values=torch.where(gone, blank, pixels))[0, best])

    return _checked(predictor, chances[0], scores, [*range(len(scores))], without, grid=grid)


def field_numbers(height: int, width: int, grid: tuple[int, int]) -> NDArray[np.int64]:
    """Returns which field of a grid, counted row by row, each pixel is in, (height, width)."""
    down, across = (np.arange(size) * count // size for size, count in zip((height, width), grid, strict=True))
    return np.asarray(down[:, None] * grid[1] + across[None, :])


def _checked(
    predictor: Predictor, chances: NDArray[np.float64], scores: NDArray[np.float64], places: list[int],
    without: Callable[[list[int]], float], *, tokens: tuple[str, ...] = (), grid: tuple[int, int] | None = None,
) -> Explained:  # fmt: skip
    """Puts an explanation together; `scores` are those of `places`, which `without` can delete."""
    best = int(chances.argmax())
    area, random, spread = deletion_check([places[each] for each in np.argsort(-scores, kind="stable").tolist()], without)
    return Explained(
        label=predictor.labels[best], probability=float(chances[best]), tokens=tokens, grid=grid,
        scores=tuple(float(score) for score in scores), deletion=area, random=random, spread=spread,
    )  # fmt: skip


def special_ids(predictor: Predictor) -> set[int]:
    """Returns the tokens that stand in every text: they are neither explained nor deleted."""
    tokenizer = predictor.encoder.tokenizer
    return {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}


def _chances(predictor: Predictor, **inputs: torch.Tensor) -> NDArray[np.float64]:
    with torch.inference_mode():
        logits = predictor.model(**inputs).logits
    return np.asarray(predictor.task.outputs(logits.float().cpu().numpy()))


def _log_odds(logits: torch.Tensor, target: int) -> torch.Tensor:
    """A label's own logit says nothing by itself: of the two of a logistic regression one is always 0."""
    others = torch.arange(logits.shape[1], device=logits.device) != target
    return logits[:, target] - logits[:, others].logsumexp(dim=1)


def _captum() -> Any:
    try:
        from captum import attr  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise MachineError("captum is not installed, which explains predictions: pip install 'finespun[explain]'") from error
    return attr


def attributions(
    model: Any, ids: torch.Tensor, more: dict[str, torch.Tensor], *, target: int, blank: torch.Tensor, steps: int = STEPS
) -> NDArray[np.float64]:  # fmt: skip
    """Returns what each token adds to a label's log-odds, (tokens,), beside a text of `blank` tokens."""

    def log_odds(tokens: torch.Tensor) -> torch.Tensor:
        named = {name: tensor.expand(len(tokens), -1) for name, tensor in more.items()}
        return _log_odds(model(input_ids=tokens, **named).logits, target)

    method = _captum().LayerIntegratedGradients(log_odds, model.get_input_embeddings())
    found = method.attribute(ids, baselines=blank.reshape(1, -1), n_steps=steps, internal_batch_size=16)
    return np.asarray(found.sum(dim=-1)[0].detach().double().cpu().numpy())


def pixel_attributions(
    model: Any, pixels: torch.Tensor, *, target: int, blank: torch.Tensor, steps: int = STEPS
) -> NDArray[np.float64]:
    """Returns what each pixel of (1, 3, height, width) adds to a label's log-odds, (height, width), beside a `blank` image."""
    method = _captum().IntegratedGradients(lambda given: _log_odds(model(pixel_values=given).logits, target))
    found = method.attribute(pixels, baselines=blank, n_steps=steps, internal_batch_size=16)
    return np.asarray(found.sum(dim=1)[0].detach().double().cpu().numpy())


def deletion_check(order: list[int], without: Callable[[list[int]], float]) -> tuple[float, float, float]:
    """Returns the area under the deletion curve of an order, and the mean and the deviation of random orders' areas."""
    random = np.random.Generator(np.random.Philox(key=0))
    areas = [_area([*random.permutation(order).tolist()], without) for _ in range(RANDOM_ORDERS)]
    return _area(order, without), float(np.mean(areas)), float(np.std(areas))


def _area(order: list[int], without: Callable[[list[int]], float]) -> float:
    counts = np.unique(np.linspace(0, len(order), DELETIONS + 1).round().astype(int))
    return float(np.mean([without(order[:count]) for count in counts]))
