"""`conf/sweep/`: each file is a search whose every corner is a valid configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from finespun.artifacts import Artifacts
from finespun.sweeps.automatic import Sight, _parameters, space_for
from finespun.sweeps.composing import Composer
from finespun.sweeps.space import parse
from helpers import ROOT
from small_run import small_config

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


@pytest.mark.parametrize(
    ("sight", "minutes", "strategies", "epochs"),
    [
        (Sight(500, 30, 22e6, "cpu", 2), 15, "choice(llrd, full)", "int(interval(2, 10))"),
        (Sight(8_000, 30, 22e6, "cpu", 2), 60, "choice(llrd, full, lora)", "int(interval(1, 5))"),
        (Sight(8_000, 30, 110e6, "cpu", 2), 15, "choice(head, last_n)", "int(interval(1, 5))"),
        (Sight(1_000_000, 200, 340e6, "cpu", 2), 10, "choice(head)", "int(interval(1, 3))"),
        (Sight(8_000, 30, 110e6, "gpu", 8), 15, "choice(llrd, full, lora)", "int(interval(1, 5))"),
    ],
)
def test_auto_searches_what_the_budget_has_room_for(sight: Sight, minutes: float, strategies: str, epochs: str) -> None:
    found = space_for(sight, minutes)
    assert (found["strategy"], found["trainer.max_epochs"]) == (strategies, epochs), str(sight)


def test_auto_from_scratch_trains_everything_at_higher_rates(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 1000}
    model = {"config": {"model_type": "bert", **sizes}, "weights": "random", "tokenizer": "somewhere"}
    config = small_config(model=model)
    parameters = _parameters(config, Artifacts(project=tmp_path, out=tmp_path))
    assert 32 * 1000 < parameters < 100_000
    found = space_for(Sight(500, 30, parameters, "cpu", 2, from_scratch=config.model.from_scratch), 15)
    assert found["strategy"] == "choice(full)"
    assert "strategy.layer_decay" not in found
    assert "3e-3" in found["optimizer.lr"]


def test_auto_finds_the_size_of_weights_beside_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(bytes(4_000))
    config = small_config(model={"config": {"model_type": "bert"}, "weights": "w.pth", "processor": {"size": 8}})
    assert _parameters(config, Artifacts(project=tmp_path, out=tmp_path)) == 1_000
