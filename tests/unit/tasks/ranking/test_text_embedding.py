"""Embeddings: losses and vectors equal sentence-transformers', rankings a brute force, whole steps however they are cut."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
import torch.distributed as dist
from pydantic import ValidationError

from embedders import TARGET, TASK, batch_of, build, model_of, pairs
from finespun.errors import DataError, ModelError
from finespun.evaluation.predict_file import predict_file
from finespun.evaluation.predictor import Predictor
from finespun.tasks.base import Batch
from finespun.tasks.ranking.search.nearest import nearest
from several import together
from small_run import small_config
from tuned import measured, prepared, tuned

COLUMNS = {"text": "text", "positive": "positive"}


def reference(folder: Path, pooling: str = "mean") -> Any:
    """The same model as sentence-transformers loads it, without dropout."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    backbone = Transformer(str(folder), max_seq_length=48)
    pool = Pooling(32, pooling_mode=pooling)
    return SentenceTransformer(modules=[backbone, pool], device="cpu").eval()


def theirs(loss: Any, encoder: Any, rows: list[dict[str, str]], *roles: str, targets: torch.Tensor | None = None) -> float:
    features = [encoder.preprocess([row[role] for row in rows]) for role in roles]
    return float(loss(features, targets).detach())


def ours(task: Any, folder: Path, rows: list[dict[str, str]]) -> float:
    batch, _ = batch_of(task, folder, rows)
    return float((task.losses(task.forward(model_of(folder), batch), batch) * batch.weights).sum().detach())


def test_losses_are_those_of_sentence_transformers(tiny_bert: Path) -> None:
    from sentence_transformers.sentence_transformer import losses

    encoder, rows, scored = reference(tiny_bert), pairs(7, negatives=True), pairs(7, scores=True)
    targets = torch.tensor([float(row["score"]) for row in scored])
    ranking = losses.MultipleNegativesRankingLoss(encoder)
    expected = {
        "info_nce": theirs(ranking, encoder, rows, "text", "positive", "negative"),
        "triplet": theirs(
            losses.TripletLoss(encoder, losses.TripletDistanceMetric.COSINE, 0.2), encoder, rows, "text", "positive", "negative"
        ),
        "cosent": theirs(losses.CoSENTLoss(encoder), encoder, scored, "text", "positive", targets=targets),
        "cosine": theirs(losses.CosineSimilarityLoss(encoder), encoder, scored, "text", "positive", targets=targets),
    }
    for name, value in expected.items():
        task = build(loss_function=name)
        assert ours(task, tiny_bert, scored if task.scored else rows) == pytest.approx(value, abs=1e-5), name
    plain = pairs(7)
    assert ours(build(), tiny_bert, plain) == pytest.approx(theirs(ranking, encoder, plain, "text", "positive"), abs=1e-5)
    nested = theirs(losses.MatryoshkaLoss(encoder, ranking, [32, 16, 8]), encoder, plain, "text", "positive")
    assert ours(build(dimensions=[32, 16, 8]), tiny_bert, plain) == pytest.approx(nested / 3, abs=1e-5)


@pytest.mark.parametrize(("pooling", "name"), [("mean", "mean"), ("cls", "cls"), ("last", "lasttoken")])
def test_vectors_are_those_of_sentence_transformers(pooling: str, name: str, tiny_bert: Path) -> None:
    task = build(pooling=pooling)
    texts = [row["text"] for row in pairs(9)]
    batch, _ = batch_of(task, tiny_bert, pairs(9))
    found = task.forward(model_of(tiny_bert), batch)["text"].detach().numpy()
    assert np.allclose(found, reference(tiny_bert, name).encode(texts), atol=1e-5)


def gradients(task: Any, model: Any, batch: Batch) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    loss = (task.losses(task.forward(model, batch), batch, training=True) * batch.weights).sum()
    loss.backward()
    return float(loss.detach()), torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])


