"""The seed of a forward pass."""

from __future__ import annotations

from finespun.training.optimization import step_seed


def test_each_place_in_a_run_has_its_own_seed_always_the_same() -> None:
    places = [(seed, epoch, batch, rank) for seed in (0, 1) for epoch in (0, 1) for batch in range(20) for rank in range(4)]
    seeds = {step_seed(*place) for place in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert step_seed(42, 0, 0, 0) == 4945949205331585457
