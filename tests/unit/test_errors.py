"""Every kind of mistake has its exit code, and a message that helps."""

from __future__ import annotations

import signal

import pytest

from finespun.errors import (
    BusyError,
    ConfigError,
    DataError,
    DivergedError,
    FinespunError,
    InterruptError,
    MachineError,
    ModelError,
    PrunedError,
    did_you_mean,
    listed,
)

CODES = {
    ConfigError(["x"]): 2,
    DataError("x"): 3,
    ModelError("x"): 4,
    MachineError("x"): 5,
    DivergedError("x"): 6,
    PrunedError("x"): 7,
    BusyError("x"): 75,
    InterruptError(signal.SIGINT, "x"): 130,
    InterruptError(signal.SIGTERM, "x"): 143,
}


@pytest.mark.parametrize(("error", "code"), CODES.items(), ids=lambda each: type(each).__name__)
def test_each_kind_has_the_exit_code_that_is_promised(error: FinespunError, code: int) -> None:
    assert error.exit_code == code


def test_no_kind_is_without_a_promise_and_no_two_share_a_code() -> None:
    assert {type(error) for error in CODES} == set(FinespunError.__subclasses__())
    assert len(set(CODES.values())) == len(CODES)
    assert FinespunError.exit_code == 1


def test_configuration_problems_are_told_together() -> None:
    error = ConfigError(["a.yaml: lr: is missing", "b.yaml: seed: is -1"])
    assert error.problems == ["a.yaml: lr: is missing", "b.yaml: seed: is -1"]
    assert str(error) == "2 problems in the configuration:\n  a.yaml: lr: is missing\n  b.yaml: seed: is -1"
    assert str(ConfigError(["one"])).startswith("1 problem in the configuration:")


@pytest.mark.parametrize(
    ("word", "hint"),
    [("postive", " (did you mean 'positive'?)"), ("negativ", " (did you mean 'negative'?)"), ("seven", ""), ("", "")],
)
def test_the_nearest_word_is_offered_if_it_is_near(word: str, hint: str) -> None:
    assert did_you_mean(word, iter(["negative", "positive"])) == hint


def test_what_is_allowed_is_listed_in_a_stable_order() -> None:
    assert listed({"b", "a", "c"}) == "a, b, c"
    assert listed([2, 1]) == "1, 2"
    assert listed([]) == "none"
