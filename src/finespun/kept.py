"""Files that are kept and trusted later: listed with their digests, verified when opened, made anew when damaged."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from finespun.failures import while_writing

SEAL = "digests.json"  # beside the files that it lists
SETTLED = 2_000_000_000  # nanoseconds after which a file's times tell of each change
MAKING = ".making-"  # and the process


def file_digest(path: Path | str) -> str:
    """Returns the sha256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path, digest: Callable[[str], str] = file_digest) -> str:
    """Returns the sha256 of a folder's file names and digests."""
    start = len(os.path.join(folder, ""))  # noqa: PTH118  (texts: a hundred thousand paths would take half a second)
    files = sorted(_files_below(str(folder)), key=lambda name: name.split(os.sep))  # noqa: PTH206
    lines = [f"{name[start:]}:{digest(name)}" for name in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _files_below(folder: str) -> Iterator[str]:
    """Yields the files of a folder and its sub-folders; of links, those to files."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files_below(entry.path) if entry.name != "__pycache__" else ()
            elif entry.is_file():
                yield entry.path


class FileDigests:
    """sha256 of files, kept: one whose size, times and inode are those of before is not read again, as DVC does it."""

    def __init__(self, kept: Path) -> None:
        """Reads what was kept in a file; if it is damaged, files are read anew."""
        self.kept = kept
        self._found: dict[str, tuple[list[int], str]] = {}
        try:
            self._before = {str(name): (list(stamp), str(digest)) for name, (stamp, digest) in _json(kept).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self._before = {}

    def __call__(self, path: Path) -> str:
        """Returns the sha256 of a file's bytes, or of a folder's file names and digests."""
        return folder_digest(path, self._file) if path.is_dir() else self._file(str(path))

    def _file(self, name: str) -> str:
        status = os.stat(name)  # noqa: PTH116  (as above)
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        known = self._found.get(name) or self._before.get(name)
        digest = known[1] if known and known[0] == stamp else file_digest(name)
        if time.time_ns() - max(stamp[1:3]) > SETTLED:  # a clock's tick may hide a change that follows
            self._found[name] = (stamp, digest)
        return digest

    def save(self) -> None:
        """Keeps the digests of the files that were asked for, where they are not those that were kept."""
        if self._found == self._before:
            return
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.kept, json.dumps(self._found))


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def write_whole(path: Path, text: str) -> None:
    """Writes a small file that exists whole or not at all, also after a power cut."""
    partial = path.with_name(f"{path.name}.partial")
    with while_writing(path, needed=len(text)):
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        make_way(path)
        partial.replace(path)


def make_way(path: Path) -> None:
    """Removes a folder that lies where a file will be."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)


def seal(folder: Path) -> None:
    """Lists all files of a folder with their digests, in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    digests = {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
    write_whole(folder / SEAL, json.dumps(digests, indent=2) + "\n")


def digests(folder: Path) -> dict[str, str]:
    """Returns what `seal` has listed.

    Raises:
        OSError, ValueError: the list is not there or not what was written.
    """
    found = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    if not isinstance(found, dict) or not found:
        raise ValueError(f"{SEAL} is damaged")
    return found


def damage(folder: Path, *names: str) -> str | None:
    """Returns what is wrong with the files of a sealed folder, or with those named; None where they are whole."""
    try:
        listed = digests(folder)
        for name in names or listed:
            if name not in listed:
                return f"{SEAL} does not list {name}"
            if file_digest(folder / name) != listed[name]:
                return f"the sha256 of {name} is not the one in {SEAL}"
    except OSError as error:
        return f"{Path(error.filename or folder).name}: {(error.strerror or str(error)).lower()}"
    except ValueError:
        return f"{SEAL} is damaged or cut short"
    return None


def in_one_move(
    folder: Path, fill: Callable[[Path], object], *, needed: int | None = None, alone: bool = False
) -> Path:  # fmt: skip
    """Fills a folder that is then there as a whole, or not at all; one that is there is taken if it is whole.

    Args:
        folder: named by all that its content is a function of.
        fill: is given an empty folder beside it; what it copies together with its seal is sealed.
        needed: bytes that it will take, for the message where the disk is full.
        alone: where another process is filling the same folder, it is waited for.

    Raises:
        MachineError: the disk is full, or the place cannot be written to.
    """
    while True:
        if folder.is_dir() and damage(folder) is None:
            return folder
        with _begun(folder, alone=alone) as partial:
            if partial is not None:
                return _filled(folder, partial, fill, needed)


def _filled(folder: Path, partial: Path, fill: Callable[[Path], object], needed: int | None) -> Path:
    with while_writing(partial, needed=needed):
        fill(partial)
        if not (partial / SEAL).exists():  # it came with a copy of what was verified
            seal(partial)
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was quicker
                raise
    return folder


@contextmanager
def _begun(folder: Path, *, alone: bool) -> Iterator[Path | None]:
    """Yields an empty folder beside a place that is then free; it is held, so that no other process takes it for a leftover.

    None, with `alone`, after another process that was filling the same place has ended.
    """
    partial = folder.with_name(f"{folder.name}{MAKING}{os.getpid()}")
    with ExitStack() as stack:
        with while_writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _held(folder.parent):
                others = _clear(folder)
                if not (alone and others):
                    partial.mkdir()
                    stack.enter_context(_held(partial))
        if alone and others:
            with suppress(FileNotFoundError), _held(others[0]):
                pass
            yield None
            return
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _clear(folder: Path) -> list[Path]:
    """Removes what is damaged, and what killed processes have left half filled; returns what others are filling."""
    others = []
    for left in folder.parent.glob(f"{glob.escape(folder.name)}{MAKING}*"):
        if _in_use(left):
            others.append(left)
        else:
            shutil.rmtree(left, ignore_errors=True)
    reason = damage(folder) if folder.is_dir() else "it is no folder"
    if os.path.lexists(folder) and reason:  # of several processes the first finds it so
        print(f"warning: {folder}: is damaged ({reason}); it is made anew", flush=True)  # noqa: T201
        aside = folder.with_name(f"{folder.name}{MAKING}{os.getpid()}")  # who has it open may read on
        folder.rename(aside)
        make_way(aside)
        aside.unlink(missing_ok=True)
    return others


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Holds a folder against other processes."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def _in_use(folder: Path) -> bool:
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(held)
    return False
