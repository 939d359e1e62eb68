"""Options of a class are known without importing its library."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from finespun.config.targets import FILLED_IN, load, signature
from finespun.errors import ConfigError


@pytest.mark.parametrize(
    "target",
    [
        "torch.optim.AdamW",
        "torch.optim.SGD",
        "torch.optim.Adam",
        "torch.optim.lr_scheduler.OneCycleLR",
        "transformers.get_linear_schedule_with_warmup",
        "transformers.Adafactor",
    ],
)
def test_the_signature_read_is_the_signature_called(target: str) -> None:
    section = "scheduler" if "schedule" in target else "optimizer"
    assert signature(target) == set(inspect.signature(load(section, target)).parameters)


def test_nothing_is_imported_for_it() -> None:
    code = (
        "import sys; from finespun.config.targets import signature; print('lr' in signature('torch.optim.AdamW'), *sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert found[0] == "True"
    assert "torch" not in found


def test_what_is_not_there_has_no_signature() -> None:
    assert signature("torch.optim.Nothing") is None
    assert signature("nowhere.Nothing") is None


def test_load_refuses_what_is_not_allowed() -> None:
    with pytest.raises(ConfigError, match="torch.load is not allowed"):
        load("optimizer", "torch.load")
    with pytest.raises(ConfigError, match="does not exist"):
        load("optimizer", "torch.optim.Nothing")


def test_what_is_filled_in_is_known_to_schedules() -> None:
    assert signature("transformers.get_linear_schedule_with_warmup") & FILLED_IN == {
        "optimizer",
        "num_training_steps",
        "num_warmup_steps",
    }
