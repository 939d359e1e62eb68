"""Runs stages one after another in this process, and turns errors into messages and exit codes."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import click

from finespun.artifacts import Artifacts, find_project
from finespun.errors import FinespunError
from finespun.failures import bug_report, explained
from finespun.masking import mask_streams
from finespun.training.lightning.launching import die_with_parent, dvc_has_ended, exit_code, first_fails_too, reporting

RARELY = (50_000, 20, 100)  # objects, collections of the young, of the middle-aged: imports make many that stay
NAMES = ("configure", "prepare", "finetune", "evaluate", "test", "report")


def run_stages(names: tuple[str, ...], artifacts: Artifacts) -> int:
    """Runs stages and returns the exit code of contract 9: what went wrong has been said on standard error."""
    try:
        for name in names:
            if name is not names[0]:
                gc.collect()  # a trainer and its model hold each other
            began = time.monotonic()
            importlib.import_module(f"finespun.stages.{name}").run(artifacts)
            _note(name, time.monotonic() - began, artifacts)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001  (libraries in Rust panic with one; whatever is not explained is our bug)
        return _said(error, name, artifacts)
    return 0


def _note(name: str, seconds: float, artifacts: Artifacts) -> None:
    """Keeps how long a stage of the project took, for `finespun plan`; a disk that refuses it stops nothing."""
    if artifacts.out == artifacts.project:
        with suppress(OSError):
            artifacts.seconds(name).parent.mkdir(parents=True, exist_ok=True)
            artifacts.seconds(name).write_text(f"{seconds:.2f}\n", encoding="utf-8")


def _said(error: BaseException, name: str, artifacts: Artifacts) -> int:
    """Says on standard error what failed; returns the exit code."""
    known = explained(error)
    code = exit_code(known)
    said = first_fails_too(code)
    if known is None:
        click.echo(bug_report(error, stage=name, config=artifacts.config, folder=artifacts.state), err=True)
        return code
    if not (said and isinstance(error, FinespunError)):  # as the first process does, whose own it mostly is, too
        below_a_bar = "\n" if sys.stderr.isatty() else ""  # a progress bar leaves its line open
        click.echo(f"{below_a_bar}finespun {name}: {known}", err=True)
    return code


def close_input() -> None:
    """Stages ask nobody: what a library would ask on the terminal, or of whatever stands on standard input, it finds empty."""
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)


@click.command()
@click.argument("names", nargs=-1, required=True, type=click.Choice(NAMES))
@click.option("--out", type=click.Path(path_type=Path), help="Where results go; the project itself by default.")
def main(names: tuple[str, ...], out: Path | None) -> None:
    """Run stages of the pipeline in this process."""
    die_with_parent()
    if dvc_has_ended():
        click.echo(f"finespun {names[0]}: dvc has ended; nothing is done", err=True)
        sys.exit(128 + signal.SIGTERM)
    mask_streams()
    close_input()
    gc.set_threshold(*RARELY)  # Python's own 700, 10, 10 go through them again and again: 1.2 s of a stage of 5.5 s
    try:
        project = find_project()
    except FinespunError as error:
        click.echo(f"finespun: {error}", err=True)
        sys.exit(error.exit_code)
    with reporting() as report:
        code = run_stages(names, Artifacts(project=project, out=(out or project).resolve()))
        report(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # interpreter shutdown of torch and its friends takes a second and does nothing for us


if __name__ == "__main__":
    main()
