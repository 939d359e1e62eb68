"""`finespun predict` on one device, in this process, or on several, in torchrun's."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from finespun.errors import FinespunError
from finespun.evaluation.predict_file import predict_file
from finespun.failures import bug_report, explained
from finespun.masking import mask_streams
from finespun.training.lightning.devices import require_devices
from finespun.training.lightning.launching import (
    die_with_parent,
    exit_code,
    first_fails_too,
    launch,
    rank,
    reporting,
    world_size,
)

STALL_MINUTES = 10.0
COUNTS = "counts.json"


def predict_on(devices: int, source: Path, output: Path, **options: Any) -> tuple[int, int]:
    """Predicts as `predict_file` does, on so many devices; returns how many rows there were, and how many without an answer.

    Raises:
        FinespunError: the processes failed; it has their exit code, and they have said why.
    """
    if devices == 1:
        return predict_file(source, output, **options)
    with tempfile.TemporaryDirectory() as name:
        counts = Path(name) / COUNTS
        given = {"source": str(source), "output": str(output), **options, "folder": str(options["folder"])}
        launch([__name__, str(counts), json.dumps(given)], devices, stall_minutes=STALL_MINUTES)
        count, failed = json.loads(counts.read_text(encoding="utf-8"))
    return count, failed


def main(counts: str, given: str) -> None:
    """One of the processes."""
    die_with_parent()
    mask_streams(output=False)  # its output is data
    with reporting() as report:
        code = _predict(Path(counts), json.loads(given))
        report(code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # as stages do


def _predict(counts: Path, given: dict[str, Any]) -> int:
    """Returns the exit code; what failed has been said on standard error."""
    source, output = Path(given.pop("source")), Path(given.pop("output"))
    try:
        require_devices(world_size())
        found = predict_file(source, output, **{**given, "folder": Path(given["folder"])})
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be flushed
        found = (0, 0)  # whoever read the output has seen enough
    except Exception as error:  # noqa: BLE001  (the last line of defence: says whose fault it is, and fails)
        return _said(error)
    if rank() == 0:
        counts.write_text(json.dumps(found), encoding="utf-8")
    return 0


def _said(error: Exception) -> int:
    known = explained(error)
    code = exit_code(known)
    said = first_fails_too(code)
    if known is None:
        nothing = Path(os.devnull)
        click.echo(bug_report(error, stage="predict", config=nothing, folder=Path(tempfile.gettempdir())), err=True)
        return code
    if not (said and isinstance(error, FinespunError)):
        click.echo(f"finespun predict: {known}", err=True)
    return code


if __name__ == "__main__":
    main(*sys.argv[1:])
