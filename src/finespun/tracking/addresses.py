"""The project's own store by its addresses: paths become URIs, and back, here alone."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

SQLITE = "sqlite:///"


def database_uri(path: Path) -> str:
    """Returns the address of a SQLite file; of its characters SQLAlchemy reads `%` and `?` as a URI has them."""
    return SQLITE + "".join(quote(each) if each in "%?" else each for each in str(path))


def database_path(uri: str) -> Path | None:
    """Returns the file of a SQLite address; None for other addresses."""
    return Path(unquote(uri.removeprefix(SQLITE))) if uri.startswith(SQLITE) else None


def remove_strays(uri: str) -> None:
    """Removes the empty folders that MLflow makes where it reads an address as a path."""
    path = database_path(uri)
    literal = Path(uri.removeprefix(SQLITE))
    if path is None or literal == path:
        return
    with suppress(OSError):  # not empty, or not there
        for folder in literal.parents:
            folder.rmdir()
