"""What a folder of many images costs: preparing it, `dvc status` after it, and a file beside it that nobody names.

    python benchmarks/many_images.py 100000      # images; tiny ones, half PNG, half JPEG: the cost is that of files

A copy of this repository's files is the project. Seconds and peaks are those that the kernel counts of each command.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
LABELS = ("circle", "square", "cross", "line")
SIDE = 24
TASK = {"image_size": 32}


def make_images(folder: Path, count: int) -> None:
    """Writes images of noise, each different, evenly over the labels."""
    draw = np.random.default_rng(1)
    for label in LABELS:
        (folder / label).mkdir(parents=True)
    for number in range(count):
        image = Image.fromarray(draw.integers(0, 256, (SIDE, SIDE, 3), np.uint8))
        image.save(folder / LABELS[number % len(LABELS)] / f"{number:06}.{'png' if number % 2 else 'jpg'}")


def make_project(folder: Path, count: int) -> None:
    """Copies this repository's files and points `params.yaml` at the images."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if not name.startswith(("tests/", "docs/", "benchmarks/", "data/", "dvc.lock", "reports/", "build/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    make_images(folder / "data" / "raw" / "shapes", count)
    data = {"path": "data/raw/shapes", "columns": {"image": "file", "label": "folder"}}
    _edit(folder / "conf" / "data" / "shapes.yaml", data)
    _edit(folder / "conf" / "task" / "image_classification.yaml", TASK)
    _edit(folder / "params.yaml", {"data": "shapes", "task": "image_classification", "model": "mobilenet_v2"})
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)


def _edit(path: Path, values: dict[str, object]) -> None:
    plain = yaml.safe_load(path.read_text()) if path.exists() else {}
    path.write_text(yaml.safe_dump(plain | values, sort_keys=False))


def measured(what: str, *command: str, folder: Path) -> None:
    """Runs a command in the project and prints what it cost."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    ran = [line for line in done.stdout.splitlines() if line.startswith(("Running stage", "prepare:"))]
    cost = {"what": what, "wall_s": round(wall, 1), "cpu_s": round(cpu, 1), "peak_mb_so_far": after.ru_maxrss // 1024}
    print(json.dumps({**cost, "exit": done.returncode, "ran": ran}), flush=True)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])


def main() -> None:
    """Makes a project of many images and measures the commands of its first and its second day."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=int, nargs="?", default=2_000)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="images-"))
    try:
        make_project(folder, arguments.images)
        dvc = (sys.executable, "-m", "dvc")
        measured("configure", *dvc, "repro", "configure", folder=folder)
        measured("prepare, by dvc", *dvc, "repro", "prepare", folder=folder)
        measured("dvc status", *dvc, "status", "prepare", folder=folder)
        (folder / "data" / "raw" / "notes.txt").write_text("nobody names it")
        measured("beside a new file: prepare, by dvc", *dvc, "repro", "prepare", folder=folder)
        measured("dvc repro, nothing new", *dvc, "repro", "prepare", folder=folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
