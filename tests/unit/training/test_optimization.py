"""Parameter groups, schedules, the seed of a forward pass."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finespun.config.sections import OptimizerConfig, SchedulerConfig
from finespun.errors import ConfigError
from finespun.strategies.base import Group
from finespun.strategies.full import Full
from finespun.training.optimization import lay_side_by_side, make_optimizer, make_scheduler, seed_draws, step_seed
from finespun.training.phases import freeze_all_but

ADAMW = OptimizerConfig.model_validate({"_target_": "torch.optim.AdamW", "lr": 0.1, "weight_decay": 0.5, "fused": True})
LINEAR = SchedulerConfig.model_validate({"_target_": "transformers.get_linear_schedule_with_warmup", "warmup_ratio": 0.2})


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 2))


def test_biases_and_norms_do_not_decay_and_everything_is_in_one_group() -> None:
    net = model()
    optimizer = make_optimizer(ADAMW, Full(regression_head_lr_scale=10).tune(net).groups)
    decayed, kept = optimizer.param_groups
    assert [p.ndim for p in decayed["params"]] == [2, 2]
    assert [p.ndim for p in kept["params"]] == [1, 1, 1, 1]
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.5, 0.0)
    assert optimizer.defaults["fused"]


def test_groups_have_their_share_of_the_rate_and_the_rest_is_frozen() -> None:
    net = model()
    groups = [Group(name="top", parameters={"2.weight": net[2].weight}, lr_scale=0.1)]
    freeze_all_but(net, groups)
    [group] = make_optimizer(ADAMW, groups).param_groups
    assert group["lr"] == pytest.approx(0.01)
    assert [name for name, p in net.named_parameters() if p.requires_grad] == ["2.weight"]


def test_training_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="trains no parameter"):
        freeze_all_but(model(), [])


def test_the_schedule_warms_up_and_ends_at_zero() -> None:
    net = model()
    optimizer = make_optimizer(ADAMW, Full(regression_head_lr_scale=10).tune(net).groups)
    scheduler = make_scheduler(LINEAR, "max", optimizer, 10)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:3] == pytest.approx([0.0, 0.05, 0.1])
    assert optimizer.param_groups[0]["lr"] == 0


def test_a_schedule_of_torch_is_given_what_is_known_of_the_run() -> None:
    config = SchedulerConfig.model_validate({"_target_": "torch.optim.lr_scheduler.OneCycleLR", "cycle_momentum": False})
    first, second, *_ = model().parameters()
    optimizer = torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": [second], "lr": 0.2}], lr=1)
    scheduler = make_scheduler(config, "max", optimizer, 25)
    assert scheduler.total_steps == 25
    assert [group["max_lr"] for group in optimizer.param_groups] == [0.1, 0.2]
    broken = SchedulerConfig.model_validate({"_target_": "torch.optim.lr_scheduler.OneCycleLR", "pct_start": 7.0})
    with pytest.raises(ConfigError, match="OneCycleLR refuses"):
        make_scheduler(broken, "max", optimizer, 25)


def test_a_schedule_that_watches_a_metric_is_told_which_way_is_up() -> None:
    config = SchedulerConfig.model_validate({"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"})
    optimizer = torch.optim.SGD(model().parameters(), lr=0.1)
    assert [make_scheduler(config, mode, optimizer, 25).mode for mode in ("max", "min")] == ["max", "min"]


def test_numbers_of_several_kinds_and_optimizers_that_see_shapes_are_not_laid_side_by_side() -> None:
    one, other = (nn.Parameter(torch.ones(2, 3, dtype=dtype)) for dtype in (torch.float32, torch.float64))
    for optimizer in (torch.optim.SGD([one, other], lr=0.1), torch.optim.Adafactor([one], lr=0.1)):
        before = list(optimizer.param_groups[0]["params"])
        assert lay_side_by_side(optimizer) is None
        assert [id(each) for each in optimizer.param_groups[0]["params"]] == [id(each) for each in before]
    gradients = lay_side_by_side(torch.optim.SGD([one], lr=0.1))
    assert gradients is not None
    assert gradients.shape == (6,)


def test_warm_up_in_steps_goes_before_the_ratio() -> None:
    given = {"_target_": "x", "warmup_ratio": 0.5}
    assert SchedulerConfig.model_validate(given).warmup(100) == 50
    assert SchedulerConfig.model_validate({**given, "warmup_steps": 7}).warmup(100) == 7


def test_seeding_draws_what_torch_would_draw() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.rand(5)
    seed_draws(7, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)


def test_each_place_in_a_run_has_its_own_seed_always_the_same() -> None:
    places = [(seed, epoch, batch, rank) for seed in (0, 1) for epoch in (0, 1) for batch in range(20) for rank in range(4)]
    seeds = {step_seed(*place) for place in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert step_seed(42, 0, 0, 0) == 4945949205331585457
