"""Data sets of the Hugging Face hub as rows, through `datasets`: by name, or a folder in the hub's layout."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finespun.data.sources.arrow import class_names, named
from finespun.errors import DataError, MachineError
from finespun.masking import first_line

CHUNK = 4096


def splits(name: str, config: str | None, revision: str | None, project: Path) -> dict[str, Any]:
    """Returns the splits of a data set, each a `datasets.Dataset`, memory-mapped.

    Raises:
        DataError: there is no such data set, or none of that configuration.
        MachineError: `datasets` is not installed, or the hub cannot be reached.
    """
    try:
        import datasets  # noqa: PLC0415  (an extra; 1 s that others need not pay)
    except ImportError as error:
        raise MachineError(
            f"data.hub: {name} is read by datasets, which is not installed; pip install 'finespun[hub]'"
        ) from error
    datasets.disable_progress_bars()
    local = project / name
    try:
        found = datasets.load_dataset(str(local) if local.is_dir() else name, config, revision=revision)
    except (ConnectionError, TimeoutError) as error:
        raise MachineError(f"data.hub: {name}: the hub cannot be reached ({first_line(error)}); look at the network") from error
    except (FileNotFoundError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise DataError(f"data.hub: {name}: cannot be loaded ({reason}); look at its name and data.hub_config") from error
    return {str(split): found[split] for split in found}


def rows(dataset: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the number of each row of a split, from 1, and its values by column; class labels by their names."""
    number = 0
    classes = class_names(dataset.features.arrow_schema.metadata)
    for table in dataset.with_format("arrow").iter(batch_size=CHUNK):
        for row in table.to_pylist():
            number += 1
            yield number, named(row, classes)
