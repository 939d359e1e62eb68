"""B1: full fine-tuning of MiniLM, rows a second, against `transformers.Trainer` on the same rows.

Arms: ours in float32, to which all are compared, and in the precision that `auto` takes here; Trainer, in float32, padded to
128 (run_glue's default), with dynamic padding (its default collator), grouped by length, and at its best: grouped, in bf16,
with fused AdamW. They run in turn, `--rounds` times, with an sgemm probe before and after each; minima of the seconds are
compared.
Data: lognormal lengths (mean 32, 95th percentile 73, cap 128), and the movie reviews.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from omegaconf import OmegaConf
from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.check import Origin, check
from finespun.config.compose import compose
from finespun.data.prepared import PreparedData
from finespun.models.addresses import checkpoint_folder
from finespun.models.pretrained import load_model
from finespun.training.checkpoints import Store
from finespun.training.fit import fit
from finespun.training.history import Sink
from finespun.training.lightning.devices import choose
from finespun.training.lightning.sharding import from_rank_zero

ROOT = Path(__file__).resolve().parents[1]
CAP, BATCH = 128, 32
BEST = {"bf16": True, "train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"}  # beside "precision auto"
Rows = list[dict[str, Any]]


def lognormal_rows(count: int) -> Rows:
    """Rows of random tokens whose lengths have mean 32 and 95th percentile 73."""
    random = np.random.Generator(np.random.Philox(0))
    lengths = random.lognormal(np.log(32) - 0.62**2 / 2, 0.62, count).round().clip(4, CAP).astype(int)
    tokens = [random.integers(1000, 20_000, length).tolist() for length in lengths]
    return [{"input_ids": ids, "labels": int(random.integers(0, 2))} for ids in tokens]


def review_rows(count: int) -> Rows:
    """Training rows of the movie reviews, as `prepare` left them."""
    table = PreparedData(ROOT / "data" / "prepared").open("train").slice(0, count)
    columns = (table["input_ids"].to_pylist(), table["target"].to_pylist())
    return [{"input_ids": ids, "labels": target} for ids, target in zip(*columns, strict=True)]


def sgemm() -> float:
    """Returns GFLOP/s of a float32 product of two 1024 x 1024 matrices: how fast the machine is right now."""
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(times) / 1e9


def ours(
    rows: Rows, folder: Path, *, epochs: int = 1, strategy: str = "full", features: Path | None = None, model: Any = None,
    sink: Sink = lambda _metrics, _step: None, precision: str = "32-true", devices: int = 1, kind: str = "ddp",
) -> Callable[[], Any]:  # fmt: skip
    """Makes a run of finespun's, of MiniLM unless another model is given; `sink` takes its metrics."""
    artifacts = Artifacts(project=ROOT, out=ROOT)
    config, composed = compose(artifacts)
    composed = composed.copy()
    composed.strategy = OmegaConf.load(artifacts.conf / "strategy" / f"{strategy}.yaml")
    composed.trainer.update(
        {"max_epochs": epochs, "precision": precision, "batch_size": BATCH, "early_stopping_patience": None}
    )
    composed.runtime.update({"progress_bar": False, "accelerator": "cpu", "devices": devices, "strategy": kind})
    config = check(composed, Origin(conf=artifacts.conf, choices={}))
    for split, part in (("train", rows), ("val", rows[:32])):
        ids = [row["input_ids"] for row in part]
        table = pa.table({
            "input_ids": pa.array(ids, pa.list_(pa.int32())),
            "length": pa.array([len(one) for one in ids], pa.int32()),
            "target": pa.array([row["labels"] for row in part], pa.int64()),
        })  # fmt: skip
        with pa.OSFile(str(folder / f"{split}.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
    (folder / "schema.json").write_text(json.dumps({"labels": ["no", "yes"]}))
    store = folder / "store"
    store.mkdir(exist_ok=True)
    task = targets.build("task", config.task)
    hardware, encoder = choose(config.runtime, precision), task.encoder(weights())
    tune = targets.build("strategy", config.strategy).tune
    tuning = from_rank_zero(lambda: tune(model or fresh_model()), hardware)
    return lambda: fit(
        config=config, tuning=tuning, task=task, prepared=PreparedData(folder), encoder=encoder,
        hardware=hardware, store=Store(store), sink=sink, features=features,
    )  # fmt: skip


def theirs(rows: Rows, folder: Path, *, epochs: int = 1, frozen: bool = False, **arguments: Any) -> Callable[[], Any]:
    """Makes a run of Trainer's, with its defaults but for what is named; `frozen` trains the head alone."""
    model = fresh_model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen or name.startswith(("classifier", "bert.pooler")))
    tokenizer = AutoTokenizer.from_pretrained(weights())
    padding = arguments.pop("padding", True)
    settings = TrainingArguments(
        output_dir=str(folder / "trainer"), num_train_epochs=epochs, per_device_train_batch_size=BATCH, learning_rate=5e-5,
        save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False, **arguments,
    )  # fmt: skip
    collate = DataCollatorWithPadding(tokenizer, padding=padding, max_length=CAP)
    with_lengths = [{**row, "length": len(row["input_ids"]), "attention_mask": [1] * len(row["input_ids"])} for row in rows]
    return Trainer(model=model, args=settings, train_dataset=with_lengths, data_collator=collate).train


def weights() -> Path:
    """Where MiniLM lies."""
    config, _ = compose(Artifacts(project=ROOT, out=ROOT))
    return checkpoint_folder(config.model, ROOT)


def fresh_model(seed: int = 0) -> torch.nn.Module:
    """MiniLM with a new head of two labels."""
    torch.manual_seed(seed)
    options = {"num_labels": 2}
    return load_model(weights(), auto_class="AutoModelForSequenceClassification", options=options, new_head=True)


def timed(make: Callable[[Rows, Path], Callable[[], Any]], rows: Rows) -> tuple[float, float, float, float]:
    """Returns wall seconds, CPU seconds and the sgemm probes before and after; making the arm is not timed."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        run = make(rows, Path(folder))
        probe, wall, cpu = sgemm(), time.perf_counter(), time.process_time()
        run()
        return time.perf_counter() - wall, time.process_time() - cpu, probe, sgemm()


def compare(name: str, rows: Rows, arms: dict[str, Callable[[Rows, Path], Callable[[], Any]]], rounds: int) -> None:
    """Prints a line an arm."""
    found: dict[str, list[tuple[float, float, float, float]]] = {arm: [] for arm in arms}
    for _ in range(rounds):
        for arm, make in arms.items():
            found[arm].append(timed(make, rows))
    best = min(wall for wall, *_ in found["finespun"])
    print(f"\n{name}: {len(rows)} rows, {rounds} rounds\n\n| arm | rows/s (best) | wall s | CPU s | sgemm GF/s | ours is |")
    print("|---|---|---|---|---|---|")
    for arm, runs in found.items():
        walls, cpus, *probes = zip(*runs, strict=True)
        machine = [probe for both in probes for probe in both]
        spread = f"{min(walls):.1f} to {max(walls):.1f}"
        print(
            f"| {arm} | {len(rows) / min(walls):.1f} | {spread} | {min(cpus):.1f} | {min(machine):.0f} to {max(machine):.0f} |"
            f" {min(walls) / best:.2f}x |",
            flush=True,
        )


def main() -> None:
    """Runs both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    arms: dict[str, Callable[[Rows, Path], Callable[[], Any]]] = {
        "finespun": ours,
        "finespun, precision auto": lambda rows, folder: ours(rows, folder, precision="auto"),
        "Trainer, padded to 128": lambda rows, folder: theirs(rows, folder, padding="max_length"),
        "Trainer, dynamic padding": theirs,
        "Trainer, grouped by length": lambda rows, folder: theirs(rows, folder, train_sampling_strategy="group_by_length"),
        "Trainer at its best": lambda rows, folder: theirs(rows, folder, **BEST),
    }
    compare("Lognormal lengths", lognormal_rows(options.rows), arms, options.rounds)
    quick = {name: arms[name] for name in arms if "padded" not in name and "grouped" not in name}  # its best is both
    compare("Movie reviews", review_rows(options.rows), quick, options.rounds)


if __name__ == "__main__":
    main()
