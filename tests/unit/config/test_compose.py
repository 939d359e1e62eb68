"""What is written for DVC says every value in a way that DVC's run cache sees."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from dvc.stage.cache import _get_cache_hash
from omegaconf import OmegaConf

from finespun.artifacts import Artifacts
from finespun.config.compose import read_dials, read_for_stage, write
from finespun.errors import ConfigError
from helpers import ROOT
from small_run import small_config


def written(folder: Path, model: dict[str, object]) -> Artifacts:
    config = small_config(model=model, runtime__allow_targets=["a.B"])
    artifacts = Artifacts(project=folder, out=folder)
    (folder / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    write(config, OmegaConf.create({"runtime": config.runtime.model_dump()}), artifacts.config)
    return artifacts


def models(value: int) -> list[dict[str, object]]:
    weights = {"weights": "a.pth"}
    return [
        {"checkpoint": "a", "processor": {"size": {"shortest_edge": value}}},
        {"checkpoint": "a", "processor": {"more": [{"nfiles": value}]}},
        {"config": {"model_type": "bert", "size": value}, **weights},
        {"module": {"_target_": "a.B", "size": value}, **weights},
    ]


@pytest.mark.parametrize("number", range(4))
def test_dvc_does_not_take_one_size_for_another(tmp_path: Path, number: int) -> None:
    keys = set()
    for value in (224, 256):
        model = models(value)[number]
        artifacts = written(tmp_path, model)
        params = yaml.safe_load(artifacts.config.read_text())
        keys.add(_get_cache_hash({"cmd": "x", "deps": [], "params": {"build/config.yaml": params}, "outs": []}, key=True))
        found = read_for_stage(artifacts, "prepare").model.model_dump(by_alias=True)
        assert {name: found[name] for name in model} == model, "a stage reads what was said"
    assert len(keys) == 2


@pytest.mark.parametrize("pipeline", ["stages: [", "stages: {prepare: 3}", "{}"])
def test_a_damaged_pipeline_is_named(tmp_path: Path, pipeline: str) -> None:
    artifacts = written(tmp_path, {"checkpoint": "a"})
    (tmp_path / "dvc.yaml").write_text(pipeline)
    with pytest.raises(ConfigError, match=r"dvc.yaml: has no readable stage 'prepare' .*restore it from Git"):
        read_for_stage(artifacts, "prepare")


def test_a_folder_that_is_no_project_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"params.yaml: is not in {tmp_path}; go to the folder of a project"):
        read_dials(tmp_path / "params.yaml")
