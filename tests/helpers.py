"""Helpers of several tests: real rows, and a whole project in a folder of its own."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from finespun.config import targets
from finespun.config.sections import Target

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "data" / "raw" / "movie_reviews.csv"
QUIET = {"DVC_NO_ANALYTICS": "1", "PYTHONWARNINGS": "ignore", "HF_HUB_OFFLINE": "1"}


def real_rows(count: int) -> list[dict[str, str]]:
    """Rows of the movie reviews, evenly spread over the file."""
    with ROWS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows[:: len(rows) // count][:count]


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    """Writes rows as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


class Project:
    """A finespun project in a folder of its own, and its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(
        self, *command: str, check: bool = True, timeout: int = 300, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command of the virtual environment in the project, with the project's own code."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = {**os.environ, **QUIET, "PATH": path, "PYTHONPATH": "src", **environment}
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, timeout=timeout, check=False)
        assert not check or done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def edit(self, path: str, **values: object) -> None:
        """Changes keys of a YAML file; dots in a key are written as double underscores."""
        file = self.folder / path
        plain = yaml.safe_load(file.read_text()) or {}
        for name, value in values.items():
            *parents, last = name.split("__")
            node = plain
            for parent in parents:
                node = node[parent]
            node[last] = value
        file.write_text(yaml.safe_dump(plain, sort_keys=False))

    def stages_run(self, output: str) -> list[str]:
        """Names of the stages that DVC says it ran."""
        return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]

    def copy(self, folder: Path) -> Project:
        """The same project elsewhere, with everything that it has made."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder)

    def commit(self, message: str) -> None:
        """Commits everything."""
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", message)


@contextmanager
def training(project: Project, *stages: str, command: Sequence[str] = ("dvc", "repro")) -> Iterator[subprocess.Popen[str]]:
    """A command that trains, and has saved a checkpoint in the middle of an epoch."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        [*command, *stages], cwd=project.folder, env={**os.environ, **QUIET, "PATH": path}, start_new_session=True,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 120
        while not states(project):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        yield process
        process.communicate()


def states(project: Project) -> list[Path]:
    return list((project.folder / ".finespun" / "checkpoints").glob("*/state-*.ckpt"))


def make_project(folder: Path, tiny_bert: Path, *, rows: int = 200) -> Project:
    """A copy of this repository's files with few rows, a tiny model and small settings, as a Git repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    left_out = ("tests/", "docs/", "benchmarks/", "dvc.lock", "reports/", "build/", "requirements", "data/raw/d")
    for name in listed:
        if not name.startswith(left_out) and (ROOT / name).is_file():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    write_csv(folder / "data" / "raw" / "movie_reviews.csv", real_rows(rows))
    shutil.copytree(tiny_bert, folder / "data" / "tiny-bert")
    (folder / "conf" / "model" / "tiny.yaml").write_text("checkpoint: data/tiny-bert\n")
    project = Project(folder)
    project.edit("params.yaml", model="tiny")
    project.edit("conf/task/text_classification.yaml", max_length=48)
    project.edit("conf/trainer/default.yaml", max_epochs=2, batch_size=16)
    project.edit("conf/optimizer/adamw.yaml", lr=0.001)
    project.edit("conf/evaluation/default.yaml", bootstrap_resamples=100)
    project.edit("conf/runtime/default.yaml", accelerator="cpu", devices=1, progress_bar=False)
    project.run("git", "init", "-q", "-b", "main")
    project.commit("start")
    return project


def make_tiny_bert(folder: Path) -> Path:
    """A BERT of 2 layers and 32 dimensions made from a config, with a word-piece tokenizer trained on real rows."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=1000, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator((row["text"] for row in real_rows(300)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(fast), max_position_embeddings=64, **sizes)).save_pretrained(folder)
    return folder


def write_digits(folder: Path, count: int) -> Path:
    """Writes real digits, evenly spread over scikit-learn's, as an image folder of 8 x 8 PNGs."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    found = load_digits()
    step = len(found.target) // count
    for number in range(0, step * count, step):
        path = folder / str(found.target[number]) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.round(found.images[number] * 255 / 16).astype(np.uint8)).save(path)
    return folder


def shipped(section: str, name: str) -> Any:
    """Returns the class that a file of `conf/` names, built of its options alone: what refers to other sections is left out."""
    plain = yaml.safe_load((ROOT / "conf" / section / f"{name}.yaml").read_text(encoding="utf-8"))
    own = {key: value for key, value in plain.items() if not str(value).startswith("${")}
    return targets.build(section, Target.model_validate(own))
