"""What a database answers to a query, as rows; any address of SQLAlchemy. The password is taken from the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from finespun.errors import DataError, MachineError
from finespun.masking import first_line, take

CHUNK = 4096
OF_THE_QUERY = ("no such table", "no such column", "syntax error")  # which SQLite reports as it reports a broken disk


def rows(address: str, query: str, password: str | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the number of each row, from 1, and its values by column.

    Args:
        address: such as sqlite:///data/raw/shop.db or postgresql+psycopg://reader@db.example.org/shop.
        query: that selects; only rows are read.
        password: the name of an environment variable that holds the password.

    Raises:
        DataError: the query is wrong, or gives no rows.
        MachineError: the database cannot be reached, its driver is not installed, or the variable is not set.
    """
    import sqlalchemy as sql  # noqa: PLC0415  (0.3 s that files need not pay)

    with _told(address):
        url = sql.make_url(address)
        engine = sql.create_engine(url.set(password=_secret(password)) if password else url)
        try:
            with engine.connect().execution_options(stream_results=True) as connection:
                result = connection.execute(sql.text(query))
                names = list(result.keys())
                _require_names_once(names, address)
                given = (row for chunk in result.partitions(CHUNK) for row in chunk)
                for number, row in enumerate(given, 1):
                    yield number, dict(zip(names, row, strict=True))
        finally:
            engine.dispose()


def _require_names_once(names: Sequence[str], address: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{address}: the query gives two columns called {', '.join(twice)}; rename one with AS")


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Turns errors of SQLAlchemy and of drivers into ours."""
    from sqlalchemy import exc  # noqa: PLC0415

    try:
        yield
    except (exc.NoSuchModuleError, ImportError) as error:
        raise MachineError(
            f"{address}: its driver is not installed ({first_line(error)}); for PostgreSQL pip install"
            " 'finespun[postgresql]' and write postgresql+psycopg://"
        ) from error
    except exc.ArgumentError as error:
        raise DataError(f"data.path: {address!r} is no address of a database ({first_line(error)})") from error
    except exc.DBAPIError as error:
        reason = first_line(error.orig or error)
        if isinstance(error, exc.OperationalError) and not any(each in reason for each in OF_THE_QUERY):
            raise MachineError(
                f"{address}: cannot be reached ({reason}); look at the address, the server and the password"
            ) from error
        raise DataError(f"data.sql: the database does not understand it ({reason}); correct the query") from error


def _secret(variable: str) -> str:
    value = os.environ.get(variable)
    if value is None:
        raise MachineError(f"data.password: the environment variable {variable} is not set; set it to the database's password")
    return take(value)
