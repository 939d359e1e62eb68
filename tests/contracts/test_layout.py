"""Each thing has its room: no folder is full, and each choice of `conf/` has its module."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from helpers import ROOT

SOURCE = ROOT / "src" / "finespun"
MOST = 12  # modules in a folder; with more, it is two rooms
FOLDERS = sorted({path.parent for path in SOURCE.rglob("*.py")})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(SOURCE)))
def test_no_folder_is_full(folder: Path) -> None:
    modules = sorted(path.stem for path in folder.glob("*.py") if path.stem not in {"__init__", "__main__"})
    assert len(modules) <= MOST, f"{folder.relative_to(ROOT)} has {len(modules)} modules: {modules}; make two rooms of it"


def test_there_is_no_room_for_whatever_is_left() -> None:
    names = {part for path in SOURCE.rglob("*") for part in path.relative_to(SOURCE).with_suffix("").parts}
    assert names & {"util", "utils", "common", "misc", "helpers"} == set()


@pytest.mark.parametrize("group", ["task", "strategy"])
def test_each_choice_names_a_class_of_a_module_of_its_room(group: str) -> None:
    room = {"task": "tasks", "strategy": "strategies"}[group]
    files = sorted((ROOT / "conf" / group).glob("*.yaml"))
    assert len(files) > 3
    for file in files:
        target = yaml.safe_load(file.read_text(encoding="utf-8")).get("_target_")
        if target is None:
            continue  # it changes another choice
        module = target.rpartition(".")[0]
        assert module.startswith(f"finespun.{room}."), file
        assert (ROOT / "src" / Path(*module.split("."))).with_suffix(".py").is_file(), file
