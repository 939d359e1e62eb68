"""Language models: texts a CPU second beside `transformers.pipeline`, tokens a CPU second beside trl's SFTTrainer.

    python benchmarks/generation.py write MODEL [--rows 48] [--rounds 2]
    python benchmarks/generation.py train MODEL [--rows 160] [--rounds 1] [--lr 1e-5]

MODEL is a folder of a causal language model. Rows are cut from the movie reviews, in lognormal lengths: a prompt (60 words on
average) and what comes next (12). All arms have the same rows, run in turn in one process, and are compared by their least CPU
seconds; set OMP_NUM_THREADS. `write`: greedy, 24 tokens at most, float32. `train`: full fine-tuning, one epoch, batches of 8,
bf16 or float32 as `precision: auto` takes it; trl as it comes and at its best (no gradient checkpointing, grouped by length).
The loss of both is that of plain transformers, in float32, on rows that neither has seen, over target tokens.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from against_trainer import sgemm
from datasets import Dataset
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
from trl import SFTConfig, SFTTrainer

from finespun.artifacts import Artifacts
from finespun.config import targets
from finespun.config.check import Origin, check
from finespun.config.compose import compose
from finespun.data.batches import Batches
from finespun.data.prepared import PreparedData
from finespun.evaluation.predictor import Predictor
from finespun.tasks.answers.written_text import IGNORED
from finespun.training.checkpoints import Store
from finespun.training.fit import fit
from finespun.training.lightning.devices import choose

ROOT = Path(__file__).resolve().parents[1]
BATCH, NEW, HELD_OUT = 8, 24, 32
Rows = list[dict[str, str]]
Run = Callable[[], Any]


def mixed_rows(count: int) -> Rows:
    """Consecutive words of the reviews: prompts of 60 words on average (95 % up to 150), targets of 12 (30)."""
    with (ROOT / "data" / "raw" / "movie_reviews.csv").open(encoding="utf-8") as file:
        words = " ".join(row["text"] for row in csv.DictReader(file)).split()
    draw = np.random.Generator(np.random.Philox(0))
    lengths = [draw.lognormal(np.log(mean) - 0.7**2 / 2, 0.7, count).clip(3, most) for mean, most in ((60, 250), (12, 60))]
    cuts = np.concatenate([[0], np.stack(lengths, axis=1).astype(int).ravel().cumsum()])
    parts = [" ".join(words[start:end]) for start, end in pairwise(cuts)]
    return [{"text": text, "target": target} for text, target in zip(parts[::2], parts[1::2], strict=True)]


def composed(lr: float = 1e-5) -> Any:
    """The configuration of the repository for task: text_generation."""
    artifacts = Artifacts(project=ROOT, out=ROOT)
    found = compose(artifacts)[1].copy()
    found.task = OmegaConf.load(artifacts.conf / "task" / "text_generation.yaml")
    found.task.pop("defaults", None)
    found.task.update({"max_length": 512, "max_target_length": 128})
    found.task.generation.max_new_tokens = NEW
    found.data.columns = {"text": "text", "target": "target"}
    found.optimizer.lr = lr
    found.trainer.update({"max_epochs": 1, "batch_size": BATCH, "early_stopping_patience": None})
    found.runtime.update({"progress_bar": False, "accelerator": "cpu", "devices": 1})
    return check(found, Origin(conf=artifacts.conf, choices={}))


def encoded(rows: Rows, folder: Path) -> pa.Table:
    """Prompts and targets as tokens, as `prepare` makes them: both sides are given these."""
    task = targets.build("task", composed().task)
    columns = task.encode(rows, task.encoder(folder), ["target"])
    return pa.table({"row": pa.array(range(len(rows))), **columns})


def ours(table: pa.Table, model: Path, folder: Path, *, lr: float) -> tuple[Any, Run]:
    """A run of finespun's, with its rehearsal, its validation of 8 rows and the saving of the best weights."""
    config = composed(lr)
    for split, part in (("train", table), ("val", table.slice(0, BATCH))):
        with pa.OSFile(str(folder / f"{split}.arrow"), "wb") as file, pa.ipc.new_file(file, part.schema) as writer:
            writer.write_table(part)
    (folder / "schema.json").write_text(json.dumps({"labels": ["target"]}))
    (folder / "store").mkdir()
    task, net, hardware = (
        targets.build("task", config.task),
        AutoModelForCausalLM.from_pretrained(model),
        choose(config.runtime),
    )
    encoder = task.encoder(model)
    task.equip(net, encoder, model)
    tuning = targets.build("strategy", config.strategy).tune(net)
    return net, lambda: fit(
        config=config, tuning=tuning, task=task, prepared=PreparedData(folder), encoder=encoder, hardware=hardware,
        store=Store(folder / "store"), sink=lambda _metrics, _step: None, features=None,
    )  # fmt: skip


def theirs(table: pa.Table, model: Path, folder: Path, *, lr: float, **options: Any) -> tuple[Any, Run]:
    """A run of trl's, with our learning rate, schedule, weight decay and precision."""
    config = composed(lr)
    settings = SFTConfig(
        output_dir=str(folder), num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=lr, warmup_steps=0.06,
        weight_decay=config.optimizer.options["weight_decay"], bf16=choose(config.runtime).precision == "bf16-mixed",
        save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False, max_length=None,
        completion_only_loss=True, **options,
    )  # fmt: skip
    pairs = list(zip(table["input_ids"].to_pylist(), table["target"].to_pylist(), strict=True))
    rows = [
        {"input_ids": [*prompt, *target], "completion_mask": [0] * len(prompt) + [1] * len(target)} for prompt, target in pairs
    ]
    net, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    return net, SFTTrainer(model=net, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer).train


