"""Beyond what is ranked exactly: an index finds nearly the same items, lies beside the model and is not needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from finespun.errors import ModelError
from finespun.tasks.ranking.search import index
from finespun.tasks.ranking.search.catalogue import Catalogue
from finespun.tasks.ranking.search.index import ItemIndex
from finespun.tasks.ranking.search.nearest import nearest

ITEMS, WIDTH, COUNT = 1_200, 16, 10


@pytest.fixture(scope="module")
def vectors() -> Any:
    """Items of very unequal lengths, in fifty groups."""
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(50, WIDTH))[draw.integers(50, size=ITEMS)]
    return ((centres + 0.3 * draw.normal(size=(ITEMS, WIDTH))) * draw.uniform(0.2, 3, (ITEMS, 1))).astype(np.float32)


@pytest.fixture
def catalogue(vectors: Any, monkeypatch: pytest.MonkeyPatch) -> Catalogue:
    monkeypatch.setattr(index, "EXACT", ITEMS - 1)
    return Catalogue(pa.table({"item": [str(place) for place in range(ITEMS)]}), vectors)


@pytest.mark.parametrize("left_out", [0, 100])
def test_an_index_finds_what_a_comparison_with_all_finds(vectors: Any, left_out: int) -> None:
    torch.manual_seed(0)
    queries = torch.randn(150, WIDTH)
    best = nearest(queries, torch.from_numpy(vectors), max(1, left_out))[1]
    without = [*best[:, :left_out]] if left_out else None  # the very nearest are not wanted
    scores, places = ItemIndex.build(vectors).nearest(queries, COUNT, without=without)
    wanted = nearest(queries, torch.from_numpy(vectors), COUNT, without=without)[1]
    recall = np.mean([len({*one} & {*other}) / COUNT for one, other in zip(places.tolist(), wanted.tolist(), strict=True)])
    assert recall > 0.97
    assert torch.allclose(
        scores, (queries @ torch.from_numpy(vectors).T).gather(1, places), atol=1e-4
    )  # exact, not the graph's
    assert (scores.diff(dim=1) <= 0).all()


def test_it_lies_beside_the_model_and_is_opened_again(catalogue: Catalogue, tmp_path: Path, capsys: Any) -> None:
    catalogue.write(tmp_path)
    assert "building an index of 1,200 items" in capsys.readouterr().out
    again = Catalogue.read(tmp_path)
    assert again is not None
    queries = torch.randn(5, WIDTH)
    assert np.allclose(np.stack(again.nearest(queries, COUNT)), np.stack(catalogue.nearest(queries, COUNT)))
    assert capsys.readouterr().out == ""


def test_up_to_the_limit_there_is_none(vectors: Any, tmp_path: Path) -> None:
    few = Catalogue(pa.table({"item": ["a", "b"]}), vectors[:2])
    few.write(tmp_path)
    assert few.index is None
    assert not (tmp_path / index.FILE).exists()


@pytest.mark.parametrize("damage", ["cut short", "of other items"])
def test_a_damaged_index_is_named(damage: str, catalogue: Catalogue, vectors: Any, tmp_path: Path) -> None:
    catalogue.write(tmp_path)
    if damage == "cut short":
        (tmp_path / index.FILE).write_bytes((tmp_path / index.FILE).read_bytes()[:1000])
    else:
        ItemIndex.build(vectors[:10]).write(tmp_path / index.FILE)
    again = Catalogue.read(tmp_path)
    assert again is not None
    with pytest.raises(ModelError, match=r"items\.usearch: is no index.*remove it, and it is built anew"):
        again.nearest(torch.randn(1, WIDTH), COUNT)


def test_without_its_package_all_are_compared_and_it_is_said(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "usearch", None)
    queries = torch.randn(5, WIDTH)
    found = np.stack(catalogue.nearest(queries, COUNT))
    assert np.array_equal(found[:, 0], nearest(queries, catalogue.tensor, COUNT)[1].numpy())
    said = capsys.readouterr().out
    assert "1,200 items are all compared with each query, which is slow: pip install 'finespun[index]'" in said
