"""docs/language_models.md: its YAML composes, its settings exist, and its commands are those of the project."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import yaml

from finespun.artifacts import Artifacts
from finespun.cli.main import main
from finespun.config import targets
from finespun.config.compose import compose
from finespun.tasks.base import roles_of
from helpers import ROOT

PAGE = (ROOT / "docs" / "language_models.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`(conf/[\w/]+\.yaml)`:\n\n```yaml\n(.*?)```", PAGE, re.DOTALL))
PARAMS = yaml.safe_load(re.findall(r"after `params.yaml` says\n\n```yaml\n(.*?)```", PAGE, re.DOTALL)[0])


def test_what_the_page_writes_composes(tmp_path: Path) -> None:
    assert {Path(name).stem for name in FILES} == {"articles", "headline"}
    for name in ("conf", "params.yaml", "dvc.yaml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(ROOT / name, tmp_path / name)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    data = tmp_path / "conf" / "data" / "articles.yaml"  # with the columns that the page's prompt asks for
    columns = re.findall(r"`columns: (\{.*?\})`", PAGE)[0]
    data.write_text(re.sub(r"columns: .*", f"columns: {columns}", data.read_text()), encoding="utf-8")
    (tmp_path / "conf" / "model" / "my-language-model.yaml").write_text("checkpoint: models/mine\n")
    params = yaml.safe_load((tmp_path / "params.yaml").read_text()) | PARAMS
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    config, _ = compose(Artifacts(project=tmp_path, out=tmp_path))
    task = targets.build("task", config.task)
    assert [*roles_of(task)] == ["section", "text", "target"]
    assert config.strategy.target == "finespun.strategies.lora.Lora"


def test_its_settings_and_commands_exist() -> None:
    said = set(re.findall(r"^\| `generation\.(\w+)`", PAGE, re.MULTILINE))
    assert said == {*yaml.safe_load((ROOT / "conf" / "task" / "seq2seq.yaml").read_text())["generation"]}
    commands = set(re.findall(r"^finespun (\w+)", PAGE, re.MULTILINE))
    assert {"predict", "summary"} <= commands <= set(main.commands)
