"""docs/recommendation.md: its YAML composes, its settings exist, and its commands are those of the project."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import yaml

from finespun.artifacts import Artifacts
from finespun.cli.main import main
from finespun.config import targets
from finespun.config.compose import compose
from helpers import ROOT

PAGE = (ROOT / "docs" / "recommendation.md").read_text(encoding="utf-8")


def test_what_the_page_writes_composes(tmp_path: Path) -> None:
    for name in ("conf", "params.yaml", "dvc.yaml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(ROOT / name, tmp_path / name)
    ((name, text),) = re.findall(r"`(conf/[\w/]+\.yaml)`:\n\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / name).write_text(text, encoding="utf-8")
    params = yaml.safe_load(re.findall(r"after `params.yaml` says\n\n```yaml\n(.*?)```", PAGE, re.DOTALL)[0])
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(yaml.safe_load((tmp_path / "params.yaml").read_text()) | params))
    config, _ = compose(Artifacts(project=tmp_path, out=tmp_path))
    task = targets.build("task", config.task)
    assert task.item_roles == tuple(config.data.items.columns) if config.data.items else None
    assert config.data.columns["history"] == "history"


def test_its_settings_and_commands_exist() -> None:
    settings = yaml.safe_load((ROOT / "conf" / "task" / "item_recommendation.yaml").read_text())
    said = set(re.findall(r"`task\.(\w+)", PAGE))
    assert {"item_vectors", "leave_out_seen", "max_history"} == said <= set(settings)
    commands = set(re.findall(r"^finespun (\w+)", PAGE, re.MULTILINE))
    assert {"predict", "summary"} == commands <= set(main.commands)
