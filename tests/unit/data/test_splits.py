"""Splits cannot leak: properties that hold for any rows."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from finespun.config.sections import Split
from finespun.data.splits import SPLITS, normalise, split_of

SPLIT = Split(train=0.8, val=0.1, test=0.1, seed=42)
TEXTS = st.text(min_size=1)


@given(TEXTS, st.sampled_from([str.upper, str.lower, str.title, lambda text: f"  {text}\t"]))
def test_texts_that_read_the_same_fall_together(text: str, change: object) -> None:
    assert callable(change)
    if normalise(change(text)) == normalise(text):  # some scripts change with case
        assert split_of(normalise(change(text)), SPLIT) == split_of(normalise(text), SPLIT)


@given(st.text(alphabet="abc XYZ\t", min_size=1))
def test_case_and_spaces_never_matter(text: str) -> None:
    assert normalise(f" {text.upper()}  ") == normalise(text.lower())


@given(st.lists(TEXTS, unique=True), st.lists(TEXTS, unique=True))
def test_adding_rows_moves_none(old: list[str], new: list[str]) -> None:
    before = {text: split_of(text, SPLIT) for text in old}
    after = {text: split_of(text, SPLIT) for text in [*new, *old]}
    assert before.items() <= after.items()


@given(TEXTS, st.floats(0.1, 0.8))
def test_a_smaller_training_share_only_takes_rows_out_of_it(text: str, share: float) -> None:
    smaller = Split(train=share, val=0.1, test=0.9 - share, seed=42)
    if split_of(text, smaller) == "train":
        assert split_of(text, SPLIT) == "train"


def test_shares_are_kept_and_the_seed_matters() -> None:
    texts = [f"text {number}" for number in range(20_000)]
    counts = Counter(split_of(text, SPLIT) for text in texts)
    assert set(counts) == set(SPLITS)
    assert abs(counts["train"] / 20_000 - 0.8) < 0.01
    assert abs(counts["test"] / 20_000 - 0.1) < 0.01
    other = Split(seed=7)
    assert sum(split_of(text, other) != split_of(text, SPLIT) for text in texts) > 4_000
