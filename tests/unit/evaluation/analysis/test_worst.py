"""The worst mistakes: which rows they are, and which training rows are most like them."""

from __future__ import annotations

import base64
import io
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from scipy.sparse import csr_matrix
from sklearn.neighbors import NearestNeighbors

from finespun.data.prepared import PreparedData
from finespun.evaluation.analysis.worst import nearest, worst, worst_places
from finespun.tasks.base import Judgement

RANDOM = np.random.default_rng(0)


def judged(table: dict[str, Any]) -> Judgement:
    return Judgement(units=len(table["row"]), scores=lambda _: {}, table=table, actual=(), predicted=())


def test_the_surest_and_the_farthest_off_are_the_worst() -> None:
    one = {"label": ["a", "b", "a", "b"], "predicted": ["b", "a", "a", "a"]}
    chances = {"probability/a": [0.2, 0.6, 0.9, 0.7], "probability/b": [0.8, 0.4, 0.1, 0.3]}
    assert worst_places(pa.table({**one, **chances}), 9) == [0, 3, 1]
    several = {"labels": [["a"], ["a", "b"], ["b"]], "predicted": [["a"], [], ["a", "b"]]}
    assert worst_places(pa.table(several), 9) == [1, 2]
    assert worst_places(pa.table({"x": [1.0, 2.0, 3.0], "predicted_x": [1.5, 2.0, 9.0]}), 1) == [2]
    assert worst_places(pa.table({"words": [["a"]]}), 9) == []


@pytest.mark.parametrize("form", [np.asarray, csr_matrix], ids=["dense", "sparse"])
def test_the_nearest_are_those_of_scikit_learn(form: Any) -> None:
    seen, asked = RANDOM.random((50, 8)), RANDOM.random((5, 8))
    distances, places = NearestNeighbors(n_neighbors=3, metric="cosine").fit(seen).kneighbors(asked)
    found = list(nearest(form(seen), form(asked), 3))
    assert [[place for place, _ in row] for row in found] == places.tolist()
    np.testing.assert_allclose([[near for _, near in row] for row in found], 1 - distances, atol=1e-9)


class Words:
    """A task whose features are how often each of two words is there."""

    def features(self, train: pa.Table, split: pa.Table) -> tuple[Any, Any]:
        count = [[[text.count(word) + 0.01 for word in ("good", "bad")] for text in each["text"].to_pylist()]
                 for each in (train, split)]  # fmt: skip
        return np.array(count[0]), np.array(count[1])


class Prepared:
    labels = ("no", "yes")

    def __init__(self, **more: Any) -> None:
        texts = {"train": ["good", "bad bad", "good bad"], "val": ["bad", "good"]}
        self.tables = {
            split: pa.table({"row": range(10, 10 + len(said)), "text": said, "target": [1, 0, 1][: len(said)],
                             **{name: column[: len(said)] for name, column in more.items()}})
            for split, said in texts.items()
        }  # fmt: skip

    def open(self, split: str) -> pa.Table:
        return self.tables[split]


PREDICTED = {"row": [10, 11], "label": ["yes", "no"], "predicted": ["no", "no"], "probability/no": [0.9, 0.8]}


def test_a_mistake_has_its_nearest_training_rows() -> None:
    prepared = cast("PreparedData", Prepared())
    [found] = worst(judged(PREDICTED), task=cast("Any", Words()), prepared=prepared, split="val")
    assert (found["row"], found["place"]) == (10, 0)
    assert [(each["row"], each["said"], each["answer"]) for each in found["neighbours"]] == [
        (11, "bad bad", "no"), (12, "good bad", "yes"), (10, "good", "yes"),
    ]  # fmt: skip
    assert worst(judged(PREDICTED), task=cast("Any", object()), prepared=prepared, split="val") == []


def test_images_have_their_pictures() -> None:
    pixels = [np.full((4, 4, 3), value, np.uint8).tobytes() for value in (10, 20, 30)]
    prepared = cast("PreparedData", Prepared(pixels=pixels, height=[4, 4, 4]))
    [found] = worst(judged(PREDICTED), task=cast("Any", Words()), prepared=prepared, split="val")
    data = base64.b64decode(found["picture"].removeprefix("data:image/png;base64,"))
    assert np.asarray(Image.open(io.BytesIO(data)))[0, 0].tolist() == [10, 10, 10]
    assert all(each["picture"].startswith("data:image/png") for each in found["neighbours"])
