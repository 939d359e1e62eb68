"""Checkpoints that a kill, a full disk or a flipped bit cannot take away. Imports no Lightning.

They live outside DVC's outputs (DVC deletes those before a run), in a folder named by the digest of the stage's inputs.
Each file is written beside its place, synced, named with its digest, and moved; the last two are kept, verified when read.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pickle
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any, cast

import torch

from finespun.errors import BusyError, MachineError, ModelError

KEPT = 2


class Store:
    """The folder of one run's checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder for this process.

        Raises:
            BusyError: another process holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise BusyError(
                    f"process {file.read().strip()} is already training this very configuration; wait for it, or end it"
                    " and start again: its checkpoints will be used"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def write(self, state: Any, name: str) -> Path:
        """Writes a file that exists whole or not at all.

        Raises:
            MachineError: the disk is full or refuses.
        """
        path = self.folder / name
        partial = path.with_name(name + ".partial")
        try:
            with partial.open("wb") as file:
                digested = _Digested(file)
                torch.save(state, cast("IO[bytes]", digested))
                file.flush()
                os.fsync(file.fileno())
            path.with_name(name + ".sha256").write_text(digested.digest.hexdigest())
            partial.replace(path)
        except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
            partial.unlink(missing_ok=True)
            raise MachineError(
                f"{path}: cannot be written ({error}); free space or mend the permission, then start again"
            ) from error
        return path

    def read(self, path: Path) -> Any:
        """Reads a file back, tensors and plain values only.

        Raises:
            ModelError: its bytes are not those that were written.
        """
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest == path.with_name(path.name + ".sha256").read_text():
                return torch.load(path, map_location="cpu", weights_only=True)
            reason = "its sha256 is not the one written beside it"
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error)
        raise ModelError(f"{path}: is damaged ({reason}); delete it to fall back to an older one")

    def states(self) -> list[Path]:
        """Checkpoints of the training state, newest first."""
        return sorted(self.folder.glob("state-*.ckpt"), reverse=True)

    def newest(self) -> Path | None:
        """Returns the newest checkpoint that is whole; damaged ones are named and passed over."""
        for path in self.states():
            try:
                self.read(path)
            except ModelError as error:
                print(f"warning: {error}")  # noqa: T201  (a line for the terminal, on the way to the older one)
                continue
            return path
        return None

    def prune(self) -> None:
        """Keeps the newest checkpoints and the best weights that they name."""
        for path in self.states()[KEPT:]:
            self._remove(path)
        named = set()
        for path in self.states():
            note = path.with_suffix(".best")
            named.add(note.read_text() if note.exists() else "")
        for path in self.folder.glob("best-*.ckpt"):
            if path.name not in named:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        for each in (path, path.with_name(path.name + ".sha256"), path.with_suffix(".best")):
            each.unlink(missing_ok=True)

    def note(self, name: str, value: Any = None) -> Any:
        """Keeps (or, without a value, recalls) a small fact beside the checkpoints, such as the MLflow run's id."""
        path = self.folder / f"{name}.json"
        if value is None:
            return json.loads(path.read_text()) if path.exists() else None
        path.with_suffix(".partial").write_text(json.dumps(value))
        path.with_suffix(".partial").replace(path)
        return value

    def remove(self) -> None:
        """Removes everything: the stage has succeeded."""
        shutil.rmtree(self.folder, ignore_errors=True)


class _Digested:
    """A file that is hashed while it is written, so that its digest is of what was meant, not of what the disk kept."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


class Signals:
    """Ctrl-C and SIGTERM, remembered until a checkpoint can be saved."""

    heard: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While it lasts, signals are remembered; afterwards they mean again what they meant before."""
        before = {number: signal.signal(number, self.remember) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def remember(self, number: int, _frame: FrameType | None) -> None:
        """Keeps a signal; a second one ends the process at once."""
        self.heard = number
        signal.signal(number, signal.SIG_DFL)
