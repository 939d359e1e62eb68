"""Numbers and sets of labels as answers: scores equal scikit-learn's and scipy's, thresholds are chosen, problems named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from finespun.errors import DataError
from finespun.tasks.answers.several_labels import NONE
from finespun.tasks.inputs.text import TextEncoder
from finespun.tasks.metrics.scores import best_thresholds, multi_label_scores, regression_scores
from finespun.tasks.multi_label import MultiLabel
from finespun.tasks.text_regression import TextRegression

NUMBERS = TextRegression(max_length=16, loss_function="mse", huber_delta=1.0, monitor="val/pearson", monitor_mode="max")
SETS = MultiLabel(max_length=16, delimiter=";", monitor="val/f1_macro", monitor_mode="max")
LABELS = ["funny", "sad", "slow"]


def numbers(seed: int, rows: int = 50) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.Generator(np.random.Philox(seed))
    targets = random.normal(3, 2, (rows, 2)).round(1)
    return targets, targets * 0.7 + random.normal(0, 1, (rows, 2))


def sets(seed: int, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.Generator(np.random.Philox(seed))
    targets = (random.random((rows, 3)) < [0.5, 0.2, 0.05]).astype(float)
    return targets, np.clip(targets * 0.3 + random.random((rows, 3)) * 0.7, 0, 1).round(2)


def of_one_target(target: np.ndarray, number: np.ndarray) -> dict[str, float]:
    """What scipy and scikit-learn say; a correlation with a constant, NaN there, is 0."""
    constant = len(set(target)) == 1 or len(set(number)) == 1
    return {
        "pearson": 0.0 if constant else stats.pearsonr(target, number).statistic,
        "spearman": 0.0 if constant else stats.spearmanr(target, number).statistic,
        "r2": metrics.r2_score(target - target[0], number - target[0]),  # equal targets have no variance, not even of rounding
        "rmse": metrics.root_mean_squared_error(target, number),
        "mse": metrics.mean_squared_error(target, number),
        "mae": metrics.mean_absolute_error(target, number),
    }


def odd_numbers(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Few numbers with many ties; now and then constant, right, or with an outlier a million times as large."""
    random = np.random.Generator(np.random.Philox(seed))
    targets = random.integers(0, random.integers(1, 5), (12, 2)).astype(float)
    found = targets if random.random() < 0.2 else random.integers(0, random.integers(1, 5), (12, 2)).astype(float)
    targets[0, 0] += random.choice([0, 1e6])
    return targets + random.choice([0, 1e5]), found + random.choice([0, 1e5])


@pytest.mark.parametrize("draw", [numbers, odd_numbers])
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000))
def test_regression_scores_equal_scipy_and_scikit_learn_in_resamples_too(draw: Any, seed: int) -> None:
    targets, found = draw(seed)
    count = len(targets)
    random = np.random.Generator(np.random.Philox(seed + 1))
    rows = np.stack([np.arange(count), *random.integers(0, count, (3, count)), random.integers(0, 2, count)])
    weights = np.stack([np.bincount(each, minlength=count) for each in rows]).astype(float)
    ours = regression_scores(targets, found, weights, labels=["a", "b"])
    for sample, drawn in enumerate(rows):
        for position, label in enumerate(["a", "b"]):
            expected = of_one_target(targets[drawn, position], found[drawn, position])
            mine = {name: ours[f"{name}/{label}"][sample] for name in expected}
            assert mine == pytest.approx(expected, rel=1e-7, abs=1e-7)
    assert ours["pearson"][0] == pytest.approx((ours["pearson/a"][0] + ours["pearson/b"][0]) / 2)


def test_a_constant_answer_has_no_correlation() -> None:
    targets, _ = numbers(1)
    scores = regression_scores(targets, np.full_like(targets, 0.1), np.ones((1, 50)), labels=["a", "b"])
    assert (scores["pearson"][0], scores["spearman"][0]) == (0.0, 0.0)