def loss_of(model: Any, table: pa.Table) -> float:
    """Mean loss of target tokens by plain transformers, a row at a time."""
    model.float().eval()
    total = count = 0.0
    for prompt, target in zip(table["input_ids"].to_pylist(), table["target"].to_pylist(), strict=True):
        labels = torch.tensor([[IGNORED] * len(prompt) + target])
        with torch.inference_mode():
            total += float(model(input_ids=torch.tensor([[*prompt, *target]]), labels=labels).loss) * len(target)
        count += len(target)
    return total / count


def train(folder: Path, count: int, rounds: int, lr: float) -> None:
    """Prints a line an arm."""
    table = encoded(mixed_rows(count + HELD_OUT), folder)
    table, unseen = table.slice(0, count), table.slice(count)
    best = {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}
    arms: dict[str, Callable[[Path], tuple[Any, Run]]] = {
        "finespun": lambda out: ours(table, folder, out, lr=lr),
        "SFTTrainer as it comes": lambda out: theirs(table, folder, out, lr=lr),
        "SFTTrainer at its best": lambda out: theirs(table, folder, out, lr=lr, **best),
    }
    tokens = int(table["length"].to_numpy().sum())
    shares = [Batches(table["length"].to_numpy(), step_rows=BATCH, seed=seed).padding_share() for seed in (0, 1, 2)]
    print(f"{count} rows, {tokens:,} tokens, padding once grouped by length {np.mean(shares):.1%}")
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    losses: dict[str, float] = {}
    for _ in range(rounds):
        for arm, make in arms.items():
            with tempfile.TemporaryDirectory() as out, contextlib.redirect_stdout(io.StringIO()):
                net, run = make(Path(out))
                began = time.process_time()
                run()
                seconds[arm].append(time.process_time() - began)
                losses[arm] = loss_of(net, unseen)
    before = loss_of(AutoModelForCausalLM.from_pretrained(folder), unseen)
    quick = min(seconds["finespun"])
    print("\n| arm | CPU s | tokens a CPU s | ours is | loss on unseen rows |\n|---|---|---|---|---|")
    for arm, found in seconds.items():
        spread = " to ".join(f"{each:.1f}" for each in sorted({min(found), max(found)}))
        print(f"| {arm} | {spread} | {tokens / min(found):.0f} | {min(found) / quick:.2f}x | {losses[arm]:.4f} |")
    print(f"\nloss before: {before:.4f}; {choose(composed().runtime).precision}, sgemm {sgemm():.0f} GFLOP/s")


def write(folder: Path, count: int, rounds: int) -> None:
    """Prints a line an arm, and in how many rows texts are those of the pipeline, one row at a time."""
    rows, config = mixed_rows(count), composed()
    prompts = [row["text"] + "\n" for row in rows]
    with tempfile.TemporaryDirectory() as out:
        tuned = Path(out)
        net, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        task = targets.build("task", config.task)
        task.equip(net, task.encoder(folder), folder)
        net.save_pretrained(tuned)
        tokenizer.padding_side = "left"
        tokenizer.save_pretrained(tuned)
        record = {"task": config.task.model_dump(by_alias=True), "columns": {"text": "text", "target": "target"}}
        (tuned / "run.json").write_text(json.dumps(record))
        predictor, pipe = Predictor(tuned), pipeline("text-generation", model=str(tuned), device="cpu")

        def piped(**options: Any) -> list[str]:
            found = pipe(prompts, return_full_text=False, **options)
            return [each[0]["generated_text"].strip() for each in found]

        arms: dict[str, Callable[[], list[str]]] = {
            "finespun": lambda: [each["generated_text"] for each in predictor.predict(rows)],
            "pipeline as it comes": piped,
            "pipeline, batches of 8": lambda: piped(batch_size=8),
            "pipeline, batches of 32": lambda: piped(batch_size=32),
        }
        seconds: dict[str, list[float]] = {arm: [] for arm in arms}
        texts: dict[str, list[str]] = {}
        for _ in range(rounds):
            for arm, run in arms.items():
                began = time.process_time()
                texts[arm] = run()
                seconds[arm].append(time.process_time() - began)
    quick, said = min(seconds["finespun"]), texts["pipeline as it comes"]
    print(f"{count} rows\n\n| arm | CPU s | texts a CPU s | ours is | texts as the pipeline's |\n|---|---|---|---|---|")
    for arm, found in seconds.items():
        same = sum(one == other for one, other in zip(texts[arm], said, strict=True))
        spread = " to ".join(f"{each:.1f}" for each in sorted({min(found), max(found)}))
        print(f"| {arm} | {spread} | {count / min(found):.2f} | {min(found) / quick:.2f}x | {same} of {count} |")
    print(f"\nsgemm {sgemm():.0f} GFLOP/s")


def main() -> None:
    """Runs one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["write", "train"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--lr", type=float, default=1e-5)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.what == "train":
        train(given.model, given.rows or 160, given.rounds or 1, given.lr)
    else:
        write(given.model, given.rows or 48, given.rounds or 2)


if __name__ == "__main__":
    main()
