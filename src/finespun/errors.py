"""One class a kind of user mistake, each with the exit code that a shell or DVC sees.

The message of every error names the thing, the value, what is allowed and the next step.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence


class FinespunError(Exception):
    """A problem that the user can mend; shown without a traceback."""

    exit_code = 1


class ConfigError(FinespunError):
    """The configuration is wrong: `problems` lists everything that is, not only the first thing."""

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        super().__init__(f"{count} in the configuration:\n" + "\n".join(f"  {p}" for p in self.problems))


class DataError(FinespunError):
    """Rows, columns or files of the user's data are wrong."""

    exit_code = 3


class ModelError(FinespunError):
    """A model, its weights, its tokenizer or a checkpoint cannot be used."""

    exit_code = 4


class MachineError(FinespunError):
    """The machine cannot: disk, memory, permission, a device or a server that is not there."""

    exit_code = 5


class LostPeerError(MachineError):
    """Another process of this run ended or does not answer: why, that process says, if it can."""


class DivergedError(FinespunError):
    """The loss is no longer a number."""

    exit_code = 6


class PrunedError(FinespunError):
    """A sweep's pruner ended a trial that promises less than others did."""

    exit_code = 7


class BusyError(FinespunError):
    """Another process holds the lock of this run."""

    exit_code = 75


class InterruptError(FinespunError):
    """A signal stopped the run after a checkpoint was saved."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns ` (did you mean 'x'?)` for the nearest of `choices`, or nothing; characters that nobody sees are escaped."""
    known = list(choices)
    near = [each for each in known if _folded(each) == _folded(word)] or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _folded(name: str) -> str:
    """Returns what is left of a name without case, blanks and what nobody sees."""
    kept = [each for each in unicodedata.normalize("NFKC", name).casefold() if unicodedata.category(each)[0] not in "CZ"]
    return "".join(kept)


def visible(name: object) -> str:
    """Returns a name as a message shows it: in quotes where blanks at its ends, or what nobody sees, are part of it."""
    text = str(name)
    return text if text.isprintable() and text == text.strip() else repr(text)


def first_of(names: Sequence[str], most: int = 10) -> str:
    """Joins names in their order; of many, the first few and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def listed(names: Iterable[object]) -> str:
    """Joins what is allowed, in a stable order, for the end of a message."""
    return ", ".join(sorted(str(name) for name in names)) or "none"
