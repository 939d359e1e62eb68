"""Recommendation: histories hold no future, rankings are a brute force's, and who was never trained on is placed by text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from implicit.cpu.als import AlternatingLeastSquares
from pydantic import ValidationError
from scipy.sparse import csr_matrix
from torch.nn.functional import cross_entropy

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.sections import EventsConfig, Split
from finespun.data.prepared import ITEMS as PREPARED_ITEMS
from finespun.data.prepared import PreparedData
from finespun.data.related.sequences import sequences
from finespun.data.sources.tables import Line
from finespun.errors import ConfigError, DataError
from finespun.evaluation.predictor import Predictor
from finespun.stages.prepare import prepare
from finespun.tasks.ranking import baselines, next_item
from finespun.tasks.ranking.item_recommendation import ItemRecommendation
from finespun.tasks.ranking.scores import by_place, by_query
from finespun.training.begin import begin
from recommenders import EVENTS, TASK, catalogue, data, events, written
from small_run import small_config
from tuned import trained

SPLIT = "(split)"


def rows_of(rows: list[dict[str, Any]], **changes: Any) -> list[dict[str, Any]]:
    lines = (Line(number, row) for number, row in enumerate(rows, 2))
    config = EventsConfig.model_validate(EVENTS | changes)
    return [line.row for line in sequences(lines, config, Split(), "rows.csv")]


def test_the_last_event_tests_the_one_before_validates_and_the_rest_trains() -> None:
    rows = [{"who": "a", "what": each, "when": time} for time, each in zip((3, 1, 2, 4, 5), "cabde", strict=True)]
    rows += [{"who": "b", "what": "x", "when": 1}, {"who": "b", "what": "y", "when": 2}, {"who": "c", "what": "x", "when": 9}]
    found = {(row["user"], row[SPLIT]): (row["history"], row["item"]) for row in rows_of(rows)}
    assert found == {
        ("a", "test"): (["a", "b", "c", "d"], "e"), ("a", "val"): (["a", "b", "c"], "d"), ("a", "train"): (["a", "b"], "c"),
        ("b", "test"): (["x"], "y"), ("b", "train"): ([], "x"), ("c", "train"): ([], "x"),
    }  # fmt: skip


def test_split_by_time_trains_on_nothing_later_and_asks_for_what_came_first_after() -> None:
    rows = events()
    when = {(row["who"], row["what"], row["when"]): row["when"] for row in rows}
    times = sorted(when.values())
    cut = float(np.quantile(times, 0.8))
    found = rows_of(rows, split="time")
    assert {row[SPLIT] for row in found} == {"train", "val", "test"}
    for row in found:
        mine = sorted((row_["when"], row_["what"]) for row_ in rows if row_["who"] == row["user"])
        done = [what for _, what in mine]
        place = len(row["history"])
        assert done[:place] == row["history"]
        assert done[place] == row["item"]
        assert (mine[place][0] < cut) == (row[SPLIT] == "train")


BAD: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "no user": ([{"who": " ", "what": "a", "when": 1}], {}, "rows.csv:2: who '' names no user"),
    "no item": ([{"who": "u", "what": "", "when": 1}], {}, "what '' names no item"),
    "no time": ([{"who": "u", "what": "a", "when": "soon"}], {}, "'soon' is no date or time"),
    "no number": ([{"who": "u", "what": "a", "when": 1, "stars": "five"}], {"weight": "stars"}, "'five'"),
    "no column": ([{"who": "u", "what": "a", "at": 1}], {}, r"has no column 'when' \(data.events.time\)"),
    "a column by another name": ([{"whom": "u", "what": "a", "when": 1}], {}, "correct data.events"),
    "no events": ([], {}, "holds no events"),
    "all too light": (
        [{"who": "u", "what": "a", "when": 1, "stars": 1}], {"weight": "stars", "at_least": 4.0}, "lower data.events.at_least"
    ),
    "one item": ([{"who": "u", "what": "a", "when": time} for time in range(3)], {}, "all events are of the item 'a'"),
    "users that are rows": (
        [{"who": f"u{time}", "what": f"i{time % 2}", "when": time} for time in range(9)], {}, "is 'who' the id of a row"
    ),
    "items that are rows": (
        [{"who": f"u{time % 3}", "what": f"i{time}", "when": time} for time in range(30)], {}, "is 'what' the id of a row"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "changes", "said"), BAD.values(), ids=BAD)
def test_events_that_cannot_be_learnt_from_are_refused(rows: Any, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        rows_of(rows, **changes)


ITEM_TABLES: dict[str, tuple[list[dict[str, str]], str]] = {
    "an item twice": ([*catalogue(), catalogue()[0]], "is 'i0' once more"),
    "an item without a name": ([*catalogue(), {"id": "", "title": "x", "kind": ""}], "write the item's item"),
    "an item without text": ([*catalogue(), {"id": "i99", "title": "", "kind": " "}], "write the item's text"),
    "another column": ([{"id": "a", "name": "b", "kind": "c"}], "has no column 'title'"),
}


@pytest.mark.parametrize(("known", "said"), ITEM_TABLES.values(), ids=ITEM_TABLES)
def test_items_that_cannot_be_ranked_are_refused(known: Any, said: str, tiny_bert: Path, tmp_path: Path) -> None:
    written(tmp_path, known=known)
    config = small_config(data=data(), task=TASK, model={"checkpoint": str(tiny_bert)})
    with pytest.raises(DataError, match=said):
        prepare(config, Artifacts(project=tmp_path, out=tmp_path), tmp_path / "prepared")


SECTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "columns beside events": ({"columns": {"history": "h", "item": "i"}}, "columns are made by events"),
    "filters": ({"filters": [{"column": "what", "drop": ["a"]}]}, "leave filters"),
    "time without a column": ({"events": {"user": "who", "item": "what", "split": "time"}}, "split: time needs time"),
    "at_least without weight": ({"events": EVENTS | {"at_least": 3.0}}, "at_least is for weight"),
    "an unknown key": ({"events": EVENTS | {"session": "s"}}, "session"),
    "a role that items have not": ({"items": {"path": "a.csv", "columns": {"item": "id", "title": "t"}}}, "unknown role"),
    "no text of items": ({"items": {"path": "a.csv", "columns": {"item": "id"}}}, "text: is missing"),
}


@pytest.mark.parametrize(("changes", "said"), SECTIONS.values(), ids=SECTIONS)
def test_a_section_that_makes_no_sense_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        small_config(data=data(**changes), task=TASK)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"heads": 3}, "is not divided by heads"),
        ({"monitor_mode": "min"}, "worst epoch"),
        ({"dropout": 1.0}, "less than 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ItemRecommendation.model_validate({name: each for name, each in (TASK | changes).items() if name != "_target_"})


def test_items_are_for_tasks_that_rank() -> None:
    items = {"path": "b.csv", "columns": {"text": "t"}}
    with pytest.raises(ConfigError, match="is for tasks that rank items"):
        small_config(data={"path": "a.csv", "columns": {"text": "t", "label": "l"}, "items": items})


@pytest.fixture(scope="module")
def learnt(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreparedData, Any]:
    """A model that has learnt the ring; item i10 is in the table and no event is of it."""
    folder = tmp_path_factory.mktemp("ring")
    written(folder, known=[*catalogue(), {"id": "i10", "title": "a good film", "kind": "new"}])
    config = small_config(
        data=data(), task=TASK, model={"checkpoint": str(tiny_bert)}, trainer__max_epochs=30, optimizer__lr=1e-2,
        evaluation__baselines=True,
    )  # fmt: skip
    prepare(config, Artifacts(project=folder, out=folder), folder / "prepared")
    prepared = PreparedData(folder / "prepared")
    return trained(folder, config, prepared), prepared, config


def test_the_next_item_is_learnt_and_seen_items_are_left_out_by_setting(learnt: Any) -> None:
    predictor = Predictor(learnt[0])
    rows = [{"history": [f"i{(start + step) % 10}" for step in range(5)]} for start in range(10)]
    odd: list[dict[str, Any]] = [{"history": each} for each in ([], ["nobody knows it"], "i1", [" "])]
    answers = predictor.predict([*rows, *odd])
    assert sum(answer["item"] == f"i{(start + 5) % 10}" for start, answer in enumerate(answers[:10])) >= 9
    assert answers[10] == answers[11]
    assert answers[12]["error"] == "history is no list of items"
    assert answers[13]["error"] == "history holds an item without a name"
    predictor.task = predictor.task.model_copy(update={"leave_out_seen": True})
    for row, answer in zip(rows, predictor.predict(rows, top_k=10), strict=True):
        assert not {*row["history"]} & {value for name, value in answer.items() if name.startswith("item")}


def test_rankings_are_a_brute_force(learnt: Any) -> None:
    folder, prepared, _ = learnt
    predictor, table = Predictor(folder), prepared.open("test")
    rows = [{"history": history} for history in table["history"].to_pylist()]
    answers = predictor.predict(rows, top_k=10)
    names, vectors = predictor.task.catalogue.names, torch.from_numpy(predictor.task.catalogue.vectors.copy())
    for row, answer in zip(rows, answers, strict=True):
        ids = torch.tensor([[1, *(names.index(each) + 2 for each in row["history"][-8:])]])
        places = torch.arange(9 - ids.shape[1], 9)[None]
        hidden = predictor.model(input_ids=ids, position_ids=places).last_hidden_state[0, -1].detach()
        expected = (vectors @ hidden).sort(descending=True)
        assert [answer["item"], *(answer[f"item_{n}"] for n in range(2, 11))] == [names[p] for p in expected.indices[:10]]
        assert answer["score"] == pytest.approx(float(expected.values[0]), abs=1e-5)


def test_an_item_without_events_is_placed_by_its_text(learnt: Any) -> None:
    catalogue_ = Predictor(learnt[0]).task.catalogue
    assert catalogue_.column("count")[10] == 0
    nearest = (catalogue_.vectors @ catalogue_.vectors[10])[:10].argmax()
    assert catalogue_.names[nearest] == "i0"  # whose text is the same


def test_places_in_validation_are_those_of_all_items(learnt: Any) -> None:
    folder, prepared, config = learnt
    task = targets.build("task", config.task)
    encoder = task.encoder(folder)
    model = Predictor(folder).model
    table = prepared.open("val").slice(0, 6)
    inputs, wanted = task.collate({name: table[name].to_pylist() for name in ("input_ids", "target")}, encoder)
    for leave_out in (False, True):
        found = next_item.losses_and_places(model, inputs, wanted, cold=None, leave_out=leave_out)
        scores = next_item.last(next_item.hidden(model, inputs), inputs["attention_mask"]) @ next_item.vectors(model).T
        for row, target in enumerate(wanted.tolist()):
            seen = {*table["input_ids"][row].as_py()} if leave_out else set()
            above = [p for p, score in enumerate(scores[row].tolist()) if score > scores[row, target] and p not in seen]
            assert int(found["places"][row]) == len(above) + 1
        assert torch.allclose(found["losses"], cross_entropy(scores, wanted, reduction="none"), atol=1e-5)


def test_chunks_change_neither_losses_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    queries, items = torch.randn(9, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    targets_, never = torch.arange(9) % 6, torch.tensor([False] * 6 + [True])
    whole = next_item._chunked(queries, items, targets_, never)
    expected = torch.autograd.grad(whole.sum(), (queries, items))
    monkeypatch.setattr(next_item, "LOGITS", 14)
    parts = next_item._chunked(queries, items, targets_, never)
    found = torch.autograd.grad(parts.sum(), (queries, items))
    assert torch.allclose(whole, parts, atol=1e-6)
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(expected, found, strict=True))


def test_baselines_are_what_their_papers_say(learnt: Any) -> None:
    _, prepared, _ = learnt
    train, split = prepared.open("train"), prepared.open("val")
    found = baselines.collaborative(train, split, 11, 5, leave_out=False)
    seen = np.zeros((train.num_rows, 11))
    for row, (history, target) in enumerate(zip(train["input_ids"].to_pylist(), train["target"].to_pylist(), strict=True)):
        seen[row, [*history, target]] = 1
    asked = np.zeros((split.num_rows, 11))
    for row, history in enumerate(split["input_ids"].to_pylist()):
        asked[row, history] = 1
    inverse = np.linalg.inv(seen.T @ seen + baselines.REGULARISATION * np.eye(11))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    expected = -np.sort(-(asked @ weights), axis=1)[:, :5]
    assert np.allclose(np.stack(found["ease"])[:, 1], expected, atol=1e-6)
    assert np.allclose(np.stack(found["popularity"])[:, 1], -np.sort(-seen.sum(axis=0))[:5], atol=1e-6)
    norms = np.maximum(np.sqrt(seen.sum(axis=0)), 1)
    cosines = (seen.T @ seen) / np.outer(norms, norms)
    np.fill_diagonal(cosines, 0)
    assert np.allclose(np.stack(found["item_knn"])[:, 1], -np.sort(-(asked @ cosines), axis=1)[:, :5], atol=1e-6)
    places, scores = np.stack(found["als"])[:, 0].astype(int), np.stack(found["als"])[:, 1]
    model = AlternatingLeastSquares(factors=baselines.FACTORS, random_state=0, num_threads=1)
    model.fit(csr_matrix(seen), show_progress=False)
    given = model.recommend(
        np.arange(len(asked)), csr_matrix(asked), N=5, recalculate_user=True, filter_already_liked_items=False
    )
    assert np.allclose(scores, given[1], atol=1e-4)
    assert (places[:, 0] == given[0][:, 0]).mean() > 0.9


def test_als_is_left_out_without_its_package(learnt: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "implicit.cpu.als", None)
    _, prepared, _ = learnt
    found = baselines.collaborative(prepared.open("train"), prepared.open("val"), 11, 5, leave_out=False)
    assert set(found) == {"popularity", "item_knn", "ease"}
    assert "als left out: pip install 'finespun[als]'" in capsys.readouterr().out


def test_scores_by_place_are_those_of_rankings() -> None:
    places = np.array([1, 3, 10, 11, 50])
    ranked = np.array([[place + 100 * (place + 1 != wanted) for place in range(60)] for wanted in places])
    whole = by_query(ranked, [{int(wanted) - 1} for wanted in places], depth=100)
    for name, values in by_place(places).items():
        assert np.allclose(values, whole[name], atol=1e-6), name


def test_random_vectors_are_the_control(learnt: Any, tiny_bert: Path) -> None:
    _, prepared, config = learnt
    drawn = small_config(data=data(), task=TASK | {"item_vectors": "random"}, model={"checkpoint": str(tiny_bert)})
    models = [begin(each, tiny_bert, prepared).tuning.model for each in (config, drawn)]
    same = torch.equal(next_item.vectors(models[0])[0], next_item.vectors(models[0])[10])
    other = torch.equal(next_item.vectors(models[1])[0], next_item.vectors(models[1])[10])
    assert (same, other) == (True, False)  # items 0 and 10 have the same text
    assert prepared.open(PREPARED_ITEMS)["count"].to_pylist()[10] == 0
