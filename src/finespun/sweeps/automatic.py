"""`sweep=auto`: a look at the rows, the model and the device, and the search that suits them and a budget in minutes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import click

from finespun.artifacts import Artifacts
from finespun.config.compose import write
from finespun.config.sections import RunConfig
from finespun.config.targets import build
from finespun.cores import cores
from finespun.errors import ConfigError, FinespunError, ModelError
from finespun.models.addresses import WEIGHT_FILES, checkpoint_folder, weights_file
from finespun.sweeps.composing import Composer
from finespun.sweeps.processes.workers import gpus_here
from finespun.tracking.earlier import localised

FLOPS_A_SECOND = {"cpu": 1e11, "gpu": 4e13}  # of a CPU core, of a GPU: what training reaches on common ones
FLOPS = 6  # of a parameter and a token, forward and backward (Kaplan et al., 2020)
BYTES = 4  # of a parameter in a file, mostly
FROZEN = 20  # so much quicker is a head on what a frozen part was computed to once
FEW_ROWS, MANY_ROWS = 1_000, 20_000
WHOLE_TRIALS = 6  # of all parameters that the budget must have room for, or only a part is trained
SCORED = 3.0  # epochs of the mean trial
MANY_AND_FEW = ("1e-5, 3e-4", "3e-5, 3e-4")
RATES = {  # of many rows, of few, before a strategy's own `lr_scale`
    "scratch": ("1e-4, 3e-3",) * 2, "llrd": ("5e-6, 1e-4", "8e-6, 8e-5"), "lora": ("5e-6, 1e-4",) * 2,
    "full": MANY_AND_FEW, "head": MANY_AND_FEW, "last_n": MANY_AND_FEW,
}  # fmt: skip


@dataclass(frozen=True)
class Sight:
    """What was seen: rows of the training split, tokens of a row, parameters, device, and how long an epoch will take."""

    rows: int
    tokens: float
    parameters: float
    device: str
    cores: int
    from_scratch: bool = False
    smooths: bool = False  # the task's labels can be smoothed

    @property
    def epoch_seconds(self) -> float:
        """Of training all parameters; a rough figure, for only its order of magnitude decides."""
        speed = FLOPS_A_SECOND[self.device] * (self.cores if self.device == "cpu" else 1)
        return FLOPS * self.rows * self.tokens * self.parameters / speed

    def __str__(self) -> str:
        size = f"{self.parameters / 1e6:,.1f} M parameters"
        where = f"{self.cores} cores" if self.device == "cpu" else "a GPU"
        rows = f"{self.rows:,} training rows of {self.tokens:.0f} tokens"
        return f"{rows}, {size}, {where}: about {self.epoch_seconds:.0f} s an epoch"


def look(composer: Composer, overrides: list[str], artifacts: Artifacts) -> Sight:
    """Prepares the rows, which all trials share, and looks at them, at the model's files and at the machine.

    Raises:
        FinespunError: the rows cannot be prepared; the reason has been said.
    """
    config, composed = composer.checked(overrides)
    folder = Artifacts(project=artifacts.project, out=artifacts.sweeps / ".look")
    write(config, composed, folder.config)
    command = [sys.executable, "-m", "finespun.stages", "prepare", "--out", str(folder.out)]
    code = subprocess.run(command, cwd=artifacts.project, check=False, stdout=subprocess.DEVNULL).returncode
    if code:
        error = FinespunError("sweep=auto: the rows cannot be prepared; the reason stands above")
        error.exit_code = code
        raise error
    profile = json.loads((folder.prepared / "profile.json").read_text(encoding="utf-8"))
    lengths = next((value["mean"] for value in profile.values() if isinstance(value, dict) and "mean" in value), 1.0)
    device = "gpu" if gpus_here(config.runtime.accelerator) else "cpu"
    rows, scratch = profile["rows"]["train"], config.model.from_scratch
    smooths = "label_smoothing" in config.task.options
    return Sight(rows, float(lengths), _parameters(config, artifacts), device, cores(), scratch, smooths)


def _parameters(config: RunConfig, artifacts: Artifacts) -> float:
    """Returns how many parameters the pretrained weights have, by the size of their files; from scratch, those of the model."""
    if config.model.from_scratch:
        from finespun.models.conversion.folder import architecture, empty_model  # noqa: PLC0415  (torch: 6 s that files save)

        empty = empty_model(architecture(config.model.config or {}), build("task", config.task).auto_class)
        return float(sum(parameter.numel() for parameter in empty.parameters()))
    model = localised(config.model, config.runtime, artifacts)
    if model.checkpoint:
        folder = checkpoint_folder(model, artifacts.project)
        files = {path for pattern in WEIGHT_FILES for path in folder.glob(pattern)}
    else:
        files = {weights_file(model, artifacts.project)}
    sizes = [path.stat().st_size for path in files]
    return max(sizes) / BYTES if len({path.suffix for path in files}) > 1 else sum(sizes) / BYTES


def refusal(name: str, composer: Composer, overrides: list[str], artifacts: Artifacts) -> str | None:
    """Returns why a strategy refuses the model, in its own words, or None.

    Raises:
        ModelError: there is no such model.
    """
    from transformers import AutoConfig  # noqa: PLC0415

    from finespun.models.conversion.folder import empty_model, ready  # noqa: PLC0415

    config, _ = composer.checked([*overrides, f"strategy={name}"])
    auto_class, trust = build("task", config.task).auto_class, config.model.trust_remote_code
    folder = ready(localised(config.model, config.runtime, artifacts), artifacts.project, auto_class=auto_class)
    said = AutoConfig.from_pretrained(folder, trust_remote_code=trust)
    try:
        build("strategy", config.strategy).tune(empty_model(said, auto_class, trust_remote_code=trust))
    except (ModelError, ConfigError) as error:
        return str(error)
    return None


def space_for(
    sight: Sight, minutes: float, refused: Callable[[str], str | None] = lambda _: None
) -> dict[str, str]:  # fmt: skip
    """Returns the search as the command line has it: strategy, rate, epochs and batch size, of few rows smoothed labels.

    `llrd` is `full` at a higher rate (`lr_scale`) where its decay is 1, so that one is searched and not the other.
    `refused` says why a strategy does not fit the model, which is then left out.
    """
    few = sight.rows < FEW_ROWS
    most = 8 if few else 3 if sight.rows > MANY_ROWS else 5
    seconds = 60 * minutes
    whole = WHOLE_TRIALS * SCORED * sight.epoch_seconds <= seconds
    strategies = (["llrd"] if few else ["llrd", "lora"]) if whole else ["head", "last_n"]
    if not whole and WHOLE_TRIALS * SCORED * sight.epoch_seconds / FROZEN > seconds:
        strategies = ["head"]
    if sight.from_scratch:  # nothing is known that could stay as it is
        strategies = ["full"]
    else:
        why = {name: reason for name in strategies if (reason := refused(name))}
        for name, reason in why.items():
            click.echo(f"sweep=auto: without {name}: {reason}")
        instead = ["full"] if "llrd" in why else []
        strategies = [*instead, *(name for name in strategies if name not in why)] or ["full"]
    batches = [size for size in ((8, 16) if few else (16, 32, 64)) if size <= max(8, sight.rows // 8)]
    chosen = {"strategy": f"choice({', '.join(strategies)})"}
    if "llrd" in strategies:
        chosen["strategy.layer_decay"] = "interval(0.85, 1.0)"
    if few and sight.smooths and not sight.from_scratch:
        chosen["task.label_smoothing"] = "choice(0.1, 0.0)"
    rates = RATES["scratch" if sight.from_scratch else strategies[0]][few]
    return {
        **chosen,
        "optimizer.lr": f"tag(log, interval({rates}))",
        "trainer.max_epochs": f"int(interval({3 if few else 1}, {most}))",
        "trainer.batch_size": f"choice({', '.join(map(str, batches))})",
    }


def params(composer: Composer, overrides: list[str], artifacts: Artifacts, minutes: float) -> dict[str, str]:
    """Looks, says what was seen and what will be searched, and returns it."""
    sight = look(composer, overrides, artifacts)
    found = space_for(sight, minutes, partial(refusal, composer=composer, overrides=overrides, artifacts=artifacts))
    click.echo(f"sweep=auto: {sight}")
    click.echo("searching " + ", ".join(f"{key}={value}" for key, value in found.items()))
    return found
