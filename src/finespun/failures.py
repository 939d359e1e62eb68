"""Failures of the machine, recognised in whatever a library raises, and the report of what cannot be explained."""

from __future__ import annotations

import errno
import hashlib
import platform
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from finespun.errors import FinespunError, LostPeerError, MachineError
from finespun.masking import masked, one_line

# What models and libraries raise that are asked for something they cannot do.
REFUSALS = (AssertionError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)
OUT_OF_MEMORY = re.compile(
    r"out of memory|failed to map segment|could not create a (primitive|memory)|can't start new thread|bad_?alloc"
    r"|(can't|cannot|can not|could not|unable to|failed to|fail to) (allocate|mmap|alloc\b)"
    r"|not enough memory|insufficient memory|thread ?pool ?build ?error|_ALLOC_FAILED|[mre]+alloc of size \d+ failed",
    re.IGNORECASE,
)
NOT_MEMORY = "static TLS block"  # of a library that was loaded too late
GPU = re.compile(r"CUDA error|CUDNN_STATUS|CUBLAS_STATUS|NCCL|NVIDIA driver|cudaErr|HIP error|MPS backend")
PEER = re.compile(
    r"gloo.*(timed? ?out|closed|reset|refused|broken)|connection (closed|reset) by peer|timed out waiting"
    r"|ProcessGroup\w* .*(timeout|abort)|(wait|recv|socket|store).{0,40} timeout",
    re.IGNORECASE,
)
DISK_ERRORS = {  # errno -> what is wrong, what to do
    errno.ENOSPC: ("the disk is full", "free space there"),
    errno.EDQUOT: ("the disk quota is used up", "free space there, or ask for a larger quota"),
    errno.EFBIG: ("the file is larger than may be written here", "raise the limit (`ulimit -f`) or take another file system"),
    errno.EROFS: ("the file system is read-only", "mount it writable, or move the project to another disk"),
    errno.EACCES: ("permission denied", "correct the permissions of it and of its folder (`ls -ld` shows them)"),
    errno.EPERM: ("operation not permitted", "correct the owner and permissions of it and of its folder (`ls -ld`, `lsattr`)"),
    errno.EMFILE: ("too many open files", "raise the limit (`ulimit -n 65536`), or lower runtime.num_workers"),
    errno.ENFILE: ("too many open files on this machine", "close other programs"),
    errno.EIO: ("the disk fails", "look at the disk (`dmesg`), or free space there if it is full"),
    errno.ESTALE: ("the network disk has lost it", "mount it again"),
    errno.ENOTDIR: ("a part of the path is a file, no folder", "move that file away"),
    errno.EISDIR: ("a folder is in its place", "move that folder away"),
    errno.ELOOP: ("its links lead in a circle", "remove them"),
    errno.ENAMETOOLONG: ("the name is too long for this file system", "move the project to a shorter path"),
}  # fmt: skip
DISK = re.compile(  # in the words of libraries that raise no OSError
    rf"(?P<e{errno.ENOSPC}>no space left|disk is full)|(?P<e{errno.EDQUOT}>quota exceeded)"
    rf"|(?P<e{errno.EROFS}>read-only file ?system|readonly database)|(?P<e{errno.EMFILE}>too many open files)"
    r"|disk I/O error|input/output error|unable to open database file|disk image is malformed|iostream error"
    r"|PytorchStreamWriter failed writing|\(os error (?P<number>\d+)\)",
    re.IGNORECASE,
)
LESS_MEMORY = (
    "close other programs, or ask for less: lower runtime.device_batch_size (the effective batch stays as it is) or"
    " task.max_length, or set runtime.gradient_checkpointing: true"
)
PACKAGES = ("finespun", "torch", "transformers", "pytorch-lightning", "numpy", "pyarrow", "mlflow", "dvc", "hydra-core")


def explained(error: BaseException) -> FinespunError | None:
    """Returns the error of finespun that says what failed, or None where nothing is known of it."""
    if isinstance(error, FinespunError) and error.exit_code not in {2, 3, 4}:
        return error
    for each in _chain(error):
        if ran_out_of_memory(each):
            return out_of_memory(each)
    return error if isinstance(error, FinespunError) else _of_machine(error)


def _of_machine(error: BaseException) -> MachineError | None:
    text = one_line(error)
    if isinstance(error, OSError) and error.errno is not None:
        reason, remedy = DISK_ERRORS.get(error.errno, ((error.strerror or text).lower(), "mend the path"))
        where = error.filename or "a file"
        return MachineError(f"{where}: {reason}{_room(Path(str(where)), error.errno)}; {remedy}, then start again")
    number = _disk_error(error)
    if number is not None:
        return MachineError(f"a file cannot be read or written ({text}); {DISK_ERRORS[number][1]}, then start again")
    if PEER.search(text):
        return LostPeerError(
            f"another process of this run ended or does not answer ({text}); the reason stands above or below; start again, and"
            " training goes on from its last checkpoint"
        )
    if isinstance(error, RuntimeError | ImportError) and GPU.search(text):
        return MachineError(f"the GPU or its driver failed ({text}); look at it with nvidia-smi, then start again")
    if isinstance(error, ImportError) and not (error.name or "").startswith("finespun"):
        return MachineError(f"{error.name or 'a package'} cannot be imported ({text}); install finespun's packages anew")
    return None


