"""Optuna's storage of studies: opened so that many processes may write to one SQLite file, and used from inside a trial."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from finespun.config import targets
from finespun.errors import ConfigError, MachineError
from finespun.masking import first_line, masked
from finespun.tracking.addresses import SQLITE, database_uri
from finespun.tracking.trials.trial import Trial, storage_of

BUSY_SECONDS = 120  # that a process waits for others' writes

optuna.logging.set_verbosity(optuna.logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)


def address_in(folder: Path) -> str:
    """Returns the address of a sweep's own SQLite file."""
    return database_uri(folder / "study.db")


def open_storage(address: str) -> RDBStorage:
    """Opens a storage, and makes it where it is new.

    Raises:
        MachineError: the server does not answer, or the file cannot be opened.
        ConfigError: it is no address of a database.
    """
    local = address.startswith(SQLITE)
    options = {"connect_args": {"timeout": BUSY_SECONDS}} if local else {"pool_pre_ping": True}
    try:
        with answering(address):
            storage = RDBStorage(address, engine_kwargs=options)
    except (NoSuchModuleError, ArgumentError, ImportError) as error:
        known = "sqlite:///FILE, postgresql+psycopg://USER@HOST/DATABASE (pip install 'finespun[postgresql]')"
        raise ConfigError([f"sweep.storage: {masked(address)}: {first_line(error)}; such as {known}"]) from error
    if local:
        _write_in_turn(storage)
    return storage


@contextmanager
def answering(address: str) -> Iterator[None]:
    """Says of a storage that goes away, at whatever moment, which it is and how the sweep goes on.

    Raises:
        MachineError: the server does not answer, or the file cannot be read or written.
    """
    try:
        yield
    except (NoSuchModuleError, ArgumentError):
        raise
    except (SQLAlchemyError, StorageInternalError) as error:
        local = address.startswith(SQLITE)
        remedy = "see that the disk has room, or move the file away" if local else "start the server"
        raise MachineError(
            f"sweep.storage: {masked(address)} does not answer ({first_line(error)}); {remedy}, then run the same command: the"
            " sweep goes on"
        ) from error


def _write_in_turn(storage: RDBStorage) -> None:
    """Takes SQLite's lock when a transaction begins.

    A transaction that first reads and then wants to write is refused at once where another has written in between,
    however long its timeout is: "database is locked".
    """

    def leave_alone(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # Python's own module would begin a transaction only when it writes
        connection.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing; a power cut at worst the last trial

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    storage.engine.dispose()
    event.listen(storage.engine, "connect", leave_alone)
    event.listen(storage.engine, "begin", begin)


def build(settings: Mapping[str, Any], **more: Any) -> Any:
    """Builds a sampler or a pruner of Optuna's from its settings; `more` is given to it where it takes it.

    Raises:
        ConfigError: it does not exist, or refuses its settings.
    """
    target = str(settings.get("_target_"))
    kind = targets.load("hydra.sweeper", target)
    options = {
        key: build(value) if isinstance(value, Mapping) and "_target_" in value else value
        for key, value in settings.items() if key != "_target_"
    }  # fmt: skip
    taken = inspect.signature(kind).parameters
    options |= {key: value for key, value in more.items() if key in taken and key not in options}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # who names one has chosen it
            return kind(**options)
    except (TypeError, ValueError, ImportError) as error:
        section = "pruner" if ".pruners." in target else "sampler"
        raise ConfigError([f"hydra.sweeper.{section}: {target}: {first_line(error)}; correct its options"]) from error


def load_trial(trial: Trial) -> Callable[[float, int], bool]:
    """Returns what reports a value at a validation, and says whether the pruner ends the trial."""
    storage = open_storage(storage_of(trial))
    study_id = storage.get_study_id_from_name(trial.sweep)
    assert trial.pruner is not None
    pruner = build(trial.pruner)
    study = optuna.load_study(study_name=storage.get_study_name_from_id(study_id), storage=storage, pruner=pruner)

    def falls_behind(value: float, validation: int) -> bool:
        with answering(storage_of(trial)):
            storage.set_trial_intermediate_value(trial.trial_id, validation, value)
            return bool(pruner.prune(study, storage.get_trial(trial.trial_id)))

    return falls_behind
