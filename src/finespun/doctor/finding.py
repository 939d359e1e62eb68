"""Finding: what one check found, what to do, and what `--fix` does by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["well", "note", "wrong"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """`wrong` keeps something from working; a `note` does not. `fix` returns what it did, in a few words."""

    check: str
    state: State
    found: str
    remedy: str = ""
    fix: Callable[[], str] | None = None


def well(check: str, found: str) -> Finding:
    """Returns what needs nothing."""
    return Finding(check=check, state="well", found=found)


def put_aside(path: Path, folder: Path) -> Path:
    """Moves a file that cannot be used into a folder of such; returns where it is now."""
    kept = folder / f"{path.name}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09d}"
    folder.mkdir(parents=True, exist_ok=True)
    path.replace(kept)
    return kept
