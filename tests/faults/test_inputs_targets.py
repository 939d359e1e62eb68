"""`_target_` names a task, a strategy, an optimizer or a schedule, and nothing else that happens to lie in an allowed place."""

from __future__ import annotations

import pytest

from finespun.config.sections import Target
from finespun.config.targets import build, check
from finespun.errors import ConfigError

WRONG = {
    "task": (
        "finespun.tasks.inputs.text.Path", "finespun.tasks.base.Task", "finespun.tasks.base.Defaults", "finespun.tasks.inputs.text.TextInput",
        "finespun.tasks.answers.one_label.OneLabel", "finespun.tasks.inputs.augmentation.Augmentation", "finespun.tasks.inputs.words.read",
        "finespun.tasks.inputs.text.pad", "finespun.tasks.inputs.text.np", "finespun.tasks.text_classification.TextInput",
        "finespun.tasks.text_classification.TextClasification", "finespun.tasks.nowhere.X", "finespun.tasks.base.annotations",
        "finespun.tasks.text_classification",
    ),
    "strategy": (
        "finespun.strategies.base.Strategy", "finespun.strategies.base.Group", "finespun.strategies.lora.Section",
        "finespun.strategies.lora._merge", "finespun.strategies.anatomy.dissect", "finespun.strategies.head.Group",
    ),
    "optimizer": (
        "torch.optim.Optimizer", "torch.optim.lr_scheduler.StepLR", "torch.optim.swa_utils.AveragedModel", "torch.optim.AdamV",
        "torch.optim.optimizer.defaultdict", "torch.optim.adam.adam", "transformers.Trainer", "transformers.pipeline",
    ),
    "scheduler": (
        "torch.optim.lr_scheduler.LRScheduler", "torch.optim.lr_scheduler.wraps", "torch.optim.lr_scheduler.Nothing",
        "transformers.get_scheduler", "transformers.Adafactor",
    ),
}  # fmt: skip
RIGHT = {
    "optimizer": ("torch.optim.AdamW", "torch.optim.SGD", "torch.optim.adamw.AdamW", "torch.optim.RMSprop"),
    "scheduler": (
        "torch.optim.lr_scheduler.OneCycleLR", "torch.optim.lr_scheduler.ReduceLROnPlateau",
        "torch.optim.lr_scheduler.CosineAnnealingLR", "transformers.get_linear_schedule_with_warmup",
        "transformers.get_cosine_schedule_with_warmup",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("section", "target"), [(section, each) for section, targets in WRONG.items() for each in targets])
def test_what_is_none_is_refused_with_those_that_are(section: str, target: str) -> None:
    ((key, problem),) = check(section, Target.model_validate({"_target_": target}))
    assert key == "_target_"
    if "is not allowed" not in problem:  # a place where there are none
        _, _, allowed = problem.partition(f"; {section}s are: ")
        known = {"task": "TextClassification", "strategy": "lora.Lora", "optimizer": "AdamW", "scheduler": "OneCycleLR"}
        assert known[section] in allowed
        assert target not in allowed.split(", ")
        for each in allowed.split(", "):
            told = check(section, Target.model_validate({"_target_": each}))
            assert all(key != "_target_" for key, _ in told), "what is listed must be allowed"


@pytest.mark.parametrize(("section", "target"), [(section, each) for section, targets in RIGHT.items() for each in targets])
def test_what_is_one_is_taken(section: str, target: str) -> None:
    assert check(section, Target.model_validate({"_target_": target})) == []


def test_a_file_that_was_edited_by_hand_is_checked_too() -> None:
    with pytest.raises(
        ConfigError, match=r"task._target_: finespun.tasks.inputs.text.Path is no task.*; tasks are: finespun.tasks"
    ):
        build("task", Target.model_validate({"_target_": "finespun.tasks.inputs.text.Path"}))
