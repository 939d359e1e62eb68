"""Dropout on CPUs: the right share, the right mean, torch's generator."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finespun.models.cpu.dropout import Dropout, drop_quickly, kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_share_is_right_and_the_mean_stays(p: float, dtype: torch.dtype) -> None:
    found = kept(torch.Size([1000, 1001]), p, dtype)
    assert found.dtype == dtype
    assert found.unique().tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-2)
    count = found.numel()
    assert float((found == 0).float().mean()) == pytest.approx(p, abs=5 * (p * (1 - p) / count) ** 0.5)
    rows = (found == 0).float().mean(dim=1)  # neighbours come from the same draw: they must not go together
    assert float(rows.std()) == pytest.approx((p * (1 - p) / 1001) ** 0.5, rel=0.15)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_all_or_nothing_as_in_torch(p: float) -> None:
    given = torch.randn(150, 160, requires_grad=True)
    assert torch.equal(Dropout(p)(given), nn.Dropout(p)(given))


def test_draws_follow_torchs_seed_and_gradients_the_mask() -> None:
    layer, given = Dropout(0.3), torch.ones(150, 160, requires_grad=True)
    torch.manual_seed(1)
    first = layer(given)
    first.sum().backward()
    torch.manual_seed(1)
    assert torch.equal(layer(given), first)
    assert not torch.equal(layer(given), first)
    assert torch.equal(given.grad, first.detach())
    assert torch.equal(layer.eval()(given), given)


def test_a_shared_layer_is_replaced_wherever_it_is() -> None:
    model = nn.ModuleDict({"one": nn.Dropout(0.3), "block": nn.ModuleDict({"norm": nn.LayerNorm(3)})})
    model["block"]["same"] = model["one"]
    drop_quickly(model)
    assert type(model["one"]) is Dropout
    assert model["one"].p == 0.3
    assert model["block"]["same"] is model["one"]
