"""docs/speech.md: its YAML composes, its settings exist, and its commands are those of the project."""

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

PAGE = (ROOT / "docs" / "speech.md").read_text(encoding="utf-8")
DATA = re.findall(r"`conf/data/calls.yaml`:\n\n```yaml\n(.*?)```", PAGE, re.DOTALL)[0]
PARAMS = yaml.safe_load(re.findall(r"after `params.yaml` says\n\n```yaml\n(.*?)```", PAGE, re.DOTALL)[0])


def test_what_the_page_writes_composes(tmp_path: Path) -> None:
    for name in ("conf", "params.yaml", "dvc.yaml"):
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile)(ROOT / name, tmp_path / name)
    data = tmp_path / "conf" / "data" / "calls.yaml"
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    said = yaml.safe_load(DATA)
    columns = [said["columns"], yaml.safe_load(re.findall(r"speech_recognition: (\{.*?\})", DATA)[0])]
    for task, given in zip((PARAMS["task"], "speech_recognition"), columns, strict=True):
        data.write_text(yaml.safe_dump(said | {"columns": {**given, "group": "caller"}}))
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params | PARAMS | {"task": task}))
        config, _ = compose(Artifacts(project=tmp_path, out=tmp_path))
        assert set(config.data.columns) == {*targets.build("task", config.task).input_roles, *given, "group"}


def test_its_settings_and_commands_exist() -> None:
    options = {name for file in (ROOT / "conf" / "task").glob("*.yaml") for name in yaml.safe_load(file.read_text())}
    said = set(re.findall(r"`task\.(\w+)", PAGE))
    assert {"seconds", "windows", "language"} <= said <= options
    commands = set(re.findall(r"^finespun (\w+)", PAGE, re.MULTILINE))
    assert {"predict", "summary"} <= commands <= set(main.commands)
    for name in re.findall(r"`(conf/[\w/]+\.yaml|data/sources/[\w.]+)`", PAGE):
        assert name == "conf/data/calls.yaml" or (ROOT / name).is_file()
