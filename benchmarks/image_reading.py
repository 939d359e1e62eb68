"""Images on their way to a model: pixels from the cache and decoded on the fly, beside torch's DataLoader with PIL.

JPEGs of 1280 x 853 pixels, made of scikit-learn's photographs, to 224 x 224 normalised float32 in batches of 32; all arms in
turn, in one process, the minima of the rounds. What workers compute is in the CPU seconds.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import yaml
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.utils.data import DataLoader, Dataset

from finespun.config import targets
from finespun.config.sections import ModelConfig, Target
from finespun.data.batches import Batches
from finespun.data.loader import BatchLoader, Rows
from finespun.models.addresses import processor_folder

ROOT = Path(__file__).resolve().parents[1]
SIDE, ROWS = 224, 32


class WithPil(Dataset[tuple[torch.Tensor, int]]):
    """What everybody writes: open, convert, resize, crop, scale, normalise."""

    def __init__(self, files: list[Path], mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.files = files
        self.mean, self.std = (torch.tensor(each)[:, None, None] for each in (mean, std))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        image = Image.open(self.files[place]).convert("RGB")
        share = 256 / min(image.size)
        image = image.resize((round(share * image.width), round(share * image.height)), Image.Resampling.BILINEAR)
        left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
        pixels = np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))
        return (torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255 - self.mean) / self.std, 0


def photographs(folder: Path, count: int) -> list[Path]:
    """Writes crops of two photographs as JPEGs."""
    random, found = np.random.default_rng(0), []
    given = [Image.fromarray(each) for each in load_sample_images().images]
    for number in range(count):
        left, top = (int(each) for each in random.integers(0, 64, 2))
        image = given[number % 2].crop((left, top, left + 576, top + 363)).resize((1280, 853), Image.Resampling.BICUBIC)
        found.append(folder / f"{number}.jpg")
        image.save(found[-1], quality=90)
    return found


def ours(table: pa.Table, task: Any, encoder: Any, workers: int) -> Iterable[Any]:
    """Returns the loader of training."""
    batches = Batches(table["length"].to_numpy(), step_rows=ROWS, seed=0, rank=0, world_size=1)
    return BatchLoader(Rows(table, task, encoder), batches, num_workers=workers)


def cpu_seconds() -> float:
    """Of this process and of those that have ended under it."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def prepared(task: Any, encoder: Any, files: list[Path], *, keep: bool) -> tuple[pa.Table, float]:
    """Returns rows as `prepare` encodes them, and the CPU seconds that it took."""
    kept = task.kept_within(float("inf") if keep else 0, len(files), encoder)[0]
    began = cpu_seconds()
    columns = kept.encode([{"image": str(path), "label": "a"} for path in files], encoder, ["a", "b"])
    return pa.table({name: each for name, each in columns.items() if name != "truncated"}), cpu_seconds() - began


def arms_of(
    tables: dict[str, pa.Table], task: Any, encoder: Any, files: list[Path], most: int
) -> dict[str, Callable[[], Iterable[Any]]]:
    """Returns what makes the loader of each arm."""
    plain = WithPil(files, encoder.mean, encoder.std)
    arms: dict[str, Callable[[], Iterable[Any]]] = {}
    for workers in (0, most):
        beside = f"{workers} workers" if workers else "no workers"
        for how, table in tables.items():
            if how == "on the fly" or not workers:
                arms[f"finespun, {how}, {beside}"] = partial(ours, table, task, encoder, workers)
        arms[f"DataLoader with PIL, {beside}"] = partial(DataLoader, plain, batch_size=ROWS, shuffle=True, num_workers=workers)
    return arms


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    said = yaml.safe_load((ROOT / "conf" / "model" / "mobilenet_v2.yaml").read_text())
    chosen = yaml.safe_load((ROOT / "conf" / "task" / "image_classification.yaml").read_text())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = photographs(folder, options.images)
        task = targets.build("task", Target.model_validate(chosen)).reading_from(folder)
        encoder = task.encoder(_written(folder, said["processor"]))
        tables = {"cached": prepared(task, encoder, files, keep=True), "on the fly": prepared(task, encoder, files, keep=False)}
        for how, (_, seconds) in tables.items():
            print(f"prepare, {how:11s} {seconds / len(files) * 1000:7.2f} CPU ms an image")
        arms = arms_of({how: table for how, (table, _) in tables.items()}, task, encoder, files, options.workers)
        found: dict[str, list[tuple[float, float]]] = {arm: [] for arm in arms}
        for _ in range(options.rounds):
            for arm, make in arms.items():
                began, used = time.perf_counter(), cpu_seconds()
                for _batch in make():
                    pass
                found[arm].append((time.perf_counter() - began, cpu_seconds() - used))
        for arm, times in found.items():
            wall, cpu = (min(each) for each in zip(*times, strict=True))
            print(f"{arm:36s} {len(files) / wall:8.0f} images/s  {1000 * cpu / len(files):7.2f} CPU ms an image")


def _written(folder: Path, processor: dict[str, Any]) -> Path:
    model = ModelConfig(config={"model_type": "mobilenet_v2"}, weights="random", processor=processor)
    return processor_folder(model, folder)


main()
