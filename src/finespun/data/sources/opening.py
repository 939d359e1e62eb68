"""Opening files wherever they lie: on this machine, at an address that fsspec knows, compressed, inside a ZIP archive."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from finespun.errors import DataError, MachineError, did_you_mean, first_of, listed
from finespun.masking import one_line

COMPRESSED = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
EXTRAS = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "hf": "huggingface_hub"}
ANY = "*?["
BLOCK = 1 << 20


def is_remote(name: str) -> bool:
    """Whether a path is an address: s3://bucket/file.csv, https://..., memory://..., zip://member::archive."""
    return "://" in name


def is_plain(name: str) -> bool:
    """Whether a file lies here as it is: not at an address, not packed."""
    return not is_remote(name) and PurePosixPath(name).suffix.lower() not in COMPRESSED


def suffix(name: str) -> str:
    """Returns the ending that says what a file holds: `.csv` of `a.csv.gz`."""
    path = PurePosixPath(name.partition("::")[0].partition("?")[0] if is_remote(name) else name)
    ending = path.suffix.lower()
    return path.with_suffix("").suffix.lower() if ending in COMPRESSED else ending


def expanded(given: str, project: Path) -> list[str]:
    """Returns the files that a path, a glob, an address or a ZIP archive names, in the order of their names.

    Raises:
        DataError: there is none.
    """
    if is_remote(given):
        return _remote(given) if any(each in given.partition("::")[0] for each in ANY) else [given]
    path = project / given
    if any(each in given for each in ANY) and not path.exists():
        found = sorted(each for each in glob.glob(str(path), recursive=True) if Path(each).is_file())  # noqa: PTH207
        if not found:
            raise DataError(f"{given}: no file is called so; correct the pattern in data.path")
        return found
    return _members(path) if path.suffix.lower() == ".zip" and path.is_file() else [str(path)]


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(each.filename for each in archive.infolist() if not each.is_dir() and each.file_size)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: is damaged ({error}); fetch it again") from error
    names = [each for each in names if not any(part.startswith((".", "__")) for part in PurePosixPath(each).parts)]
    kinds = {suffix(each) for each in names}
    if len(kinds) != 1:
        raise DataError(
            f"{path}: holds {first_of(names) or 'no files'}; name those that are meant, as data.path: zip://MEMBER::{path}"
        )
    return [f"zip://{name}::{path}" for name in names]


def _remote(given: str) -> list[str]:
    with _told(given):
        import fsspec  # noqa: PLC0415  (0.2 s that files of this machine need not pay)

        system, path = fsspec.core.url_to_fs(given)
        found = sorted(system.glob(path))
    if not found:
        raise DataError(f"{given}: no file is called so; correct the pattern in data.path")
    archive = given.partition("::")[2]
    return [f"zip://{name}::{archive}" if archive else str(system.unstrip_protocol(name)) for name in found]


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Turns what drivers raise into errors that name the address and the remedy."""
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{name}: there is no such file or folder; put it there, or correct the path") from error
    except (ImportError, ModuleNotFoundError) as error:
        scheme = name.partition("://")[0]
        package = EXTRAS.get(scheme, f"the driver of {scheme}://")
        raise MachineError(
            f"{name}: {scheme}:// is read by {package}, which is not installed; pip install {package}"
        ) from error
    except ValueError as error:
        if "protocol" not in str(error).lower():
            raise
        import fsspec  # noqa: PLC0415

        scheme = name.partition("://")[0]
        near = did_you_mean(scheme, fsspec.available_protocols())
        raise DataError(f"{name}: nothing reads {scheme}://{near}; use s3, gs, az, https, hf, file") from error
    except (PermissionError, ConnectionError, TimeoutError) as error:
        reason = one_line(error, 200)
        raise MachineError(
            f"{name}: cannot be reached ({reason}); look at the address, the network and the credentials in the environment"
        ) from error
    except Exception as error:  # drivers raise errors of libraries that may not be there to be named
        if type(error).__module__.partition(".")[0] not in {"botocore", "aiohttp", "google", "gcsfs", "azure"}:
            raise
        reason = one_line(error, 200)
        raise MachineError(
            f"{name}: cannot be reached ({reason}); look at the address, the network and the credentials in the environment"
        ) from error


@contextmanager
def opened(name: str) -> Iterator[IO[bytes]]:
    """Yields the bytes that a file holds, unpacked.

    Raises:
        DataError: it is not there, or what was packed is damaged.
        MachineError: its address cannot be reached, or nothing is installed that could.
    """
    with _told(name), _raw(name) as raw:
        kind = COMPRESSED.get(PurePosixPath(name.partition("::")[0]).suffix.lower())
        try:
            yield _unpacked(raw, kind)
        except (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
            raise DataError(f"{name}: is damaged or cut short ({error}); fetch it again") from error
        except OSError as error:
            if not kind or error.errno is not None:
                raise
            raise DataError(f"{name}: is damaged or cut short ({error}); fetch it again") from error


@contextmanager
def _raw(name: str) -> Iterator[IO[bytes]]:
    if not is_remote(name):
        with Path(name).open("rb") as file:
            yield file
        return
    import fsspec  # noqa: PLC0415

    with fsspec.open(name, "rb") as file:
        yield file


def _unpacked(raw: IO[bytes], kind: str | None) -> IO[bytes]:
    if kind is None:
        return raw
    if kind == "zstd":
        import pyarrow as pa  # noqa: PLC0415

        stream: Any = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
        return io.BufferedReader(stream, BLOCK)
    opener: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
    return opener[kind](raw, "rb")  # type: ignore[no-any-return]


def beginning(name: str, size: int) -> tuple[bytes, bool]:
    """Returns the first bytes of a file, unpacked, and whether they are all of it."""
    with opened(name) as file:
        sample = b""
        while len(sample) <= size and (part := file.read(size + 1 - len(sample))):
            sample += part
    return sample[:size], len(sample) <= size


def checksum(name: str) -> str:
    """Returns what a remote system knows the contents of a file by: a digest, or its size and time."""
    with _told(name):
        import fsspec  # noqa: PLC0415

        system, path = fsspec.core.url_to_fs(name)
        return str(system.checksum(path))


def require_there(name: str) -> None:
    """Makes sure that a file can be opened.

    Raises:
        DataError: it is not there, or is empty.
    """
    if is_remote(name):
        return  # opening it says so
    path = Path(name)
    if not path.exists():
        near = did_you_mean(path.name, os.listdir(path.parent)) if path.parent.is_dir() else ""  # noqa: PTH208
        raise DataError(f"{path}: there is no such file or folder{near}; put it there, or correct the path")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty (0 bytes); put your rows into it")


def known_endings(endings: list[str]) -> str:
    """Returns endings for a message, with those of packed files."""
    return f"{listed(endings)}, also packed ({listed(COMPRESSED)}, .zip)"