@contextmanager
def while_writing(path: Path, needed: int | None = None) -> Iterator[None]:
    """Says of whatever fails while a file or folder is written where, why, and for a full disk how much is free and needed.

    Raises:
        MachineError: the disk is full, read-only, broken, or refuses.
    """
    try:
        yield
    except FinespunError:
        raise
    except Exception as error:
        numbers = [each for each in map(_disk_error, _chain(error)) if each is not None]
        named = next((Path(str(each.filename)) for each in _chain(error) if isinstance(each, OSError) and each.filename), path)
        if not numbers or not (named.parent == path.parent or path in named.parents or named in path.parents):
            raise  # of something else, which was read
        reason, remedy = DISK_ERRORS[numbers[-1]]
        room = _room(path, numbers[-1], needed)
        raise MachineError(f"cannot write {named}: {reason}{room}; {remedy}, then start again") from error


def require_writable(*folders: Path) -> None:
    """Tries each folder, or the nearest that is there, before work begins whose result goes there.

    Raises:
        MachineError: one cannot be written to.
    """
    for folder in folders:
        with while_writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"x")
                file.flush()


def _disk_error(error: BaseException) -> int | None:
    """Returns which of DISK_ERRORS an error is, in the words of whatever library."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        return error.errno
    said = DISK.search(str(error))
    if not said or isinstance(error, FinespunError):
        return None
    if said["number"]:
        return int(said["number"]) if int(said["number"]) in DISK_ERRORS else errno.EIO
    return next((number for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE) if said[f"e{number}"]), errno.EIO)


def _room(path: Path, number: int, needed: int | None = None) -> str:
    """Returns how many bytes are free where a path would lie, and how many it needs, if that is what is wrong."""
    if number not in {errno.ENOSPC, errno.EDQUOT}:
        return ""
    there = next((each for each in (path, *path.absolute().parents) if each.exists()), Path.cwd())
    free = f"{shutil.disk_usage(there).free:,} bytes are free" if number == errno.ENOSPC else ""
    wanted = f"{needed:,} are needed" if needed else ""
    said = ", ".join(filter(None, (free, wanted)))
    return f" ({said})" if said else ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and what it came of."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: libraries say so in many ways, few of which are a MemoryError."""
    if isinstance(error, FinespunError):
        return False  # its own words, perhaps about memory
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    ):
        return True
    if isinstance(error, BlockingIOError) and error.errno == errno.EAGAIN:
        return True  # fork, where there may be no more processes
    text = str(error)
    return bool(OUT_OF_MEMORY.search(text)) and NOT_MEMORY not in text


def out_of_memory(error: BaseException) -> MachineError:
    """Returns the message: what was asked for, what is free, what to do."""
    text = one_line(error)
    if re.search(r"CUDA|HIP|MPS|XPU", text):
        said = ". ".join(text.split(". ")[:3]).rstrip(".")  # asked for, capacity, free
        return MachineError(f"the GPU's memory ran out ({said}); {LESS_MEMORY}")
    free = free_memory()
    there = f"{free / 1e6:,.0f} MB are free now" if free is not None else "how much is free is not known here"
    return MachineError(f"memory ran out ({text or type(error).__name__}; {there}); {LESS_MEMORY}")


def free_memory() -> int | None:
    """Returns how many bytes this process may still take: of the machine, its container and its own limit, the least."""
    found = []
    with suppress(OSError, ValueError, IndexError, ImportError):
        import resource  # noqa: PLC0415  (Windows has none)

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
            found.append(max(0, limit - pages * resource.getpagesize()))
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        most, used = (int((group / f"memory.{name}").read_text(encoding="utf-8")) for name in ("max", "current"))
        found.append(max(0, most - used))
    return min(found, default=None)


def ended(code: int) -> MachineError | None:
    """Returns why a process ended with a code that it did not choose: killed, or aborted by a library; None for others."""
    number = -code if code < 0 else code - 128
    if number not in {signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS}:
        return None
    return MachineError(
        f"the process was ended by {signal.Signals(number).name}, most often because memory ran out (`dmesg` names it where the"
        f" system did it); start again, and training goes on from its last checkpoint; or {LESS_MEMORY}"
    )


def bug_report(error: BaseException, *, stage: str, config: Path, folder: Path) -> str:
    """Writes what a maintainer needs to know into a file of `folder` and returns the line that says where it is.

    Args:
        error: that nothing explains.
        stage: in which it came.
        config: the composed configuration, of which the report has the digest alone.
        folder: of working files.
    """
    lines = masked("".join(traceback.format_exception(error)))
    digest = hashlib.sha256(config.read_bytes()).hexdigest()[:16] if config.is_file() else "none"
    facts = f"{versions()}; configuration {digest}"
    path = folder / "bugs" / f"{stage}-{hashlib.sha256(lines.encode()).hexdigest()[:8]}.txt"
    written = "the lines above"
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"finespun {stage}\n{facts}\n\n{lines}", encoding="utf-8")
        written = str(path)
    return (
        f"{lines}finespun {stage}: this is a bug in finespun, not in your project: {type(error).__name__}\n{facts}\n"
        f"please send {written} (no secrets of the environment are in it), and params.yaml if you may"
    )


def versions() -> str:
    """The packages, Python and the platform, in one line."""
    found = []
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return ", ".join([*found, f"Python {platform.python_version()}", f"{platform.platform()} ({sys.platform})"])
