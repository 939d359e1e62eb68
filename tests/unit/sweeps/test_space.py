"""Hydra's override syntax as a search space: what is drawn, what is sent, what a grid has, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from finespun.errors import ConfigError
from finespun.sweeps.space import Space, differences, parse

KEYS = {"llrd": {"layer_decay", "lr_scale"}, "lora": {"rank", "lr_scale"}, "full": set[str]()}
STRATEGIES = ["strategy=choice(full,llrd,lora)", "strategy.layer_decay=interval(0.7,1)", "strategy.rank=4,8"]


def space(*overrides: str) -> Space:
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return parse(parsed, {"strategy", "optimizer"}, lambda _, choice: frozenset(KEYS.get(choice, set())))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("interval(0.1,0.5)", FloatDistribution(0.1, 0.5)),
        ("tag(log, interval(1e-6, 1e-3))", FloatDistribution(1e-6, 1e-3, log=True)),
        ("int(interval(1,4))", IntDistribution(1, 4)),
        ("tag(int, log, interval(1,64))", IntDistribution(1, 64, log=True)),
        ("range(8,33,8)", IntDistribution(8, 32, step=8)),
        ("range(0.0,0.5,0.1)", FloatDistribution(0.0, 0.4, step=0.1)),
        ("choice(a,b)", CategoricalDistribution(("a", "b"))),
        ("1e-5,3e-5", CategoricalDistribution(("1e-05", "3e-05"))),
    ],
)
def test_each_way_of_hydras_to_say_many_values_is_a_distribution(written: str, expected: Any) -> None:
    [dimension] = space(f"x.y={written}").dimensions
    assert dimension.distribution == expected


def first(_key: str, how: Any) -> Any:
    return how.choices[0] if isinstance(how, CategoricalDistribution) else how.low


def test_an_option_of_a_choice_that_was_not_drawn_is_not_sent() -> None:
    found = space(*STRATEGIES, "optimizer.lr=interval(0,1)", "strategy.lr_scale=2", "seed=1")
    for name, options in (("full", []), ("llrd", ["strategy.layer_decay"]), ("lora", ["strategy.rank"])):
        drawn = found.draw(lambda key, how, name=name: name if key == "strategy" else first(key, how))
        assert list(drawn) == ["strategy", *options, "optimizer.lr"]
        sent = {each.lstrip("+").partition("=")[0] for each in found.overrides(drawn)}
        assert ("strategy.lr_scale" in sent) == (name != "full"), "also one that is fixed"
        assert "seed" in sent


def test_a_key_that_no_choice_has_is_sent_to_all_so_that_the_check_can_refuse_it() -> None:
    found = space("strategy=full,llrd", "strategy.layre_decay=0.8,0.9")
    assert all("strategy.layre_decay" in point for point in found.grid())


def test_a_grid_has_each_combination_once_the_last_key_changing_first() -> None:
    assert space("a.b=1,2", "c.d=x,y").grid() == [
        {"a.b": one, "c.d": other} for one in ("1", "2") for other in ("x", "y")
    ]  # fmt: skip
    found = space("strategy=full,lora", "strategy.rank=4,8").grid()
    assert found == [
        {"strategy": "full"},
        {"strategy": "lora", "strategy.rank": "4"},
        {"strategy": "lora", "strategy.rank": "8"},
    ]


def test_every_value_and_every_end_is_in_a_corner() -> None:
    corners = list(space(*STRATEGIES, "optimizer.lr=tag(log,interval(1e-5,1e-3))").corners())
    assert {corner["strategy"] for corner in corners} == {"full", "llrd", "lora"}
    assert {corner.get("strategy.rank") for corner in corners} == {None, "4", "8"}
    assert {corner["optimizer.lr"] for corner in corners} == {"1e-05", "0.001"}


def test_the_middle_is_first_in_lists_and_halfway_in_intervals() -> None:
    searched = space(*STRATEGIES, "x.lr=tag(log,interval(1e-5,1e-3))", "x.epochs=int(interval(2,10))", "x.size=8,32")
    assert searched.middle() == {"strategy": "full", "x.lr": "0.0001", "x.epochs": "6", "x.size": "8"}


def test_the_last_of_the_same_key_counts_and_drawn_numbers_are_short() -> None:
    found = space("x.y=1,2", "x.y=interval(0,1)", "z.z=1", "z.z=2")
    assert found.draw(lambda *_: 0.123456789) == {"x.y": "0.1235"}
    assert found.fixed == {"z.z": "2"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sweep.trials=1,2", "sweep.trials: belongs to the whole sweep"),
        ("runtime.num_workers=0,1", "runtime.num_workers: belongs to the whole sweep"),
        ("x.y=tag(lgo, interval(1,2))", "lgo: no such tag; there are: int, log"),
        ("x.y=tag(log, interval(0,2))", "the tag log needs ends above 0"),
        ("x.y=interval(2,1)", "the smaller one first"),
        ("x.y=range(3,3)", "has no values"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        space("x.z=1,2", override)
    assert message in str(caught.value)


def test_a_grid_refuses_an_interval_and_says_what_to_do() -> None:
    with pytest.raises(
        ConfigError, match=r"x\.y=interval\(1,2\): a grid has no intervals; search it with hydra/sweeper=optuna"
    ):
        space("x.y=interval(1,2)").grid()


def test_differences_name_the_key_and_both_values() -> None:
    assert differences({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == ["b: was 2, is 3", "c: was not given, is 4"]
