"""The project's own store by its addresses: paths become URIs, and back, here alone."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote, unquote, urlparse

SQLITE = "sqlite:///"
ARTIFACTS = "/artifacts"  # of mlruns/: where an experiment of finespun's keeps its files
ADDRESSES = (  # columns of MLflow's tables that hold absolute addresses of files
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


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


def bring_along(database: Path) -> int:
    """Rewrites the artifact addresses of a project that was moved, copied or renamed; returns how many were.

    MLflow keeps absolute addresses: without this, a copy would write into the folder that it was copied from. An address
    stays as it is where its files are at the old place alone.

    Raises:
        sqlite3.Error: the database is damaged, or cannot be written to.
    """
    if not database.is_file():
        return 0
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in tables:
            return 0
        here = database.parent.absolute().as_uri()
        moved = [root for root in _roots(connection) if root != here and not _same(root, here)]
        known = [pair for pair in ADDRESSES if pair[0] in tables]
        with connection:
            return sum(_rewrite(connection, *pair, root, here) for root in moved for pair in known)


def _roots(connection: sqlite3.Connection) -> list[str]:
    """Returns the addresses that mlruns/ had when this database's experiments were made."""
    places = [place or "" for (place,) in connection.execute("SELECT DISTINCT artifact_location FROM experiments")]
    return [
        place.removesuffix(ARTIFACTS) for place in places if place.startswith("file:") and place.endswith(f"/mlruns{ARTIFACTS}")
    ]


def _rewrite(connection: sqlite3.Connection, table: str, column: str, old: str, new: str) -> int:
    """Rewrites the addresses of one column that begin with `old/`."""
    rows = connection.execute(
        f"SELECT rowid, {column} FROM {table} WHERE substr({column}, 1, ?) = ?",  # noqa: S608  (names of our own)
        (len(old) + 1, f"{old}/"),
    ).fetchall()
    changes = [(new + place[len(old) :], row) for row, place in rows if table == "experiments" or not _left(place, old, new)]
    connection.executemany(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", changes)  # noqa: S608
    return len(changes)


def _left(place: str, old: str, new: str) -> bool:
    """Whether the files of an address are at the old place and not at the new one."""
    return _path(place).exists() and not _path(new + place[len(old) :]).exists()


def _same(one: str, other: str) -> bool:
    """Whether two addresses are of one folder, which a link leads to."""
    with suppress(OSError):
        return _path(one).samefile(_path(other))
    return False


def _path(uri: str) -> Path:
    return Path(unquote(urlparse(uri).path))
