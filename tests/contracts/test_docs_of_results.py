"""docs/reading_the_report.md and docs/in_mlflow.md: their commands, options, sections and keys are there."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml

from finespun.cli.main import main
from finespun.report import page
from helpers import ROOT
from reported import facts

PAGES = {name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("reading_the_report", "in_mlflow")}
SECTIONS = {"Verdict": "verdict", "Labels to check": "labels"}  # that are called otherwise than their ids


@pytest.mark.parametrize("name", PAGES)
def test_each_command_of_finespun_takes_its_arguments(name: str) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", PAGES[name], re.DOTALL)
    lines = [shlex.split(line.partition("#")[0]) for block in blocks for line in block.splitlines()]
    lines += [shlex.split(span) for span in re.findall(r"`(finespun [^`]+)`", PAGES[name])]
    ours = [line for line in lines if line[:1] == ["finespun"]]
    assert len(ours) >= 3
    for _, command, *arguments in ours:
        assert command in main.commands
        if arguments and command != "run":  # that takes whatever Hydra does
            with main.commands[command].make_context(command, [each.replace("...", "") for each in arguments if each != "..."]):
                pass


@pytest.mark.parametrize("name", PAGES)
def test_each_picture_is_there(name: str) -> None:
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", PAGES[name])
    assert pictures
    assert [picture for picture in pictures if not (ROOT / "docs" / picture).is_file()] == []


def test_each_section_of_the_report_is_described() -> None:
    table = [line.partition(" | ")[0] for line in PAGES["reading_the_report"].splitlines() if " | " in line]
    described = {SECTIONS.get(name, name.lower()) for name in table if name not in {"Section", "---"}}
    ids = set(re.findall(r'<section id="(\w+)"', page.render(facts()))) | {"verdict"}
    assert described == ids - {"use"}


@pytest.mark.parametrize(
    "key", ["evaluation.calibrate", "evaluation.baselines", "evaluation.bootstrap_resamples", "runtime.system_metrics"]
)
def test_each_setting_is_one_of_conf(key: str) -> None:
    assert any(f"`{key}" in text for text in PAGES.values())
    section, name = key.split(".")
    assert name in yaml.safe_load((ROOT / "conf" / section / "default.yaml").read_text())
