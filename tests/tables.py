"""Preparing a small file of somebody's in a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from finespun.artifacts import Artifacts
from finespun.config.check import Origin, check
from finespun.data.prepared import PreparedData
from finespun.stages.prepare import prepare
from helpers import ROOT

WORDS = ["blue frame", "left pedal", "rear brake", "bell", "saddle", "light", "chain", "lock", "tyre", "spoke", "wheel", "rack"]


def texts(count: int) -> list[str]:
    """Texts of which no two are the same."""
    return [f"the {WORDS[number % 12]} of order {number} is {'fine' if number % 2 else 'late'}" for number in range(count)]


class Prepared:
    """What `prepare` made of a file."""

    def __init__(self, folder: Path) -> None:
        self.data = PreparedData(folder / "prepared")
        self.profile: dict[str, Any] = json.loads((folder / "prepared" / "profile.json").read_text())

    @property
    def labels(self) -> list[str]:
        """The model's labels."""
        return self.data.labels

    def rows(self) -> list[dict[str, Any]]:
        """All rows, in the order of the file."""
        table = pa.concat_tables([self.data.open(split) for split in ("train", "val", "test")])
        return sorted(table.to_pylist(), key=lambda row: int(row["row"]))


def prepared(
    folder: Path,
    tiny_bert: Path,
    content: str | bytes,
    *,
    task: str = "text_classification",
    name: str = "mail.csv",
    **data: Any,
) -> Prepared:
    """Writes a file and prepares it; keyword arguments are keys of `conf/data/NAME.yaml`."""
    path = folder / "data" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        composed = compose("config", [f"task={task}"])
    if "max_length" in composed.task:
        composed.task.max_length = 32
    if "stride" in composed.task:
        composed.task.stride = 8
    OmegaConf.set_struct(composed, False)
    composed.data = {"path": f"data/{name}", **data}
    composed.model = {"checkpoint": str(tiny_bert)}
    config = check(composed, Origin(conf=ROOT / "conf", choices={}))
    prepare(config, Artifacts(project=folder, out=folder), folder / "prepared")
    return Prepared(folder)