@pytest.mark.parametrize(("unit", "offset"), [(1e-9, 0.0), (1e9, 0.0), (1.0, 1e7)])
def test_correlations_do_not_depend_on_the_unit(unit: float, offset: float) -> None:
    targets, found = numbers(3)
    one, other = (
        regression_scores(each * unit + offset, guess * unit + offset, np.ones((1, 50)), labels=["a", "b"])
        for each, guess in ((targets, found), (targets / unit - offset / unit, found / unit - offset / unit))
    )
    for name in ("pearson", "spearman", "r2"):
        assert one[name][0] == pytest.approx(other[name][0], abs=1e-6), name


def test_samples_in_which_all_targets_are_the_same_explain_nothing() -> None:
    """Their variance, a difference of sums, is not quite 0."""
    random = np.random.Generator(np.random.Philox(5))
    targets = np.concatenate([np.full(9, 3.1), [0.2, 4.7, 2.9]])[:, None]
    counts = np.stack([np.bincount(random.integers(0, 9, 9), minlength=12) for _ in range(200)]).astype(float)
    scores = regression_scores(targets, random.normal(size=(12, 1)), counts, labels=["a"])
    assert not scores["r2"].any()
    assert not scores["pearson"].any()


@pytest.mark.filterwarnings("ignore:No positive class")
@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.booleans())
def test_multi_label_scores_equal_scikit_learn_in_resamples_too(seed: int, certain: bool) -> None:
    targets, chances = sets(seed)
    random = np.random.Generator(np.random.Philox(seed + 1))
    targets[:, random.integers(0, 3)] *= random.integers(0, 2)  # a label without a row
    chances[:, random.integers(0, 3)] *= random.choice([0.1, 1])  # one that is never predicted
    chances = chances.round() if certain else chances
    thresholds = np.array([0.5, 0.4, 0.6])
    rows = np.stack([np.arange(60), *random.integers(0, 60, (2, 60)), random.integers(0, 3, 60)])
    weights = np.stack([np.bincount(each, minlength=60) for each in rows]).astype(float)
    ours = multi_label_scores(targets, chances, weights, thresholds=thresholds, labels=LABELS)
    for sample, drawn in enumerate(rows):
        right, chance = targets[drawn], chances[drawn]
        predicted = chance >= thresholds
        expected = {
            f"f1_{kind}": metrics.f1_score(right, predicted, average=kind, zero_division=0)
            for kind in ("macro", "micro", "samples")
        }
        expected["exact_match"] = metrics.accuracy_score(right, predicted)
        expected["average_precision"] = metrics.average_precision_score(right, chance)
        columns = zip(right.T, chance.T, strict=True)
        expected["log_loss"] = np.mean([metrics.log_loss(one, other, labels=[0, 1]) for one, other in columns])
        for name, score in (("precision", metrics.precision_score), ("recall", metrics.recall_score)):
            each = score(right, predicted, average=None, zero_division=0)
            expected |= {f"{name}/{label}": each[position] for position, label in enumerate(LABELS)}
        assert {name: values[sample] for name, values in ours.items()} == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_no_other_threshold_gives_a_better_f1(seed: int) -> None:
    targets, chances = sets(seed)
    chosen = best_thresholds(targets, chances)
    for label in range(3):
        if not targets[:, label].any():
            assert chosen[label] == 0.5
            continue
        found = metrics.f1_score(targets[:, label], chances[:, label] >= chosen[label])
        tried = [metrics.f1_score(targets[:, label], chances[:, label] >= each) for each in np.unique(chances[:, label])]
        assert found == pytest.approx(max(tried))


