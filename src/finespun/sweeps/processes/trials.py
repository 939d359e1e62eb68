"""A trial's folder, seen from the sweep: what it is given, what it left, why it failed."""

from __future__ import annotations

import fcntl
import json
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finespun.errors import PrunedError
from finespun.sweeps.space import spelt

LOG, OUTCOME = "trial.log", "outcome.json"
SAID = re.compile(r"^finespun \w+: ", re.MULTILINE)
NAME_LENGTH = 120


@dataclass(frozen=True)
class Ended:
    """How a trial's process ended; a negative code is the signal that killed it."""

    number: int
    code: int

    @property
    def pruned(self) -> bool:
        """Whether the pruner ended it."""
        return self.code == PrunedError.exit_code

    @property
    def killed(self) -> bool:
        """Whether something outside ended it."""
        return self.code < 0


def outcome_of(folder: Path) -> dict[str, Any] | None:
    """Returns what a trial found; None where it did not come to an end."""
    try:
        return dict(json.loads((folder / OUTCOME).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None


def reason_of(folder: Path, code: int) -> str:
    """Returns why a trial failed, in the words of its log."""
    if code < 0:
        return f"killed by signal {-code} ({signal.Signals(-code).name}); if nobody did it, memory ran out"
    try:
        log = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return f"ended with exit code {code} before it wrote anything"
    said = [each.end() for each in SAID.finditer(log)]
    text = log[said[-1] :] if said else log[-500:]
    return " ".join(text.split())[:500] or f"ended with exit code {code}"


def named(values: Mapping[str, str]) -> str:
    """Returns a trial's name: what differs, in short, such as `lr=3e-05 strategy=llrd`."""
    last = [key.rpartition(".")[2] for key in values]
    short = {key: end if last.count(end) == 1 else key for key, end in zip(values, last, strict=True)}
    return " ".join(f"{short[key]}={_short(value)}" for key, value in values.items())[:NAME_LENGTH] or "as configured"


def _short(value: str) -> str:
    try:
        number = float(value)
    except ValueError:
        return value
    return value if value.lstrip("-").isdigit() else f"{float(spelt(number)):g}"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Waits until no other process works in a trial's folder: one whose sweep was killed is saving its last checkpoint."""
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def alike(reasons: Sequence[str]) -> bool:
    """Whether all failed for one reason, whatever numbers and paths it names."""
    return len({re.sub(r"[\d.]+|/\S+", "#", reason) for reason in reasons}) == 1
