"""docs/data.md says nothing that is not so: its keys exist, its defaults are the defaults, its commands run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from finespun.config.sections import Checks, DataConfig
from helpers import ROOT, Project, real_rows, write_csv

PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
BLOCKS = [text for language, text in FENCED.findall(PAGE) if language == "yaml"]
CHECK = re.compile(r"^((?:`\w+`(?:, )?)+) \| ([\w, ]+) \|", re.MULTILINE)


def commands() -> list[str]:
    """Lines of the bash blocks without their comments."""
    blocks = [text for language, text in FENCED.findall(PAGE) if language == "bash"]
    return [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_each_example_is_a_data_file(number: int) -> None:
    """Each line is valid beside what it leaves out; a key that stands there several times is several examples."""
    assert len(BLOCKS) >= 8
    found: list[dict[str, object]] = [{}]
    for part in re.split(r"(?m)^(?=[a-z_]+:)", BLOCKS[number]):
        said = yaml.safe_load(part) or {}
        if {*said} & {*found[-1]}:
            found.append({})
        found[-1] |= said
    for example in found:
        beside = {"columns": {"text": "text"}} | ({} if example.get("hub") else {"path": "data/raw/a.csv"})
        if isinstance(example.get("split"), dict) and example["split"].get("by") in {"time", "group"}:
            beside["columns"] = {"text": "text", example["split"]["by"]: "column"}
        DataConfig.model_validate(beside | example)


def test_the_table_of_checks_has_each_with_its_default() -> None:
    said = {}
    for names, defaults in CHECK.findall(PAGE):
        kinds, severities = re.findall(r"\w+", names), defaults.split(", ")
        said |= dict(zip(kinds, severities if len(severities) == len(kinds) else severities * len(kinds), strict=True))
    assert said == Checks().model_dump()


@pytest.mark.slow
def test_the_commands_run(project: Project, tmp_path: Path) -> None:
    rows = [{"body": row["text"], "queue": ("billing", "technical")[number % 2]} for number, row in enumerate(real_rows(120))]
    write_csv(project.folder / "tickets.csv", rows)
    project.edit("conf/trainer/default.yaml", max_epochs=1)
    found = commands()
    assert {command.partition(" ")[2].partition(" ")[0] for command in found} >= {"init", "check", "run", "repro"}
    for command in found:
        project.run("bash", "-c", command, timeout=1200)
