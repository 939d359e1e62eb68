"""`conf/sweep/`: each file is a search whose every corner is a valid configuration."""

from __future__ import annotations

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from finespun.sweeps.composing import Composer
from finespun.sweeps.space import parse
from helpers import ROOT

PRESETS = sorted(path.stem for path in (ROOT / "conf" / "sweep").glob("*.yaml") if path.stem != "default")


@pytest.mark.parametrize("preset", PRESETS)
def test_every_corner_of_a_shipped_search_is_valid(preset: str) -> None:
    assert "quick" in PRESETS
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        whole = loader.load_configuration("config", [f"sweep={preset}"], run_mode=RunMode.MULTIRUN)
        OmegaConf.update(whole, "hydra.job.config_name", "config")
        composer = Composer(loader, whole, ROOT / "conf")
        params = [f"{key}={value}" for key, value in (whole.hydra.sweeper.params or {}).items()]
        space = parse(composer.parser.parse_overrides(params), composer.groups, composer.keys_of)
        corners = list(space.corners())
        composer.check_all(space.overrides(corner) for corner in corners)
    assert len(corners) > 1
    assert whole.sweep.trials
    assert whole.hydra.sweeper.sampler
