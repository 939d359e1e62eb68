"""Temperature scaling: the one number that makes probabilities of labels nearly frequencies (Guo et al., 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BOUNDS = (-3.0, 3.0)  # of the temperature's logarithm: a twentieth to twenty


def fit_temperature(targets: NDArray[np.int64], chances: NDArray[np.float64]) -> float:
    """Returns what logits are divided by so that the log loss is least (temperature scaling; Guo et al., 2017).

    The logarithms of probabilities are logits, but for a constant of each row, which changes nothing.
    """
    from scipy.optimize import minimize_scalar  # noqa: PLC0415  (0.2 s that only this needs)
    from scipy.special import log_softmax  # noqa: PLC0415

    logits = np.log(np.clip(chances, np.finfo(np.float64).tiny, None))
    rows = np.arange(len(targets))

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(logits / np.exp(log_temperature), axis=1)[rows, targets].mean())

    return float(np.exp(minimize_scalar(loss, bounds=BOUNDS, method="bounded", options={"xatol": 1e-8}).x))


def at_temperature(chances: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Returns the probabilities of logits that are divided by a temperature."""
    powers = chances ** (1 / temperature)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
