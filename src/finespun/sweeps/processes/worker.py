"""What a trial's process does. `finespun.sweeps.processes.warm` has been imported by the process that it is forked from."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from finespun.artifacts import Artifacts
from finespun.masking import mask_streams
from finespun.stages.__main__ import RARELY, close_input, run_stages
from finespun.sweeps.processes.trials import LOG, only_one
from finespun.training.lightning.launching import die_with_parent


def run(
    stages: tuple[str, ...], project: Path, folder: Path, environment: Mapping[str, str], threads: int | None
) -> None:  # fmt: skip
    """Runs stages in a trial's folder and ends the process with the exit code of contract 9; output goes to its log."""
    os.setsid()  # Ctrl-C is for the sweep, which hands it on
    die_with_parent()
    os.environ.update(environment)
    os.chdir(project)
    _write_to(folder / LOG)
    close_input()
    gc.set_threshold(*RARELY)
    if threads is not None:
        import torch  # noqa: PLC0415  (only the warm process has it by now)

        torch.set_num_threads(threads)
    with only_one(folder):
        code = run_stages(stages, Artifacts(project=project, out=folder))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _write_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    sys.stdout, sys.stderr = (os.fdopen(os.dup(number), "w", buffering=1, encoding="utf-8") for number in (1, 2))
    mask_streams()
