"""Secrets: which values are secret, and how they are kept out of messages and records; `masked` hides them.

Known are what a configuration took from the environment, what variables with telling names hold, and what stands in an address.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote, quote_plus, unquote, urlsplit

HIDDEN = "***"
SHORTEST = 4  # what is shorter stands in too many words to be hidden
WORDS = {"auto", "none", "null", "true", "false"}
SECRET_NAME = re.compile(
    r"passw|passphrase|token(?!iz)|secret|credential|(^|_)(auth|key|keys|pass|pat|pw|pwd)(_|$)", re.IGNORECASE
)
USER = re.compile(r"(?<=://)[^/\s'\"<>]+(?=@)")  # of an address: user, or user:password
WRITTEN_OUT = re.compile(r"://[^/\s'\":]*:[^/\s'\"]+@|://[^/\s'\":@]{16,}@")
QUERY = re.compile(
    r"([?&;][\w.-]*(?:token|secret|passw|pwd|signature|sig|api_?key|access_?key|credential)[\w.-]*=)[^&#;\s'\"]+", re.IGNORECASE
)
HEADER = re.compile(r"\b(Bearer|Basic) [\w.~+/=-]{8,}")
INTERPOLATION = re.compile(r"\$\{[^{}]*\}")

_read: set[str] = set()  # as they were in the environment
_taken: set[str] = set()  # as they are hidden


def take(value: str) -> str:
    """Returns a value that a configuration took from the environment, and hides it from now on."""
    _read.add(value)
    _taken.update(_worth_hiding(_secret_parts(value)))
    return value


def masked(text: str) -> str:
    """Returns a text without the secrets in it."""
    for secret in sorted(_known(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return HEADER.sub(rf"\1 {HIDDEN}", QUERY.sub(rf"\g<1>{HIDDEN}", USER.sub(HIDDEN, text)))


def was_taken(text: str) -> bool:
    """Whether a text has something in it that a configuration took from the environment."""
    return any(value in text for value in _read if len(value) >= SHORTEST)


def holds_secret(setting: str) -> bool:
    """Whether a password or token is written out in a setting; one that an interpolation stands for is not."""
    while INTERPOLATION.search(setting):
        setting = INTERPOLATION.sub("", setting)
    written = WRITTEN_OUT.search(setting) or QUERY.search(setting)
    return bool(written) or any(secret in setting for secret in _known() if len(secret) >= 2 * SHORTEST)


def one_line(error: BaseException, most: int | None = 300) -> str:
    """Returns what somebody else's error says, on one line and without secrets; its kind where it says nothing.

    `most` characters of it, or all.
    """
    return " ".join(masked(str(error)).split())[:most] or type(error).__name__


def first_line(error: BaseException, most: int = 200) -> str:
    """Returns the first line of what an error says, where the others are statements or traces; otherwise as `one_line`."""
    return masked((str(error).strip().splitlines() or [type(error).__name__])[0])[:most]


def recorded(address: str | None) -> str | None:
    """Returns an address as it may be written into a file."""
    return None if address is None else masked(without_login(address))


def without_login(address: str) -> str:
    """Takes user and password out of a web address, and hands them to MLflow in the variables that it reads."""
    parts = urlsplit(address)
    login, sign, host = parts.netloc.rpartition("@")
    if not sign or parts.scheme not in {"http", "https"}:
        return address
    take(address)
    user, _, password = login.partition(":")
    os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(user), unquote(password)
    return parts._replace(netloc=host).geturl()


class MaskedStream:
    """A text stream whose lines are written without secrets."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(masked(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def mask_streams(*, output: bool = True) -> None:
    """Hides secrets in all that this process says: messages, warnings, tracebacks; `output` is standard output."""
    for name in ("stdout", "stderr") if output else ("stderr",):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, MaskedStream):
            setattr(sys, name, MaskedStream(stream))


def _known() -> set[str]:
    return _taken | _of_environment(tuple(os.environ.items()))


_cache: dict[tuple[tuple[str, str], ...], set[str]] = {}


def _of_environment(variables: tuple[tuple[str, str], ...]) -> set[str]:
    if variables not in _cache:
        _cache.clear()
        telling = (value for name, value in variables if SECRET_NAME.search(name) and "://" not in value)
        addresses = (part for _, value in variables if "@" in value for part in _secret_parts(value) if part != value)
        _cache[variables] = {each for part in (*telling, *addresses) for each in _worth_hiding([part])}
    return _cache[variables]


def _secret_parts(value: str) -> list[str]:
    """The password of an address (its user where it has none), or the whole value."""
    if "://" not in value:
        return [value]
    login = USER.search(value)
    return [login[0].partition(":")[2] or login[0]] if login else []


def _worth_hiding(values: list[str]) -> Iterator[str]:
    """Yields secrets as they are and as they stand in an address."""
    for value in values:
        if len(value) < SHORTEST or value.lower() in WORDS or (value.isdigit() and len(value) <= SHORTEST + 1):
            continue
        if not (value.startswith("/") and Path(value).exists()):  # the path of a file of credentials, or of a socket
            yield from {value, quote(value, safe=""), quote_plus(value), unquote(value)}
