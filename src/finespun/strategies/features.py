"""A classical head on frozen features: scikit-learn finds what the model's last linear layer becomes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from finespun.config.sections import Section
from finespun.errors import ModelError
from finespun.strategies.anatomy import dissect
from finespun.strategies.base import Group, Linear, Matrix, Solution, Trees, Tuning
from finespun.strategies.trees import grow

if TYPE_CHECKING:
    from torch import nn


class Features(Section):
    """Fits the last linear layer to its inputs.

    Linear heads are fitted to standardised features, and the standardisation is folded into the layer's weights: the result is
    a plain transformers model. Numbers are fitted by ridge regression or a linear support vector regression, sets of labels by
    one model a label. The scores of a support vector machine are margins: the probabilities made of them rank as they do, but
    are not calibrated. A random forest takes the layer's place as tensors. Nothing is pickled.
    """

    four_bit: ClassVar[bool] = False
    refuses: ClassVar[Mapping[str, str]] = {
        "layer_decay": "nothing below the last layer trains; take strategy: llrd",
        "head_lr_scale": "scikit-learn finds the weights, without a learning rate; take strategy: head",
    }

    head: Literal["logistic_regression", "linear_svm", "random_forest"]
    C: PositiveFloat  # inverse strength of the penalty, as scikit-learn has it
    max_iter: PositiveInt
    trees: PositiveInt
    min_samples_leaf: PositiveInt

    def tune(self, model: nn.Module) -> Tuning:
        head = dissect(model).head
        modules = [(name, module) for name, module in model.named_modules() if type(module).__name__ == "Linear"]
        inside = [(name, module) for name, module in modules if f"{name}.weight" in head]
        if not inside:
            raise ModelError(f"strategy: {type(model).__name__} has no linear layer in its head; take strategy: head")
        name, layer = inside[-1]
        if layer.bias is None:
            raise ModelError(
                f"strategy: the last layer of {type(model).__name__}, {name}, has no biases, which a fitted head needs; take"
                " strategy: head"
            )
        parameters = {each: parameter for each, parameter in head.items() if each.startswith(f"{name}.")}
        group = Group(name="last_layer", parameters=parameters)
        return Tuning(model=model, groups=[group], solution=Solution(name=name, solve=self.solve))

    def solve(self, features: Matrix, targets: NDArray[Any], weights: Matrix | None, outputs: int) -> Linear | Trees:
        """Returns what the layer becomes.

        Args:
            features: (rows, width).
            targets: (rows,) positions of labels; (rows, outputs) of 0 and 1 or of numbers.
            weights: (rows,), how much each row counts; None: all the same.
            outputs: of the layer.
        """
        if self.head == "random_forest":
            return grow(features, targets, weights, outputs, trees=self.trees, min_samples_leaf=self.min_samples_leaf)
        mean, spread = features.mean(axis=0), features.std(axis=0)
        spread[spread < 1e-12] = 1.0
        scaled = (features - mean) / spread
        if targets.ndim == 1:
            weight, bias = self._labels(scaled, targets, weights, outputs)
        else:
            found = [self._column(scaled, column, weights) for column in targets.T]
            weight, bias = np.stack([each for each, _ in found]), np.array([each for _, each in found])
        weight = weight / spread
        return Linear(weight, bias - weight @ mean)

    def _labels(
        self, scaled: Matrix, targets: NDArray[Any], weights: Matrix | None, outputs: int
    ) -> tuple[Matrix, Matrix]:  # fmt: skip
        model = self._model(numbers=False).fit(scaled, targets, sample_weight=weights)
        weight, bias = np.zeros((outputs, scaled.shape[1])), np.full(outputs, -1e4)  # a label without rows is never given
        if len(model.classes_) == 2:  # the score of the second against the first, whose own is 0
            weight[model.classes_[1]], bias[model.classes_] = model.coef_[0], [0.0, model.intercept_[0]]
        else:
            weight[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
        return weight, bias

    def _column(self, scaled: Matrix, column: NDArray[Any], weights: Matrix | None) -> tuple[Matrix, float]:
        if np.isin(column, (0.0, 1.0)).all():
            if len(np.unique(column)) == 1:
                return np.zeros(scaled.shape[1]), 1e4 if column[0] else -1e4
            model = self._model(numbers=False).fit(scaled, column, sample_weight=weights)
            return model.coef_[0], float(model.intercept_[0])
        model = self._model(numbers=True).fit(scaled, column, sample_weight=weights)
        return model.coef_, float(np.squeeze(model.intercept_))

    def _model(self, *, numbers: bool) -> Any:
        from sklearn.linear_model import LogisticRegression, Ridge  # noqa: PLC0415  (1 s that other strategies need not pay)
        from sklearn.svm import LinearSVC, LinearSVR  # noqa: PLC0415

        if self.head == "linear_svm":
            return (LinearSVR if numbers else LinearSVC)(C=self.C, max_iter=self.max_iter, random_state=0)
        return Ridge(alpha=1 / self.C) if numbers else LogisticRegression(C=self.C, max_iter=self.max_iter)