@pytest.mark.parametrize("name", ["info_nce", "cosent"])
def test_passes_change_neither_loss_nor_gradient(name: str, tiny_bert: Path) -> None:
    task, model = build(loss_function=name), model_of(tiny_bert)
    batch, _ = batch_of(task, tiny_bert, pairs(10, scores=True, negatives=name == "info_nce"))
    whole, parts = gradients(task, model, batch), gradients(task.in_passes(4), model, batch)
    assert parts[0] == pytest.approx(whole[0], abs=1e-6)
    assert torch.allclose(parts[1], whole[1], atol=1e-5)


def share(name: str, folder: Path, rows: list[dict[str, str]]) -> tuple[float, Any]:
    """One rank's share of a step of seven rows, and the gradient as DDP leaves it."""
    dist.init_process_group("gloo")
    task, model = build(loss_function=name), model_of(folder)
    rank, size = dist.get_rank(), dist.get_world_size()
    batch, _ = batch_of(task, folder, rows[rank::size])
    batch = batch._replace(weights=torch.full((len(batch.rows),), 1 / len(rows)))
    loss, gradient = gradients(task, model, batch)
    dist.all_reduce(gradient)
    return loss, gradient.numpy()


@pytest.mark.parametrize("name", ["info_nce", "cosent"])
def test_two_ranks_learn_what_one_learns(name: str, tiny_bert: Path) -> None:
    rows = pairs(7, scores=True, negatives=name == "info_nce")
    task = build(loss_function=name)
    batch, _ = batch_of(task, tiny_bert, rows)
    alone = gradients(task, model_of(tiny_bert), batch)
    shares = together(2, partial(share, name, tiny_bert, rows))
    assert sum(loss for loss, _ in shares) == pytest.approx(alone[0], abs=1e-5)
    assert np.allclose(shares[0][1], alone[1].numpy(), atol=1e-5)
    assert np.array_equal(shares[0][1], shares[1][1])


def test_the_same_item_is_no_negative_and_a_row_that_does_not_count_is_nobodys(tiny_bert: Path) -> None:
    rows = pairs(4)
    task, model = build(), model_of(tiny_bert)
    batch, _ = batch_of(task, tiny_bert, [*rows, {**rows[0], "text": rows[1]["text"]}])
    found = task.losses(task.forward(model, batch), batch)
    apart, _ = batch_of(task, tiny_bert, rows)
    alone = task.losses(task.forward(model, apart), apart)
    assert torch.allclose(found[0], alone[0], atol=1e-5)  # the fifth row's positive is its own
    held = batch._replace(counted=4)
    assert torch.allclose(task.losses(task.forward(model, held), held)[:4], alone, atol=1e-5)