def test_thresholds_are_chosen_on_one_split_and_used_on_another() -> None:
    rows = pa.table({"row": [2, 3], "text": ["a", "b"], "target": [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]})
    outputs = [np.array([0.4, 0.1, 0.2]), np.array([0.1, 0.1, 0.3])]
    chosen = SETS.decide(rows, outputs, LABELS)
    assert chosen == {"label_thresholds": pytest.approx([0.25, 0.5, 0.25])}
    settled = SETS.settled(chosen)
    assert [each["labels"] for each in settled.predictions(rows, outputs, LABELS, top_k=1)] == [["funny"], ["slow"]]
    assert [each["labels"] for each in SETS.predictions(rows, outputs, LABELS, top_k=1)] == [[], []]
    assert SETS.predictions(rows, outputs, LABELS, top_k=2)[0]["probabilities"] == {"funny": 0.4, "slow": 0.2}
    judged = settled.judge(rows, outputs, LABELS)
    assert judged.table["predicted"] == [["funny"], ["slow"]]
    assert judged.scores(np.ones((1, 2)))["exact_match"][0] == 1.0
    missed = SETS.judge(rows, outputs, LABELS)
    assert list(zip(missed.actual, missed.predicted, strict=True)) == [("funny", NONE), ("slow", NONE)]


def test_a_threshold_is_midway_to_the_next_chance_also_below_the_lowest() -> None:
    assert best_thresholds(np.array([[1.0], [1.0], [0.0]]), np.array([[0.9], [0.4], [0.2]])) == pytest.approx([0.3])
    assert best_thresholds(np.ones((2, 1)), np.array([[0.9], [0.4]])) == pytest.approx([0.2])


def test_a_chance_at_its_threshold_is_enough_and_given_thresholds_stay() -> None:
    rows = pa.table({"row": [2], "text": ["a"], "target": [[1.0, 0.0, 0.0]]})
    task = SETS.model_copy(update={"thresholds": (0.25, 0.5, 0.5)})
    outputs = [np.array([0.25, 0.1, 0.4])]
    for each in (task, task.settled({"label_thresholds": [0.9, 0.9, 0.9]})):
        assert [answer["labels"] for answer in each.predictions(rows, outputs, LABELS, top_k=1)] == [["funny"]]
        judged = each.judge(rows, outputs, LABELS)
        assert judged.table["predicted"] == [["funny"]]
        assert judged.scores(np.ones((1, 1)))["exact_match"][0] == 1.0


def test_rows_without_a_label_on_either_side_make_a_picture_too() -> None:
    judged = SETS.judge(pa.table({"row": [2], "target": [[0.0, 0.0, 0.0]]}), [np.zeros(3)], LABELS)
    assert (judged.actual, judged.predicted) == ([NONE], [NONE])
    assert judged.scores(np.ones((1, 1)))["exact_match"][0] == 1.0


def test_outputs_of_huge_logits_are_certain() -> None:
    assert SETS.outputs(np.array([[-1000.0, 0.0, 1000.0]], dtype=np.float32)).tolist() == [[pytest.approx(0), 0.5, 1.0]]


def test_simple_methods_answer_with_a_chance_for_each_label_or_a_number_for_each_target() -> None:
    train = {"text": ["good film", "great film", "bad film", "awful film"] * 5}
    split = pa.table({"text": ["a great one", "an awful one"]})
    targets = [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]] * 5  # the others are always there, and never
    found = SETS.baselines(pa.table({**train, "target": targets}), split, LABELS)
    assert np.stack(found["label_shares"]).tolist() == [[0.5, 1.0, 0.0]] * 2
    chances = np.stack(found["tfidf_logistic"])
    assert chances[0, 0] > 0.5 > chances[1, 0]
    assert chances[:, 1:].tolist() == [[1.0, 0.0]] * 2
    for width in (1, 2):
        found = NUMBERS.baselines(pa.table({**train, "target": [each[:width] for each in targets]}), split, LABELS[:width])
        assert np.stack(found["mean"]).tolist() == [[0.5, 1.0][:width]] * 2
        fitted = np.stack(found["tfidf_ridge"])
        assert fitted.shape == (2, width)
        assert fitted[0, 0] > 0.5 > fitted[1, 0]


@pytest.mark.parametrize(
    ("given", "found"), [("funny; sad ;", ["funny", "sad"]), (["sad", "funny", "sad"], ["sad", "funny"]), ("", [])]
)
def test_labels_are_a_list_or_delimited_text(given: object, found: list[str]) -> None:
    assert SETS.answers({"text": "a", "labels": given}) == found


