"""Arguments of Lightning's Trainer in YAML: allowed, moved to the other section, or refused with the reason."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import pytorch_lightning as pl

from finespun.config.lightning import ALLOWED, REFUSED, REFUSED_CALLBACKS
from finespun.errors import ConfigError
from finespun.training.optimization import batches_of_epoch
from small_run import small_config

OWN = ["own_callbacks."]


def problem(**changes: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        small_config(**changes)
    [found] = caught.value.problems
    return found


def test_every_argument_of_the_trainer_is_allowed_in_one_place_or_refused_with_a_reason() -> None:
    arguments = set(inspect.signature(pl.Trainer.__init__).parameters) - {"self"}
    named = [*ALLOWED["runtime"], *ALLOWED["trainer"], *REFUSED]
    assert len(named) == len(set(named))
    assert set(named) <= arguments
    assert arguments - set(named) <= {"model_registry", "enable_autolog_hparams"}


def test_every_refused_callback_is_one_of_lightnings() -> None:
    assert {name for name in REFUSED_CALLBACKS if not hasattr(pl.callbacks, name)} == set()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"runtime__lightning": {"profilr": "simple"}}, "no such argument (did you mean 'profiler'?)"),
        ({"runtime__lightning": {"limit_train_batches": 2}}, "changes results; set trainer.lightning.limit_train_batches"),
        ({"trainer__lightning": {"profiler": "simple"}}, "cannot change a result; set runtime.lightning.profiler"),
        ({"trainer__lightning": {"max_time": "00:01:00:00"}}, "ends by the clock"),
        ({"runtime__lightning": {"logger": True}}, "set runtime.tracking_uri"),
        ({"trainer__lightning": {"check_val_every_n_epoch": 9}}, "nothing would be validated"),
        ({"trainer__callbacks": [{"_target_": "os.system"}]}, "must begin with one of: pytorch_lightning.callbacks."),
        ({"trainer__callbacks": [{"_target_": "pytorch_lightning.callbacks.ModelCheckpoint"}]}, "runtime.checkpoint_seconds"),
        ({"trainer__callbacks": [{"_target_": "pytorch_lightning.callbacks.LambdaCallbac"}]}, "does not exist"),
        (
            {"trainer__callbacks": [{"_target_": "own_callbacks.Count", "evry": 2}], "runtime__allow_targets": OWN},
            "has no such option (did you mean 'every'?)",
        ),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_the_way_out(changes: dict[str, Any], words: str) -> None:
    assert words in problem(**changes)


def test_advice_is_followed() -> None:
    config = small_config(trainer__lightning={"limit_train_batches": 2}, runtime__lightning={"profiler": "simple"})
    assert config.trainer.lightning == {"limit_train_batches": 2}
    assert batches_of_epoch(6, config.trainer.lightning) == 2
    assert batches_of_epoch(6, {"limit_train_batches": 0.5}) == 3
    assert batches_of_epoch(6, {}) == 6
