"""`conf/sweep/`: each file is a search whose every corner is a valid configuration."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import OmegaConf

from finespun.artifacts import Artifacts
from finespun.sweeps.automatic import Sight, _parameters, refusal, space_for
from finespun.sweeps.composing import Composer
from finespun.sweeps.space import parse
from helpers import ROOT
from small_run import small_config

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 1000}
SIGHT = Sight(rows=8_000, tokens=30, parameters=22e6, device="cpu", cores=2)
PRESETS = sorted(path.stem for path in (ROOT / "conf" / "sweep").glob("*.yaml") if path.stem != "default")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_corner_of_a_shipped_search_is_valid(preset: str) -> None:
    assert "quick" in PRESETS
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        whole = loader.load_configuration("config", [f"sweep={preset}"], run_mode=RunMode.MULTIRUN)
        OmegaConf.update(whole, "hydra.job.config_name", "config")
        composer = Composer(loader, whole, ROOT / "conf")
        made = space_for(SIGHT, 60) if preset == "auto" else whole.hydra.sweeper.params
        params = [f"{key}={value}" for key, value in made.items()]
        space = parse(composer.parser.parse_overrides(params), composer.groups, composer.keys_of)
        corners = list(space.corners())
        composer.check_all((preset, space.overrides(corner)) for corner in corners)
    assert len(corners) > 1
    assert whole.sweep.trials
    assert whole.hydra.sweeper.sampler


def test_hydra_makes_the_sweeper_without_optunas_warnings() -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        whole = loader.load_configuration("config", ["sweep=auto"], run_mode=RunMode.MULTIRUN)
    assert whole.hydra.sweeper.sampler.group, "which Optuna calls experimental"
    instantiate(whole.hydra.sweeper)  # a warning is an error in tests


@pytest.mark.parametrize(
    ("sight", "minutes", "strategies", "epochs"),
    [
        (Sight(500, 30, 22e6, "cpu", 2), 15, "choice(llrd)", "int(interval(3, 8))"),
        (Sight(8_000, 30, 22e6, "cpu", 2), 60, "choice(llrd, lora)", "int(interval(1, 5))"),
        (Sight(8_000, 30, 110e6, "cpu", 2), 15, "choice(head, last_n)", "int(interval(1, 5))"),
        (Sight(1_000_000, 200, 340e6, "cpu", 2), 10, "choice(head)", "int(interval(1, 3))"),
        (Sight(8_000, 30, 110e6, "gpu", 8), 15, "choice(llrd, lora)", "int(interval(1, 5))"),
    ],
)
def test_auto_searches_what_the_budget_has_room_for(sight: Sight, minutes: float, strategies: str, epochs: str) -> None:
    found = space_for(sight, minutes)
    assert (found["strategy"], found["trainer.max_epochs"]) == (strategies, epochs), str(sight)
    assert ("e-6" in found["optimizer.lr"]) == ("llrd" in strategies), "whose top layers train at four times the rate"


def test_auto_smooths_labels_of_few_rows_and_trains_all_layers_alike_where_llrd_is_refused() -> None:
    few = Sight(500, 30, 22e6, "cpu", 2, smooths=True)
    assert space_for(few, 15)["task.label_smoothing"] == "choice(0.1, 0.0)"
    assert "task.label_smoothing" not in space_for(replace(few, rows=8_000), 15)
    found = space_for(few, 15, lambda name: "no layers" if name == "llrd" else None)
    assert found["strategy"] == "choice(full)"
    assert not [key for key in found if key.startswith("strategy.")]


def test_auto_from_scratch_trains_everything_at_higher_rates(tmp_path: Path) -> None:
    model = {"config": {"model_type": "bert", **SIZES}, "weights": "random", "tokenizer": "somewhere"}
    config = small_config(model=model)
    parameters = _parameters(config, Artifacts(project=tmp_path, out=tmp_path))
    assert 32 * 1000 < parameters < 100_000
    found = space_for(Sight(500, 30, parameters, "cpu", 2, from_scratch=config.model.from_scratch), 15)
    assert found["strategy"] == "choice(full)"
    assert "strategy.layer_decay" not in found
    assert "3e-3" in found["optimizer.lr"]


@pytest.mark.parametrize(
    ("model", "task", "refused"),
    [("small_rt_detr", "object_detection", "makes its outputs inside its decoder"), ("tiny_bert", "text_classification", None)],
)
def test_auto_leaves_out_what_the_model_cannot_be_trained_with(
    tmp_path: Path, tiny_bert: Path, model: str, task: str, refused: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    def part(group: str, name: str) -> dict[str, Any]:
        return dict(yaml.safe_load((ROOT / "conf" / group / f"{name}.yaml").read_text()))

    chosen = {"checkpoint": str(tiny_bert)} if model == "tiny_bert" else part("model", model)
    own = {key: value for key, value in part("task", task).items() if not str(value).startswith("${")}

    def checked(overrides: list[str]) -> tuple[Any, None]:
        name = overrides[-1].removeprefix("strategy=")
        columns = {"image": "file", "boxes": "boxes"} if refused else {"text": "text", "label": "sentiment"}
        given = {"task": own, "strategy": part("strategy", name), "data__columns": columns}
        return small_config(model=chosen, **given), None

    composer: Any = SimpleNamespace(checked=checked)
    why = partial(refusal, composer=composer, overrides=[], artifacts=Artifacts(project=tmp_path, out=tmp_path))
    found = space_for(SIGHT, 60, why)
    assert found["strategy"] == ("choice(llrd)" if refused else "choice(llrd, lora)")
    assert (f"without lora: strategy: RTDetrForObjectDetection {refused}" in capsys.readouterr().out) == bool(refused)


def test_auto_finds_the_size_of_weights_beside_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(bytes(4_000))
    config = small_config(model={"config": {"model_type": "bert"}, "weights": "w.pth", "processor": {"size": 8}})
    assert _parameters(config, Artifacts(project=tmp_path, out=tmp_path)) == 1_000