def test_labels_in_lists_of_lists_are_told() -> None:
    assert [kind for kind, *_ in SETS.problems({"text": "a", "labels": [["x"], "y"]}, None)] == ["unexpected_list"]
    assert SETS.answers({"text": "a", "labels": [["x"], "y"]}) == ["y"]


def test_a_label_outside_the_list_is_named() -> None:
    problems = list(SETS.problems({"text": "a", "labels": "funny;sadd"}, LABELS))
    assert [(kind, role) for kind, role, _ in problems] == [("unknown_label", "labels")]
    assert problems[0][2].startswith("'sadd' is not one of funny, sad, slow (did you mean 'sad'?)")


@pytest.mark.parametrize("wrong", ["", "three", "nan", "inf", ["1", "x"]])
def test_what_is_no_number_is_named(wrong: object) -> None:
    assert [(kind, role) for kind, role, _ in NUMBERS.problems({"text": "a", "target": wrong}, None)] == [
        ("bad_target", "target")
    ]
    assert list(NUMBERS.problems({"text": "a", "target": "-3.5e-1"}, None)) == []


def test_several_numbers_in_one_column_are_an_error_that_names_the_row(tiny_bert: Path) -> None:
    rows = [{"text": "fine", "target": "1"}, {"text": "a good film", "target": ["1", "2"]}]
    with pytest.raises(DataError, match=r"'a good film': has 1, 2 for scores.* name each in data.columns.target"):
        NUMBERS.encode(rows, TextEncoder.read(tiny_bert), ["scores"])
    in_two = {"text": "a", "target": [["1", "2"], "3"]}  # data.columns.target: [one, two], and a list in one of them
    assert [(kind, role) for kind, role, _ in NUMBERS.problems(in_two, None)] == [("bad_target", "target")]


@pytest.mark.parametrize(
    ("name", "theirs"), [("mse", torch.nn.MSELoss()), ("mae", torch.nn.L1Loss()), ("huber", torch.nn.HuberLoss(delta=0.5))]
)
def test_losses_of_rows_are_those_of_torch(name: str, theirs: torch.nn.Module) -> None:
    task = NUMBERS.model_copy(update={"loss_function": name, "huber_delta": 0.5})
    logits, targets = torch.randn(6, 2), torch.randn(6, 2)
    losses = task.loss(logits, targets)
    assert losses.shape == (6,)
    assert losses.mean().item() == pytest.approx(theirs(logits, targets).item(), abs=1e-6)


def test_validation_metrics_are_the_scores_of_all_rows() -> None:
    targets, found = (torch.tensor(each, dtype=torch.float32) for each in numbers(7))
    collection = NUMBERS.metrics(["a", "b"])
    for start in range(0, 50, 16):
        collection.update(found[start : start + 16], targets[start : start + 16])
    ours = regression_scores(targets.double().numpy(), found.double().numpy(), np.ones((1, 50)), labels=["a", "b"])
    values = collection.compute()
    assert {name: value.item() for name, value in values.items()} == pytest.approx(
        {name: ours[name][0] for name in values}, abs=1e-5
    )


def test_pairs_are_read_as_the_tokenizer_reads_them(tiny_bert: Path) -> None:
    from transformers import AutoTokenizer

    rows = [{"text": "a good film", "text_pair": "it is bad", "target": "1"}, {"text": "b", "text_pair": "c", "target": "2"}]
    encoder = TextEncoder.read(tiny_bert)
    columns = NUMBERS.encode(rows, encoder, ["target"])
    theirs = AutoTokenizer.from_pretrained(tiny_bert)(
        [r["text"] for r in rows], [r["text_pair"] for r in rows], truncation=True, max_length=16
    )
    assert columns["input_ids"].to_pylist() == theirs["input_ids"]
    inputs, targets = NUMBERS.collate(
        {name: columns[name].to_numpy(zero_copy_only=False) for name in ("input_ids", "token_type_ids", "target")}, encoder
    )
    assert set(inputs) == {"input_ids", "attention_mask", "token_type_ids"}
    assert targets.tolist() == [[1.0], [2.0]]
    assert NUMBERS.content(rows[0]) == "a good film\nit is bad"
