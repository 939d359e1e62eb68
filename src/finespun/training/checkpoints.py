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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import IO, Any, cast

import torch

from finespun.errors import BusyError, ModelError
from finespun.failures import while_writing
from finespun.kept import file_digest, make_way, write_whole
from finespun.training.lightning.launching import is_worker

KEPT = 2
PARTIAL = ".partial"


class DamagedError(ModelError):
    """A file is not what was written."""

    def __init__(self, path: Path, reason: str) -> None:
        self.what = f"{path}: is damaged ({reason.lower()})"
        super().__init__(
            f"{self.what}; start again: training goes on from an older checkpoint, or begins anew, to the same result"
        )


class Store:
    """The folder of one run's checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, str] = {}  # digests of what was written, or taken up

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

    def write(self, state: Any, name: str, *, best: str = "", shards: Mapping[str, str] = MappingProxyType({})) -> Path:
        """Writes a file that exists whole or not at all.

        The digests beside it are its own, that of the `best` it names, and those of `shards` of both: files by their names in
        `shards_of`, which have been written before it.

        Raises:
            MachineError: the disk is full or refuses.
        """
        path = self.folder / name
        partial = path.with_name(name + PARTIAL)
        try:
            with while_writing(path, needed=size_of(state)), partial.open("wb") as file:
                digested = _Digested(file)
                torch.save(state, cast("IO[bytes]", digested))
                file.flush()
                os.fsync(file.fileno())
            inside = self.shards_of(path).name
            self.known |= {f"{inside}/{each}": digest for each, digest in shards.items()}
            self.known[name] = digested.digest.hexdigest()
            listed = [*(self._whole(best) if best else []), *self._whole(name)]
            write_whole(_list_of(path), "".join(f"{self.known[each]}  {each}\n" for each in listed))
            make_way(path)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    def shards_of(self, path: Path) -> Path:
        """The folder with the shards of a checkpoint; there is none where tensors are in the file itself."""
        return self.folder / f"{path.stem}.shards"

    def _whole(self, name: str) -> list[str]:
        """Returns the names of a checkpoint's shards and its own, which is the last."""
        inside = f"{self.shards_of(Path(name)).name}/"
        return [*sorted(each for each in self.known if each.startswith(inside)), name]

    def read(self, path: Path) -> Any:
        """Reads a file back, tensors and plain values only; its shards are verified, but not read.

        Raises:
            ModelError: its bytes are not those that were written.
        """
        self._require_whole(path, own=True)
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise DamagedError(path, str(error).splitlines()[0]) from error

    def _require_whole(self, path: Path, *, own: bool = False) -> None:
        """Raises a ModelError unless a checkpoint, and the best weights that it names if not `own`, are what was written."""
        try:
            digests = self._digests(path)
            mine = {path.name, self.shards_of(path).name}
            for name in digests:
                if own and name.partition("/")[0] not in mine:
                    continue
                if file_digest(self.folder / name) != digests[name]:
                    raise DamagedError(self.folder / name, "its sha256 is not the one written beside it")
        except (OSError, ValueError, KeyError) as error:
            named = Path(getattr(error, "filename", None) or _list_of(path))
            raise DamagedError(named, getattr(error, "strerror", None) or "it is cut short") from error

    def _digests(self, path: Path) -> dict[str, str]:
        """Returns what stands in the list beside a checkpoint: first the best weights that it names, last itself."""
        *lines, end = _list_of(path).read_text(encoding="utf-8").split("\n")
        found = {name: digest for digest, name in (line.split("  ") for line in lines)}
        if end or list(found)[-1:] != [path.name]:
            raise ValueError
        return found

    def states(self) -> list[Path]:
        """Checkpoints of the training state, newest first."""
        return sorted(self.folder.glob("state-*.ckpt"), reverse=True)

    def newest(self) -> Path | None:
        """Returns the newest checkpoint that is whole, as are the best weights that it names; others are passed over."""
        for path in self.states():
            try:
                self._require_whole(path)
                self.read(path)
            except DamagedError as error:
                print(f"warning: {error.what}: {path.name} is passed over", flush=True)  # noqa: T201
                continue
            self.known |= self._digests(path)
            return path
        return None

    def prune(self) -> None:
        """Keeps the newest states, one more if they all name the same best weights, and the best weights that they name."""
        states = self.states()
        kept, older = states[:KEPT], states[KEPT:]
        named = {self._best_of(path) for path in kept}
        if len(named) == 1:
            kept += [path for path in older if self._best_of(path) not in named][:1]
        named = {self._best_of(path) for path in kept}
        left = [path for path in states if path not in kept]
        left += [path for path in self.folder.glob("best-*.ckpt") if path.name not in named]
        for path in left:
            for each in (_list_of(path), path):
                make_way(each)
                each.unlink(missing_ok=True)
        for path in self.folder.glob("*.shards"):
            if not (self.folder / f"{path.stem}.ckpt").exists():
                shutil.rmtree(path)
        for path in self.folder.glob(f"*{PARTIAL}"):  # of a process that was killed
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _best_of(self, path: Path) -> str:
        with suppress(OSError, ValueError):
            mine = {path.name, self.shards_of(path).name}
            return next((name for name in self._digests(path) if "/" not in name and name not in mine), "")
        return ""

    def note(self, name: str, value: Any = None) -> Any:
        """Keeps (or, without a value, recalls) a small fact beside the checkpoints, such as the MLflow run's id."""
        path = self.folder / f"{name}.json"
        if value is not None:
            write_whole(path, json.dumps({"value": value, "sha256": _digest_of(value)}))
            return value
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["sha256"] == _digest_of(found["value"]):
                return found["value"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            pass
        print(f"warning: {path}: is damaged; training does without it", flush=True)  # noqa: T201
        return None

    def remove(self) -> None:
        """Removes everything: the stage has succeeded."""
        shutil.rmtree(self.folder, ignore_errors=True)


def size_of(state: Any) -> int:
    """Returns how many bytes the tensors of nested values take."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(map(size_of, state.values()))
    return sum(map(size_of, state)) if isinstance(state, list | tuple) else 0


def _digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _list_of(path: Path) -> Path:
    """The digests of a checkpoint, as `sha256sum --check` reads them."""
    return path.with_name(path.name + ".sha256")


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
        """Keeps a signal; a second one ends the process at once, unless a launcher passes on what it is sent."""
        self.heard = number
        if not is_worker():
            signal.signal(number, signal.SIG_DFL)
