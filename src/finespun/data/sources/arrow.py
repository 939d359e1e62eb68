"""Arrow as rows: files and streams of IPC, and the folders of datasets' `save_to_disk`; class labels by their names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from finespun.data.sources.opening import opened
from finespun.errors import DataError, listed
from finespun.files import read_json

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK = 4096
FILE = b"ARROW1"  # how a file begins; a stream does not
STATE, SPLITS = "state.json", "dataset_dict.json"
AGAIN = "save it again with save_to_disk"


def is_saved(folder: Path) -> bool:
    """Whether a folder is what `save_to_disk` writes."""
    return (folder / STATE).is_file() or (folder / SPLITS).is_file()


def saved(folder: Path) -> dict[str, list[str]]:
    """Returns the files of a folder that `save_to_disk` wrote, by split; one without splits is called ''.

    Raises:
        DataError: it is damaged.
    """
    if (folder / SPLITS).is_file():
        splits = read_json(folder / SPLITS, error=DataError, remedy=AGAIN, keys=("splits",))["splits"]
        return {split: files for split in splits for files in saved(folder / split).values()}
    state = read_json(folder / STATE, error=DataError, remedy=AGAIN, keys=("_data_files",))
    names = [str(folder / each["filename"]) for each in state["_data_files"]]
    missing = [name for name in names if not Path(name).is_file()]
    if missing:
        raise DataError(f"{folder}: lacks {listed(missing)}; {AGAIN}")
    return {"": names}


def rows(name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the number of each row, from 1, and its values by column.

    Raises:
        DataError: the file is damaged.
    """
    import pyarrow as pa  # noqa: PLC0415  (0.3 s that text files need not pay)

    number = 0
    try:
        with opened(name) as file:
            first = file.read(len(FILE))
        with opened(name) as file:
            for batch in _batches(file, is_file=first == FILE):
                classes = class_names(batch.schema.metadata)
                for row in batch.to_pylist():
                    number += 1
                    yield number, named(row, classes)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{name}: row {number + 1} or one after it is damaged, or it is no Arrow file ({reason})") from error


def _batches(file: IO[bytes], *, is_file: bool) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa  # noqa: PLC0415

    reader = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
    given = (reader.get_batch(place) for place in range(reader.num_record_batches)) if is_file else reader
    for batch in given:
        for start in range(0, batch.num_rows, CHUNK):
            yield batch.slice(start, CHUNK)


def class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Returns the names behind the numbers of class labels, by column, as `datasets` keeps them beside a table."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    found = {}
    for column, feature in features.items():
        inner = feature.get("feature", feature) if isinstance(feature, dict) else feature[0] if feature else {}
        if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" and inner.get("names"):
            found[column] = [str(name) for name in inner["names"]]
    return found


def named(row: dict[str, Any], classes: Mapping[str, list[str]]) -> dict[str, Any]:
    """Returns a row with names for its class labels; -1 is no label."""

    def name(value: Any, names: list[str]) -> Any:
        if isinstance(value, list):
            return [name(each, names) for each in value]
        return value if value is None else names[value] if 0 <= value < len(names) else ""

    return {column: name(value, classes[column]) if column in classes else value for column, value in row.items()}
