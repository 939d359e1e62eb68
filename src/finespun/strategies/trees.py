"""Growing a random forest on features (Breiman, "Random Forests", 2001, by scikit-learn) and writing it down as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from finespun.strategies.base import Matrix, Trees


def grow(
    features: Matrix, targets: NDArray[Any], weights: Matrix | None, outputs: int, *, trees: int, min_samples_leaf: int
) -> Trees:
    """Returns a forest; arguments as in `Features.solve`."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor  # noqa: PLC0415  (1 s others need not pay)

    numbers = targets.ndim == 2 and not np.isin(targets, (0.0, 1.0)).all()
    kind = "label" if targets.ndim == 1 else "numbers" if numbers else "labels"
    chosen = RandomForestRegressor if numbers else RandomForestClassifier
    model = chosen(trees, min_samples_leaf=min_samples_leaf, random_state=0, n_jobs=-1)
    model.fit(features, targets.ravel() if targets.ndim == 2 and targets.shape[1] == 1 else targets, sample_weight=weights)
    grown = [each.tree_ for each in model.estimators_]
    starts = np.cumsum([0, *(tree.node_count for tree in grown)])
    return Trees(
        kind=kind,
        depth=max(tree.max_depth for tree in grown),
        roots=starts[:-1],
        feature=np.concatenate([np.maximum(tree.feature, 0) for tree in grown]),  # a leaf's is -2: any will do
        threshold=np.concatenate([_rounded_down(tree.threshold) for tree in grown]),
        branches=np.concatenate([_branches(tree) + start for tree, start in zip(grown, starts, strict=False)]),
        values=np.concatenate([_values(tree, model, kind, outputs) for tree in grown]),
    )


def _rounded_down(thresholds: Matrix) -> NDArray[np.float32]:
    """The largest float32 that is not above: a float32 feature is on the same side of both."""
    near = thresholds.astype(np.float32)
    return np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)


def _branches(tree: Any) -> NDArray[np.int64]:
    """(nodes, 2), a leaf being its own child."""
    own = np.arange(tree.node_count)
    leaf = tree.children_left < 0
    return np.stack([np.where(leaf, own, each) for each in (tree.children_left, tree.children_right)], axis=1)


def _values(tree: Any, model: Any, kind: str, outputs: int) -> Matrix:
    """(nodes, outputs): shares of labels, a chance a label, or numbers."""
    if kind == "numbers":
        return np.asarray(tree.value[:, :, 0])
    found = np.zeros((tree.node_count, outputs))
    if kind == "label":
        found[:, model.classes_] = tree.value[:, 0, :]
        return found
    for position, classes in enumerate([model.classes_] if outputs == 1 else model.classes_):
        shares = tree.value[:, position, : len(classes)]
        found[:, position] = shares[:, classes == 1.0].sum(axis=1)
    return found