@pytest.mark.parametrize("count", [1, 7, 40])
def test_nearest_is_a_brute_force(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finespun.tasks.ranking.search.nearest.SCORES", 60)
    monkeypatch.setattr("finespun.tasks.ranking.search.nearest.QUERIES", 4)
    torch.manual_seed(1)
    queries, items = torch.randn(9, 5), torch.randn(40, 5)
    without = [torch.randperm(40)[:place] for place in range(9)]
    scores, places = nearest(queries, items, count)
    expected = (queries @ items.T).sort(dim=1, descending=True)
    assert torch.equal(places, expected.indices[:, :count])
    assert torch.allclose(scores, expected.values[:, :count], atol=1e-6)
    kept = nearest(queries, items, count, without=without)
    whole = queries @ items.T
    for row, left_out in enumerate(without):
        whole[row, left_out] = -torch.inf
    there = kept[0].isfinite()
    assert torch.equal(kept[1][there], whole.sort(dim=1, descending=True).indices[:, :count][there])


@pytest.fixture(scope="module")
def model(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned folder: forty pairs, two epochs."""
    folder = tmp_path_factory.mktemp("embedding")
    return tuned(
        folder, pairs(40), COLUMNS, model={"checkpoint": str(tiny_bert)}, task=TARGET | TASK, trainer__max_epochs=2,
        trainer__batch_size=8, runtime__device_batch_size=4,
    )  # fmt: skip


def test_the_folder_is_a_model_of_sentence_transformers(model: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = [row["text"] for row in pairs(6)]
    theirs = SentenceTransformer(str(model), device="cpu").encode(texts)
    predictor = Predictor(model)
    predictor.task = predictor.task.of_items()
    found = [answer["vector"] for answer in predictor.predict([{"text": text} for text in texts])]
    assert np.allclose(found, theirs, atol=1e-5)


def test_half_as_many_bits_change_cosines_little(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "half")
    record = json.loads((model / "run.json").read_text())
    record["task"]["vector_dtype"] = "bfloat16"
    (tmp_path / "half" / "run.json").write_text(json.dumps(record))
    vectors = []
    for folder in (model, tmp_path / "half"):
        predictor = Predictor(folder)
        predictor.task = predictor.task.of_items()
        vectors.append(
            np.array([answer["vector"] for answer in predictor.predict([{"text": row["text"]} for row in pairs(6)])])
        )
    assert predictor.model.dtype == torch.bfloat16
    assert np.abs((vectors[0] * vectors[1]).sum(axis=1) - 1).max() < 1e-3
    assert np.allclose(np.linalg.norm(vectors[1], axis=1), 1, atol=1e-5)


def test_predictions_are_the_nearest_items(model: Path, tmp_path: Path) -> None:
    predictor, rows = Predictor(model), [{"text": row["text"]} for row in pairs(6)]
    answers = predictor.predict([*rows, {"text": " "}], top_k=3)
    assert answers.pop() == {"error": "text is empty"}
    items = predictor.task.catalogue
    predictor.task = predictor.task.of_items()
    vectors = np.array([answer["vector"] for answer in predictor.predict(rows)])
    expected = (-(vectors @ items.vectors.T)).argsort(axis=1)[:, :3]
    assert [[a["item"], a["item_2"], a["item_3"]] for a in answers] == [[items.names[p] for p in row] for row in expected]
    assert len(items.names) == len({row["positive"] for row in pairs(40)})
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert predict_file(tmp_path / "in.jsonl", tmp_path / "out.parquet", folder=model, columns={}, top_k=0) == (6, 0)
    assert np.allclose(pa.parquet.read_table(tmp_path / "out.parquet")["vector"].to_pylist(), vectors)


def test_scores_of_a_split_are_a_brute_force(model: Path, tiny_bert: Path, tmp_path: Path) -> None:
    found = measured(tmp_path, pairs(40), COLUMNS, model, task=TARGET | TASK, evaluation__baselines=True)
    table = found.predictions.to_pydict()
    assert {"bm25"} <= set(found.baselines)
    predictor = Predictor(model)
    for query, place in zip(table["query"], table["place"], strict=True):
        ranked = [answer for name, answer in predictor.predict([{"text": query}], top_k=32)[0].items() if "item" in name]
        expected = next(row["positive"] for row in pairs(40) if row["text"] == query)
        assert (ranked.index(expected) + 1 if expected in ranked else 0) == place
    first = np.array(table["place"])
    assert found.scores["recall_at_10"] == pytest.approx(np.mean((first > 0) & (first <= 10)), abs=1e-6)
    assert found.scores["mrr_at_10"] == pytest.approx(np.mean([1 / p if 0 < p <= 10 else 0 for p in first]), abs=1e-6)
    assert found.scores["ndcg_at_10"] == pytest.approx(np.mean([1 / np.log2(p + 1) if 0 < p <= 10 else 0 for p in first]))


def test_scored_pairs_are_measured_by_correlation(tiny_bert: Path, tmp_path: Path) -> None:
    changes = {"loss_function": "cosent", "monitor": "val/spearman", "monitor_mode": "max"}
    columns = {**COLUMNS, "score": "score"}
    task, rows = TARGET | TASK | changes, pairs(40, scores=True)
    model = tuned(tmp_path / "a", rows, columns, model={"checkpoint": str(tiny_bert)}, task=task, trainer__max_epochs=1)
    found = measured(tmp_path / "b", rows, columns, model, task=task)
    assert set(found.scores) == {"spearman", "pearson"}
    (answer,) = Predictor(model).predict([{"text": rows[0]["text"], "positive": rows[1]["positive"]}])
    assert -1 <= answer["similarity"] <= 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"monitor": "val/spearman", "monitor_mode": "max"}, "say val/mrr_at_10"),
        ({"loss_function": "cosent", "monitor": "val/recall_at_1", "monitor_mode": "max"}, "say val/spearman"),
        ({"monitor_mode": "max"}, "would keep the worst epoch"),
        ({"dimensions": [8, 8]}, "names a width twice"),
        ({"temperature": 0.0}, "greater than 0"),
        ({"pooling": "max"}, "'mean', 'cls' or 'last'"),
        ({"candidates": 0}, "greater than 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        build(**changes)


ROWS: dict[str, tuple[dict[str, str], str, str]] = {
    "no text": ({"text": " "}, "info_nce", "text is empty"),
    "no positive": ({"positive": ""}, "info_nce", "positive is empty"),
    "no negative": ({"negative": "\t"}, "triplet", "negative is empty"),
    "a negative that is the positive": ({"negative": " THE  answer"}, "triplet", "negative is the positive once more"),
    "a score that is no number": ({"score": "much"}, "cosent", "score is not a number"),
    "a score that is no cosine": ({"score": "4.5"}, "cosine", "score is no cosine, which is from -1 to 1"),
}


@pytest.mark.parametrize(("row", "loss", "said"), ROWS.values(), ids=ROWS)
def test_a_row_that_cannot_be_learnt_from_is_named(row: dict[str, str], loss: str, said: str) -> None:
    task = build(loss_function=loss, monitor="val/loss", monitor_mode="min")
    found = [f"{role} {why}" for _, role, why in task.problems({"text": "a question", "positive": "the answer"} | row, None)]
    assert len(found) == 1
    assert found[0].startswith(said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dimensions": [64, 32]}, "task.dimensions: 64 is more than the 32"),
        ({"max_length": 4096}, "task.max_length: 4096 tokens"),
    ],
)
def test_a_model_that_cannot_do_what_is_asked_is_refused(changes: dict[str, Any], said: str, tiny_bert: Path) -> None:
    task = build(**changes)
    with pytest.raises(ModelError, match=said):
        task.equip(model_of(tiny_bert), task.encoder(tiny_bert), tiny_bert)


@pytest.mark.parametrize(
    ("content", "said"), [(None, "items.arrow is not beside the model"), (b"torn", "holds no items that can")]
)
def test_items_that_cannot_be_ranked_are_named(content: bytes | None, said: str, model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "copy", ignore=shutil.ignore_patterns("items.arrow"))
    if content is not None:
        (tmp_path / "copy" / "items.arrow").write_bytes(content)
    with pytest.raises(ModelError, match=said):
        Predictor(tmp_path / "copy").task.catalogue  # noqa: B018
    with pytest.raises(DataError, match=r"--top-k: 1000 asked for.*task.candidates: 100"):
        Predictor(model).predict([{"text": "a question"}], top_k=1000)


def test_what_is_found_in_rows_is_said(tiny_bert: Path, tmp_path: Path) -> None:
    rows = [{**row, "positive": f"the answer {place % 9}"} for place, row in enumerate(pairs(40))]
    _, data = prepared(tmp_path, rows, COLUMNS, model={"checkpoint": str(tiny_bert)}, task=TARGET | TASK)
    remarks = json.loads((data.folder / "profile.json").read_text())["remarks"]["train"]
    assert "have a positive that another row has" in remarks[0]


def test_a_whole_configuration_is_checked() -> None:
    assert small_config(task=TARGET | TASK, data={"path": "a.csv", "columns": COLUMNS}).task.target.endswith("TextEmbedding")
